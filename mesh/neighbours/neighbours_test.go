package neighbours

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/nat/beacon"
	"warren/nat/beacon/beacontest"
	"warren/nat/netwatch"
)

func TestMembersFindEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := beacontest.New()
		a, b := start(t, lan, 1), start(t, lan, 2)
		time.Sleep(time.Hour)
		if got := len(lan.Sent()) + len(a.asked()); got != 0 {
			t.Errorf("got %d beacons and look-ups of links before the first Set, want none", got)
		}
		a.set(nil)
		b.set(nil)
		for _, tt := range []struct {
			m    *machine
			want string
		}{{a, "2 10.0.0.2:9277"}, {b, "1 10.0.0.1:9277"}} {
			if got := tt.m.contacts(200 * time.Millisecond); got != tt.want || !tt.m.news() {
				t.Errorf("got %q, want %q, and an event", got, tt.want)
			}
		}
		b.set(nil)
		if a.contacts(time.Minute); a.news() || b.news() {
			t.Error("got an event while nothing changed")
		}
		// Another address is news.
		b.mu.Lock()
		b.links = []netwatch.Link{linkOf(22)}
		b.mu.Unlock()
		b.set(func(d *Desired) { d.Network++ })
		if got, want := a.contacts(200*time.Millisecond), "2 10.0.0.22:9277, 2 10.0.0.2:9277"; got != want || !a.news() {
			t.Errorf("got %q, want %q, and an event", got, want)
		}
	})
}

// A neighbour is forgotten five minutes after its last beacon, but not while there is a session with it.
func TestNeighboursAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := beacontest.New()
		a, b, c := start(t, lan, 1), start(t, lan, 2), start(t, lan, 3)
		a.set(func(d *Desired) { d.Sessions = up(3) })
		c.set(nil)
		time.Sleep(3 * time.Second)
		c.stop()
		var last time.Time // of b's beacons: nobody else speaks to the group now
		lan.Drop(func(s beacon.Send) bool {
			if s.Group != 0 {
				last = time.Now()
			}
			return false
		})
		b.set(nil)
		both := "2 10.0.0.2:9277, 3 10.0.0.3:9277"
		if got := a.contacts(3 * time.Second); got != both || !a.news() {
			t.Fatalf("got %q, want %q", got, both)
		}
		b.stop()
		lan.Drop(nil)
		left := time.Until(last.Add(hold))
		if got := a.contacts(left - 1); got != both || a.news() {
			t.Errorf("got %q just before the time, want %q", got, both)
		}
		if got, want := a.contacts(1), "3 10.0.0.3:9277"; got != want || !a.news() {
			t.Errorf("got %q at the time, want %q, and an event", got, want)
		}
		if got, want := a.contacts(time.Hour), "3 10.0.0.3:9277"; got != want || a.news() {
			t.Errorf("got %q with a session, want %q", got, want)
		}
		a.set(func(d *Desired) { d.Sessions = nil })
		if got := a.contacts(0); got != "" || !a.news() {
			t.Errorf("got %q after the session, want nobody, and an event", got)
		}
	})
}

// The kernel is asked once a minute and at a change of the network, and nobody waits for it.
func TestLinksAreReadOffEverybodysLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(t, beacontest.New(), 1)
		a.slow = 5 * time.Second
		for range 3 {
			a.set(nil)
		}
		if took := time.Since(a.start); took != 0 {
			t.Errorf("Set took %s, want no waiting", took)
		}
		time.Sleep(3 * time.Minute)
		if got, want := a.asked(), []string{"0s", "1m5s", "2m10s"}; !slices.Equal(got, want) {
			t.Errorf("got links read at %v, want %v", got, want)
		}
		a.mu.Lock()
		a.slow = 0
		a.mu.Unlock()
		a.set(func(d *Desired) { d.Network = 9 })
		a.set(nil)
		time.Sleep(90 * time.Second)
		if got, want := a.asked(), []string{"3m0s", "4m0s"}; !slices.Equal(got, want) {
			t.Errorf("got links read at %v, want %v: at the change, and in turn from then on", got, want)
		}
		a.set(func(d *Desired) { d.Off = true })
		time.Sleep(time.Hour)
		if got := a.asked(); len(got) != 0 {
			t.Errorf("got links read at %v while off, want never", got)
		}
		a.set(func(d *Desired) { d.Off = false })
		if got, want := a.asked(), []string{"1h4m30s"}; !slices.Equal(got, want) {
			t.Errorf("got links read at %v, want %v: at once", got, want)
		}
	})
}

func TestOffIsSilentAndDeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := beacontest.New()
		a, b := start(t, lan, 1), start(t, lan, 2)
		a.set(func(d *Desired) { d.Off = true })
		b.set(nil)
		if got := a.contacts(time.Minute) + b.contacts(0); got != "" {
			t.Errorf("got %q, want nobody heard", got)
		}
		for _, s := range lan.Sent() {
			if s.From.Addr() == netip.MustParseAddr("10.0.0.1") {
				t.Fatal("got a beacon of one that is off")
			}
		}
		// What is heard within a hold is dialled, also when off from then on.
		a.set(func(d *Desired) { d.Off = false })
		a.contacts(time.Minute)
		a.set(func(d *Desired) { d.Off = true })
		before := len(lan.Sent())
		b.stop()
		if got, want := a.contacts(time.Minute), "2 10.0.0.2:9277"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := a.contacts(hold); got != "" {
			t.Errorf("got %q after %s, want nobody", got, hold)
		}
		if got := len(lan.Sent()) - before; got != 0 {
			t.Errorf("got %d beacons of one that is off", got)
		}
	})
}

// Neighbours are asked as often as the sessions call for: with an anchor none but the first three.
func TestSessionsSayHowMuchIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := beacontest.New()
		a := start(t, lan, 1)
		a.desired.Members = slices.Clone(a.desired.Members)
		a.desired.Members[4] = testMember(5, "203.0.113.5:9277")
		sent := func(d map[identity.NodeID]netip.AddrPort, wait time.Duration) int {
			before := len(lan.Sent())
			a.set(func(desired *Desired) { desired.Sessions = d })
			time.Sleep(wait)
			return len(lan.Sent()) - before
		}
		sent(nil, time.Hour)
		if got := sent(nil, time.Hour); got < 100 || got > 170 {
			t.Errorf("alone: got %d beacons in an hour, want about two a minute", got)
		}
		if got := sent(up(5), time.Hour); got > 1 {
			t.Errorf("with an anchor: got %d beacons, want none but one that was due", got)
		}
		if got := sent(up(3), time.Hour); got < 45 || got > 85 {
			t.Errorf("with another member: got %d beacons in an hour, want about one a minute", got)
		}
	})
}

// A joiner finds a member by an invite that is open, until it is used up.
func TestJoinersAreAnsweredWhileTheInviteIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := beacontest.New()
		a := start(t, lan, 1)
		invite := Invite{ID: identity.KeyID{1}, Uses: 1, Expires: time.Now().Add(30 * time.Minute)}
		a.set(func(d *Desired) { d.Invites = []Invite{invite} })
		found := func() int {
			joiner := beacon.New(beacon.Options{Network: lan.Network(1)})
			joiner.Set(beacon.State{
				Links: []beacon.Link{{Index: 1, Name: "eth0", Prefixes: linkOf(9).Prefixes}}, Invites: []beacon.Key{beacon.InviteKey(meshID, invite.ID)}, Need: beacon.Alone,
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := joiner.Run(ctx); err != nil {
				t.Fatal(err)
			}
			return len(joiner.Found())
		}
		if got := found(); got == 0 {
			t.Error("got no answer while the invite is open")
		}
		time.Sleep(31 * time.Minute) // nobody says that it has expired
		if got := found(); got != 0 {
			t.Errorf("got %d answers for an invite that has expired", got)
		}
		invite.Expires = time.Now().Add(time.Hour)
		a.set(func(d *Desired) { d.Invites = []Invite{invite} })
		if got := found(); got == 0 {
			t.Error("got no answer for the invite that holds longer now")
		}
		invite.Used = 1
		a.set(func(d *Desired) { d.Invites = []Invite{invite} })
		if got := found(); got != 0 {
			t.Errorf("got %d answers for an invite that is used up", got)
		}
	})
}

func TestClocksThatDifferAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := beacontest.New()
		b := start(t, lan, 2)
		b.set(nil)
		time.Sleep(10 * time.Second)
		b.stop()
		old := lan.Sent()
		time.Sleep(beacon.Window + time.Minute) // so that what b said is what one with a slow clock says
		a := start(t, lan, 1)
		a.set(func(d *Desired) { d.Sessions = up(3) })
		time.Sleep(10 * time.Second)
		replay := func(old []beacontest.Seen) {
			for _, s := range old {
				lan.Inject(s.From, s.Raw)
			}
			synctest.Wait()
		}
		replay(old[:1])
		if got := a.Snapshot().Trouble; got != "" || a.news() {
			t.Errorf("got trouble %q at once, want it looked for once a minute", got)
		}
		time.Sleep(50 * time.Second)
		if got := a.Snapshot().Trouble; !a.news() {
			t.Errorf("got trouble %q and no event after a minute", got)
		}
		if got, want := a.Snapshot().Trouble, "clock that is more than 5 minutes off"; !strings.Contains(got, want) {
			t.Errorf("got trouble %q, want %q", got, want)
		}
		if got := a.contacts(time.Minute - 1); got != "" || a.Snapshot().Trouble == "" {
			t.Errorf("got contacts %q and trouble %q, want nobody, and the trouble kept for a minute", got, a.Snapshot().Trouble)
		}
		time.Sleep(time.Nanosecond)
		if got := a.Snapshot().Trouble; !a.news() || a.Snapshot().Trouble != "" {
			t.Errorf("got trouble %q after a minute without such a beacon, want it taken back", got)
		}
		if a.Dropped()[beacon.ClocksDiffer] == 0 {
			t.Errorf("got drops %v, want them counted", a.Dropped())
		}
		replay(old[1:]) // each counts once
		a.set(func(d *Desired) { d.Network++ })
		if a.news(); a.Snapshot().Trouble == "" {
			t.Error("got no trouble at the change of the network")
		}
		a.set(func(d *Desired) { d.Off = true })
		if a.news(); a.Snapshot().Trouble != "" {
			t.Error("got trouble with what is off")
		}
	})
}

// The tunnel must not run through itself: overlay addresses on a link are none of a neighbour.
func TestOverlayAddressesAreLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := beacontest.New()
		a, b := start(t, lan, 1), start(t, lan, 2)
		more := []string{"100.70.0.2/16", "fd77::2/64", "fd00::2/64"}
		a.links, b.links = []netwatch.Link{linkOf(1, "100.70.0.1/16", "fd77::1/64", "fd00::1/64")}, []netwatch.Link{linkOf(2, more...)}
		a.set(nil)
		b.set(nil)
		if got, want := a.contacts(time.Second), "2 10.0.0.2:9277, 2 [fd00::2]:9277"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// told makes a node that knows members 2 to 9 and is fed by hand.
func told(t *testing.T, d Desired) *Neighbours {
	n, err := New(Options{Self: id(1), Host: &machine{t: t}})
	if err != nil {
		t.Fatal(err)
	}
	n.links = []beacon.Link{{Index: 1, Prefixes: linkOf(1).Prefixes}}
	n.stale = time.Now().Add(time.Hour)
	n.Set(d)
	return n
}

func at(a, b byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, a, b}), 9277)
}

// Whoever knows the secret can make up nodes, at the ring's places of its choice and at addresses of its choice, before and after the real ones
// speak. The members are heard and dialled all the same, and few others.
func TestMadeUpNodesTakeNoPlaces(t *testing.T) {
	var members []roster.Member
	for n := range byte(9) {
		members = append(members, testMember(n+1))
	}
	n := told(t, Desired{Members: members})
	flood := func(from int) {
		for i := range 1000 {
			n.hear(beacon.Found{ID: identity.NodeID{1, 0, byte(i >> 8), byte(i), byte(from)}, Addrs: []netip.AddrPort{at(99, 53)}})
		}
	}
	flood(0)
	for m := byte(2); m < 10; m++ {
		n.hear(beacon.Found{ID: id(m), Addrs: []netip.AddrPort{at(0, m)}})
	}
	flood(1)
	if got := len(n.heard); got != 8+maxStrangers {
		t.Errorf("got %d remembered, want the 8 members and %d others", got, maxStrangers)
	}
	n.follow()
	dialled, madeUp := make(map[identity.NodeID]bool), 0
	for _, c := range n.Snapshot().Contacts {
		dialled[c.ID] = true
		if c.Addr == at(99, 53) {
			madeUp++
		}
	}
	for m := byte(2); m < 10; m++ {
		if !dialled[id(m)] {
			t.Errorf("member %d is not dialled", m)
		}
	}
	if madeUp != maxUnknown {
		t.Errorf("got %d made-up ones dialled, want %d", madeUp, maxUnknown)
	}
}

