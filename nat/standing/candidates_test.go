package standing

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"warren/nat/natkind"
	"warren/nat/natprobe/natprobetest"
	"warren/nat/portmap"
	"warren/nat/reach"
)

var (
	open     = natprobetest.Options{Mapping: natkind.Unmapped, Filtering: natkind.FilteredNot}
	firewall = natprobetest.Options{Mapping: natkind.Unmapped, Filtering: natkind.FilteredByAddressAndPort}
	router   = natprobetest.Options{Mapping: natkind.MappedIndependent, Filtering: natkind.FilteredByAddressAndPort}
	outside  = netip.AddrPortFrom(natprobetest.Outside, port)
)

// There and back: an ask to a helper, and what it sends.
const roundTrip = 2 * natprobetest.Latency

func TestReachedByAStranger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, open)
		helper := w.public(2)
		w.home.run()
		after(0)
		got := w.home.Snapshot()
		if got.Network != 1 || !slices.Equal(got.Hosts, []netip.Addr{natprobetest.Outside}) || !w.home.news() {
			t.Fatalf("got %+v at the start, want network 1 with this host's address, and an event", got)
		}
		if len(got.Reach)+len(got.Usable) != 0 {
			t.Errorf("got %v before anybody has said what this node is, want nothing to be announced", got.Usable)
		}
		w.home.Set(Desired{Port: port})
		after(time.Hour)
		got = w.home.Snapshot()
		if w.home.state(outside) != reach.Untested || !slices.Equal(got.Usable, []netip.AddrPort{outside}) || !w.home.news() {
			t.Errorf("got %+v without helpers, want the address untested and announced", got)
		}
		w.home.Set(w.helped(Desired{}))
		after(roundTrip - 1)
		if w.home.state(outside) != reach.Untested || w.home.news() {
			t.Errorf("got %s before a packet can have come, want it untested still", w.home.state(outside))
		}
		after(1)
		if got := w.home.Snapshot().Reach[0]; got.State != reach.Reachable || got.Since != time.Now() || got.Helper[0] != 2 || !w.home.news() {
			t.Errorf("got %+v, want the address reachable since now, and an event", got)
		}
		// It is tested again each 40 s, and nothing is said as long as nothing changes.
		for n := range 10 {
			if got := w.home.sentOf(versionDialBack); got != n+1 {
				t.Fatalf("got %d tests, want %d", got, n+1)
			}
			after(reach.Recheck + roundTrip)
		}
		if w.home.news() {
			t.Error("got an event although nothing has changed")
		}
		if got := helper.opened; got != 11 {
			t.Errorf("the helper opened %d sockets for 11 tests", got)
		}
	})
}

func TestAFirewall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, firewall)
		w.public(2)
		w.home.run()
		w.home.Set(w.helped(Desired{}))
		after(6*time.Second - 1)
		if got := w.home.Snapshot(); w.home.state(outside) != reach.Untested || len(got.Usable) != 1 {
			t.Errorf("got %+v before the third test has failed, want the address untested", got)
		}
		after(1)
		if got := w.home.Snapshot(); w.home.state(outside) != reach.Unreachable || len(got.Usable) != 0 || !w.home.news() {
			t.Errorf("got %+v after three tests that failed, want nothing to be announced, and an event", got)
		}
		// A person opens the port: found out at the next test, five minutes later.
		w.net.Set(func(o *natprobetest.Options) { o.Filtering = natkind.FilteredNot })
		after(5*time.Minute + roundTrip - 1)
		if got := w.home.state(outside); got != reach.Unreachable {
			t.Errorf("got %s before the next test, want %s", got, reach.Unreachable)
		}
		after(1)
		if got := w.home.state(outside); got != reach.Reachable || !w.home.news() {
			t.Errorf("got %s, want %s and an event", got, reach.Reachable)
		}
		// It is closed again: three tests after the next one is due.
		w.net.Set(func(o *natprobetest.Options) { o.Deaf = true })
		after(reach.Recheck + 6*time.Second)
		if got := w.home.state(outside); got != reach.Unreachable {
			t.Errorf("got %s within a minute, want %s", got, reach.Unreachable)
		}
		// In another network all is tested at once; what was known holds until then.
		w.net.Set(func(o *natprobetest.Options) { o.Deaf = false })
		w.home.network <- struct{}{}
		after(0)
		if got := w.home.state(outside); got != reach.Unreachable {
			t.Errorf("got %s in the moment of the change, want what was known", got)
		}
		after(roundTrip)
		if got := w.home.Snapshot(); w.home.state(outside) != reach.Reachable || got.Network != 2 {
			t.Errorf("got %+v, want the address reachable in network 2", got)
		}
	})
}

