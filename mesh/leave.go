package mesh

import (
	"context"
	"errors"
	"fmt"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// leaveRetry is how long Leave waits before it asks the others again.
const leaveRetry = 300 * time.Millisecond

// leaveGossip bounds the wait for memberlist to tell one other member.
const leaveGossip = 2 * time.Second

// ErrAlone is wrapped by Leave when no other member could be told.
var ErrAlone = errors.New("no other member could be told")

// Leave publishes that this node has left, and returns once another member has that on record, or there is none. Run goes
// on, so that the news can spread while the caller takes the rest of the node down. The error wraps ErrAlone when ctx ended before.
func (m *Mesh) Leave(ctx context.Context) error {
	if err := m.Update(func(own *record.Node) { own.Left = true }); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	key := m.book.ownKey()
	others := m.others()
	for len(others) > 0 {
		for _, has := range m.confirmed(ctx, key, others) {
			if has {
				m.leaveGossip()
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

// others lists whom to tell: the neighbours if there are any, else all members.
func (m *Mesh) others() []identity.NodeID {
	if neighbours := m.sessions.Neighbours(); len(neighbours) > 0 {
		return neighbours
	}
	var ids []identity.NodeID
	for _, member := range m.View().Members {
		if member.ID != m.self && member.State == roster.Active {
			ids = append(ids, member.ID)
		}
	}
	return ids
}

// leaveGossip has memberlist say good-bye, so that nobody probes this node any more.
func (m *Mesh) leaveGossip() {
	if r := m.running.Load(); r != nil {
		if err := r.swim.list.Leave(leaveGossip); err != nil {
			m.log.Debug("gossip not left", "error", err)
		}
	}
}
