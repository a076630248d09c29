package tun

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// kind of a packet made for tests.
type made struct {
	six      bool
	protocol byte
	flags    byte
	options  int // bytes of TCP options
	sequence uint32
	id       uint16
	df       bool
	ecn      byte
	port     byte
}

// packet makes a packet with a payload of that many bytes, which depend on the sequence number.
func (m made) packet(size int) []byte {
	start, head := 20, 28
	if m.six {
		start = 40
	}
	head = start + 8
	if m.protocol == protoTCP {
		head = start + 20 + m.options
	}
	p := make([]byte, head+size)
	if m.six {
		p[0], p[1], p[6], p[7] = 0x60, m.ecn<<4, m.protocol, 64
		copy(p[8:], "\xfd00000000000001\xfd00000000000002")
	} else {
		p[0], p[1], p[8], p[9] = 0x45, m.ecn, 64, m.protocol
		binary.BigEndian.PutUint16(p[4:], m.id)
		if m.df {
			p[6] = 0x40
		}
		copy(p[12:], "\x64\x40\x00\x01\x64\x40\x00\x02")
	}
	t := p[start:]
	t[1], t[3] = m.port, 9
	if m.protocol == protoTCP {
		binary.BigEndian.PutUint32(t[4:], m.sequence)
		t[12], t[13], t[14] = byte(20+m.options)/4<<4, m.flags, 0x20
		for i := range m.options {
			t[20+i] = 1 // no operation
		}
	}
	for i := range size {
		p[head+i] = byte(int(m.sequence) + i*7)
	}
	return seal(p, m.protocol, start)
}

// frame makes a frame that the kernel could have made.
func (m made) frame(size, segment int) []byte {
	p := m.packet(size)
	h := header{flags: flagPartial, kind: kindUDP, size: segment, start: 20, offsetSum: checksumUDP}
	if m.six {
		h.start = 40
	}
	if m.protocol == protoTCP {
		h.offsetSum, h.kind = checksumTCP, kindTCP4
		if m.six {
			h.kind = kindTCP6
		}
	}
	if segment == 0 {
		h.kind = kindNone
	}
	binary.BigEndian.PutUint16(p[h.start+h.offsetSum:], slowSum(slowPseudo(p, m.protocol, len(p)-h.start)))
	frame := append(make([]byte, HeaderSize), p...)
	h.write(frame)
	return frame
}

var kinds = []made{
	{protocol: protoTCP, flags: flagACK, df: true, id: 65534},
	{protocol: protoTCP, flags: flagACK | flagPSH | flagFIN | flagCWR, options: 12, sequence: 1<<32 - 2000},
	{protocol: protoTCP, six: true, flags: flagACK | flagPSH, options: 12},
	{protocol: protoUDP, ecn: 1},
	{protocol: protoUDP, six: true},
}

func TestSplit(t *testing.T) {
	for _, m := range kinds {
		for _, size := range []int{1, 2, 999, 1000, 1001, 2000, 9999, 60000} {
			for _, segment := range []int{0, 1, 7, 1000, 1368} {
				frame := m.frame(size, segment)
				name := fmt.Sprintf("%+v, %d in %d", m, size, segment)
				got, err := collect(frame)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				want := [][]byte{m.packet(size)}
				if segment > 0 {
					want = slowSplit(frame)
				}
				if !slices.EqualFunc(got, want, slices.Equal) {
					t.Fatalf("%s: got %d packets, want %d others", name, len(got), len(want))
				}
			}
		}
	}
}

