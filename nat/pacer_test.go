package nat

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/nat/path"
)

// Checks leave in the order of what most likely works, whatever the order in which the agent has them.
func TestPacerOrder(t *testing.T) {
	now := time.Unix(1e9, 0)
	at := netip.MustParseAddrPort
	near := func(mapped string) neighbourhood {
		return neighbourhood{hosts: []netip.Addr{netip.MustParseAddr("192.168.1.5"), netip.MustParseAddr("2001:db8:1:2::5")}, mapped: []netip.Addr{netip.MustParseAddr(mapped)}}
	}
	host := func(a string, rank int) path.Candidate { return path.NewCandidate(path.Host, at(a), rank) }
	mapped := func(a string) path.Candidate { return path.NewCandidate(path.ServerReflexive, at(a), 0) }
	for _, test := range []struct {
		name       string
		near       neighbourhood
		candidates []path.Candidate
		want       []string
	}{
		{
			"elsewhere", near("198.51.100.1"),
			[]path.Candidate{host("10.0.0.7:1", 0), host("172.17.0.1:1", 1), host("[2001:db8:9::7]:1", 2), mapped("203.0.113.7:1")},
			[]string{"[2001:db8:9::7]:1", "203.0.113.7:1", "10.0.0.7:1", "172.17.0.1:1"},
		},
		{
			"in the same network", near("198.51.100.1"),
			[]path.Candidate{mapped("203.0.113.7:1"), host("192.168.1.9:1", 0), host("[2001:db8:1:2::9]:1", 1)},
			[]string{"192.168.1.9:1", "[2001:db8:1:2::9]:1", "203.0.113.7:1"},
		},
		{
			"behind the same router", near("203.0.113.7"),
			[]path.Candidate{mapped("203.0.113.7:1"), host("10.0.0.7:1", 0), host("[2001:db8:9::7]:1", 1)},
			[]string{"10.0.0.7:1", "[2001:db8:9::7]:1", "203.0.113.7:1"},
		},
	} {
		q := newPacer(test.near, 0)
		q.named(test.candidates)
		for _, c := range test.candidates {
			if q.hold(now, []byte{1}, c.Addr, false) {
				t.Errorf("%s: got a first check to %s at once, want it to wait", test.name, c.Addr)
			}
		}
		var got []string
		for _, p := range q.due(now) {
			got = append(got, p.to.String())
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

// Repetitions become rarer, a check of the peer is answered by one at once, and to what has answered all goes at once.
func TestPacerTimes(t *testing.T) {
	begin := time.Unix(1e9, 0)
	q := newPacer(neighbourhood{}, 0)
	silent, late := netip.MustParseAddrPort("203.0.113.7:1"), netip.MustParseAddrPort("203.0.113.7:2")
	var left []time.Duration
	for now := begin; now.Before(begin.Add(6 * time.Second)); now = now.Add(checkInterval) {
		q.hold(now, []byte{1}, silent, false)
		for _, p := range q.due(now) {
			left = append(left, now.Sub(begin))
			q.leave(p, now, true)
		}
	}
	ms := func(list ...int) (out []time.Duration) {
		for _, n := range list {
			out = append(out, time.Duration(n)*time.Millisecond)
		}
		return out
	}
	if want := ms(0, 50, 100, 150, 250, 350, 550, 750, 1150, 1950, 2950, 3950, 4950, 5950); !slices.Equal(left, want) {
		t.Errorf("got checks at %v, want %v", left, want)
	}
	now := begin.Add(6 * time.Second)
	q.hold(now, []byte{1}, silent, false)
	q.hold(now, []byte{1}, late, false)
	q.heard(silent)
	if due := q.due(now); len(due) != 2 || due[0].to != silent {
		t.Errorf("got %v due, want first what the peer's check came from", due)
	}
	if spent := q.answered(silent); spent != 14 {
		t.Errorf("got %d checks spent on what answered, want 14", spent)
	}
	if !q.hold(now, []byte{2}, silent, false) {
		t.Error("got a check to what has answered held, want it to leave at once")
	}
	if due := q.due(now.Add(heldFor + 1)); len(due) != 0 {
		t.Errorf("got %v due that the agent has not renewed, want nothing", due)
	}
}

// Of what has answered the agent's checks leave at once, but not one for each that comes from there; where answers take long, nothing is repeated sooner
// than one to it may be here.
func TestPacerSpacing(t *testing.T) {
	begin, to := time.Unix(1e9, 0), netip.MustParseAddrPort("203.0.113.7:1")
	run := func(q *pacer, nominates bool) (left []time.Duration) {
		for now := begin; now.Before(begin.Add(time.Second)); now = now.Add(checkInterval) {
			if q.hold(now, []byte{1}, to, nominates) {
				left = append(left, now.Sub(begin)/time.Millisecond)
			}
			for _, p := range q.due(now) {
				left = append(left, now.Sub(begin)/time.Millisecond)
				q.leave(p, now, true)
			}
		}
		return left
	}
	for _, test := range []struct {
		name      string
		spacing   time.Duration
		answered  bool
		heard     bool
		nominates bool
		want      []time.Duration
	}{
		{name: "silent", spacing: 0, want: []time.Duration{0, 50, 100, 150, 250, 350, 550, 750}},
		{name: "silent, and answers take two seconds", spacing: 300 * time.Millisecond, want: []time.Duration{0, 300, 600, 900}},
		{name: "heard, and answers take two seconds", spacing: 300 * time.Millisecond, heard: true, want: []time.Duration{0, 300, 600, 900}},
		{name: "answered", answered: true, want: []time.Duration{0, 200, 400, 600, 800}},
		{name: "answered after two seconds", spacing: 300 * time.Millisecond, answered: true, want: []time.Duration{0, 300, 600, 900}},
		{name: "nominated after a second", spacing: 150 * time.Millisecond, answered: true, nominates: true, want: []time.Duration{0, 150, 300, 450, 600, 750, 900}},
	} {
		q := newPacer(neighbourhood{}, test.spacing)
		if test.heard {
			q.heard(to)
		}
		if test.answered {
			q.answered(to)
		}
		if got := run(q, test.nominates); !slices.Equal(got, test.want) {
			t.Errorf("%s: got checks after %v ms, want %v", test.name, got, test.want)
		}
	}
	q := newPacer(neighbourhood{}, 0)
	q.answered(to)
	if !q.hold(begin, []byte{1}, to, false) || !q.hold(begin, []byte{1}, to, true) || !q.hold(begin.Add(checkInterval), []byte{1}, to, true) {
		t.Error("a nomination waits for an echo, or for an answer of which nothing is known")
	}
}

func TestBudget(t *testing.T) {
	now := time.Unix(1e9, 0)
	peer := func(n int) identity.NodeID { return simID(n) }
	addr := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, byte(n >> 8), byte(n)}) }
	b := newBudget()
	for i := range 5 {
		want := granted
		if i == 4 {
			want = waits
		}
		if got := b.check(now, peer(1), addr(i), false, false); got != want {
			t.Errorf("check %d at once: got %d, want %d", i, got, want)
		}
	}
	if got := b.check(now.Add(checkInterval), peer(1), addr(9), false, false); got != granted {
		t.Errorf("50 ms later: got %d, want it granted", got)
	}
	// One host, whoever names it.
	b, count := newBudget(), 0
	for i := range 100 {
		if b.check(now, peer(i), addr(1), false, false) == granted {
			count++
		}
	}
	if count != 32 || b.check(now, peer(200), addr(1), false, false) != refused {
		t.Errorf("got %d checks to one host, want 32", count)
	}
	if b.check(now, peer(200), addr(1), true, true) != granted {
		t.Error("got no check in return for one that came, want it granted")
	}
	if b.check(now, peer(200), addr(2), true, false) != granted {
		t.Error("got no check to another host, want it granted")
	}
	// What answers is the mesh's.
	b.answered(now, peer(3), addr(1), 1)
	if got := b.check(now, peer(201), addr(1), false, false); got != granted {
		t.Errorf("after an answer: got %d, want it granted", got)
	}
	// One peer, whatever it names.
	b, count = newBudget(), 0
	for i := range 600 * 20 {
		if b.check(now.Add(time.Duration(i)*checkInterval), peer(1), addr(i), false, false) == granted {
			count++
		}
	}
	if want := 240 + 600; count < want-5 || count > want+5 {
		t.Errorf("got %d checks of one peer in ten minutes, want %d", count, want)
	}
	// All peers, whatever they name.
	b, count = newBudget(), 0
	for i := range 3000 {
		if b.check(now, peer(i), addr(i), i >= 2000, false) == granted {
			count++
		}
	}
	if count != 1000 {
		t.Errorf("got %d checks at once, want 1,000", count)
	}
	if b.check(now.Add(500*time.Millisecond), peer(4000), addr(4000), true, false) != refused {
		t.Error("got a repetition while half is left, want that kept for first checks")
	}
	if b.check(now.Add(500*time.Millisecond), peer(4000), addr(4000), false, false) != granted {
		t.Error("got no first check while half is left, want it granted")
	}
	// All is forgotten in the end.
	b.check(now.Add(time.Hour), peer(1), addr(1), false, false)
	if len(b.peers) != 1 || len(b.hosts) != 1 {
		t.Errorf("got %d peers and %d hosts kept after an hour, want one each", len(b.peers), len(b.hosts))
	}
	// Predicted ports.
	if b = newBudget(); !b.ports(now, addr(1), 256) || b.ports(now, addr(1), 1) || !b.ports(now.Add(time.Minute), addr(1), 12) {
		t.Error("got another bound of predicted ports than 256 and 12 a minute")
	}
	b.won(addr(1))
	if !b.ports(now.Add(time.Minute), addr(1), 256) {
		t.Error("got no ports after a direct path, want all")
	}
}

