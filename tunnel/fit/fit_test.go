package fit

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"

	"warren/tunnel/pathmtu"
)

// fakeTUN is a TUN device whose kernel is the other end of a pair of sockets.
type fakeTUN struct {
	file, kernel *os.File
	batch        int
}

func newFakeTUN(t *testing.T) *fakeTUN {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeTUN{batch: 8}
	for i, end := range []**os.File{&f.file, &f.kernel} {
		if err := unix.SetNonblock(fds[i], true); err != nil {
			t.Fatal(err)
		}
		*end = os.NewFile(uintptr(fds[i]), "tun")
	}
	t.Cleanup(func() { f.kernel.Close(); f.file.Close() })
	return f
}

func (f *fakeTUN) File() *os.File { return f.file }

func (f *fakeTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n, err := f.file.Read(bufs[0][offset:])
	if err != nil {
		return 0, err
	}
	sizes[0] = n
	return 1, nil
}

func (f *fakeTUN) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		if _, err := f.file.Write(b[offset:]); err != nil {
			return 0, err
		}
	}
	return len(bufs), nil
}

func (f *fakeTUN) MTU() (int, error)        { return 9000, nil }
func (f *fakeTUN) Name() (string, error)    { return "fake", nil }
func (f *fakeTUN) Events() <-chan tun.Event { return nil }
func (f *fakeTUN) Close() error             { return f.file.Close() }
func (f *fakeTUN) BatchSize() int           { return f.batch }

// node is one end of a tunnel in memory.
type node struct {
	*Device
	tun     *fakeTUN
	carries atomic.Int64 // MTU of the way to the other end
	largest atomic.Int64 // that has left
	exact   atomic.Int64 // calls of Exact, and the last one in the lowest bit
}

