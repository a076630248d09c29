package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session"
	"warren/nat"
	"warren/nat/relay"
	"warren/tunnel/bind"
)

// relaying is this node's part in relaying: as a relay for others, and as a user of theirs.
type relaying struct {
	limit atomic.Int64 // bytes a second that are forwarded for others; 0: no limit

	mu sync.Mutex
	up chan struct{} // closed and replaced when a session comes up
}

func newRelaying() *relaying { return &relaying{up: make(chan struct{})} }

// sessionUp wakes those that wait for a session with an anchor.
func (r *relaying) sessionUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.up)
	r.up = make(chan struct{})
}

func (r *relaying) nextUp() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.up
}

// newRelayServer returns this node's relay, whose data path is the socket's.
func (m *member) newRelayServer(logger *slog.Logger) *relay.Server {
	return relay.NewServer(relay.ServerOptions{
		Self: m.self,
		Forward: func(from, to relay.Half) func() relay.Traffic {
			counters, err := m.socket.SetForward(bind.Half(from), bind.Half(to))
			if err != nil {
				m.log.Warn("forward", "from", from.Addr.String(), "to", to.Addr.String(), "error", err)
				return nil
			}
			return func() relay.Traffic {
				s := counters.Load()
				return relay.Traffic{Packets: s.Packets, Bytes: s.Bytes, Dropped: s.Dropped, Last: s.Last}
			}
		},
		Unforward: func(from relay.Half) { m.socket.RemoveForward(bind.Half(from)) },
		Remote:    m.sessions.Remote, Member: m.active, Enabled: m.relaying,
		Limit: func() int { return int(m.share.limit.Load()) }, Fill: m.socket.RelayFill, Logger: logger,
	})
}

func (m *member) newRelayClient(logger *slog.Logger) *relay.Client {
	return relay.NewClient(relay.ClientOptions{
		Dial: m.dialRelay, OpenChannel: m.socket.OpenChannel, CloseChannel: m.socket.CloseChannel, MoveChannel: m.socket.MoveChannel, Logger: logger,
	})
}

// dialRelay opens a relay control stream on the session with an anchor. If there is none and it is to wait, the loop dials
// the anchor (see planTargets), since the client says that it needs it.
func (m *member) dialRelay(ctx context.Context, anchor identity.NodeID, wait bool) (net.Conn, netip.AddrPort, error) {
	for {
		up := m.share.nextUp()
		if remote, ok := m.sessions.Remote(anchor); ok {
			m.sessions.Doubt(anchor) // an anchor that is dead ought to be found so before the request has waited its time
			stream, err := m.sessions.OpenDirect(ctx, anchor, session.ProtoRelay)
			return stream, remote, err
		}
		if !wait {
			return nil, netip.AddrPort{}, fmt.Errorf("dial relay: %w", session.ErrNoRoute)
		}
		select {
		case <-up:
		case <-ctx.Done():
			return nil, netip.AddrPort{}, fmt.Errorf("dial relay: %w", session.ErrNoRoute)
		}
	}
}

// relaysChanged is told that a relay has another load, or that another one is needed.
func (m *member) relaysChanged() {
	m.publishRoutes()
	m.nat.AnchorsChanged()
}

// limitRelay applies the setting.
func (m *member) limitRelay() {
	limit := m.settings().RelayLimit
	m.share.limit.Store(int64(limit))
	m.socket.SetRelayLimit(limit)
}

// relayAnchor describes a member with a session as nat sees it. Its round trip is measured anew: that of the handshake is
// rough, and relays are chosen by it.
func (m *member) relayAnchor(id identity.NodeID, remote netip.AddrPort, private bool) nat.Anchor {
	rtt, ok := m.sessions.RTT(id)
	if !ok {
		rtt = m.up[id].rtt
	}
	return nat.Anchor{ID: id, Addr: remote, RTT: rtt.Round(time.Millisecond), Since: m.up[id].since, Load: m.channels.Load(id), Private: private}
}
