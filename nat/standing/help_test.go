package standing

import (
	"bytes"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/nat/natprobe/natprobetest"
)

// asks of a member, in the order of the versions.
func ask(version byte, addr netip.AddrPort) []byte {
	return encode(message{version: version, id: [12]byte{9, 8, 7}, addr: addr})
}

func TestDialBackComesFromAnotherSocketWithTheTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, open)
		helper := w.public(2)
		target := w.net.Socket(netip.MustParseAddr("198.51.100.77"), 1000)
		start := time.Now()
		helper.Asked(w.home.id, ask(versionDialBack, target.Addr()))
		sources := make(map[string]int)
		buf := make([]byte, 100)
		for _, at := range dialBackTimes {
			n, from, err := target.ReadFrom(buf)
			if err != nil {
				t.Fatal(err)
			}
			if want := append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, 9, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0); !bytes.Equal(buf[:n], want) {
				t.Fatalf("got %x, want %x", buf[:n], want)
			}
			if got := time.Since(start); got != at+natprobetest.Latency {
				t.Errorf("got a packet after %s, want %s", got, at+natprobetest.Latency)
			}
			sources[from.String()]++
		}
		if len(sources) != 1 || sources[helper.shared.Addr().String()] != 0 {
			t.Errorf("got sources %v, want one socket, and not the shared one", sources)
		}
		if after(time.Minute); target.Waiting() != 0 || len(helper.log) != 0 {
			t.Errorf("got %d packets and %d messages more, want none", target.Waiting(), len(helper.log))
		}
	})
}

// TestHelpIsLimited: six at once for one that asks, and one a second; sixteen for all, and eight a second.
func TestHelpIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, open)
		helper := w.public(2)
		n := 0
		flood := func(from identity.NodeID, times int) (helped int) {
			before := helper.opened
			for range times {
				n++ // other hosts each time
				to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(n >> 8), byte(n)}), 1000)
				helper.Asked(from, ask(byte(1+n%2), to))
			}
			after(0)
			return helper.opened - before
		}
		if got := flood(w.home.id, 100); got != helpsForOne.Burst {
			t.Errorf("got help for %d of 100 asks, want %d", got, helpsForOne.Burst)
		}
		if got := helper.Dropped(); !maps.Equal(got, map[string]uint64{"dial back: too many": uint64(100 - helpsForOne.Burst)}) {
			t.Errorf("got dropped %v, want the rest", got)
		}
		// Whoever asks now has as much.
		second, third, fourth := w.public(3), w.public(4), w.public(5)
		if got := []int{flood(second.id, 50), flood(third.id, 50), flood(fourth.id, 50)}; !slices.Equal(got, []int{6, 4, 0}) {
			t.Errorf("got help for %v of others, want 16 in all", got)
		}
		after(time.Second)
		if got := []int{flood(w.home.id, 50), flood(second.id, 50), flood(third.id, 50), flood(fourth.id, 50)}; !slices.Equal(got, []int{1, 1, 1, 1}) {
			t.Errorf("a second later: got help for %v, want one for each", got)
		}
	})
}

// TestHelpToOneHost: however many ask, a host that has not asked itself gets little. One that asks for itself gets all that it may.
func TestHelpToOneHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, open)
		helper := w.public(2)
		askers := []*node{w.public(3), w.public(4), w.public(5)}
		victim := netip.MustParseAddrPort("198.51.100.77:1000")
		for second := range 600 {
			for _, a := range askers {
				helper.Asked(a.id, ask(versionDialBack, netip.AddrPortFrom(victim.Addr(), uint16(1000+second))))
			}
			after(time.Second)
		}
		if got := helper.opened; got > 306 {
			t.Errorf("got %d helped in ten minutes, want 306 at most: %d packets", got, 306*len(dialBackTimes))
		}
		asker := askers[0]
		helper.Set(Desired{Port: port, Helpers: []Helper{{ID: asker.id, Addr: victim.Addr()}}})
		before := helper.opened
		for range 20 {
			helper.Asked(asker.id, ask(versionDialBack, victim))
		}
		after(0)
		if got := helper.opened - before; got != helpsForOne.Burst {
			t.Errorf("got %d helped of one that asks for itself, want %d", got, helpsForOne.Burst)
		}
	})
}

