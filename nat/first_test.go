package nat

import (
	"testing"
	"testing/synctest"
	"time"
)

// The first pair of ICE that answers is the path: for the nomination nobody waits.
func TestFirstAnswerIsThePath(t *testing.T) {
	for _, kinds := range [][2]natKind{{public, public}, {portRestricted, portRestricted}, {public, symmetric}, {fullCone, addressRestricted}} {
		t.Run(kinds[0].String()+" × "+kinds[1].String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t)
				s.latency = 50 * time.Millisecond
				anchor, x, y := pair(s, kinds[0], kinds[1])
				time.Sleep(time.Second)
				meet(x, y)
				offers, answers := since(s, 3*time.Second, is(x, Direct), is(y, Direct))
				t.Logf("the path of the side that offers after %s, of the other after %s; a way takes %s", offers, answers, s.latency)
				if trip := 2 * s.latency; offers > 3*trip+2*time.Millisecond || answers > 3*trip+2*time.Millisecond {
					t.Errorf("got %s and %s, want three round trips: one of the ask, one of the offer, one of a check", offers, answers)
				}
				for _, n := range []*simNode{x, y, anchor} {
					n.halt()
				}
			})
		})
	}
}
