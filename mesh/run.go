package mesh

import (
	"context"
	"log/slog"
	"time"
)

// tickEvery is how often is looked for what events have missed.
const tickEvery = time.Minute

// loop is the run loop: what happens to a Mesh one thing after the other.
type loop struct {
	// constant
	intake *intake
	asks   *asks
	swim   *swim
	log    *slog.Logger

	syncs  *timetable
	out    *expulsion
	grants *granter
	timer  *time.Timer
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
			l.taken(time.Now())
		case r := <-l.syncs.results:
			l.syncs.finished(r, time.Now())
		case line := <-l.swim.lines:
			l.log.Debug("memberlist", "text", line)
			continue
		case <-l.timer.C:
		case <-tick.C:
			l.intake.advance(time.Now()) // which also tries a write again that failed
			l.syncs.tick(time.Now())
		}
		l.start(ctx, time.Now())
	}
}

// taken acts on what was asked for, and on refusals: one that is left came after the last session with its sender.
func (l *loop) taken(now time.Time) {
	asks, no := l.asks.take()
	for id, a := range asks {
		if a.up {
			l.out.takenIn(id)
		}
	}
	for id, reason := range no {
		l.out.refuse(id, reason, now)
	}
	l.syncs.plan(asks, now)
}

// start begins what is due and sets the timer for what is due next.
func (l *loop) start(ctx context.Context, now time.Time) {
	next := l.out.heed(now)
	for _, due := range [...]time.Time{l.syncs.start(ctx, now), l.grants.start(now)} {
		if next.IsZero() || !due.IsZero() && due.Before(next) {
			next = due
		}
	}
	if next.IsZero() {
		next = now.Add(time.Hour)
	}
	l.timer.Reset(next.Sub(now))
}