// TestAHelperIsUnable asks another one at once, and the first no more.
func TestAHelperIsUnable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, open)
		first := w.public(2)
		first.set(func() { first.noFamily = true })
		w.public(3)
		w.home.run()
		w.home.Set(w.helped(Desired{}))
		after(2*roundTrip - 1)
		if got := w.home.state(outside); got != reach.Untested {
			t.Errorf("got %s before the second helper's packet, want %s", got, reach.Untested)
		}
		after(1)
		if got := w.home.Snapshot().Reach[0]; got.State != reach.Reachable || got.Helper[0] != 3 {
			t.Errorf("got %+v, want it reachable by the second helper's word", got)
		}
		if got := first.sentOf(versionUnable); got != 1 {
			t.Errorf("got %d words of the first helper that it cannot, want 1", got)
		}
		after(3 * reach.Recheck)
		if got := first.sentOf(versionUnable); got != 1 {
			t.Errorf("got the first helper asked %d times within two minutes, want once", got)
		}
	})
}

// TestNoWayToAHelper counts what could not be asked; a test is over after its time.
func TestNoWayToAHelper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, open)
		w.public(2)
		w.home.set(func() { w.home.deaf = true })
		w.home.run()
		w.home.Set(w.helped(Desired{}))
		after(2*time.Second - 1)
		w.home.set(func() { w.home.deaf = false })
		after(1 + roundTrip)
		if got := w.home.Dropped(); w.home.state(outside) != reach.Reachable || len(got) != 1 || got["dial back: not asked"] != 1 {
			t.Errorf("got %s and dropped %v, want it reachable after one ask without a way", w.home.state(outside), got)
		}
	})
}

func TestNetworkChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, router)
		w.home.run()
		w.home.Set(Desired{Port: port})
		after(time.Second)
		w.home.news()
		before := w.home.Snapshot()
		w.home.network <- struct{}{} // there and back again
		after(0)
		if got := w.home.Snapshot(); got.Network != before.Network+1 || !slices.Equal(got.Hosts, before.Hosts) || !w.home.news() {
			t.Errorf("got %+v, want another network with the same addresses, and an event", got)
		}
		if got := w.home.mapper.changed; got != 1 {
			t.Errorf("got routers asked anew %d times, want once", got)
		}
		other := netip.MustParseAddr("10.0.0.5")
		w.home.set(func() { w.home.hosts = []netip.Addr{other} })
		w.home.network <- struct{}{}
		after(0)
		if got := w.home.Snapshot(); got.Network != before.Network+2 || !slices.Equal(got.Hosts, []netip.Addr{other}) {
			t.Errorf("got %+v, want another network with %s", got, other)
		}
		// What no notice tells is found out within a minute; it is no other network.
		w.home.news()
		w.home.set(func() { w.home.hosts = nil })
		after(lookEvery - 1)
		if w.home.news() {
			t.Error("got an event before the addresses were read")
		}
		after(1)
		if got := w.home.Snapshot(); got.Network != before.Network+2 || len(got.Hosts) != 0 || !w.home.news() {
			t.Errorf("got %+v, want no address in the same network, and an event", got)
		}
		// Whoever watches the network may end.
		close(w.home.network)
		after(time.Second)
		if got := w.home.Snapshot().Network; got != before.Network+2 {
			t.Errorf("got network %d when nobody watches any more, want the same", got)
		}
	})
}

