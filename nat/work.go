package nat

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"warren/mesh/identity"
	"warren/nat/path"
)

// work starts the goroutines that the run loop needs, and brings back what comes of them.
type work struct {
	spawn func(task func(ctx context.Context)) // starts a goroutine that Run waits for and whose ctx ends with it
	inbox chan<- item
}

// submit hands something to the run loop from one of its goroutines. It must not be lost.
func (w *work) submit(ctx context.Context, it item) {
	select {
	case w.inbox <- it:
	case <-ctx.Done():
	}
}

// inTurn runs calls to one anchor for one peer after each other. A call to an anchor that is dead takes its time, and must
// not hold up one to another.
func (w *work) inTurn(p *peer, anchor identity.NodeID, call func(ctx context.Context)) {
	for id, done := range p.relays {
		select {
		case <-done:
			delete(p.relays, id)
		default:
		}
	}
	before, done := p.relays[anchor], make(chan struct{})
	p.relays[anchor] = done
	w.spawn(func(ctx context.Context) {
		defer close(done)
		if before != nil {
			<-before
		}
		call(ctx)
	})
}

// attempts runs ICE with all peers, as many at once as there are slots. The run loop owns it.
type attempts struct {
	work  *work
	mux   *mux
	log   *slog.Logger
	slots slots
}

func newAttempts(w *work, x *mux, log *slog.Logger) attempts {
	e := attempts{work: w, mux: x, log: log}
	e.slots.init()
	return e
}

// make makes a peer's attempt, and keeps what will come of it.
func (e *attempts) make(now time.Time, p *peer, s path.StartICE, hosts, mapped []netip.AddrPort) {
	p.attempt = &attempt{
		start: s,
		mux:   newAgentMux(e.mux, p.id, s, hosts, mapped),
		more:  make(chan []path.Candidate, path.MaxCandidates),
		stop:  make(chan struct{}),
	}
	t := p.attempt.mux.trial
	t.begun(now, s)
	p.attempt.mux.named(s.Candidates)
	p.trials = append(p.trials[max(0, len(p.trials)+1-maxTrials):], t)
}

// queue has a peer's attempt run when it has a slot.
func (e *attempts) queue(now time.Time, p *peer) {
	e.slots.queue(p.attempt, p.id)
	e.startQueued(now)
}

// startQueued starts the attempts that have a slot now.
func (e *attempts) startQueued(now time.Time) {
	for {
		a, id := e.slots.next(now)
		if a == nil {
			return
		}
		e.work.spawn(func(ctx context.Context) {
			a.run(ctx, func(in path.Input) { e.work.submit(ctx, item{peer: id, in: in}) }, e.log)
		})
	}
}

// stop ends a peer's attempt, if there is one.
func (e *attempts) stop(now time.Time, p *peer) {
	if p.attempt == nil {
		return
	}
	e.slots.release(p.attempt)
	p.attempt.mux.trial.ended(now)
	close(p.attempt.stop)
	p.attempt = nil
	e.startQueued(now)
}

// add hands trickled candidates to an attempt, also to one that waits for its slot.
func (a *attempt) add(candidates []path.Candidate) {
	select {
	case a.more <- candidates:
	default: // as many batches as candidates can be: cannot be full
	}
}

// slots paces attempts: all queue, maxRunning run their first phase at once.
type slots struct {
	running map[*attempt]time.Time // until when each counts
	waiting []queued
}

type queued struct {
	attempt *attempt
	peer    identity.NodeID
}

func (s *slots) init() { s.running = make(map[*attempt]time.Time) }

func (s *slots) queue(a *attempt, peer identity.NodeID) {
	s.waiting = append(s.waiting, queued{attempt: a, peer: peer})
}

// next returns an attempt that may start at now, which then has the slot.
func (s *slots) next(now time.Time) (*attempt, identity.NodeID) {
	if len(s.waiting) == 0 {
		return nil, identity.NodeID{}
	}
	for a, until := range s.running {
		if !until.After(now) {
			delete(s.running, a)
		}
	}
	if len(s.running) >= maxRunning {
		return nil, identity.NodeID{}
	}
	first := s.waiting[0]
	s.waiting = s.waiting[1:]
	s.running[first.attempt] = now.Add(slotTime)
	return first.attempt, first.peer
}

func (s *slots) release(a *attempt) {
	delete(s.running, a)
	for i, q := range s.waiting {
		if q.attempt == a {
			s.waiting = append(s.waiting[:i:i], s.waiting[i+1:]...)
			return
		}
	}
}

// wake is when the next waiting attempt may start, zero when none waits.
func (s *slots) wake() time.Time {
	var first time.Time
	if len(s.waiting) == 0 {
		return first
	}
	for _, until := range s.running {
		if first.IsZero() || until.Before(first) {
			first = until
		}
	}
	return first
}
