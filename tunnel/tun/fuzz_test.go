package tun

import (
	"encoding/binary"
	"slices"
	"testing"
)

// FuzzSplit compares Segments with its slow twin.
func FuzzSplit(f *testing.F) {
	for _, m := range kinds {
		f.Add(m.frame(3000, 1000))
		f.Add(m.frame(3001, 1000))
		f.Add(m.frame(100, 0))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		got, err := collect(frame)
		if err != nil || readHeader(frame).kind&^kindECN == kindNone {
			return
		}
		if want := slowSplit(frame); !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("got %d packets, want %d others", len(got), len(want))
		}
	})
}

// FuzzJoin asserts that frames taken apart are the packets that went in, in their order.
func FuzzJoin(f *testing.F) {
	pack := func(packets ...[]byte) (out []byte) {
		for _, p := range packets {
			out = append(binary.BigEndian.AppendUint16(out, uint16(len(p))), p...)
		}
		return out
	}
	for _, m := range kinds {
		f.Add(pack(slowSplit(m.frame(400, 100))...))
		f.Add(pack(slowSplit(m.frame(8, 3))...))
		f.Add(pack(m.packet(10), m.packet(10), []byte{0x45}))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var packets, want, got [][]byte
		for len(in) >= 2 {
			n := min(int(binary.BigEndian.Uint16(in)), len(in)-2)
			packets = append(packets, in[2:2+n])
			if length, ok := Length(in[2 : 2+n]); ok {
				want = append(want, in[2:2+length])
			}
			in = in[2+n:]
		}
		w, err := join(packets, Offloads{TCP: true, UDP: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, frame := range w {
			p, err := collect(frame)
			if err != nil {
				t.Fatalf("a frame that was made: %v", err)
			}
			got = append(got, p...)
		}
		if !slices.EqualFunc(got, want, same) {
			t.Errorf("got %d packets, want the %d that went in, in their order", len(got), len(want))
		}
	})
}
