package session

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"

	"warren/mesh/identity"
)

// Knock dials a node at these addresses, up to the proof of both sides, and hangs up. It makes no session and touches none. nil: the
// node has answered at one of them, as a member. It waits for that, for 4 s at most. It may be called while Run runs.
func (s *Sessions) Knock(ctx context.Context, id identity.NodeID, addrs []netip.AddrPort) error {
	one := newTarget(id)
	one.set(addrs) // cleaned, and bounded
	if len(one.addrs) == 0 {
		return ErrNoRoute
	}
	ctx, cancel := context.WithTimeout(ctx, longDial)
	d, ours := *s.targets.dialler, sync.WaitGroup{} // Run may have ended meanwhile, and wait no more
	d.wait = &ours
	defer ours.Wait()
	defer cancel()
	won, err := d.race(ctx, one, one.addrs, haste{longDial, urgentStagger}, new(atomic.Bool))
	if err != nil {
		return err
	}
	// As the slower one of two addresses ends: the far side takes it for no news.
	return won.conn.CloseWithError(quic.ApplicationErrorCode(CodeDuplicate), "only asked whether it can be dialled")
}