// TestAddressesOutliveAFailedLook keeps what was known while the system cannot be asked.
func TestAddressesOutliveAFailedLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, router)
		w.home.set(func() { w.home.failure = errInterrupted })
		w.home.run()
		after(0)
		const trouble = "this host's addresses cannot be looked at, those of before are used: interrupted system call"
		if got := w.home.Snapshot(); got.Network != 1 || len(got.Hosts) != 0 || got.Trouble != trouble {
			t.Errorf("got %+v, want network 1 without an address, and why", got)
		}
		w.home.set(func() { w.home.failure = nil })
		after(lookAgain - 1)
		w.home.news()
		after(1)
		before := w.home.Snapshot()
		if before.Network != 1 || !slices.Equal(before.Hosts, []netip.Addr{natprobetest.Inside}) || before.Trouble != "" || !w.home.news() {
			t.Fatalf("got %+v, want this host's address a second later, and an event", before)
		}
		w.home.set(func() { w.home.hosts, w.home.failure = nil, errInterrupted })
		w.home.network <- struct{}{}
		after(0)
		if got := w.home.Snapshot(); got.Network != 2 || !slices.Equal(got.Hosts, before.Hosts) || got.Trouble != trouble || !w.home.news() {
			t.Errorf("got %+v, want network 2 with the addresses of before, and why", got)
		}
		after(3 * lookAgain)
		if w.home.news() {
			t.Error("got an event while nothing changes")
		}
		if got := w.home.looks; got != 6 {
			t.Errorf("got the system asked %d times, want 6: each second while it fails", got)
		}
		w.home.set(func() { w.home.failure = nil })
		after(lookAgain)
		if got := w.home.Snapshot(); got.Network != 2 || len(got.Hosts) != 0 || got.Trouble != "" {
			t.Errorf("got %+v on a host without addresses, want none and no trouble", got)
		}
	})
}

func TestModes(t *testing.T) {
	private, public6 := netip.MustParseAddr("192.168.1.10"), netip.MustParseAddr("2001:db8::10")
	set := addrs("203.0.113.7:1000", "10.9.9.9:2000")
	mapped := netip.MustParseAddrPort("198.51.100.50:9277")
	host := func(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, port) }
	tests := []struct {
		name    string
		desired Desired
		want    []netip.AddrPort
	}{
		{"auto", Desired{Port: port}, []netip.AddrPort{mapped, host(public6)}},
		{"auto, with endpoints", Desired{Port: port, Endpoints: set}, []netip.AddrPort{set[1], mapped, set[0], host(public6)}},
		{"always", Desired{Port: port, Mode: Always}, []netip.AddrPort{host(private), mapped, host(public6)}},
		{"always, with endpoints", Desired{Port: port, Mode: Always, Endpoints: set}, []netip.AddrPort{set[1], mapped, set[0], host(public6)}},
		{"never", Desired{Port: port, Mode: Never, Endpoints: set, MapTCP: true}, nil},
		{"no socket", Desired{}, []netip.AddrPort{mapped}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, router)
				w.public(2)
				w.home.set(func() { w.home.hosts = []netip.Addr{private, public6} })
				w.home.mapper.maps(mapped)
				w.home.run()
				w.home.Set(tt.desired)
				after(0)
				got := w.home.Snapshot()
				if !slices.Equal(got.Usable, tt.want) {
					t.Errorf("got %v, want %v", got.Usable, tt.want)
				}
				never := tt.desired.Mode == Never
				wanted := portmap.Wanted{Port: tt.desired.Port, TCP: tt.desired.MapTCP}
				if never {
					wanted = portmap.Wanted{}
				}
				if asked := w.home.mapper.wanted; !slices.Equal(asked, []portmap.Wanted{wanted}) {
					t.Errorf("got routers told %+v, want %+v", asked, wanted)
				}
				if never != (len(got.Routers)+len(got.External)+len(got.TCPMapped) == 0) || never != (got.PortMapping == natkind.PortMappingOff) {
					t.Errorf("got %+v, want routers asked: %v", got, !never)
				}
				// Tests that fail say nothing against an anchor by setting.
				d := w.helped(tt.desired)
				d.Port = tt.desired.Port
				w.home.Set(d)
				after(time.Minute)
				var left []netip.AddrPort
				if tt.desired.Mode == Always {
					left = tt.want
				} else if tt.desired.Mode == Auto {
					left = slices.DeleteFunc(slices.Clone(tt.want), func(a netip.AddrPort) bool { return w.home.state(a) != reach.Untested })
				}
				if got := w.home.Snapshot().Usable; !slices.Equal(got, left) {
					t.Errorf("got %v after the tests, want %v", got, left)
				}
			})
		})
	}
}