var (
	addrs6 = []netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")}
	addrs4 = []netip.Addr{netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")}
	under  = netip.MustParseAddrPort("192.0.2.1:1")
)

// Exact implements Sockets.
func (n *node) Exact(on bool) {
	state := int64(0)
	if on {
		state = 1
	}
	n.exact.Store((n.exact.Load()>>1+1)<<1 | state)
}

// newPair joins two devices: what the one reads the other writes, if the way carries it.
func newPair(t *testing.T, mtu int) [2]*node {
	t.Helper()
	var pair [2]*node
	for i := range pair {
		n := &node{tun: newFakeTUN(t)}
		n.carries.Store(int64(mtu))
		n.Device = New(Options{Inner: n.tun, Sockets: n})
		pair[i] = n
	}
	var wg sync.WaitGroup
	for i, n := range pair {
		n.set(i, pathmtu.Path{Addr: under, Overhead: 60, Top: 1376, Default: 1376})
		wg.Go(func() { n.carry(pair[1-i]) })
	}
	t.Cleanup(func() {
		for _, n := range pair {
			n.Close()
		}
		wg.Wait()
	})
	return pair
}

// slowSockets take as long as the test has them to be told.
type slowSockets struct{ called, let chan struct{} }

func (s *slowSockets) Exact(bool) {
	s.called <- struct{}{}
	<-s.let
}

// TestSlowSockets asserts that nobody waits for the sockets but who tells them, and that no probe leaves before they know.
func TestSlowSockets(t *testing.T) {
	s := &slowSockets{called: make(chan struct{}, 9), let: make(chan struct{})}
	d := New(Options{Inner: newFakeTUN(t), Sockets: s})
	defer d.Close()
	path := pathmtu.Path{Addr: under, Overhead: 60, Top: 1376, Default: 1376}
	d.SetPeers(netip.MustParseAddr("fd00::9"), []Peer{{Key: [32]byte{1}, Addr: addrs6[0], Path: path}, {Key: [32]byte{2}, Addr: addrs6[1], Path: path}})
	var telling sync.WaitGroup
	telling.Go(func() { d.step(d.peers[[32]byte{1}], sent(1376)) })
	select {
	case <-s.called:
	case <-time.After(patience):
		t.Fatal("the sockets were not told of probes")
	}
	d.step(d.peers[[32]byte{2}], sent(1376)) // the first one is still at it
	waiting := func() int {
		d.inject.mu.Lock()
		defer d.inject.mu.Unlock()
		return len(d.inject.notes)
	}
	if got := waiting(); got != 0 {
		t.Errorf("while the sockets are told: got %d probes, want none", got)
	}
	if got := len(s.called); got != 0 {
		t.Errorf("while the sockets are told: got %d more calls, want none", got)
	}
	close(s.let)
	telling.Wait()
	if got := waiting(); got < 2 {
		t.Errorf("when they have been told: got %d probes, want those to both peers", got)
	}
}

// set gives end i its only peer, behind which is everything that is not its own.
func (n *node) set(i int, path pathmtu.Path) {
	other := 1 - i
	n.SetPeers(addrs6[i], []Peer{{
		Key: [32]byte{1}, Addr: addrs6[other], Path: path,
		AllowedIPs: []netip.Prefix{netip.PrefixFrom(addrs6[other], 128), netip.PrefixFrom(addrs4[other], 32), netip.MustParsePrefix("fd01::/64")},
	}})
}

func (n *node) carry(to *node) {
	bufs, sizes := make([][]byte, n.tun.batch), make([]int, n.tun.batch)
	for i := range bufs {
		bufs[i] = make([]byte, 65535)
	}
	for {
		count, err := n.Read(bufs, sizes, headroom)
		if err != nil {
			return
		}
		for i := range count {
			if size := sizes[i]; size > 0 && size <= int(n.carries.Load()) {
				n.largest.Store(max(n.largest.Load(), int64(size)))
				p := slices.Clone(bufs[i][:headroom+size])
				if _, err := to.Write([][]byte{p}, headroom); err != nil {
					return
				}
			}
		}
	}
}

// send has the kernel of n send a packet.
func (n *node) send(t *testing.T, p []byte) {
	t.Helper()
	if _, err := n.tun.kernel.Write(p); err != nil {
		t.Fatal(err)
	}
}

// receive returns the next packet that the kernel of n gets, nil if there is none within limit.
func (n *node) receive(t *testing.T, limit time.Duration) []byte {
	t.Helper()
	n.tun.kernel.SetReadDeadline(time.Now().Add(limit))
	buf := make([]byte, 65535)
	size, err := n.tun.kernel.Read(buf)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if err != nil {
		return nil
	}
	return buf[:size]
}

// patience bounds every wait of these tests.
const patience = 30 * time.Second

func (n *node) wait(t *testing.T, what string, done func(pathmtu.Limit) bool) {
	t.Helper()
	n.mu.Lock()
	p := n.peers[[32]byte{1}]
	n.mu.Unlock()
	for deadline := time.Now().Add(patience); !done(p.getLimit()); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %+v", what, patience, p.getLimit())
		}
	}
}

func final(l pathmtu.Limit) bool { return !l.Split }

// packet4 is UDP over IPv4 with a body that says where each byte belongs.
func packet4(size int, df bool) []byte {
	h := &ipv4.Header{Version: 4, Len: 20, TotalLen: size, ID: 77, TTL: 64, Protocol: 17, Src: addrs4[0].AsSlice(), Dst: addrs4[1].AsSlice()}
	p := append(make([]byte, 20), body(size-20)...)
	p[0], p[8], p[9] = 0x45, 64, 17
	put16(p[2:], h.TotalLen)
	put16(p[4:], h.ID)
	if df {
		p[6] = flagDF
	}
	copy(p[12:], h.Src)
	copy(p[16:], h.Dst)
	finish4(p, 20)
	return p
}

func packet6(size int) []byte {
	p := append(make([]byte, 40), body(size-40)...)
	p[0], p[6], p[7] = 0x60, 17, 64
	put16(p[4:], size-40)
	copy(p[8:], addrs6[0].AsSlice())
	copy(p[24:], addrs6[1].AsSlice())
	return p
}

