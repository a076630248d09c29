package node

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// At the start the first dials do not wait for the interface, however slow the kernel is, and the first word of where this host is waits for no
// rest after the round that was slow.
func TestStartWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newTwins(t, newNetwork(), 1, testMember(1), testMember(2))
		a.slowLink, a.stands.Network = 80*time.Millisecond, 0
		a.run(t)
		early := a.take()
		if !slices.ContainsFunc(early, func(line string) bool { return strings.HasPrefix(line, "0s reach [2]") }) {
			t.Errorf("got %q before the interface is up, want the peers told", early)
		}
		time.Sleep(40 * time.Millisecond)
		a.set(func(w *twins) { w.stands.Network = 1 }, a.standing)
		time.Sleep(40 * time.Millisecond)
		synctest.Wait()
		got := a.take()
		if !slices.ContainsFunc(got, func(line string) bool { return strings.HasPrefix(line, "80ms local network 1") }) {
			t.Errorf("got %q, want the addresses told with the end of the first round", got)
		}
	})
}
