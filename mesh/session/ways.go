package session

import (
	"sync"
	"time"

	"warren/mesh/identity"
)

const (
	// wayTime is how long the member by which a signal came is a way back: an answer follows at once, or after a repetition.
	wayTime = 2 * time.Second
	maxWays = 1024 // remembered; each is a source that a member has named
)

// ways remembers by which members the signals of others came. The first hop that this side knows for a node may be dead, and
// the one by which its signal came is not. It is never the only way: a forwarding member can name anybody as the source.
type ways struct {
	mu   sync.Mutex // guards the rest
	came map[identity.NodeID]way
}

type way struct {
	via identity.NodeID
	at  time.Time
}

func newWays() *ways { return &ways{came: make(map[identity.NodeID]way)} }

// note remembers that a signal of from came by via.
func (w *ways) note(now time.Time, from, via identity.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.came) >= maxWays {
		for id, old := range w.came {
			if now.Sub(old.at) >= wayTime {
				delete(w.came, id)
			}
		}
	}
	if _, known := w.came[from]; known || len(w.came) < maxWays {
		w.came[from] = way{via, now}
	}
}

// back returns the member by which a signal of a node came lately; zero for none.
func (w *ways) back(now time.Time, to identity.NodeID) identity.NodeID {
	w.mu.Lock()
	defer w.mu.Unlock()
	if came := w.came[to]; now.Sub(came.at) < wayTime {
		return came.via
	}
	return identity.NodeID{}
}