// A node that has lost its records knows nobody. Among made-up nodes a real one comes to its turn, since those that are dialled change.
func TestUnknownNeighboursTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := told(t, Desired{})
		rounds := 0
		for real := false; !real; rounds++ {
			for i := range 1000 {
				n.hear(beacon.Found{ID: identity.NodeID{1, 0, byte(i >> 8), byte(i)}, Addrs: []netip.AddrPort{at(99, 53)}})
			}
			n.hear(beacon.Found{ID: id(2), Addrs: []netip.AddrPort{at(0, 2)}})
			n.stale = time.Time{}
			n.follow()
			all := n.Snapshot().Contacts
			if len(all) != maxDialled {
				t.Fatalf("got %d dialled, want %d", len(all), maxDialled)
			}
			real = slices.Contains(all, Contact{ID: id(2), Addr: at(0, 2)})
			if rounds > 100 { // each time half of those that are remembered are dialled
				t.Fatal("the real one was never dialled")
			}
		}
	})
}

// Beacons in another's name, however many, take away neither what a session proved nor, at once, what that one's own beacon told.
func TestBeaconsInAnothersName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		members := []roster.Member{testMember(1), testMember(2), testMember(3)}
		n := told(t, Desired{Members: members})
		addrs := func(m byte) (out []netip.AddrPort) {
			n.follow()
			for _, c := range n.Snapshot().Contacts {
				if c.ID == id(m) {
					out = append(out, c.Addr)
				}
			}
			return out
		}
		n.hear(beacon.Found{ID: id(2), Addrs: []netip.AddrPort{at(0, 2)}})
		n.hear(beacon.Found{ID: id(3), Addrs: []netip.AddrPort{at(0, 3)}})
		n.hear(beacon.Found{ID: id(3), Addrs: []netip.AddrPort{at(66, 6)}})
		if got := addrs(3); !slices.Equal(got, []netip.AddrPort{at(66, 6), at(0, 3)}) {
			t.Errorf("heard twice: got %v, want both, the latest first", got)
		}
		n.Set(Desired{Members: members, Sessions: map[identity.NodeID]netip.AddrPort{id(2): at(0, 2), id(3): netip.MustParseAddrPort("203.0.113.3:9277")}})
		n.follow()
		n.Set(Desired{Members: members})
		for i := range byte(200) {
			n.hear(beacon.Found{ID: id(2), Addrs: []netip.AddrPort{at(66, i)}})
			n.hear(beacon.Found{ID: id(3), Addrs: []netip.AddrPort{at(66, i)}})
		}
		if got := addrs(2); len(got) != 1+maxAddrs || got[0] != at(0, 2) {
			t.Errorf("after a session: got %v, want its address first, and the latest %d", got, maxAddrs)
		}
		if got := addrs(3); len(got) != maxAddrs || got[0] != at(66, 199) {
			t.Errorf("after a session elsewhere: got %v, want the latest %d", got, maxAddrs)
		}
		time.Sleep(hold)
		if got := addrs(2); len(got) != 0 {
			t.Errorf("after the hold: got %v, want it forgotten", got)
		}
	})
}

// However many members there are, how many are remembered and dialled is bounded.
func TestNeighboursAreBounded(t *testing.T) {
	var members []roster.Member
	for i := range 2 * maxHeard {
		members = append(members, roster.Member{ID: identity.NodeID{2, byte(i >> 8), byte(i)}})
	}
	n := told(t, Desired{Members: members})
	for i, m := range members {
		n.hear(beacon.Found{ID: m.ID, Addrs: []netip.AddrPort{at(byte(i>>8), byte(i))}})
	}
	n.hear(beacon.Found{ID: id(1), Addrs: []netip.AddrPort{at(0, 1)}}) // this node
	if got := len(n.heard); got != maxHeard {
		t.Errorf("got %d remembered, want %d", got, maxHeard)
	}
	n.follow()
	if got := len(n.Snapshot().Contacts); got != maxDialled {
		t.Errorf("got %d to dial, want %d", got, maxDialled)
	}
}

func TestNewAndRunCheckTheirUse(t *testing.T) {
	if _, err := New(Options{Self: id(1)}); err == nil {
		t.Error("got no error without Host")
	}
	if _, err := New(Options{Host: &machine{}}); err == nil {
		t.Error("got no error without Self")
	}
	synctest.Test(t, func(t *testing.T) {
		m := start(t, beacontest.New(), 1)
		synctest.Wait()
		if err := m.Run(t.Context()); err == nil {
			t.Error("got no error from a second Run")
		}
	})
}

func TestNamesInTheLog(t *testing.T) {
	named := testMember(1)
	named.Name = "laptop"
	members := []roster.Member{named, testMember(2)}
	for n, want := range map[byte]string{1: "laptop", 2: id(2).Short(), 3: id(3).Short()} {
		if got := nameOf(members, id(n)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