func body(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 / 3)
	}
	return b
}

// TestMeasuresAndHolds lets two ends measure a way of 1,220 bytes, and sends packets of all kinds before and after.
func TestMeasuresAndHolds(t *testing.T) {
	pair := newPair(t, 1220)
	a, b := pair[0], pair[1]

	t.Log("the first packets, whatever they say")
	for _, p := range [][]byte{packet4(1376, true), packet6(1376), packet4(1376, false)} {
		a.send(t, p)
		var got []byte
		for range 2 {
			got = reassemble(t, got, b.receive(t, patience))
		}
		want := p[20:]
		if p[0]>>4 == 6 {
			want = p[40:]
		}
		if !slices.Equal(got, want) {
			t.Fatalf("put together: got %d bytes, want %d, the same", len(got), len(want))
		}
	}
	a.wait(t, "measured", final)
	if got := a.Verified()[[32]byte{1}]; got != 1216 || a.Most() != 1216 {
		t.Fatalf("got %d, most %d, want 1216", got, a.Most())
	}
	if on := a.exact.Load(); on < 2<<1 || on&1 != 0 {
		t.Errorf("exact: got %d calls, the last %d, want some and off", on>>1, on&1)
	}

	t.Log("then")
	a.send(t, packet4(1216, true))
	if got := b.receive(t, patience); len(got) != 1216 {
		t.Errorf("a packet that fits: got %d bytes", len(got))
	}
	a.send(t, packet4(1300, true))
	icmp := a.receive(t, patience)
	if len(icmp) < 36 || icmp[9] != protoICMP || icmp[20] != 3 || icmp[21] != 4 || get16(icmp[26:]) != 1216 || source(icmp) != addrs4[1] ||
		fold(sum16(icmp[:20])) != 0xffff || fold(sum16(icmp[20:])) != 0xffff {
		t.Errorf("too large, IPv4 with DF: got % x", icmp)
	}
	a.send(t, packet6(1300))
	icmp = a.receive(t, patience)
	if len(icmp) < 48 || icmp[6] != protoICMPv6 || icmp[40] != 2 || binary.BigEndian.Uint32(icmp[44:]) != 1280 || source(icmp) != addrs6[1] ||
		fold(pseudo6(icmp, protoICMPv6, len(icmp)-40)+sum16(icmp[40:])) != 0xffff {
		t.Errorf("too large, IPv6: got % x", icmp)
	}
	if got := a.Dropped()[DropTooLarge.String()]; got != 2 {
		t.Errorf("dropped: got %d, want 2", got)
	}
	for _, p := range [][]byte{packet4(1300, false), packet6(1280)} {
		a.send(t, p)
		if got := reassemble(t, reassemble(t, nil, b.receive(t, patience)), b.receive(t, patience)); len(got) < 1240 {
			t.Errorf("to be fragmented: got %d bytes", len(got))
		}
	}
	if got := a.largest.Load(); got > 1220 {
		t.Errorf("%d bytes have left", got)
	}
	if p := a.receive(t, 0); p != nil {
		t.Errorf("the kernel got % x", p[:64])
	}
}

// reassemble appends the body of a fragment, which must be the next one.
func reassemble(t *testing.T, sofar, p []byte) []byte {
	t.Helper()
	if len(p) == 0 {
		t.Fatal("no fragment")
	}
	if p[0]>>4 == 4 {
		h, err := ipv4.ParseHeader(p)
		if err != nil || h.TotalLen != len(p) || h.Flags&ipv4.DontFragment != 0 || h.FragOff*8 != len(sofar) || fold(sum16(p[:h.Len])) != 0xffff {
			t.Fatalf("got fragment %v, %v, want offset %d", h, err, len(sofar))
		}
		return append(sofar, p[h.Len:]...)
	}
	h, err := ipv6.ParseHeader(p)
	if err != nil || h.PayloadLen != len(p)-40 || h.NextHeader != 44 || get16(p[42:])&^7 != len(sofar) {
		t.Fatalf("got fragment %v, %v, want offset %d", h, err, len(sofar))
	}
	return append(sofar, p[48:]...)
}

