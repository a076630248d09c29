package nat

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/nat/natkind"
	"warren/nat/stunwire"
)

// servers answers a prober as scripted: each server with what it says at that time.
type servers map[netip.AddrPort]func(at time.Duration) netip.AddrPort

// probed runs a prober against servers for a while. It returns what it counted, and how often it asked.
func probed(lasts time.Duration, all servers) (p *prober, changes, moves []time.Duration, asked int) {
	p = &prober{}
	begin := time.Unix(1e9, 0)
	var list []netip.AddrPort
	for s := range all {
		list = append(list, s)
	}
	p.set(begin, list)
	serial := uint64(0)
	for now := begin; now.Before(begin.Add(lasts)); {
		for _, s := range p.due(now) {
			asked++
			serial++
			id := stunwire.ID{byte(serial), byte(serial >> 8), byte(serial >> 16)}
			p.sent(s, id)
			_, changed, moved := p.answered(now, mappedAnswer{server: s, id: id, addr: all[s](now.Sub(begin))})
			if changed {
				changes = append(changes, now.Sub(begin))
			}
			if moved {
				moves = append(moves, now.Sub(begin))
			}
		}
		now = p.wake()
	}
	return p, changes, moves, asked
}

// One server that says something else each time has no more than itself taken for wrong, and that seldom.
func TestServerThatLies(t *testing.T) {
	s := func(n byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, n}), 9277)
	}
	mine, later := netip.MustParseAddrPort("203.0.113.9:5555"), netip.MustParseAddrPort("203.0.113.9:6666")
	honest := func(time.Duration) netip.AddrPort { return mine }
	rebooted := func(at time.Duration) netip.AddrPort {
		if at < 30*time.Minute {
			return mine
		}
		return later
	}
	n := uint16(0)
	liar := func(time.Duration) netip.AddrPort {
		n++
		return netip.AddrPortFrom(netip.MustParseAddr("1.2.3.4"), 1024+n)
	}
	for _, tt := range []struct {
		name    string
		servers servers
		moves   int // at most; changes may be more by the first answers
		want    []netip.AddrPort
	}{
		{"one of three", servers{s(1): liar, s(2): honest, s(3): honest}, 0, []netip.AddrPort{mine}},
		{"one of five", servers{s(1): liar, s(2): honest, s(3): honest, s(4): honest, s(5): honest}, 0, []netip.AddrPort{mine}},
		{"one of two", servers{s(1): liar, s(2): honest}, 35, []netip.AddrPort{mine}},
		{"the only one", servers{s(1): liar}, 35, nil},
		{"none, and the router reboots", servers{s(1): rebooted, s(2): rebooted, s(3): rebooted}, 2, []netip.AddrPort{later}},
		{"none of two, and the router reboots", servers{s(1): rebooted, s(2): rebooted}, 2, []netip.AddrPort{later}},
		{"one of three, and the router reboots", servers{s(1): liar, s(2): rebooted, s(3): rebooted}, 2, []netip.AddrPort{later}},
	} {
		p, changes, moves, asked := probed(time.Hour, tt.servers)
		if len(moves) > tt.moves || len(changes) > 40 {
			t.Errorf("%s: got %d moves and %d changes in an hour, want %d and 40 at most", tt.name, len(moves), len(changes), tt.moves)
		}
		if asked > 61*len(tt.servers)+40*len(tt.servers) {
			t.Errorf("%s: got %d questions in an hour, want one a minute and a few", tt.name, asked)
		}
		for _, want := range tt.want {
			if !slices.Contains(p.mapped(), want) {
				t.Errorf("%s: got %v as own addresses, want %v among them", tt.name, p.mapped(), want)
			}
		}
		if strings := tt.name; len(moves) == 0 && (strings == "none, and the router reboots" || strings == "one of three, and the router reboots") {
			t.Errorf("%s: got no move, want it noticed", tt.name)
		}
	}
}

// Two servers that agree are believed however often the address changes, and whichever of them is the first to say so.
func TestAddressThatChangesOften(t *testing.T) {
	p := &prober{}
	now := time.Unix(1e9, 0)
	one, two := netip.MustParseAddrPort("198.51.100.1:9277"), netip.MustParseAddrPort("198.51.100.2:9277")
	p.set(now, []netip.AddrPort{one, two})
	for round := range byte(20) {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, round}), 9277)
		moves := 0
		for i, s := range []netip.AddrPort{one, two} {
			id := stunwire.ID{round, byte(i)}
			p.sent(s, id)
			if _, _, moved := p.answered(now.Add(time.Duration(i)*30*time.Millisecond), mappedAnswer{server: s, id: id, addr: addr}); moved {
				moves++
			}
		}
		if got := p.mapped(); !slices.Equal(got, []netip.AddrPort{addr}) || round > 0 && moves == 0 {
			t.Errorf("change %d: got %v, %d moves, want %v", round, got, moves, addr)
		}
		now = now.Add(5 * time.Second)
	}
}

