package path

import (
	"strings"
	"testing"
	"time"
)

func TestEvidenceOfAPeerThatIsOff(t *testing.T) {
	w := newWorld(t, 6)
	w.start(0)
	begun := w.now
	w.run(10*time.Second, false)
	e := w.side[0].m.Evidence(w.now)
	if e.Unanswered < 3 || !e.Begun.Equal(begun) || e.NoRoute != "" || e.Refused || len(e.Changes) != 0 || e.Attempts != 0 {
		t.Errorf("got %+v, want an offer sent several times since %s, and nothing else", e, begun)
	}
	w.signals = false
	w.begin(0)
	if e := w.side[0].m.Evidence(w.now); e.NoRoute == "" || e.Unanswered != 0 {
		t.Errorf("got %+v, want an offer that has no route", e)
	}
}

func TestEvidenceOfRelayAndDirect(t *testing.T) {
	w := newWorld(t, 4)
	w.direct = false
	w.start(0)
	w.start(1)
	w.until(Relayed, 2*time.Second, false)
	w.run(7*time.Second, false)
	if e := w.side[0].m.Evidence(w.now); len(e.Relays) != 1 || e.Relays[0] != (Beside{anchorID, true}) || e.Failure == "" || e.NextTry.IsZero() || e.Unanswered != 0 {
		t.Errorf("relayed: got %+v, want the relay, a failed attempt and the time of the next", e)
	}
	w.direct = true
	w.until(Direct, time.Minute, false)
	var kinds []string
	e := w.side[0].m.Evidence(w.now)
	for _, c := range e.Changes {
		kinds = append(kinds, c.Path.Kind.String())
		if c.Reason == "" || c.At.After(w.now) {
			t.Errorf("got change %+v, want a reason and a time that has been", c)
		}
	}
	if got := strings.Join(kinds, " "); got != "relay direct" || e.Failure != "" {
		t.Errorf("got changes %q and failure %q, want the relay, then direct, and no failure", got, e.Failure)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	var h history
	for i := range 3 * maxChanges {
		h.note(Change{Reason: because("%d", i)})
	}
	if len(h.changes) != maxChanges || h.changes[0].Reason != because("%d", 2*maxChanges) || h.changes[maxChanges-1].Reason != because("%d", 3*maxChanges-1) {
		t.Errorf("got %v, want the last %d", h.changes, maxChanges)
	}
}
