package mesh

import (
	"context"
	"math/rand/v2"
	"net"
	"time"

	"warren/mesh/identity"
)

// When to sync. Of two members that both see a reason the one with the smaller ID goes first, and the other only if nothing came of it.
const (
	noticeDelay = 100 * time.Millisecond // several notices of one holder are one sync
	digestDelay = time.Second            // a fresh record may still be on its way
	secondDelay = 3 * time.Second
	maxSyncs    = 4 // at once, of this node's making
	maxRetries  = 5
	settledFor  = 10 * time.Minute
	tickEvery   = time.Minute
)

// job is what the run loop knows of syncing with one member.
type job struct {
	at       time.Time // when to; zero: nothing to do
	asked    time.Time
	ask      ask
	busy     bool
	failures int
	// A sync that moved nothing although the digests differed (each refuses what the other has) is not
	// repeated for this pair of digests for a while.
	settled      [2][16]byte
	settledUntil time.Time
}

// result is what a sync came to.
type result struct {
	id    identity.NodeID
	pair  [2][16]byte // digests before it, ours and theirs as far as known
	stats syncStats
	err   error
}

// loop is the run loop's state.
type loop struct {
	m       *Mesh
	r       *run
	jobs    map[identity.NodeID]*job
	active  int
	results chan result
	timer   *time.Timer
	out     refusals
}

// Run keeps this node in step with the others until ctx ends. It may be called once. What it returns is nil, or why gossip could
// not start.
func (m *Mesh) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	t := newTransport(ctx, m.sessions, m.isMember)
	s, err := startSwim(m, t)
	if err != nil {
		cancel()
		return err
	}
	r := &run{ctx: ctx, transport: t, swim: s}
	m.running.Store(r)
	l := &loop{m: m, r: r, jobs: make(map[identity.NodeID]*job), results: make(chan result), timer: time.NewTimer(time.Hour)}
	l.out.said = make(map[identity.NodeID]refusal)
	for _, id := range m.sessions.Neighbours() {
		m.SessionUp(id)
	}
	l.run()
	cancel()
	m.running.Store(nil)
	if err := s.list.Shutdown(); err != nil {
		m.log.Debug("gossip not stopped", "error", err)
	}
	for ; l.active > 0; l.active-- {
		<-l.results
	}
	_ = m.flush()
	return nil
}

// SessionUp tells that there is a session with a member now. The two are brought in step, and gossip introduced.
func (m *Mesh) SessionUp(id identity.NodeID) {
	m.send(id, m.book.ownSigned(), maxHops)
	m.asks.up(id)
}

// HandleGossipStream takes a stream that another member opened with OpenGossip. It returns when the stream has ended, and closes
// it.
func (m *Mesh) HandleGossipStream(from identity.NodeID, conn net.Conn) {
	r := m.running.Load()
	if r == nil || !m.isMember(from) || !m.heardStream(from, conn) {
		_ = conn.Close()
		m.drops.add("gossip: stream not now")
		return
	}
	if err := r.transport.serve(conn); err != nil {
		m.drops.add("gossip: stream not now")
	}
}

func (l *loop) run() {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	defer l.timer.Stop()
	for {
		select {
		case <-l.r.ctx.Done():
			return
		case a := <-l.m.inbox:
			l.m.take(l.drain(a))
		case <-l.m.asks.wake:
			l.taken(time.Now())
		case r := <-l.results:
			l.finished(r, time.Now())
		case line := <-l.r.swim.lines:
			l.m.log.Debug("memberlist", "text", line)
			continue
		case <-l.timer.C:
		case <-tick.C:
			l.tick(time.Now())
		}
		l.start(time.Now())
	}
}

// taken acts on what was asked for, and on refusals: one that is left came after the last session with its sender.
func (l *loop) taken(now time.Time) {
	asks, no := l.m.asks.take()
	for id, a := range asks {
		if a.up {
			delete(l.out.said, id)
		}
	}
	for id, reason := range no {
		l.refuse(id, reason, now)
	}
	l.plan(asks, now)
}

// drain takes what else is in the inbox, up to a batch.
func (l *loop) drain(first arrival) []arrival {
	batch := []arrival{first}
	for len(batch) < syncBatch {
		select {
		case a := <-l.m.inbox:
			batch = append(batch, a)
		default:
			return batch
		}
	}
	return batch
}