func TestSplitRefuses(t *testing.T) {
	good := kinds[0].frame(3000, 1000)
	for name, change := range map[string]func([]byte) []byte{
		"nothing":                   func([]byte) []byte { return nil },
		"a header alone":            func(f []byte) []byte { return f[:HeaderSize] },
		"cut off":                   func(f []byte) []byte { return f[:len(f)-1] },
		"no segment size":           func(f []byte) []byte { f[4], f[5] = 0, 0; return f },
		"IPv6 said of IPv4":         func(f []byte) []byte { f[1] = kindTCP6; return f },
		"an unknown kind":           func(f []byte) []byte { f[1] = 3; return f },
		"transport inside IP":       func(f []byte) []byte { f[6], f[7] = 10, 10; return f },
		"a TCP header too short":    func(f []byte) []byte { f[HeaderSize+32] = 0x40; return f },
		"headers, and no payload":   func(f []byte) []byte { f[HeaderSize+2], f[HeaderSize+3] = 0, 40; return f },
		"an IP header of no length": func(f []byte) []byte { f[HeaderSize] = 0x40; return f },
		"not IP":                    func(f []byte) []byte { f[HeaderSize] = 0x55; return f },
		"a checksum outside":        func(f []byte) []byte { f[1] = 0; f[6], f[7] = 0xff, 0xff; return f },
	} {
		if got, err := collect(change(slices.Clone(good))); err != ErrFrame {
			t.Errorf("%s: got %d packets and %v, want ErrFrame", name, len(got), err)
		}
	}
}

// TestJoinSplit asserts that what was one frame becomes one again.
func TestJoinSplit(t *testing.T) {
	for _, m := range kinds {
		for _, segment := range []int{1, 7, 30, 1000, 1368} {
			frame := m.frame(30*segment+1, segment)
			packets := slowSplit(frame)
			w, err := join(packets, Offloads{TCP: true, UDP: true})
			if err != nil {
				t.Fatal(err)
			}
			want := 1
			if m.flags&flagCWR != 0 {
				want = 3 // CWR, and FIN, stay alone
			}
			if len(w) != want {
				t.Errorf("%+v in %d: got %d frames, want %d", m, segment, len(w), want)
			}
			var again [][]byte
			for _, f := range w {
				p, err := collect(f)
				if err != nil {
					t.Fatal(err)
				}
				again = append(again, p...)
			}
			if !slices.EqualFunc(again, packets, same) {
				t.Errorf("%+v in %d: got %d packets, want the %d that were joined", m, segment, len(again), len(packets))
			}
		}
	}
}

// TestJoinLimits tells what is not joined: each pair has to become two frames.
func TestJoinLimits(t *testing.T) {
	tcp := made{protocol: protoTCP, flags: flagACK, df: true}
	next := func(change func(*made)) made {
		m := tcp
		m.sequence = 100
		change(&m)
		return m
	}
	both := Offloads{TCP: true, UDP: true}
	damaged := func(p []byte) []byte { p[len(p)-1]++; return p }
	noSum := func(p []byte) []byte { p[26], p[27] = 0, 0; return p }
	udp := made{protocol: protoUDP}
	udp2 := made{protocol: protoUDP, id: 1}
	for _, tt := range []struct {
		name string
		a, b []byte
		with Offloads
		want int
	}{
		{"they fit", tcp.packet(100), next(func(*made) {}).packet(100), both, 1},
		{"no offload", tcp.packet(100), next(func(*made) {}).packet(100), Offloads{}, 2},
		{"a gap", tcp.packet(100), next(func(m *made) { m.sequence++ }).packet(100), both, 2},
		{"larger than the first", tcp.packet(100), next(func(*made) {}).packet(101), both, 2},
		{"no payload", tcp.packet(100), next(func(*made) {}).packet(0), both, 2},
		{"another flow", tcp.packet(100), next(func(m *made) { m.port = 3 }).packet(100), both, 2},
		{"another ECN mark", tcp.packet(100), next(func(m *made) { m.ecn = 3 }).packet(100), both, 2},
		{"FIN", tcp.packet(100), next(func(m *made) { m.flags |= flagFIN }).packet(100), both, 2},
		{"other options", tcp.packet(100), next(func(m *made) { m.options = 4 }).packet(100), both, 2},
		{"the other family", tcp.packet(100), next(func(m *made) { m.six = true }).packet(100), both, 2},
		{"the first was pushed", made{protocol: protoTCP, flags: flagACK | flagPSH, df: true}.packet(100), next(func(*made) {}).packet(100), both, 2},
		{"the second is damaged", tcp.packet(100), damaged(next(func(*made) {}).packet(100)), both, 2},
		{"the first is damaged", damaged(tcp.packet(100)), next(func(*made) {}).packet(100), both, 2},
		{"a short first", tcp.packet(1), made{protocol: protoTCP, flags: flagACK, df: true, sequence: 1}.packet(1), both, 1},
		{"datagrams", udp.packet(100), udp2.packet(100), both, 1},
		{"datagrams, TCP alone", udp.packet(100), udp2.packet(100), Offloads{TCP: true}, 2},
		{"a number that does not follow", udp.packet(100), udp.packet(100), both, 2},
		{"a datagram without a checksum", udp.packet(100), noSum(udp2.packet(100)), both, 2},
		{"the first without a checksum", noSum(udp.packet(100)), udp2.packet(100), both, 2},
	} {
		w, err := join([][]byte{tt.a, tt.b}, tt.with)
		if err != nil || len(w) != tt.want {
			t.Errorf("%s: got %d frames, %v, want %d", tt.name, len(w), err, tt.want)
		}
		if tt.want == 2 && len(w) == 2 && (string(w[0][HeaderSize:]) != string(tt.a) || string(w[1][HeaderSize:]) != string(tt.b)) {
			t.Errorf("%s: got other packets than went in", tt.name)
		}
	}
}

