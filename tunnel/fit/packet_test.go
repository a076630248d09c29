package fit

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"warren/tunnel/pathmtu"
)

// syn is a TCP SYN with these options, over IPv4 or IPv6, with a checksum that is right.
func syn(six bool, options ...byte) []byte {
	tcp := make([]byte, tcpHeader, 60)
	tcp[12], tcp[13] = byte((tcpHeader+len(options))/4)<<4, flagSYN
	tcp = append(tcp, options...)
	var p []byte
	if six {
		p = append(packet6(40), tcp...)
		put16(p[4:], len(tcp))
		p[6] = protoTCP
	} else {
		p = append(packet4(20, true), tcp...)
		p[9] = protoTCP
		finish4(p, 20)
	}
	at := len(p) - len(tcp)
	put16(p[at+16:], int(^transportSum(p, at)))
	return p
}

// transportSum is the sum over the TCP segment and its pseudo-header; 0xffff when its checksum is right.
func transportSum(p []byte, at int) uint16 {
	if p[0]>>4 == 6 {
		return fold(pseudo6(p, protoTCP, len(p)-at) + sum16(p[at:]))
	}
	return fold(sum16(p[12:20]) + protoTCP + uint32(len(p)-at) + sum16(p[at:]))
}

func TestClampMSS(t *testing.T) {
	mss := func(n int) []byte { return []byte{2, 4, byte(n >> 8), byte(n)} }
	tests := []struct {
		name    string
		options []byte
		at      int // of the value within the options
		want4   int
		want6   int
	}{
		{"larger", mss(1460), 2, 1176, 1156},
		{"largest", mss(65535), 2, 1176, 1156},
		{"smaller", mss(1000), 2, 1000, 1000},
		{"after others, at an odd offset", append([]byte{1, 3, 3, 7, 4, 2, 1}, append(mss(1460), 0)...), 9, 1176, 1156},
		{"none", []byte{1, 1, 1, 0}, -1, 0, 0},
		{"cut off", []byte{1, 1, 2, 4}, -1, 0, 0},
		{"endless", []byte{3, 0, 0, 0}, -1, 0, 0},
		{"after the end", append([]byte{0, 0, 0, 0}, mss(1460)...), 6, 1460, 1460},
	}
	for _, test := range tests {
		for _, six := range []bool{false, true} {
			p := syn(six, test.options...)
			before := slices.Clone(p)
			at := tcpSYN(p)
			if at == 0 || transportSum(p, at) != 0xffff {
				t.Fatalf("%s: the test's packet is wrong", test.name)
			}
			clampMSS(p, at, 1216)
			want := test.want4
			if six {
				want = test.want6
			}
			if transportSum(p, at) != 0xffff {
				t.Errorf("%s: the checksum is wrong", test.name)
			}
			if test.at < 0 {
				if !bytes.Equal(p, before) {
					t.Errorf("%s: the packet was changed", test.name)
				}
			} else if got := get16(p[at+tcpHeader+test.at:]); got != want {
				t.Errorf("%s: got %d, want %d", test.name, got, want)
			}
		}
	}
	p := syn(false, mss(1460)...)
	p[6], p[7] = 0, 1 // a later fragment has no TCP header
	if tcpSYN(p) != 0 {
		t.Error("a fragment is taken for a SYN")
	}
}

func TestReplaceSum(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 100000 {
		p := make([]byte, 16) // the checksum comes first
		for i := 2; i < len(p); i++ {
			p[i] = byte(random.Uint32())
		}
		put16(p, int(^fold(sum16(p))))
		at := 2 + random.IntN(len(p)-4)
		old, now := get16(p[at:]), random.IntN(0x10000)
		put16(p[at:], now)
		replaceSum(p, old, now, at%2 == 1)
		if got := fold(sum16(p)); got != 0xffff {
			t.Fatalf("got sum %#x", got)
		}
	}
}