// plan decides when to sync with those of whom there is news.
func (l *loop) plan(asks map[identity.NodeID]ask, now time.Time) {
	ours := *l.m.book.digest.Load()
	for id, a := range asks {
		if id == l.m.self {
			continue
		}
		j := l.jobs[id]
		if j == nil {
			j = &job{}
			l.jobs[id] = j
		}
		if !a.must {
			if a.theirs == ours || j.settled == [2][16]byte{ours, a.theirs} && now.Before(j.settledUntil) {
				continue
			}
			a.delay = digestDelay + rand.N(digestDelay)
		}
		second := l.m.self.Compare(id) > 0
		if second && (a.up || !a.must) {
			a.delay += secondDelay
		}
		at := now.Add(a.delay)
		if j.at.IsZero() || at.Before(j.at) {
			j.at = at
		}
		if j.asked.IsZero() {
			j.asked = now
		}
		a.up, a.must = a.up || j.ask.up, a.must || j.ask.must
		j.ask = a
	}
}

// start begins what is due and sets the timer for what is due next.
func (l *loop) start(now time.Time) {
	next := l.heed(now)
	for id, j := range l.jobs {
		switch {
		case j.at.IsZero() || j.busy:
			continue
		case j.at.After(now):
			if next.IsZero() || j.at.Before(next) {
				next = j.at
			}
			continue
		case l.active >= maxSyncs:
			continue // a result will bring us here again
		case l.needless(id, j):
			j.at, j.asked, j.ask = time.Time{}, time.Time{}, ask{}
			continue
		}
		l.begin(id, j)
	}
	if next.IsZero() {
		next = now.Add(time.Hour)
	}
	l.timer.Reset(next.Sub(now))
}

// needless reports whether the reason for a sync has gone: the other side was quicker, or the records came by gossip.
func (l *loop) needless(id identity.NodeID, j *job) bool {
	life, _ := l.m.alive.get(id)
	if j.ask.up && life != Alive {
		return false
	}
	if j.ask.must {
		return j.ask.up && l.m.asks.lastDone(id).After(j.asked)
	}
	return j.ask.theirs == *l.m.book.digest.Load() || l.m.asks.lastDone(id).After(j.asked)
}

// begin starts one sync, after which the two meet in memberlist if they have a new session.
func (l *loop) begin(id identity.NodeID, j *job) {
	a := j.ask
	j.busy, j.at, j.asked, j.ask = true, time.Time{}, time.Time{}, ask{}
	l.active++
	pair := [2][16]byte{*l.m.book.digest.Load(), a.theirs}
	go func() {
		stats, err := l.m.syncWith(l.r.ctx, id)
		if err == nil && a.up && l.m.isMember(id) {
			err = l.r.swim.join(id)
		}
		l.results <- result{id: id, pair: pair, stats: stats, err: err}
	}()
}

// finished notes what a sync came to, and tries again after a failure while the session lasts.
func (l *loop) finished(r result, now time.Time) {
	l.active--
	j := l.jobs[r.id]
	j.busy = false
	if r.err != nil {
		l.m.log.Debug("sync failed", "peer", l.m.nameOf(r.id), "error", r.err)
		if j.failures++; j.failures <= maxRetries && l.isNeighbour(r.id) {
			delay := time.Second << j.failures
			j.at, j.asked = now.Add(delay/2+rand.N(delay)), now
			j.ask.up, j.ask.must = true, true
		}
		return
	}
	j.failures = 0
	if r.stats.got+r.stats.sent > 0 {
		l.m.log.Debug("synced", "peer", l.m.nameOf(r.id), "got", r.stats.got, "sent", r.stats.sent, "refused", r.stats.refused)
	} else if !r.stats.equal {
		j.settled, j.settledUntil = r.pair, now.Add(settledFor)
	}
}

func (l *loop) isNeighbour(id identity.NodeID) bool {
	for _, neighbour := range l.m.sessions.Neighbours() {
		if neighbour == id {
			return true
		}
	}
	return false
}

// tick mends what events have missed: time passes for certificates, a write that failed is tried again, and neighbours that memberlist does
// not know are introduced.
func (l *loop) tick(now time.Time) {
	l.m.react(l.m.book.advance(now), arrival{from: l.m.self})
	_ = l.m.flush()
	for _, id := range l.m.sessions.Neighbours() {
		if life, _ := l.m.alive.get(id); life != Alive {
			l.m.asks.up(id)
		}
	}
	for id, j := range l.jobs {
		if !j.busy && j.at.IsZero() && now.After(j.settledUntil) && !l.m.isMember(id) {
			delete(l.jobs, id)
			l.m.asks.forget(id)
		}
	}
}