func TestJoinFull(t *testing.T) {
	var packets [][]byte
	for i := range 100 {
		packets = append(packets, made{protocol: protoTCP, flags: flagACK, df: true, sequence: uint32(i * 1400)}.packet(1400))
	}
	w, err := join(packets, Offloads{TCP: true})
	if err != nil || len(w) != 3 { // 46 fit into 65,535 bytes
		t.Errorf("got %d frames, %v, want 3", len(w), err)
	}
	for _, frame := range w {
		if len(frame) > MaxFrame {
			t.Errorf("got a frame of %d bytes, want at most %d", len(frame), MaxFrame)
		}
	}
}

func TestChecksum(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 2000)
	for range 2000 {
		n := r.IntN(len(b))
		for i := range b[:n] {
			b[i] = byte(r.Uint32())
			if n%3 == 0 {
				b[i] = 0xff // all carries
			}
		}
		got := make([]byte, 2)
		binary.NativeEndian.PutUint16(got, fold(sum(b[:n], 0)))
		if want := slowSum(b[:n]); binary.BigEndian.Uint16(got) != want {
			t.Fatalf("%d bytes: got %x, want %04x", n, got, want)
		}
	}
}

// nowhere is where frames are written that are not looked at.
type nowhere struct{}

func (nowhere) Write(frame []byte) (int, error) { return len(frame), nil }

func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, m := range kinds {
		frame := m.frame(20*1300, 1300)
		buf := slices.Clone(frame)
		var s Segments
		j := NewJoiner(nowhere{}, Offloads{TCP: true, UDP: true})
		if n := testing.AllocsPerRun(100, func() {
			if s.Split(buf[:copy(buf, frame)]) != nil {
				t.Error("the frame was refused")
			}
			for p, ok := s.Next(); ok; p, ok = s.Next() {
				place, err := j.Place(len(p))
				if err != nil || j.Take(len(append(place, p...))) != nil {
					t.Error("a packet was refused")
				}
			}
			_ = j.Flush()
		}); n != 0 {
			t.Errorf("%+v: got %v allocations, want 0", m, n)
		}
	}
}

func BenchmarkSplitJoin(b *testing.B) {
	frame := kinds[0].frame(46*1380, 1380)
	buf := slices.Clone(frame)
	var s Segments
	j := NewJoiner(nowhere{}, Offloads{TCP: true})
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		_ = s.Split(buf[:copy(buf, frame)])
		for p, ok := s.Next(); ok; p, ok = s.Next() {
			place, _ := j.Place(len(p))
			_ = j.Take(len(append(place, p...)))
		}
		_ = j.Flush()
	}
}
