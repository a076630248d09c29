package session

import (
	"sync"
	"time"

	"warren/mesh/identity"
)

const (
	// wayTime is how long the member by which a signal came is a way back: an answer follows at once, or after a repetition.
	wayTime = 2 * time.Second
	// trustTime is how long after an answer that went back by one way alone the next ones go another way too: who repeats itself has not got it.
	trustTime = 10 * time.Second
	maxWays   = 1024 // remembered
)

// ways remembers by which members the signals of others came. The first hop that this side knows for a node may be dead, and
// the one by which its signal has just come is not: an answer needs no other. What comes after that goes by both, because whoever passes signals on
// may keep the answers back.
type ways struct {
	mu   sync.Mutex // guards the rest
	came map[identity.NodeID]way
}

type way struct {
	via  identity.NodeID
	at   time.Time // when the last signal came
	sole time.Time // when something last went by that way alone; zero: never
}

func newWays() *ways { return &ways{came: make(map[identity.NodeID]way)} }

// Came says that a signal that was brought by the session with by was from's indeed: answers go that way. It is never the only one for long.
func (s *Sessions) Came(from, by identity.NodeID) {
	if s.router.roster.Member(from) {
		s.router.ways.note(time.Now(), from, by)
	}
}

// note remembers that a signal of from came by via.
func (w *ways) note(now time.Time, from, via identity.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.came) >= maxWays {
		for id, old := range w.came {
			if now.Sub(old.at) >= trustTime {
				delete(w.came, id)
			}
		}
	}
	if old, known := w.came[from]; known || len(w.came) < maxWays {
		w.came[from] = way{via, now, old.sole}
	}
}

// back returns the member by which a signal of a node came lately; zero for none. sole: what goes by it need not go another way too.
func (w *ways) back(now time.Time, to identity.NodeID) (via identity.NodeID, sole bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if came := w.came[to]; now.Sub(came.at) < wayTime {
		return came.via, now.Sub(came.sole) >= trustTime
	}
	return identity.NodeID{}, false
}

// rely notes that something has gone to a node by the way back alone.
func (w *ways) rely(now time.Time, to identity.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if came, known := w.came[to]; known {
		came.sole = now
		w.came[to] = came
	}
}
