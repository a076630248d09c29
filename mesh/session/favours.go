package session

import (
	"context"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// favours bounds what one member may have this node do for it: pass on messages, and splice streams.
type favours struct {
	forwards *rate.Limiter // messages passed on
	spliced  *rate.Limiter // bytes of its splices
	splices  atomic.Int32  // under way
}

func newFavours() *favours {
	return &favours{forwards: forwardRate.Limiter(), spliced: rate.NewLimiter(spliceRate, spliceBurst)}
}

// mayForward reports whether one more message may be passed on now.
func (f *favours) mayForward() bool { return f.forwards.Allow() }

// pace waits until n more bytes, at most spliceBuffer, may be spliced, or ctx ends: the copying fails by itself then.
func (f *favours) pace(ctx context.Context, n int) { _ = f.spliced.WaitN(ctx, n) }
