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

	"warren/mesh/api"
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
	return relay.NewServer(relay.ServerOptions{Self: m.self, Socket: relaySocket{m.socket}, Members: relayLane{m}, Logger: logger})
}

// relaySocket is the data path of a relay.
type relaySocket struct{ socket *bind.Bind }

func (s relaySocket) Forward(from, to relay.Half) (relay.Counter, error) {
	counters, err := s.socket.SetForward(bind.Half(from), bind.Half(to))
	return relayCounter{counters}, err
}

func (s relaySocket) Unforward(from relay.Half) { s.socket.RemoveForward(bind.Half(from)) }

func (s relaySocket) Fill() float64 { return s.socket.RelayFill() }

type relayCounter struct{ *bind.ForwardCounters }

func (c relayCounter) Traffic() relay.Traffic {
	s := c.Load()
	return relay.Traffic{Packets: s.Packets, Bytes: s.Bytes, Dropped: s.Dropped, Last: s.Last}
}

func (m *member) newRelayClient(logger *slog.Logger) *relay.Client {
	return relay.NewClient(relay.ClientOptions{Dialer: relayLane{m}, Channels: m.socket, Logger: logger})
}

// relayLane is what a relay and its clients use of a member.
type relayLane struct{ m *member }

func (l relayLane) Remote(id identity.NodeID) (netip.AddrPort, bool) { return l.m.sessions.Remote(id) }

func (l relayLane) Member(id identity.NodeID) bool { return l.m.active(id) }

// DialRelay is dialRelay.
func (l relayLane) DialRelay(ctx context.Context, anchor identity.NodeID, wait bool) (net.Conn, netip.AddrPort, error) {
	return l.m.dialRelay(ctx, anchor, wait)
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
	m.tellNAT()
}

// limitRelay applies the setting.
func (m *member) limitRelay() {
	limit := m.settings().RelayLimit
	m.share.limit.Store(int64(limit))
	m.socket.SetRelayLimit(limit)
	m.relays.Set(relay.Terms{Enabled: m.settings().Anchor != AnchorNever, Limit: limit})
}

// relayStatus says what is forwarded for others; nil when nothing is or was.
func (m *member) relayStatus(names map[identity.NodeID]string) *api.Relay {
	pairs, members := m.relays.Snapshot()
	if len(pairs)+len(members) == 0 {
		return nil
	}
	out := &api.Relay{Load: int(m.relays.Load()), LimitBPS: 8 * uint64(m.share.limit.Load()), Pairs: []api.RelayPair{}, Members: []api.RelayMember{}}
	for _, p := range pairs {
		out.Pairs = append(out.Pairs, api.RelayPair{
			A: shorten(names[p.A], p.A), B: shorten(names[p.B], p.B), Joined: p.Joined, FromA: relayed(p.FromA), FromB: relayed(p.FromB),
		})
	}
	for _, one := range members {
		out.Members = append(out.Members, api.RelayMember{Name: shorten(names[one.ID], one.ID), Channels: one.Channels, Sent: relayed(one.Sent)})
	}
	return out
}

func relayed(t relay.Traffic) api.Relayed {
	return api.Relayed{Packets: t.Packets, Bytes: t.Bytes, Dropped: t.Dropped, Last: moment(t.Last)}
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