// TestModeChanges: a node that is no anchor any more withdraws its addresses at once.
func TestModeChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, open)
		w.public(2)
		w.home.run()
		w.home.Set(w.helped(Desired{}))
		after(time.Second)
		w.home.news()
		w.home.Set(w.helped(Desired{Mode: Never}))
		after(0)
		if got := w.home.Snapshot(); len(got.Usable)+len(got.Reach) != 0 || !w.home.news() {
			t.Errorf("got %+v, want nothing announced or tested, and an event", got)
		}
		tests := w.home.sentOf(versionDialBack)
		after(time.Hour)
		if got := w.home.sentOf(versionDialBack); got != tests {
			t.Errorf("got %d tests more, want none", got-tests)
		}
	})
}

func TestAtMostSixAreAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, router)
		w.home.run()
		all := addrs("203.0.113.8:1", "203.0.113.7:1", "203.0.113.6:1", "203.0.113.5:1", "203.0.113.4:1", "203.0.113.3:1", "203.0.113.3:1", "203.0.113.2:1")
		given := slices.Clone(all)
		w.home.Set(Desired{Port: port, Endpoints: all})
		after(0)
		want := addrs("203.0.113.2:1", "203.0.113.3:1", "203.0.113.4:1", "203.0.113.5:1", "203.0.113.6:1", "203.0.113.7:1")
		if got := w.home.Snapshot().Usable; !slices.Equal(got, want) || !slices.Equal(all, given) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// TestARouterMapsThePort takes a real Mapper: the address is tested as soon as the router has given it.
func TestARouterMapsThePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, router)
		w.public(2)
		box, mapper := homeRouter()
		w.home.o.Mapper = mapper
		w.tasks.Go(func() { mapper.Run(w.ctx) })
		w.home.run()
		w.home.Set(w.helped(Desired{MapTCP: true}))
		after(time.Minute)
		if got := w.home.Snapshot(); got.PortMapping != natkind.PortMappingAbsent || len(got.External) != 0 || len(got.Reach) != 0 || !w.home.news() {
			t.Fatalf("got %+v, want a router that maps nothing, and nothing to test", got)
		}
		box.speak()
		w.net.Forward(port)
		mapper.Changed()
		after(0)
		got := w.home.Snapshot()
		if !slices.Equal(got.External, []netip.AddrPort{outside}) || len(got.TCPMapped) != 1 || got.PortMapping != natkind.PortMapped || !slices.Equal(got.Usable, got.External) || !w.home.news() {
			t.Fatalf("got %+v, want the mapped address at once, and an event", got)
		}
		if self, _ := w.home.Self(); self.PortMapping != natkind.PortMapped {
			t.Errorf("got %+v to be told to peers, want the port mapped", self)
		}
		after(roundTrip)
		if got := w.home.state(outside); got != reach.Reachable {
			t.Errorf("got the mapped address %s, want %s", got, reach.Reachable)
		}
		w.home.Set(w.helped(Desired{Mode: Never}))
		after(time.Second)
		if left := box.Entries(); len(left) != 0 {
			t.Errorf("got %+v left at the router of a node that is never an anchor, want nothing", left)
		}
	})
}
