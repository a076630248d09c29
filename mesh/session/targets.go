package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/time/rate"

	"warren/mesh/identity"
)

const (
	shortDial    = 1500 * time.Millisecond
	longDial     = 4 * time.Second
	longDialEach = 4               // most rounds are short, for QUIC's own repetitions soon get too far apart; every fourth is for long ways
	steadyAfter  = 5 * time.Second // a session that lived this long is redialled at once, with the ladder reset

	// Of two anchors each dials the other. When there are many, the one with the smaller ID has a head start: two handshakes for each
	// session are twice the work for all that start at once. The far side may not know that it is to dial, so a node that has no session
	// dials one target soon.
	headStart  = 1500 * time.Millisecond
	aloneStart = 150 * time.Millisecond
	headTrips  = 4 // first answers: a handshake, and what goes before it
	manyDials  = 4

	// When a target that stands behind another one is dialled, and how often that is looked at.
	reserveAfter = 2
	reserveAlone = time.Second
	reserveLook  = 500 * time.Millisecond
	maxDepth     = 8

	// So many dials go on at once; one that nobody answers for dialSilence makes room for another. A handshake is a millisecond or more
	// of work at both ends: when all start at once, those begun first are done before they are given up.
	dialsAtOnce = 6
	dialSilence = 250 * time.Millisecond
	racesAtOnce = 2 // have their addresses raced soon
)

var errNoCredit = errors.New("addresses at which no member has ever answered are dialled less often")

// targets are the nodes to keep sessions with. Each has a goroutine, which dials it for ever. The methods but follow and stop may be
// called concurrently.
type targets struct {
	// constant
	self    identity.NodeID
	table   *table
	dialler *dialler
	credit  *credit
	places  chan struct{} // of dialsAtOnce
	besides *rate.Limiter // see replace
	keeper  *keeper
	events  *mailbox
	wait    *sync.WaitGroup
	changed chan struct{} // capacity 1: the list is another one

	racing  atomic.Int32                   // dials under way
	running map[*target]context.CancelFunc // owned by the run loop

	mu   sync.Mutex // guards list
	list map[identity.NodeID]*target
}

// set replaces the list.
func (t *targets) set(targets []Target) {
	t.mu.Lock()
	defer t.mu.Unlock()
	wanted := make(map[identity.NodeID]*target, len(targets))
	for _, want := range targets {
		if want.ID == t.self || want.ID.IsZero() {
			continue
		}
		one := t.list[want.ID]
		if one == nil {
			one = newTarget(want.ID)
			one.set(want.Addrs)
		} else if one.set(want.Addrs) {
			notify(one.wake)
		}
		one.follow(want.Behind)
		wanted[want.ID] = one
	}
	t.list = wanted
	notify(t.changed)
}

// rouse has every target that is waiting dialled at once.
func (t *targets) rouse() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, one := range t.list {
		notify(one.anew)
	}
}

// status describes all targets.
func (t *targets) status() map[identity.NodeID]Status {
	all := make(map[identity.NodeID]Status)
	for id, one := range t.now() {
		all[id] = one.status()
	}
	return all
}

// find returns one target, nil for none.
func (t *targets) find(id identity.NodeID) *target {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.list[id]
}

func (t *targets) now() map[identity.NodeID]*target {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.list)
}

// follow starts and stops the goroutines as the list has changed. They end with ctx, or with stop.
func (t *targets) follow(ctx context.Context) {
	wanted := t.now()
	for one, stop := range t.running {
		if wanted[one.id] != one {
			stop()
			delete(t.running, one)
		}
	}
	t.drop(wanted)
	for _, one := range wanted {
		if t.running[one] == nil {
			var tctx context.Context
			tctx, t.running[one] = context.WithCancel(ctx)
			t.wait.Go(func() { t.keep(tctx, one) })
		}
	}
}

// stop ends the goroutines.
func (t *targets) stop() {
	for _, stop := range t.running {
		stop()
	}
}

const unneeded = "not needed any more"

// drop ends the sessions with nodes that are no targets any more, if we dialled them. Who wants them dials them.
func (t *targets) drop(wanted map[identity.NodeID]*target) {
	for _, l := range t.table.links(identity.NodeID{}) {
		if l.dialled && wanted[l.id] == nil {
			l.spawn(func() { l.close(CodeUnneeded, unneeded) })
		}
	}
}

// keep is a target's goroutine: it sees to a session with the target until ctx is done.
func (t *targets) keep(ctx context.Context, one *target) {
	var ladder backOff
	if first, yields := t.yields(one.id); yields {
		if !first || !one.yield(ctx, aloneStart) && t.table.any() {
			one.yield(ctx, headStart)
			// A far side that answers late is late with its own dials too.
			one.yield(ctx, min(headTrips*t.dialler.lane.answers().Recent(time.Now()), 2*headStart)-headStart)
		}
	}
	for ctx.Err() == nil {
		if l := t.table.link(one.id); l != nil {
			select {
			case <-ctx.Done():
				return
			case <-l.pulse.overdue:
				if err := t.replace(ctx, one, l); err != nil && !errors.Is(err, errWoken) && ctx.Err() == nil {
					one.failed(err, false)
				}
				continue
			case <-l.gone: // out of the table
			}
			one.failed(context.Cause(l.conn.Context()), false)
			if time.Since(l.since) >= steadyAfter {
				ladder.reset()
				continue
			}
		} else {
			if !t.reserve(ctx, one) {
				continue
			}
			err := t.dial(ctx, ctx, one, false)
			if err == nil || ctx.Err() != nil {
				continue
			}
			if errors.Is(err, errWoken) {
				ladder.reset()
				continue
			}
			one.failed(err, true)
			t.events.refused(one.id, err)
		}
		if t.table.link(one.id) == nil && one.pause(ctx, ladder.next()) {
			ladder.reset()
		}
	}
}

