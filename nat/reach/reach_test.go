package reach

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"warren/mesh/identity"
)

var (
	here     = netip.MustParseAddrPort("203.0.113.1:9277")
	six      = netip.MustParseAddrPort("[2001:db8::1]:9277")
	far      = Helper{ID: identity.NodeID{1}, Addr: netip.MustParseAddr("198.51.100.1")}
	farther  = Helper{ID: identity.NodeID{2}, Addr: netip.MustParseAddr("198.51.100.2")}
	sameLAN  = Helper{ID: identity.NodeID{3}, Addr: netip.MustParseAddr("192.168.1.7")}
	sameHome = Helper{ID: identity.NodeID{4}, Addr: here.Addr()}
)

func newMachine(addrs ...netip.AddrPort) (*Machine, time.Time) {
	n := byte(0)
	m := New(func() [12]byte { n++; return [12]byte{n} })
	now := time.Unix(1_800_000_000, 0)
	m.SetCandidates(now, addrs)
	return m, now
}

// one expects exactly one test and returns it.
func one(t *testing.T, m *Machine, now time.Time) Ask {
	t.Helper()
	asks, _ := m.Step(now)
	if len(asks) != 1 {
		t.Fatalf("got tests %v, want one", asks)
	}
	return asks[0]
}

func state(t *testing.T, m *Machine, want State) {
	t.Helper()
	if got := m.Snapshot()[0].State; got != want {
		t.Fatalf("got state %s, want %s", got, want)
	}
}

func TestReachedThenLost(t *testing.T) {
	m, now := newMachine(here)
	if asks, wake := m.Step(now); len(asks) != 0 || !wake.IsZero() {
		t.Fatalf("got %v, %v without a helper, want nothing to do", asks, wake)
	}
	if got := m.Usable(); len(got) != 1 {
		t.Fatalf("got %v, want an address that nobody could test to be used", got)
	}
	m.SetHelpers([]Helper{far, farther})
	ask := one(t, m, now)
	if m.Seen(now, [12]byte{99}) {
		t.Fatal("a transaction that was not asked for counted")
	}
	if !m.Seen(now, ask.ID) {
		t.Fatal("the answer did not count")
	}
	state(t, m, Reachable)
	if m.Seen(now, ask.ID) {
		t.Fatal("one answer counted twice")
	}

	// From now on nothing arrives: known within a minute, after three tests by two helpers.
	start, asked := now, map[identity.NodeID]int{}
	for {
		asks, wake := m.Step(now)
		for _, a := range asks {
			asked[a.Helper]++
		}
		if m.Snapshot()[0].State != Reachable {
			break
		}
		now = wake
	}
	state(t, m, Unreachable)
	if took := now.Sub(start); took > time.Minute || asked[far.ID]+asked[farther.ID] != tries || len(asked) != 2 {
		t.Fatalf("loss known after %s with tests %v, want a minute at most and %d tests by two helpers", took, asked, tries)
	}
	if got := m.Usable(); len(got) != 0 {
		t.Fatalf("got %v, want no address to be used", got)
	}

	m.NetworkChanged()
	state(t, m, Unreachable)
	m.Seen(now, one(t, m, now).ID)
	state(t, m, Reachable)
}

func TestOnlyMembersElsewhereHelp(t *testing.T) {
	m, now := newMachine(here)
	m.SetHelpers([]Helper{sameLAN, sameHome})
	if asks, _ := m.Step(now); len(asks) != 0 {
		t.Fatalf("got %v: a neighbour behind the same router proves nothing", asks)
	}
	m.SetHelpers([]Helper{sameLAN, sameHome, far})
	if ask := one(t, m, now); ask.Helper != far.ID {
		t.Fatalf("got helper %v, want %v", ask.Helper, far.ID)
	}
}

func TestOtherFamilyIsAskedLast(t *testing.T) {
	m, now := newMachine(six)
	v6 := Helper{ID: identity.NodeID{6}, Addr: netip.MustParseAddr("2001:db8:1::1")}
	m.SetHelpers([]Helper{far, v6})
	if ask := one(t, m, now); ask.Helper != v6.ID {
		t.Fatalf("got helper %v, want the one with IPv6", ask.Helper)
	}
	m, now = newMachine(six)
	m.SetHelpers([]Helper{far})
	if ask := one(t, m, now); ask.Helper != far.ID {
		t.Fatalf("got helper %v, want the only one", ask.Helper)
	}
}