// The lies of one anchor cost nodes no path: neither that which it has, nor the next. It says that this node is at a third party's
// address, another one each time; the other two anchors say the truth.
func TestAnchorThatLies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		var anchors []*simNode
		for i := range byte(3) {
			anchors = append(anchors, s.start(s.host(nil, 1+i), simID(200+int(i))))
		}
		liar := anchors[0].host
		s.mu.Lock()
		n := byte(0)
		s.mangle = func(raw []byte, to netip.AddrPort) []byte {
			p, ok := stunwire.Inspect(raw)
			if !ok || p.Class != stunwire.Success || s.from != liar {
				return raw
			}
			n++
			lie, _ := stunwire.Answer(p.ID, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 7, n}), 7), "")
			return lie
		}
		s.mu.Unlock()
		x := s.start(s.host(s.nat(portRestricted, 10), 10), simID(1), anchors...)
		y := s.start(s.host(s.nat(portRestricted, 20), 20), simID(2), anchors...)
		time.Sleep(time.Second)
		meet(x, y)
		took := s.until("direct", time.Second, both(x, y, Direct))
		if took > 90*time.Millisecond {
			t.Errorf("got direct after %s, want 90 ms at most, as without the lies", took)
		}
		for range 60 {
			time.Sleep(time.Minute)
			if !both(x, y, Direct)() {
				t.Fatalf("got %v and %v, want to stay direct", x.current(), y.current())
			}
		}
		for _, node := range []*simNode{x, y} {
			if got := node.board.seen().ports; got != natkind.PortsUnknown {
				t.Errorf("got ports %v learnt by %s, want nothing: its mapping does not depend on the destination", got, node.id.Short())
			}
			if st := node.Snapshot()[map[*simNode]identity.NodeID{x: y.id, y: x.id}[node]]; st.Attempts > 2 {
				t.Errorf("got %d attempts in an hour, want no more than the first", st.Attempts)
			}
			moved := 0
			node.mu.Lock()
			for _, news := range node.news {
				if news.Moved {
					moved++
				}
			}
			node.mu.Unlock()
			if moved > 0 {
				t.Errorf("got %d times the news that %s has moved, want none", moved, node.id.Short())
			}
		}
		if n < 100 {
			t.Errorf("got %d lies told in an hour, want one a minute for each of two", n)
		}
		for _, node := range append(anchors, x, y) {
			node.halt()
		}
	})
}

// A relay that drops, corrupts or delays what it carries, or all but a part, is left for the spare within the times of the path
// machine; one that repeats is none the worse for it.
func TestRelayThatMangles(t *testing.T) {
	type mangle = func(s *sim, raw []byte, to netip.AddrPort) []byte
	for name, tt := range map[string]struct {
		do   mangle
		left time.Duration // 0: it stays
	}{
		"drops":    {func(*sim, []byte, netip.AddrPort) []byte { return nil }, 3 * time.Second},
		"corrupts": {func(_ *sim, raw []byte, _ netip.AddrPort) []byte { raw[len(raw)-9] ^= 1; return raw }, 3 * time.Second},
		"cuts":     {func(_ *sim, raw []byte, _ netip.AddrPort) []byte { return raw[:len(raw)-1] }, 3 * time.Second},
		"delays": {func(s *sim, raw []byte, to netip.AddrPort) []byte {
			from := s.from
			time.AfterFunc(5*time.Second, func() {
				s.mu.Lock()
				s.late = true
				s.mu.Unlock()
				s.send(from, raw, to)
			})
			return nil
		}, 3 * time.Second},
		"repeats": {func(s *sim, raw []byte, to netip.AddrPort) []byte {
			from := s.from
			time.AfterFunc(time.Millisecond, func() {
				s.mu.Lock()
				s.late = true
				s.mu.Unlock()
				s.send(from, raw, to)
			})
			return raw
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t)
				one, two := s.start(s.host(nil, 1), simID(201)), s.start(s.host(nil, 2), simID(202))
				x := s.start(s.host(s.nat(symmetric, 10), 10), simID(1), one, two)
				y := s.start(s.host(s.nat(symmetric, 20), 20), simID(2), one, two)
				time.Sleep(time.Second)
				meet(x, y)
				s.until("relayed", 2*time.Second, both(x, y, Relayed))
				time.Sleep(30 * time.Second)
				bad := x.current().Via
				s.mu.Lock()
				s.mangle = func(raw []byte, to netip.AddrPort) []byte {
					if late := s.late; late || s.relays[to] == nil || s.relays[to].anchor != bad {
						s.late = false
						return raw
					}
					return tt.do(s, append([]byte(nil), raw...), to)
				}
				s.mu.Unlock()
				x.Check()
				y.Check()
				if tt.left > 0 {
					s.until("another relay", tt.left, func() bool {
						return x.current().Kind == Relayed && y.current().Kind == Relayed && x.current().Via != bad && y.current().Via != bad
					})
				}
				moved := x.seen()
				time.Sleep(5 * time.Minute)
				if got := x.current(); got.Kind != Relayed || (got.Via == bad) != (tt.left == 0) {
					t.Errorf("got %v five minutes later, want a path by the relay that is sound", got)
				}
				if got := x.seen() - moved; got > 20 {
					t.Errorf("got %d changes in five minutes, want it to settle", got)
				}
				s.mu.Lock()
				s.mangle = nil
				s.mu.Unlock()
				time.Sleep(10 * time.Second)
				for _, n := range []*simNode{x, y, one, two} {
					n.halt()
				}
			})
		})
	}
}