// Pacing costs honest peers nothing: with ten addresses each that lead nowhere, and on lines that lose packets, they connect as
// fast as without. Without pacing, in the same runs: 81 ms; with 30 % of all packets lost 181 ms in the middle, 331 ms at nine of
// ten, 681 ms at the longest.
func TestPaceCostsNoTime(t *testing.T) {
	run := func(loss float64, seed uint64) (took time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t)
			anchor, x, y := pair(s, portRestricted, portRestricted)
			for i, n := range []*simNode{x, y} {
				for j := range maxHosts - 1 {
					n.local.Hosts = append(n.local.Hosts, netip.AddrFrom4([4]byte{10, byte(i), byte(j), 1}))
				}
				n.local.Network++
				n.Set(n.local)
			}
			time.Sleep(time.Second)
			random := rand.New(rand.NewPCG(seed, 1))
			s.mu.Lock()
			s.mangle = func(raw []byte, _ netip.AddrPort) []byte {
				if random.Float64() < loss {
					return nil
				}
				return raw
			}
			s.mu.Unlock()
			meet(x, y)
			took = s.until("direct", 20*time.Second, both(x, y, Direct))
			for _, n := range []*simNode{x, y, anchor} {
				n.halt()
			}
		})
		return took
	}
	if took := run(0, 1); took > 90*time.Millisecond {
		t.Errorf("got direct after %s without loss, want 90 ms at most", took)
	}
	var times []time.Duration
	for seed := range uint64(200) {
		times = append(times, run(0.3, seed))
	}
	slices.Sort(times)
	t.Logf("with 30 %% lost: %s in the middle, %s at nine of ten, %s at the longest", times[100], times[180], times[199])
	if times[100] > 250*time.Millisecond || times[180] > 500*time.Millisecond {
		t.Errorf("got %s in the middle and %s at nine of ten, want 250 and 500 ms at most", times[100], times[180])
	}
}

// A hundred peers behind one router are met at once: its address is soon one that answers.
func TestManyPeersBehindOneRouter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		anchor := s.start(s.host(nil, 1), simID(1))
		box := s.nat(portRestricted, 10)
		hub := s.start(s.host(s.nat(portRestricted, 20), 20), simID(2), anchor)
		var peers []*simNode
		var ids []identity.NodeID
		for i := range 100 {
			p := s.start(s.host(box, byte(10+i)), simID(100+i), anchor)
			peers, ids = append(peers, p), append(ids, p.id)
		}
		time.Sleep(10 * time.Second) // STUN answers to one address are limited
		hub.SetPeers(ids)
		for _, p := range peers {
			p.SetPeers([]identity.NodeID{hub.id})
		}
		took := s.until("all direct", 5*time.Second, func() bool {
			for _, p := range peers {
				if p.current().Kind != Direct {
					return false
				}
			}
			return true
		})
		t.Logf("100 peers direct after %s", took)
		if took > 300*time.Millisecond {
			t.Errorf("got all direct after %s, want 300 ms at most", took)
		}
		for _, n := range append(peers, hub, anchor) {
			n.halt()
		}
	})
}
