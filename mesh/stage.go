package mesh

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// beginSoon is how long a stream waits for Run to begin: sessions come up while the rest of a node still starts, and a member whose first
// sync is turned away comes again only seconds later.
const beginSoon = 3 * time.Second

// run is what exists only while Run runs.
type run struct {
	ctx       context.Context // ends with Run: streams that are being served watch it
	transport *transport
	swim      *swim
}

// stage says whether Run has begun or ended. Its methods may be called concurrently.
type stage struct {
	now   atomic.Pointer[run] // nil: not yet, or not any more
	begun chan struct{}       // closed when it has begun for the first time
	once  sync.Once
}

func newStage() *stage { return &stage{begun: make(chan struct{})} }

func (s *stage) begin(r *run) {
	s.now.Store(r)
	s.once.Do(func() { close(s.begun) })
}

func (s *stage) end() { s.now.Store(nil) }

// get returns what runs now, or nil.
func (s *stage) get() *run { return s.now.Load() }

// wait returns what runs, after beginSoon at the latest; nil when that is nothing.
func (s *stage) wait() *run {
	select {
	case <-s.begun:
	case <-time.After(beginSoon):
	}
	return s.now.Load()
}
