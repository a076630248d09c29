package mesh

import (
	"context"
	"errors"
	"fmt"
	"time"

	"warren/mesh/record"
)

// leaveRetry is how long Leave waits before it asks the others again.
const leaveRetry = 300 * time.Millisecond

// ErrAlone is wrapped by Leave when no other member could be told.
var ErrAlone = errors.New("no other member could be told")

// Leave publishes that this node has left, and returns once another member has that on record, or there is none. Run goes
// on, so that the news can spread while the caller takes the rest of the node down. The error wraps ErrAlone when ctx ended before.
func (m *Mesh) Leave(ctx context.Context) error {
	if err := m.Update(func(own *record.Node) { own.Left = true }); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	key := m.writer.ownKey()
	others := m.sessions.Neighbours() // whom to tell: all members only if there are none
	if len(others) == 0 {
		others = m.View().others(m.self)
	}
	for len(others) > 0 {
		for _, has := range m.syncer.confirmed(ctx, key, others) {
			if has {
				if r := m.running.get(); r != nil {
					r.swim.leave()
				}
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("leave: %w", ErrAlone)
		case <-time.After(leaveRetry):
		}
	}
	return nil
}
