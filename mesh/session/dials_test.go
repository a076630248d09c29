package session

import (
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/session/sessiontest"
)

func TestDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, sessiontest.Options{Latency: lan})
		defer w.stop()
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		a.start(nil)
		check := func(what string, of *testNode, failed, silent bool) {
			t.Helper()
			attempts, got := a.Dials(of.ID)
			if attempts > 0 != failed || got != silent {
				t.Errorf("%s: got %d failed dials, silent %t, want some: %t, silent %t", what, attempts, got, failed, silent)
			}
		}
		check("no target", b, false, false)
		a.target(b)
		time.Sleep(time.Minute)
		check("nobody answers", b, true, true)
		w.mesh.Refuse(b.ID, &Refusal{Code: 0x101, Reason: "revoked"})
		b.start(nil)
		time.Sleep(time.Minute)
		check("a refusal is an answer", b, true, false)
		w.mesh.Refuse(b.ID, nil)
		w.until(time.Minute, "session", func() bool { return a.up(b) })
		check("a session", b, false, false)
		check("another node", c, false, false)
	})
}
