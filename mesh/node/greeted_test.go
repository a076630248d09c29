package node

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"

	"warren/mesh/session"
)

// With a hello go the own record and then what is out to peers; when its answer comes only that node's turn is told once more. What has gone with a
// hello has not gone by a session that the far side dialled: then all is told.
func TestWhatGoesWithAHello(t *testing.T) {
	for dialled, want := range map[bool]string{true: "0s ready [2]", false: "0s ready []"} {
		synctest.Test(t, func(t *testing.T) {
			a := newTwins(t, newNetwork(), 1, testMember(1), testMember(2, "203.0.113.2:9277"))
			a.run(t)
			a.take()
			a.sessions <- session.Event{Kind: session.Greeted, ID: id(2), Dialled: true}
			synctest.Wait()
			lines(t, "greeted", a.take(), "0s greet 2", "0s ready [2]")
			a.mu.Lock()
			a.up = append(a.up, id(2))
			a.mu.Unlock()
			a.sessions <- session.Event{Kind: session.Up, ID: id(2), Remote: netip.MustParseAddrPort("203.0.113.2:9277"), Dialled: dialled}
			synctest.Wait()
			got := a.take()
			if !slices.Contains(got, want) {
				t.Errorf("dialled %v: got %q, want %q among them", dialled, got, want)
			}
		})
	}
}