// reserve waits as long as the target that this one stands behind may still answer: until two dials of that have failed, or for a second
// while there is no session at all and nobody answers any dial. It reports whether the target may be dialled now.
func (t *targets) reserve(ctx context.Context, one *target) bool {
	for begun := time.Now(); ctx.Err() == nil; one.pause(ctx, reserveLook) {
		behind, _ := one.place()
		first := t.find(behind)
		if first == nil {
			return true
		}
		_, attempts := first.place()
		switch {
		case t.table.link(one.id) != nil:
			return false
		case t.table.link(behind) != nil:
		case attempts >= reserveAfter, !t.table.any() && t.silent(begun) >= t.depth(one)*reserveAlone:
			return true
		}
	}
	return false
}

// silent is how long nothing has come from any address that is dialled.
func (t *targets) silent(since time.Time) time.Duration {
	if last := t.table.lane.answered.Load(); last != nil && last.After(since) {
		since = *last
	}
	return time.Since(since)
}

// depth is how many targets a target stands behind, one behind the other.
func (t *targets) depth(one *target) (n time.Duration) {
	all := t.now()
	for one != nil && n < maxDepth {
		behind, _ := one.place()
		if one = all[behind]; one != nil {
			n++
		}
	}
	return n
}

// yields reports whether the far side dials this node as well, and does so first, and if so whether it is the first of those.
func (t *targets) yields(id identity.NodeID) (first, yields bool) {
	roster, all := t.keeper.router.roster, t.now()
	if t.self.Compare(id) < 0 || !roster.Anchor(t.self) || !roster.Anchor(id) || len(all) <= manyDials {
		return false, false
	}
	for other := range all {
		if other.Compare(id) < 0 {
			return false, true
		}
	}
	return true, true
}

// haste is how long the next dial of a target, after so many that failed, has. Without any session each second counts; else a far side that
// is late with everything is not made later by beginning again. Of the dials that are under way then, two race their addresses: one of their
// sessions is enough.
func (t *targets) haste(attempts int, racing int32) haste {
	urgentStagger := urgentStagger
	if racing > racesAtOnce {
		urgentStagger = stagger
	}
	switch {
	case t.table.any():
		return haste{longDial, stagger}
	case attempts%longDialEach == longDialEach-1:
		return haste{longDial, urgentStagger}
	}
	return haste{shortDial, urgentStagger}
}

// dial makes one session with the target, racing its addresses; beside the one that there is, or if there is still none when its turn
// comes. It is given up when racing ends.
func (t *targets) dial(ctx, racing context.Context, one *target, beside bool) error {
	select {
	case t.places <- struct{}{}:
	case <-racing.Done():
		return racing.Err()
	}
	var heard atomic.Bool
	leave := sync.OnceFunc(func() { <-t.places })
	defer leave()
	defer time.AfterFunc(dialSilence, func() {
		if !heard.Load() {
			leave()
		}
	}).Stop()
	if !beside && t.table.link(one.id) != nil {
		return nil
	}
	one.mu.Lock()
	addrs, attempts := slices.Clone(one.addrs), one.attempts
	one.mu.Unlock()
	if len(addrs) == 0 {
		leave()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-one.wake:
			return errWoken
		case <-one.anew:
			return errWoken
		}
	}
	if addrs = t.credit.affordable(time.Now(), one.id, addrs); len(addrs) == 0 {
		return errNoCredit
	}
	hurry := t.haste(attempts, t.racing.Add(1))
	won, err := t.dialler.race(racing, one, addrs, hurry, &heard)
	t.racing.Add(-1)
	if err != nil {
		return err
	}
	l, given := t.keeper.link(won.conn, one.id, true), func() {}
	far, err := t.dialler.greet(racing, won.conn, func() {
		if one.welcome() {
			given = t.keeper.greet(l)
		}
	})
	given()
	if err != nil {
		defer l.end()
	}
	if errors.Is(context.Cause(racing), errAnswered) {
		won.conn.CloseWithError(quic.ApplicationErrorCode(CodeDuplicate), errAnswered.Error())
		return errAnswered
	}
	if err != nil {
		t.dialler.proofs.heard(one.id, won.conn, err)
		won.conn.CloseWithError(quic.ApplicationErrorCode(CodeProtocol), "no hello")
		return fmt.Errorf("greet %v: %w", won.addr, err)
	}
	one.good(won.addr)
	l, err = t.keeper.adopt(l, far)
	if ctx.Err() != nil {
		l.close(CodeUnneeded, unneeded)
	}
	return err
}