func TestCandidatesKeepWhatIsKnown(t *testing.T) {
	m, now := newMachine(here)
	m.SetHelpers([]Helper{far})
	m.Seen(now, one(t, m, now).ID)
	m.SetCandidates(now, []netip.AddrPort{here, six, here})
	list := m.Snapshot()
	if len(list) != 2 || list[0].State != Reachable || list[1].State != Untested {
		t.Fatalf("got %v, want the old one reachable and the new one untested", list)
	}
	m.SetCandidates(now, nil)
	if len(m.Snapshot()) != 0 || len(m.Usable()) != 0 {
		t.Fatal("an address that is gone is still there")
	}
}

// A founder with both families whose first members have IPv6 only: they cannot tell about its IPv4 address.
func TestHelperWithoutTheFamilyIsNoEvidence(t *testing.T) {
	m, now := newMachine(here)
	one6 := Helper{ID: identity.NodeID{6}, Addr: netip.MustParseAddr("2001:db8:1::1")}
	two6 := Helper{ID: identity.NodeID{7}, Addr: netip.MustParseAddr("2001:db8:1::2")}
	m.SetHelpers([]Helper{one6, two6})
	for range 2 {
		ask := one(t, m, now)
		if m.Unable(now, far.ID, ask.ID) {
			t.Fatal("the word of one who was not asked counted")
		}
		if !m.Unable(now, ask.Helper, ask.ID) {
			t.Fatal("the word of the helper did not count")
		}
	}
	for range 20 {
		if asks, _ := m.Step(now); len(asks) != 0 {
			t.Fatalf("got %v, want nobody asked who has said to be unable", asks)
		}
		now = now.Add(10 * time.Second)
	}
	state(t, m, Untested)
	if got := m.Usable(); len(got) != 1 {
		t.Fatalf("got %v, want the address to be used", got)
	}
	m.SetHelpers([]Helper{one6, two6, far})
	ask := one(t, m, now)
	if ask.Helper != far.ID {
		t.Fatalf("got helper %v, want the one with IPv4", ask.Helper)
	}
	m.Seen(now, ask.ID)
	state(t, m, Reachable)
}

// Helpers that have said to be unable are asked again some minutes later, if nothing else happens: an address is not left untested, or with
// what was once known of it, for as long as nobody new comes.
func TestUnableHelpersAreAskedAgain(t *testing.T) {
	for _, known := range []bool{false, true} {
		m, now := newMachine(here)
		one6 := Helper{ID: identity.NodeID{6}, Addr: netip.MustParseAddr("2001:db8:1::1")}
		m.SetHelpers([]Helper{one6})
		if known {
			m.Seen(now, one(t, m, now).ID)
			now = now.Add(Recheck)
		}
		m.Unable(now, one6.ID, one(t, m, now).ID)
		asks, wake := m.Step(now)
		if len(asks) != 0 || !wake.Equal(now.Add(retest)) {
			t.Fatalf("known %t: got %v and to be woken at %v, want nothing before %v", known, asks, wake, now.Add(retest))
		}
		if ask := one(t, m, wake); ask.Helper != one6.ID {
			t.Errorf("known %t: got helper %v", known, ask.Helper)
		}
		// One that can never help is not waited for.
		m.SetHelpers([]Helper{{ID: identity.NodeID{7}, Addr: netip.MustParseAddr("192.168.1.7")}})
		m.NetworkChanged()
		if _, wake := m.Step(wake.Add(time.Hour)); !wake.IsZero() {
			t.Errorf("known %t: got to be woken at %v for helpers on the LAN", known, wake)
		}
	}
}

// An address that was reachable before its line was cut is announced soon after the line is mended; one that never was is left
// alone for minutes.
func TestLostAddressIsTriedSoon(t *testing.T) {
	for _, reachedBefore := range []bool{true, false} {
		m, now := newMachine(here)
		m.SetHelpers([]Helper{far, farther})
		if reachedBefore {
			m.Seen(now, one(t, m, now).ID)
		}
		rounds := 0
		for start := now; now.Sub(start) < 2*time.Minute; { // nothing arrives
			asks, wake := m.Step(now)
			rounds += len(asks)
			now = wake
		}
		state(t, m, Unreachable)
		for mended := now; m.Snapshot()[0].State != Reachable; {
			asks, wake := m.Step(now)
			for _, a := range asks {
				m.Seen(now, a.ID)
			}
			if wait := wake.Sub(mended); m.Snapshot()[0].State != Reachable && wait > time.Minute {
				if reachedBefore {
					t.Errorf("the next test after %v, want one within a minute", wait)
				}
				break
			}
			now = wake
		}
		if !reachedBefore && rounds != tries {
			t.Errorf("got %d tests of an address that never was reachable, want %d", rounds, tries)
		}
	}
}

