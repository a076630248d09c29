package mesh

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
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
)

// job is what is known of syncing with one member.
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

// timetable decides when to sync with whom, and has it done. It is owned by the run loop.
type timetable struct {
	// constant
	self     identity.NodeID
	sessions Sessions
	public   *published
	alive    *liveness
	asks     *asks
	syncer   *syncer
	swim     *swim
	log      *slog.Logger
	results  chan result

	jobs   map[identity.NodeID]*job
	active int // syncs under way
}

// plan decides when to sync with those of whom there is news.
func (t *timetable) plan(asks map[identity.NodeID]ask, now time.Time) {
	ours := *t.public.digest.Load()
	for id, a := range asks {
		if id == t.self {
			continue
		}
		j := t.jobs[id]
		if j == nil {
			j = &job{}
			t.jobs[id] = j
		}
		if !a.must {
			if a.theirs == ours || j.settled == [2][16]byte{ours, a.theirs} && now.Before(j.settledUntil) {
				continue
			}
			a.delay = digestDelay + rand.N(digestDelay)
		}
		second := t.self.Compare(id) > 0
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

// start begins what is due, and returns when the next is; zero: when there is something new.
func (t *timetable) start(ctx context.Context, now time.Time) (next time.Time) {
	for id, j := range t.jobs {
		switch {
		case j.at.IsZero() || j.busy:
			continue
		case j.at.After(now):
			if next.IsZero() || j.at.Before(next) {
				next = j.at
			}
			continue
		case t.active >= maxSyncs:
			continue // a result will bring us here again
		case t.needless(id, j):
			j.at, j.asked, j.ask = time.Time{}, time.Time{}, ask{}
			continue
		}
		t.begin(ctx, id, j)
	}
	return next
}

// needless reports whether the reason for a sync has gone: the other side was quicker, or the records came by gossip.
func (t *timetable) needless(id identity.NodeID, j *job) bool {
	life, _ := t.alive.get(id)
	if j.ask.up && life != Alive {
		return false
	}
	if j.ask.must {
		return j.ask.up && t.asks.lastDone(id).After(j.asked)
	}
	return j.ask.theirs == *t.public.digest.Load() || t.asks.lastDone(id).After(j.asked)
}

// begin starts one sync, after which the two meet in memberlist if they have a new session.
func (t *timetable) begin(ctx context.Context, id identity.NodeID, j *job) {
	a := j.ask
	j.busy, j.at, j.asked, j.ask = true, time.Time{}, time.Time{}, ask{}
	t.active++
	pair := [2][16]byte{*t.public.digest.Load(), a.theirs}
	go func() {
		stats, err := t.syncer.with(ctx, id)
		if err == nil && a.up && t.public.isMember(id) {
			err = t.swim.join(id)
		}
		t.results <- result{id: id, pair: pair, stats: stats, err: err}
	}()
}

// finished notes what a sync came to, and tries again after a failure while the session lasts.
func (t *timetable) finished(r result, now time.Time) {
	t.active--
	j := t.jobs[r.id]
	j.busy = false
	if r.err != nil {
		t.log.Debug("sync failed", "peer", t.public.nameOf(r.id), "error", r.err)
		if j.failures++; j.failures <= maxRetries && slices.Contains(t.sessions.Neighbours(), r.id) {
			delay := time.Second << j.failures
			j.at, j.asked = now.Add(delay/2+rand.N(delay)), now
			j.ask.up, j.ask.must = true, true
		}
		return
	}
	j.failures = 0
	if r.stats.got+r.stats.sent > 0 {
		t.log.Debug("synced", "peer", t.public.nameOf(r.id), "got", r.stats.got, "sent", r.stats.sent, "refused", r.stats.refused)
	} else if !r.stats.equal {
		j.settled, j.settledUntil = r.pair, now.Add(settledFor)
	}
}

// tick mends what events have missed: neighbours that memberlist does not know are introduced. What is known of others is forgotten.
func (t *timetable) tick(now time.Time) {
	for _, id := range t.sessions.Neighbours() {
		if life, _ := t.alive.get(id); life != Alive {
			t.asks.up(id)
		}
	}
	for id, j := range t.jobs {
		if !j.busy && j.at.IsZero() && now.After(j.settledUntil) && !t.public.isMember(id) {
			delete(t.jobs, id)
			t.asks.forget(id)
		}
	}
}

// wait returns when no sync is under way; their context has ended.
func (t *timetable) wait() {
	for ; t.active > 0; t.active-- {
		<-t.results
	}
}