// TestProbesStayHidden sends what looks like probes from all sides.
func TestProbesStayHidden(t *testing.T) {
	pair := newPair(t, 9000)
	a, b := pair[0], pair[1]
	forged := make([]byte, 100)
	note{kind: kindAnswer, to: addrs6[1], size: 1376, nonce: 1}.packet(forged, addrs6[0])
	a.send(t, forged[:64])
	a.send(t, packet6(100))
	if got := b.receive(t, patience); len(got) != 100 {
		t.Errorf("got %d bytes, want the packet that is no probe", len(got))
	}
	if got := a.Dropped()[DropForged.String()]; got != 1 {
		t.Errorf("forged: got %d, want 1", got)
	}
	a.wait(t, "measured", final)

	// One that is for another node behind this one is nothing special.
	note{kind: kindAsk, to: netip.MustParseAddr("fd01::9"), size: 64, nonce: 1}.packet(forged, addrs6[1])
	b.Write([][]byte{append(make([]byte, headroom), forged[:64]...)}, headroom)
	if got := b.receive(t, patience); len(got) != 64 {
		t.Errorf("for another node: got %d bytes, want it passed on", len(got))
	}
	// An answer that nobody asked for, and one that is damaged, end here.
	note{kind: kindAnswer, to: addrs6[0], size: 9000, nonce: 1}.packet(forged, addrs6[1])
	damaged := slices.Clone(forged[:64])
	damaged[noteAt+3] = 9
	a.Write([][]byte{append(make([]byte, headroom), forged[:64]...), append(make([]byte, headroom), damaged...)}, headroom)
	if got := a.Verified()[[32]byte{1}]; got != 1376 {
		t.Errorf("got %d, want 1376", got)
	}
	if got := a.Dropped()[DropProbe.String()]; got != 1 {
		t.Errorf("bad probes: got %d, want 1", got)
	}
	if p := a.receive(t, 0); p != nil {
		t.Errorf("the kernel got %d bytes", len(p))
	}
}

// TestPeersComeAndGo changes the peers while probes are under way.
func TestPeersComeAndGo(t *testing.T) {
	pair := newPair(t, 0)
	a := pair[0]
	a.send(t, packet6(100))
	for deadline := time.Now().Add(patience); a.exact.Load()&1 == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no probe")
		}
	}
	a.SetPath([32]byte{9}, pathmtu.Path{}) // unknown: ignored
	a.SetPath([32]byte{1}, pathmtu.Path{})
	if a.exact.Load()&1 != 0 {
		t.Error("without a path: still exact")
	}
	a.SetPath([32]byte{1}, pathmtu.Path{Addr: under, Overhead: 60, Top: 1376, Default: 1376})
	a.send(t, packet6(100))
	for deadline := time.Now().Add(patience); a.exact.Load()&1 == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no probe by the path that came back")
		}
	}
	a.SetPeers(addrs6[0], nil)
	if a.exact.Load()&1 != 0 {
		t.Error("without peers: still exact")
	}
	a.send(t, packet6(1376))
	a.carries.Store(9000)
	static := Peer{Key: [32]byte{2}, AllowedIPs: []netip.Prefix{netip.PrefixFrom(addrs4[1], 32)}, Path: pathmtu.Path{Default: 1376}}
	a.SetPeers(netip.Addr{}, []Peer{static})
	if got, want := a.peers[[32]byte{2}].getLimit(), (pathmtu.Limit{Whole: 1376, Clamp: 1376}); got != want {
		t.Errorf("static peer: got %+v, want %+v", got, want)
	}
	a.send(t, packet4(2000, true))
	if icmp := a.receive(t, patience); len(icmp) < 28 || get16(icmp[26:]) != 1376 {
		t.Errorf("static peer: got % x, want ICMP with 1376", icmp)
	}
}
