package nat

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
)

// remembered has two nodes meet, ends both, and has them remember where they met.
func remembered(s *sim, a, b natKind) (anchor, x, y *simNode) {
	s.latency = 50 * time.Millisecond
	anchor, x, y = pair(s, a, b)
	time.Sleep(time.Second)
	meet(x, y)
	s.until("direct", 3*time.Second, both(x, y, Direct))
	s.met = map[identity.NodeID]map[identity.NodeID]netip.AddrPort{x.id: {y.id: x.current().Addr}, y.id: {x.id: y.current().Addr}}
	x.halt()
	y.halt()
	return anchor, x, y
}

// since polls until both conditions hold and returns when each did first.
func since(s *sim, limit time.Duration, one, other func() bool) (first, second time.Duration) {
	begin := time.Now()
	s.until("both", limit, func() bool {
		now := time.Since(begin)
		if first == 0 && one() {
			first = now
		}
		if second == 0 && other() {
			second = now
		}
		return first != 0 && second != 0
	})
	return first, second
}

func is(n *simNode, kind PathKind) func() bool {
	return func() bool { return n.current().Kind == kind }
}

// Two that have met before, neither moved, with nobody between them: who offers has its path after one round trip, and who answers half a
// trip later, with the first packet.
func TestRememberedPath(t *testing.T) {
	for _, kinds := range [][2]natKind{{public, public}, {portRestricted, portRestricted}, {public, symmetric}, {fullCone, addressRestricted}} {
		t.Run(kinds[0].String()+" × "+kinds[1].String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t)
				anchor, x, y := remembered(s, kinds[0], kinds[1])
				s.cut, s.letters = true, 0
				x, y = s.start(x.host, x.id, anchor), s.start(y.host, y.id, anchor)
				meet(x, y)
				offers, answers := since(s, time.Second, is(x, Direct), is(y, Direct))
				t.Logf("the path of the side that offers after %s, of the other after %s; %d letters", offers, answers, s.letters)
				if trip := 2 * s.latency; offers > trip+2*time.Millisecond || answers > trip*3/2+2*time.Millisecond {
					t.Errorf("got %s and %s, want %s and %s", offers, answers, trip, trip*3/2)
				}
				if s.letters > 7 {
					t.Errorf("got %d letters, want 7 at most", s.letters)
				}
				before := s.letters
				time.Sleep(time.Minute)
				if !both(x, y, Direct)() || s.letters != before {
					t.Errorf("got %v and %v, and %d letters more, want what there was and none", x.current(), y.current(), s.letters-before)
				}
				for _, n := range []*simNode{x, y, anchor} {
					n.halt()
				}
			})
		})
	}
}

// Whoever begins later, or has run on while the other was restarted, costs no more than the time until both run and half a trip.
func TestRememberedPathOneLater(t *testing.T) {
	for name, later := range map[string][2]time.Duration{
		"who offers": {130 * time.Millisecond, 0}, "who answers": {0, 130 * time.Millisecond}, "who answers, much": {0, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t)
				anchor, x, y := remembered(s, public, public)
				s.cut = true
				begin := time.Now()
				run := func(n **simNode, other identity.NodeID, after time.Duration) {
					time.Sleep(after - time.Since(begin))
					*n = s.start((*n).host, (*n).id, anchor)
					(*n).SetPeers([]identity.NodeID{other})
				}
				if later[0] < later[1] {
					run(&x, y.id, later[0])
					run(&y, x.id, later[1])
				} else {
					run(&y, x.id, later[1])
					run(&x, y.id, later[0])
				}
				both := time.Now()
				took, _ := since(s, 2*time.Second, is(x, Direct), is(y, Direct))
				t.Logf("path %s after both ran (%s)", took, time.Since(both))
				if limit := 3*s.latency + 5*time.Millisecond; took > limit {
					t.Errorf("got %s, want %s at most", took, limit)
				}
				for _, n := range []*simNode{x, y, anchor} {
					n.halt()
				}
			})
		})
	}
}

// What is remembered wrongly makes nothing later, and costs some letters: a peer that has moved, one that is away, and somebody else who is there now.
func TestRememberedWrongly(t *testing.T) {
	for name, other := range map[string]bool{"nobody there": false, "another member there": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var took [2]time.Duration
				for i, remembers := range []bool{false, true} {
					s := newSim(t)
					anchor, x, y := remembered(s, portRestricted, public)
					was := y.host.addr
					if !remembers {
						s.met = nil
					}
					s.letters = 0
					s.move(y.host, nil, 77)
					var z *simNode
					if other {
						h := s.host(nil, 21)
						s.move(h, nil, was.Addr().As4()[3])
						z = s.start(h, simID(3), anchor)
					}
					x, y = s.start(x.host, x.id, anchor), s.start(y.host, y.id, anchor)
					meet(x, y)
					took[i] = s.until("direct", 3*time.Second, both(x, y, Direct))
					time.Sleep(10 * time.Second)
					if remembers && (s.letters == 0 || s.letters > 10) || other && remembers && s.astray == 0 {
						t.Errorf("got %d letters, %d astray, want 10 at most", s.letters, s.astray)
					}
					if !both(x, y, Direct)() || x.current().Addr != y.host.addr {
						t.Errorf("got %v and %v, want each other", x.current(), y.current())
					}
					for _, n := range []*simNode{x, y, anchor, z} {
						if n != nil {
							n.halt()
						}
					}
				}
				t.Logf("without %s, with a wrong memory %s", took[0], took[1])
				if took[1] > took[0]+5*time.Millisecond {
					t.Errorf("got %s with a wrong memory, want %s as without", took[1], took[0])
				}
			})
		})
	}
}
