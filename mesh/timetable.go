package mesh

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/nat/due"
)

// When to sync. Of two members that both see a reason the one with the smaller ID goes first, and the other only if nothing came of it.
const (
	digestDelay = time.Second     // a fresh record may still be on its way
	digestEvery = 4 * time.Second // between two syncs with one member for its digests: a mesh in which much changes agrees at no moment
	secondDelay = 3 * time.Second
	maxSyncs    = 4 // at once, of this node's making
	maxRetries  = 5
	settledFor  = 10 * time.Minute
	// maxFruitless bounds how often the wait after a notice doubles when the syncs for those of one member bring nothing: to 26 s.
	maxFruitless = 8
)

// job is what is known of syncing with one member.
type job struct {
	at        time.Time // when to; zero: nothing to do
	asked     time.Time
	ask       ask
	run       *slot     // the sync under way; nil: none
	direct    bool      // there was a session with the member when it began
	noticed   bool      // it is for a notice alone
	digestAt  time.Time // no sync for a digest alone before
	failures  int
	fruitless int // syncs for notices alone that brought nothing, in a row
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
	book     *book
	alive    *liveness
	asks     *asks
	syncer   *syncer
	swim     *swim
	log      *slog.Logger
	results  chan result

	jobs    map[identity.NodeID]*job
	active  int             // syncs under way
	again   identity.NodeID // to be synced with at againAt: see asks.later
	againAt time.Time       // zero: nobody
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
		switch {
		case a.must:
		case len(a.lacks) > 0:
			a.delay = noticeDelay << min(j.fruitless, maxFruitless)
		case a.theirs == nil || *a.theirs == ours || j.settled == [2][16]byte{ours, *a.theirs} && now.Before(j.settledUntil):
			continue
		default:
			a.delay = max(digestDelay+rand.N(digestDelay), j.digestAt.Sub(now))
		}
		if second := t.self.Compare(id) > 0; second && (a.up || !a.must && len(a.lacks) == 0) {
			a.delay += secondDelay
		}
		if a.up && j.run != nil && !j.direct {
			j.run.end() // it went by a forwarding member, who may be anybody's friend: the member itself is here now
		}
		at := now.Add(a.delay)
		if j.at.IsZero() || at.Before(j.at) {
			j.at = at
		}
		if j.asked.IsZero() {
			j.asked = now
		}
		a.up, a.must, a.lacks = a.up || j.ask.up, a.must || j.ask.must, append(j.ask.lacks, a.lacks...)
		a.lacks = a.lacks[:min(len(a.lacks), maxLacks)]
		if a.theirs == nil {
			a.theirs = j.ask.theirs
		}
		j.ask = a
	}
}

// later plans a sync with one that has versions of records whose turn comes then.
func (t *timetable) later(id identity.NodeID, now time.Time) {
	if id.IsZero() {
		return
	}
	t.again = id
	if t.againAt.IsZero() {
		t.againAt = now.Add(versionEvery)
	}
}

// start begins what is due, and returns when the next is; zero: when there is something new.
func (t *timetable) start(ctx context.Context, now time.Time) (next time.Time) {
	if !t.againAt.IsZero() && !now.Before(t.againAt) {
		t.againAt = time.Time{}
		t.plan(map[identity.NodeID]ask{t.again: {must: true}}, now)
	}
	full := false
	for id, j := range t.jobs {
		switch {
		case j.at.IsZero() || j.run != nil:
			continue
		case j.at.After(now):
			next = due.Sooner(next, j.at)
			continue
		case t.needless(id, j):
			j.at, j.asked, j.ask = time.Time{}, time.Time{}, ask{}
			continue
		case t.active >= maxSyncs:
			full = true // a result will bring us here again
			continue
		}
		t.begin(ctx, id, j, now)
	}
	if full {
		t.hurry(now)
		next = due.Sooner(next, now.Add(yieldAfter))
	}
	return due.Sooner(next, t.againAt)
}

// hurry ends the slowest of the syncs under way, so that one that is due has its place: whoever lets a sync hang keeps nobody else waiting.
func (t *timetable) hurry(now time.Time) {
	var all []*slot
	for _, j := range t.jobs {
		if j.run != nil {
			all = append(all, j.run)
		}
	}
	if slow := slowest(all, now); slow != nil && slow.pace(now) < slowRate {
		slow.end()
	}
}

// needless reports whether the reason for a sync has gone: the other side was quicker, or the records came by gossip.
func (t *timetable) needless(id identity.NodeID, j *job) bool {
	if j.ask.must {
		life, _ := t.alive.get(id)
		return j.ask.up && life == Alive && t.asks.lastDone(id).After(j.asked)
	}
	if slices.ContainsFunc(j.ask.lacks, func(e roster.Entry) bool { return !t.book.has(e) }) {
		return false
	}
	theirs := j.ask.theirs
	return theirs == nil || *theirs == *t.public.digest.Load() || t.asks.lastDone(id).After(j.asked)
}

// begin starts one sync, after which the two meet in memberlist if they have a new session.
func (t *timetable) begin(ctx context.Context, id identity.NodeID, j *job, now time.Time) {
	a := j.ask
	ctx, cancel := context.WithCancel(ctx)
	j.run, j.direct, j.noticed = &slot{began: now, end: cancel}, slices.Contains(t.sessions.Neighbours(), id), !a.must && len(a.lacks) > 0
	if !a.must && len(a.lacks) == 0 {
		j.digestAt = now.Add(digestEvery)
	}
	j.at, j.asked, j.ask = time.Time{}, time.Time{}, ask{}
	t.active++
	pair := [2][16]byte{*t.public.digest.Load()}
	if a.theirs != nil {
		pair[1] = *a.theirs
	}
	run := j.run
	go func() {
		defer cancel()
		stats, err := t.syncer.with(ctx, id, run)
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
	j.run = nil
	if r.err != nil {
		t.log.Debug("sync failed", "peer", t.public.nameOf(r.id), "error", r.err)
		if j.failures++; j.failures <= maxRetries && slices.Contains(t.sessions.Neighbours(), r.id) {
			delay := time.Second << j.failures
			j.at, j.asked = due.Sooner(j.at, now.Add(delay/2+rand.N(delay))), now // what was asked for meanwhile is not put off
			j.ask.up, j.ask.must = true, true
		}
		return
	}
	j.failures = 0
	if j.noticed {
		j.fruitless++
	}
	if r.stats.got > 0 {
		j.fruitless = 0
	}
	if r.stats.got+r.stats.sent > 0 {
		t.log.Debug("synced", "peer", t.public.nameOf(r.id), "got", r.stats.got, "sent", r.stats.sent, "refused", r.stats.refused)
	} else if !r.stats.equal && !r.stats.later {
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
		if j.run == nil && j.at.IsZero() && now.After(j.settledUntil) && !t.public.isMember(id) {
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