// TestSplit6 cuts packets with extension headers, and fragments.
func TestSplit6(t *testing.T) {
	base := packet6(40)
	headers := func(chain ...byte) []byte { // kinds, the last one is the payload's
		p := slices.Clone(base)
		p[6] = chain[0]
		for _, next := range chain[1:] {
			p = append(p, next, 0, 1, 4, 0, 0, 0, 0)
		}
		return p
	}
	tests := []struct {
		name  string
		start []byte
		end   int // of the part that all fragments have
	}{
		{"plain", headers(17), 40},
		{"hop by hop", headers(0, 17), 48},
		{"hop by hop, routing", headers(0, 43, 17), 56},
		{"destination before routing", headers(60, 43, 17), 56},
		{"destination last", headers(60, 17), 40},
		{"hop by hop, destination", headers(0, 60, 17), 48},
	}
	for _, test := range tests {
		payload := body(1280 - len(test.start))
		p := append(slices.Clone(test.start), payload...)
		put16(p[4:], len(p)-40)
		whole := slices.Clone(p)
		b := &batch{bufs: [][]byte{append(p, make([]byte, 100)...), make([]byte, 2000), make([]byte, 2000)}, sizes: []int{len(p), 0, 0}, n: 1}
		r := &reader{}
		size := r.split(b, 0, 700)
		if size == 0 {
			t.Fatalf("%s: not cut", test.name)
		}
		b.sizes[0] = size
		var got []byte
		var id uint32
		for i := range b.n {
			f := b.bufs[i][:b.sizes[i]]
			h := f[test.end:]
			if len(f) > 700 || get16(f[4:]) != len(f)-40 || !bytes.Equal(f[7:40], whole[7:40]) || get16(h[2:])&^7 != len(got) || (get16(h[2:])&1 == 1) != (i < b.n-1) {
				t.Fatalf("%s: fragment %d of %d: % x", test.name, i, len(f), f[:64])
			}
			if i == 0 {
				id = binary.BigEndian.Uint32(h[4:])
			} else if binary.BigEndian.Uint32(h[4:]) != id {
				t.Errorf("%s: the identifications differ", test.name)
			}
			got = append(got, h[8:]...)
		}
		if !bytes.Equal(got, whole[test.end:]) {
			t.Errorf("%s: put together it is another packet", test.name)
		}
		// A fragment is cut into fragments of the same packet.
		first := slices.Clone(b.bufs[0][:size])
		b = &batch{bufs: [][]byte{append(first, make([]byte, 100)...)}, sizes: []int{size}, n: 1}
		r = &reader{}
		size = r.split(b, 0, 400)
		if size == 0 || len(r.waiting) == 0 {
			t.Fatalf("%s: a fragment is not cut", test.name)
		}
		last := r.waiting[len(r.waiting)-1]
		if binary.BigEndian.Uint32(last[test.end+4:]) != id || get16(last[test.end+2:])&1 != 1 {
			t.Errorf("%s: the last fragment of the first fragment: % x", test.name, last[:64])
		}
	}
}

func TestBucket(t *testing.T) {
	var b bucket
	now := pathTime
	b.full(now)
	taken := 0
	for b.take(now) {
		taken++
	}
	if taken != bucketSize {
		t.Errorf("got %d at once, want %d", taken, bucketSize)
	}
	now, taken = now.Add(3*bucketEvery), 0
	for b.take(now) {
		taken++
	}
	if taken != 3 {
		t.Errorf("got %d after three intervals, want 3", taken)
	}
}

// FuzzIn feeds bytes as packets that come out of the tunnel.
func FuzzIn(f *testing.F) {
	probe := make([]byte, 64)
	note{kind: kindAsk, to: addrs6[0], size: 64}.packet(probe, addrs6[1])
	for _, p := range [][]byte{probe, syn(true, 2, 4, 5, 180), syn(false, 1, 3, 3, 7, 2, 4, 5, 180, 0, 0, 0, 0), packet4(40, true), packet6(60)} {
		f.Add(p)
	}
	d := fuzzed()
	f.Fuzz(func(t *testing.T, p []byte) {
		buf := append(make([]byte, headroom), p...)
		if _, err := d.Write([][]byte{buf}, headroom); err != nil {
			t.Fatal(err)
		}
		d.takeNotes(d.read.notes)
	})
}

// FuzzOut feeds bytes as packets of the kernel, with a limit that is too small for most.
func FuzzOut(f *testing.F) {
	for _, p := range [][]byte{packet4(1300, true), packet4(1300, false), packet6(1300), syn(true, 2, 4, 5, 180)} {
		f.Add(p, true, uint16(600))
		f.Add(p, false, uint16(600))
	}
	d := fuzzed()
	f.Fuzz(func(t *testing.T, p []byte, split bool, whole uint16) {
		if len(p) > 9000 {
			return
		}
		limit := pathmtu.Limit{Whole: max(int(whole), 480), Clamp: 1376, Split: split}
		for _, p := range d.peers {
			p.setLimit(limit)
		}
		bufs := [][]byte{make([]byte, 65535), make([]byte, 65535)}
		b := batch{bufs: bufs, sizes: []int{copy(bufs[0][headroom:], p), 0}, offset: headroom, n: 1}
		d.out(&b, 0)
		least := len(p)
		for i := range b.n {
			if b.sizes[i] > limit.Whole && b.sizes[i] < least {
				t.Errorf("got %d bytes, want at most %d", b.sizes[i], limit.Whole)
			}
		}
		for _, p := range d.read.waiting {
			if len(p) > limit.Whole {
				t.Errorf("got %d bytes, want at most %d", len(p), limit.Whole)
			}
		}
		d.read.waiting = nil
	})
}

// sink is a TUN device that takes everything.
type sink struct {
	fakeTUN
	packets [][]byte // what Read returns, again and again
}

func (s *sink) Write(bufs [][]byte, _ int) (int, error) { return len(bufs), nil }

func (s *sink) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for i, p := range s.packets {
		sizes[i] = copy(bufs[i][offset:], p)
	}
	return len(s.packets), nil
}

// fuzzed has one static peer behind all addresses.
func fuzzed() *Device {
	d := New(Options{Inner: &sink{}})
	d.SetPeers(addrs6[0], []Peer{{Key: [32]byte{1}, Path: pathmtu.Path{Default: 1376},
		AllowedIPs: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}})
	return d
}
