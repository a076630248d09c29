package mesh

import (
	"context"
	"log/slog"
	"time"
	"warren/nat/due"
)

const (
	// tickEvery is how often is looked for what events have missed.
	tickEvery = time.Minute
	// saveAgain is how often a write that failed is tried again: soon enough for who has just made room.
	saveAgain = 5 * time.Second
)

// loop is the run loop: what happens to a Mesh one thing after the other.
type loop struct {
	// constant
	intake   *intake
	asks     *asks
	notices  *notices
	sides    *sides
	sessions Sessions
	swim     *swim
	log      *slog.Logger

	syncs  *timetable
	grants *granter
	timer  *time.Timer
	again  time.Time // when to try a write again that has failed; zero: none has
}

func (l *loop) run(ctx context.Context) {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	defer l.timer.Stop()
	l.start(ctx, time.Now())
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-l.intake.inbox:
			l.intake.take(a)
		case <-l.intake.bell.within: // for what start looks at
		case <-l.asks.wake:
			asks, again := l.asks.take()
			l.syncs.plan(asks, time.Now())
			l.syncs.later(again, time.Now())
		case <-l.notices.wake:
		case r := <-l.syncs.results:
			l.syncs.finished(r, time.Now())
		case line := <-l.swim.lines:
			l.log.Debug("memberlist", "text", line)
			continue
		case <-l.timer.C:
		case <-tick.C:
			l.intake.advance(time.Now())
			l.syncs.tick(time.Now())
			l.sides.keep(l.sessions.Neighbours())
		}
		l.start(ctx, time.Now())
	}
}

// start begins what is due and sets the timer for what is due next.
func (l *loop) start(ctx context.Context, now time.Time) {
	next := now.Add(time.Hour)
	for _, at := range [...]time.Time{l.intake.resume(now), l.notices.send(now), l.save(now), l.syncs.start(ctx, now), l.grants.start(now)} {
		next = due.Sooner(next, at)
	}
	l.timer.Reset(next.Sub(now))
}

// save tries a write again that has failed, when it is time, and returns when that is; zero: none has.
func (l *loop) save(now time.Time) time.Time {
	switch failed := l.intake.book.unsaved.Load(); {
	case !failed:
		l.again = time.Time{}
	case l.again.IsZero():
		l.again = now.Add(saveAgain)
	case !now.Before(l.again):
		if l.again = now.Add(saveAgain); !l.intake.book.retry() {
			l.again = time.Time{}
		}
	}
	return l.again
}