// judged runs a machine for a while, with helpers that speak the truth but for one, and returns how long it said each thing.
func judged(reachable bool, honest int, lasts time.Duration) (said map[State]time.Duration, tests int) {
	m, now := newMachine(here, six)
	liar := Helper{ID: identity.NodeID{9}, Addr: netip.MustParseAddr("198.51.100.9")}
	helpers := []Helper{liar}
	for i := range honest {
		helpers = append(helpers, Helper{ID: identity.NodeID{byte(10 + i)}, Addr: netip.AddrFrom4([4]byte{198, 51, 100, byte(10 + i)})})
	}
	m.SetHelpers(helpers)
	said = make(map[State]time.Duration)
	for end := now.Add(lasts); now.Before(end); {
		asks, wake := m.Step(now)
		tests += len(asks)
		seen := false
		for _, a := range asks {
			if (a.Helper == liar.ID) != reachable {
				seen = m.Seen(now, a.ID) || seen
			}
		}
		if seen {
			continue // what is due now may be earlier
		}
		said[m.Snapshot()[0].State] += wake.Sub(now)
		now = wake
	}
	return said, tests
}

// One helper that lies is outvoted by two that do not, whichever way it lies. Alone against one it may have an address announced at
// which nobody gets through, and never takes one away that is reached.
func TestLyingHelper(t *testing.T) {
	const lasts = time.Hour
	for _, tt := range []struct {
		reachable bool
		honest    int
		wrong     time.Duration // at most
	}{
		{true, 1, 0}, {true, 2, 0}, {true, 5, 0},
		{false, 2, 50 * time.Second}, {false, 5, 50 * time.Second}, // until the address is looked at once more
	} {
		said, tests := judged(tt.reachable, tt.honest, lasts)
		wrong := said[Unreachable]
		if !tt.reachable {
			wrong = said[Reachable]
		}
		if wrong > tt.wrong {
			t.Errorf("reachable %v, %d honest helpers: got %v, want it wrong for %s at most", tt.reachable, tt.honest, said, tt.wrong)
		}
		if tests > 1200 {
			t.Errorf("reachable %v, %d honest helpers: got %d tests in an hour, want 1,200 at most", tt.reachable, tt.honest, tests)
		}
	}
}

// Once an address is reached again, those that say so need be no more than those that last said otherwise.
func TestReachedAgainByOthers(t *testing.T) {
	m, now := newMachine(here)
	var helpers []Helper
	for i := range byte(6) {
		helpers = append(helpers, Helper{ID: identity.NodeID{i}, Addr: netip.AddrFrom4([4]byte{198, 51, 100, i})})
	}
	m.SetHelpers(helpers)
	for end := now.Add(10 * time.Minute); now.Before(end); {
		_, now = m.Step(now)
	}
	state(t, m, Unreachable)
	m.NetworkChanged()
	if !m.Seen(now, one(t, m, now).ID) {
		t.Fatal("the answer did not count")
	}
	state(t, m, Reachable)
}

// Two members that lie have let in four each, who lie alike. Whether they send nothing from the beginning or have helped before,
// and whoever is asked first, an address that honest helpers reach is never taken for lost; and one that is lost is known to be
// within a minute.
func TestMadeUpHelpers(t *testing.T) {
	lies := func(id identity.NodeID) bool { return id[0] >= 100 }
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		var helpers []Helper
		add := func(id byte, voice byte) {
			helpers = append(helpers, Helper{identity.NodeID{id}, netip.AddrFrom4([4]byte{198, 51, 100, id}), identity.NodeID{voice}})
		}
		for i := range byte(2 + seed%5) {
			add(10+i, 10+i)
		}
		for liar := byte(100); liar < 102; liar++ {
			add(liar, liar)
			for i := range byte(4) {
				add(liar*2+i*8-50, liar)
			}
		}
		random.Shuffle(len(helpers), func(i, j int) { helpers[i], helpers[j] = helpers[j], helpers[i] })
		m, now := newMachine(here)
		m.SetHelpers(helpers)
		turns := now
		if seed%2 == 0 {
			turns = now.Add(time.Duration(random.Int64N(int64(20 * time.Minute))))
		}
		lost := now.Add(time.Hour)
		tests := 0
		for now.Before(lost.Add(time.Minute)) {
			asks, wake := m.Step(now)
			tests += len(asks)
			for _, a := range asks {
				if now.Before(lost) && (!lies(a.Helper) || now.Before(turns)) {
					m.Seen(now, a.ID)
					_, wake = m.Step(now)
				}
			}
			if m.Snapshot()[0].State == Unreachable && now.Before(lost) {
				t.Fatalf("seed %d: unreachable %v after the start, which it was not", seed, now.Sub(lost.Add(-time.Hour)))
			}
			now = wake
		}
		if tests > 400 {
			t.Errorf("seed %d: got %d tests in an hour, want 400 at most", seed, tests)
		}
		state(t, m, Unreachable)
	}
}
