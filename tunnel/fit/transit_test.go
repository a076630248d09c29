package fit

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"warren/tunnel/pathmtu"
)

// packetOf makes a UDP packet of a size, with so many hops.
func packetOf(t *testing.T, from, to string, hops byte, size int) []byte {
	t.Helper()
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	p := make([]byte, size)
	if src.Is4() {
		p[0], p[8], p[9] = 0x45, hops, 17
		binary.BigEndian.PutUint16(p[2:], uint16(size))
		p[6] = flagDF
		copy(p[12:], src.AsSlice())
		copy(p[16:], dst.AsSlice())
		binary.BigEndian.PutUint16(p[10:], ^fold(sum16(p[:20])))
		return p
	}
	p[0], p[6], p[7] = 0x60, 17, hops
	binary.BigEndian.PutUint16(p[4:], uint16(size-40))
	copy(p[8:], src.AsSlice())
	copy(p[24:], dst.AsSlice())
	return p
}

// TestThrough asserts which packets go through this node: from and to a device that it hosts, and no others.
func TestThrough(t *testing.T) {
	inner := newFakeTUN(t)
	d := New(Options{Inner: inner})
	defer d.Close()
	path := pathmtu.Path{Addr: under, Overhead: 60, Top: 1376, Default: 1376}
	prefixes := func(list ...string) (out []netip.Prefix) {
		for _, p := range list {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	d.SetPeers(netip.Addr{}, []Peer{
		{Key: [32]byte{1}, AllowedIPs: prefixes("100.64.0.1/32", "fd00::1/128"), Addr: netip.MustParseAddr("fd00::1"), Path: path},
		{Key: [32]byte{2}, AllowedIPs: prefixes("100.64.0.2/32", "fd00::2/128"), Addr: netip.MustParseAddr("fd00::2"), Path: path},
		{Key: [32]byte{8}, AllowedIPs: prefixes("100.64.0.8/32", "fd00::8/128"), Hosted: true, Path: path},
		{Key: [32]byte{9}, AllowedIPs: prefixes("100.64.0.9/32", "fd00::9/128"), Hosted: true, Path: path},
		{Key: [32]byte{7}, AllowedIPs: prefixes("10.1.0.0/16"), Path: path}, // a plain peer of the config file
	})
	read := func() []byte {
		t.Helper()
		bufs, sizes := make([][]byte, 4), make([]int, 4)
		for i := range bufs {
			bufs[i] = make([]byte, headroom+2000)
		}
		if !d.through.some.Load() {
			return nil
		}
		n, err := d.Read(bufs, sizes, headroom)
		if err != nil || n != 1 {
			t.Fatalf("read: got %d packets, %v", n, err)
		}
		return bufs[0][headroom:][:sizes[0]]
	}
	kernel := func() bool {
		t.Helper()
		inner.kernel.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		buf := make([]byte, 2000)
		_, err := inner.kernel.Read(buf)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		return err == nil
	}
	for _, test := range []struct {
		from, to string
		hops     byte
		through  bool
	}{
		{"100.64.0.9", "100.64.0.1", 64, true}, {"100.64.0.1", "100.64.0.9", 64, true}, {"100.64.0.8", "100.64.0.9", 64, true},
		{"fd00::9", "fd00::2", 2, true}, {"fd00::2", "fd00::9", 64, true},
		{"100.64.0.9", "100.64.0.5", 64, false}, // this node's own, or nobody's
		{"100.64.0.1", "100.64.0.2", 64, false}, // members do not go through each other
		{"100.64.0.9", "10.1.2.3", 64, false}, {"10.1.2.3", "100.64.0.9", 64, false},
		{"10.1.2.3", "100.64.0.1", 64, false}, {"fd00::9", "2001:db8::1", 64, false},
	} {
		packet := packetOf(t, test.from, test.to, test.hops, 100)
		if _, err := d.Write([][]byte{append(make([]byte, headroom), packet...)}, headroom); err != nil {
			t.Fatal(err)
		}
		got, kept := read(), kernel()
		if (got != nil) != test.through || kept == test.through {
			t.Errorf("%s to %s: through %v, to the kernel %v, want it through: %v", test.from, test.to, got != nil, kept, test.through)
			continue
		}
		if got == nil {
			continue
		}
		hops := got[7]
		if got[0]>>4 == 4 {
			hops = got[8]
			if fold(sum16(got[:20])) != 0xffff {
				t.Errorf("%s to %s: the sum of its header is wrong", test.from, test.to)
			}
		}
		if hops != test.hops-1 || len(got) != len(packet) {
			t.Errorf("%s to %s: got %d hops, %d bytes, want %d and %d", test.from, test.to, hops, len(got), test.hops-1, len(packet))
		}
	}

	// Without a hop it ends here.
	for _, packet := range [][]byte{packetOf(t, "100.64.0.9", "100.64.0.1", 1, 100), packetOf(t, "fd00::9", "fd00::1", 0, 100)} {
		d.Write([][]byte{append(make([]byte, headroom), packet...)}, headroom)
		if read() != nil || kernel() {
			t.Error("a packet without a hop went on")
		}
	}
	if n := d.Dropped()["no hop left"]; n != 2 {
		t.Errorf("dropped: got %d, want 2", n)
	}

	// One that is too large is answered by the same way.
	d.Write([][]byte{append(make([]byte, headroom), packetOf(t, "100.64.0.9", "100.64.0.1", 64, 1500)...)}, headroom)
	if first := read(); len(first) != 0 {
		t.Errorf("a packet of 1,500 bytes went on as %d", len(first))
	}
	if icmp := read(); len(icmp) < 28 || icmp[9] != 1 || icmp[20] != 3 || icmp[21] != 4 || netip.AddrFrom4([4]byte(icmp[16:20])) != netip.MustParseAddr("100.64.0.9") {
		t.Errorf("got %x, want it told to the device", icmp)
	}

	// Too many do not pile up.
	for range maxTransit + 10 {
		d.Write([][]byte{append(make([]byte, headroom), packetOf(t, "100.64.0.9", "100.64.0.1", 64, 100)...)}, headroom)
	}
	if n := d.Dropped()["transit queue full"]; n != 10 {
		t.Errorf("dropped: got %d, want 10", n)
	}
}
