package session

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"

	"warren/nat/limit"
)

/* Dialling beside a session
 *
 * A session whose far side leaves a check unanswered is dialled anew before it is given up, so that little time is lost if it is dead. But
 * most that do not answer at once are alive and busy, and handshakes keep them so. So:
 *
 *	the answer comes    the dial is given up, and the next one of this target waits needlessPause, twice as long each time
 *	a node              begins besides of them, whomever they are with
 *
 * What is left out costs a second: the check ends the session when it is dead, and then it is dialled as any other.
 */

var besides = limit.Rate{PerSecond: 0.25, Burst: 8}

const (
	needlessPause = 10 * time.Second
	maxNeedless   = 5 // so often is the pause doubled
)

var errAnswered = errors.New("the session that there is has answered")

// doubts is how dialling beside its sessions has gone for one target; the target's mu guards it.
type doubts struct {
	needless int // in a row
	next     time.Time
}

// mayReplace reports whether a session with the target may be dialled beside another one now.
func (t *target) mayReplace(now time.Time, all *rate.Limiter) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !now.Before(t.doubts.next) && all.AllowN(now, 1)
}

// replaced notes what came of it.
func (t *target) replaced(now time.Time, needless bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !needless {
		t.doubts = doubts{}
		return
	}
	t.doubts.next = now.Add(needlessPause << min(t.doubts.needless, maxNeedless))
	t.doubts.needless++
}

// replace dials a target whose session l has left a check unanswered, until that is answered.
func (t *targets) replace(ctx context.Context, one *target, l *link) error {
	select {
	case <-l.pulse.answered:
	default:
	}
	if !l.pulse.doubtful() || !one.mayReplace(time.Now(), t.besides) {
		return nil
	}
	racing, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t.wait.Go(func() {
		select {
		case <-l.pulse.answered:
			cancel(errAnswered)
		case <-racing.Done():
		}
	})
	err := t.dial(ctx, racing, one, true)
	needless := errors.Is(context.Cause(racing), errAnswered)
	one.replaced(time.Now(), needless)
	if needless {
		return nil
	}
	return err
}
