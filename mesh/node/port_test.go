package node

import (
	"net/netip"
	"strings"
	"testing"

	"warren/nat/reach"
	"warren/nat/standing"
)

// takenFacts are those of a router whose port belongs to a machine behind it.
func takenFacts() facts {
	f := testFacts(testMember(1))
	f.port = 9277
	f.standing.Hosts = []netip.Addr{netip.MustParseAddr("203.0.113.2")}
	f.standing.Taken = standing.Taken{Port: 9277, Seen: netip.MustParseAddrPort("203.0.113.2:31131")}
	return f
}

func TestPortThatIsTakenMoves(t *testing.T) {
	f := takenFacts()
	first := plan(f).move
	if first.to < firstPort || first.to >= firstPort+portSpan || first.count != 1 {
		t.Fatalf("got %+v, want a port of the range", first)
	}
	f.here.move = first
	if got := plan(f).move; got == first {
		t.Error("the socket is still where it was: got no other port tried")
	}
	f.port = first.to
	if got := plan(f); got.move != first || len(got.conflicts) != 0 {
		t.Errorf("what was seen of the old port: got %+v, %v", got.move, got.conflicts)
	}
	f.standing.Taken.Port = first.to
	second := plan(f).move
	if second.count != 2 || second.to == first.to {
		t.Errorf("taken as well: got %+v after %+v", second, first)
	}
	f.here.move, f.port, f.standing.Taken.Port = second, second.to, second.to
	if got := plan(f); got.move != second || len(got.conflicts) != 1 {
		t.Errorf("a firewall of the host's own: got %+v, %v, want it left, and said", got.move, got.conflicts)
	}
}

func TestPortThatIsCountedOnStays(t *testing.T) {
	own := netip.MustParseAddrPort("203.0.113.2:9277")
	for name, change := range map[string]func(*facts){
		"in the settings": func(f *facts) { f.settings.Interface.Port = 9277 },
		"in an endpoint":  func(f *facts) { f.settings.Endpoints, f.names[own.String()] = []string{own.String()}, own },
		"strangers come in": func(f *facts) {
			f.standing.Reach = []reach.Candidate{{Addr: own, State: reach.Reachable}}
		},
	} {
		f := takenFacts()
		change(&f)
		got := plan(f)
		if got.move != (move{}) || len(got.conflicts) != 1 || !strings.Contains(got.conflicts[0].Text, "UDP port 9277") || !strings.Contains(got.conflicts[0].Text, "port = 9278") {
			t.Errorf("%s: got %+v, %v, want it said", name, got.move, got.conflicts)
		}
	}
	f := takenFacts()
	f.standing.Reach = []reach.Candidate{{Addr: own, State: reach.Unreachable}, {Addr: netip.MustParseAddrPort("198.51.100.1:9277"), State: reach.Reachable}}
	if plan(f).move.to == 0 {
		t.Error("nobody comes in: got the port kept")
	}
	f.standing.Taken = standing.Taken{}
	if got := plan(f); got.move != (move{}) || len(got.conflicts) != 0 {
		t.Errorf("nothing wrong: got %+v, %v", got.move, got.conflicts)
	}
}