// TestNothingGoesIntoANetwork: a member that asks has nothing sent into the helper's own network, nor to the helper itself, unless
// it is there.
func TestNothingGoesIntoANetwork(t *testing.T) {
	for _, to := range []string{"192.168.1.1:53", "10.0.0.1:161", "172.16.5.5:9", "169.254.169.254:80", "100.64.0.7:7", "127.0.0.1:22", "[fd12::1]:9", "[fe80::1]:9", "192.0.0.8:1"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, open)
			helper, asker := w.public(2), w.public(3)
			target := netip.MustParseAddrPort(to)
			for _, version := range []byte{versionDialBack, versionTry} {
				helper.Asked(asker.id, ask(version, target))
			}
			after(time.Second)
			if got := helper.Dropped(); helper.opened != 0 || !maps.Equal(got, map[string]uint64{"dial back: refused": 2}) {
				t.Errorf("%s: got %d sockets, dropped %v, want both asks refused", to, helper.opened, got)
			}
			if !target.Addr().IsPrivate() || !target.Addr().Is4() {
				return // what cannot be the address of a session here
			}
			helper.Set(Desired{Port: port, Helpers: []Helper{{ID: asker.id, Addr: target.Addr()}}})
			helper.Asked(w.home.id, ask(versionDialBack, target))
			helper.Asked(asker.id, ask(versionDialBack, target))
			after(time.Second)
			if helper.opened != 1 {
				t.Errorf("%s: got %d sockets, want one, for the member that is there", to, helper.opened)
			}
		})
	}
}

// TestHelpEndsWithRun: packets and sockets of others do not outlive the owner.
func TestHelpEndsWithRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, open)
		helper := w.public(2)
		target := w.net.Socket(netip.MustParseAddr("198.51.100.77"), 1000)
		helper.Asked(w.home.id, ask(versionDialBack, target.Addr()))
		helper.Asked(w.home.id, ask(versionTry, target.Addr()))
		after(100 * time.Millisecond)
		start := time.Now()
		w.end()
		if took := time.Since(start); took != 0 || target.Waiting() != 2 {
			t.Errorf("got the end after %s with %d packets sent, want it at once with 2", took, target.Waiting())
		}
	})
}

func TestWhoIsNotHelped(t *testing.T) {
	public := netip.MustParseAddrPort("198.51.100.77:1000")
	member, stranger := identity.NodeID{1}, identity.NodeID{99}
	overlay := netip.MustParsePrefix("fd00:1234::/48")
	for _, tt := range []struct {
		name string
		from identity.NodeID
		raw  []byte
	}{
		{"nothing", member, nil},
		{"a stranger", stranger, ask(versionDialBack, public)},
		{"a stranger's try", stranger, ask(versionTry, public)},
		{"an address of the mesh", member, ask(versionDialBack, netip.MustParseAddrPort("[fd00:1234::1]:1"))},
		{"another one", member, ask(versionTry, netip.MustParseAddrPort("[fd00:1234::1]:1"))},
		{"loopback", member, ask(versionDialBack, netip.MustParseAddrPort("127.0.0.1:1"))},
		{"multicast", member, ask(versionTry, netip.MustParseAddrPort("224.0.0.1:1"))},
		{"port 0", member, ask(versionTry, netip.MustParseAddrPort("198.51.100.77:0"))},
		{"version 0", member, ask(0, public)},
		{"version 5", member, ask(5, public)},
		{"cut short", member, ask(versionDialBack, public)[:18]},
		{"too long", member, append(ask(versionTry, public), 0)},
		{"long", member, bytes.Repeat([]byte{1}, 60000)},
		{"told, short", member, ask(versionTold, netip.AddrPort{})[:14]},
		{"unable, long", member, append(ask(versionUnable, netip.AddrPort{}), 0)},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, open)
			helper := w.public(2)
			helper.Set(Desired{Port: port, Overlay: []netip.Prefix{overlay}})
			helper.Asked(tt.from, tt.raw)
			after(time.Second)
			if got := helper.Dropped(); helper.opened != 0 || len(helper.log) != 0 || !maps.Equal(got, map[string]uint64{"dial back: refused": 1}) {
				t.Errorf("%s: got %d sockets, messages %v, dropped %v, want it refused", tt.name, helper.opened, helper.log, got)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, open)
		w.home.run()
		w.home.Asked(member, ask(versionDialBack, public)) // the overlay's addresses are not known yet
		after(time.Second)
		if w.home.opened != 0 {
			t.Error("before Set: got help, want none")
		}
	})
}

// opened gives out one socket.
type opened struct{ net.PacketConn }

func (o opened) Listen() (net.PacketConn, error) { return o.PacketConn, nil }

func TestWhoCannotSendSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, open)
		helper := w.public(2)
		id := [12]byte{9, 8, 7}
		unable := encode(message{version: versionUnable, id: id})
		six := netip.MustParseAddrPort("[2001:db8::1]:9277")
		helper.Asked(w.home.id, ask(versionDialBack, six)) // it has no address of the family
		after(0)
		if len(helper.log) != 1 || helper.log[0].to != w.home.id || !bytes.Equal(helper.log[0].raw, unable) {
			t.Errorf("got %v, want the asker told that it cannot", helper.log)
		}
		noRoute := opened{w.net.Socket(helper.hosts[0], 0)}
		if err := dialBack(t.Context(), noRoute, id, six); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("got %v of a socket that has no route there, want %v", err, syscall.ENETUNREACH)
		}
		helper.set(func() { helper.hosts = append(helper.hosts, netip.MustParseAddr("2001:db8::2")) })
		helper.Asked(w.home.id, ask(versionDialBack, six))
		after(time.Minute)
		if len(helper.log) != 1 {
			t.Errorf("got %v, want nothing more of one that can", helper.log[1:])
		}
		helper.set(func() { helper.deaf, helper.noFamily = true, true })
		helper.Asked(w.home.id, ask(versionDialBack, six))
		after(0)
		if got := helper.Dropped(); !maps.Equal(got, map[string]uint64{"dial back: not answered": 1}) {
			t.Errorf("got dropped %v, want the answer that had no way", got)
		}
	})
}

// TestAnswersNobodyAskedFor: words of others than the helper, floods and guesses change nothing.
func TestAnswersNobodyAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, open)
		helper := w.public(2)
		helper.set(func() { helper.deaf = true })
		w.net.Set(func(o *natprobetest.Options) { o.Deaf = true })
		w.home.run()
		w.home.Set(w.helped(Desired{}))
		after(0)
		id := [12]byte(w.home.log[0].raw[1:13])
		// From another member: the test goes on until its time is over.
		w.home.Asked(identity.NodeID{3}, encode(message{version: versionUnable, id: id}))
		for n := range 1000 {
			w.home.Asked(helper.id, encode(message{version: versionUnable, id: [12]byte{byte(n), byte(n >> 8)}}))
			w.home.Asked(helper.id, encode(message{version: versionTold, id: [12]byte{byte(n)}, addr: outside}))
			w.home.Arrived([12]byte{byte(n)})
		}
		after(6 * time.Second)
		if got := w.home.sentOf(versionDialBack); got != 3 || w.home.state(outside) != "unreachable" {
			t.Errorf("got %d tests and %s, want three that failed", got, w.home.state(outside))
		}
	})
}

// TestToldByTheHelperOnly: who is not the one that was asked cannot say for it from where it sends.
func TestToldByTheHelperOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, router)
		helper := w.public(2)
		helper.set(func() { helper.noFamily = true }) // it does not help
		w.home.run()
		w.home.Set(w.helped(Desired{}))
		w.tasks.Go(func() { w.home.Measure(t.Context()) })
		for w.home.sentOf(versionTry) == 0 {
			after(time.Millisecond)
		}
		id := [12]byte(w.home.log[0].raw[1:13])
		w.home.Asked(identity.NodeID{3}, encode(message{version: versionTold, id: id, addr: netip.AddrPortFrom(netip.Addr{}, 7)}))
		after(measureTime)
		if got := w.home.Dropped(); !maps.Equal(got, map[string]uint64{"dial back: refused": 1}) {
			t.Errorf("got dropped %v, want the stranger's word", got)
		}
		if got := w.home.Snapshot().IPv4.Report.Filtering; got != 0 {
			t.Errorf("got filtering %s by a word that nobody was asked for, want it unknown", got)
		}
	})
}

// TestThisSystem sends through real sockets.
func TestThisSystem(t *testing.T) {
	host := System(func(string) bool { return false }, nil)
	c, err := host.Listen(true)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), c.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	if err := dialBack(t.Context(), family{host, true}, [12]byte{1}, to); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	for range dialBackTimes {
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, _, err := c.ReadFrom(buf); err != nil || n != 20 || buf[8] != 1 {
			t.Fatalf("got %x, %v, want a request", buf[:n], err)
		}
	}
	if _, err := host.Addresses(); err != nil {
		t.Errorf("got %v, want this host's addresses", err)
	}
}

func TestAnOptionIsMissing(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("got an owner without its parts, want an error")
	}
}
