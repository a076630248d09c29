package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"warren/mesh"
	"warren/mesh/courier"
	"warren/mesh/identity"
	"warren/mesh/join"
	"warren/mesh/node"
	"warren/mesh/place"
	"warren/mesh/roster"
	"warren/mesh/session"
	"warren/nat/limit"
	"warren/nat/netwatch"
	"warren/nat/portmap"
	"warren/nat/relay"
	"warren/nat/standing"
	"warren/nat/stream"
	"warren/tunnel"
	"warren/tunnel/bind"
)

/* What stands between two owners
 *
 * Each owner says in an interface of its own what it needs. Most of these another owner satisfies as it is; where the words
 * differ, one of the small types below translates. They keep no state but what they were made with.
 *
 *	session ── messages, streams, joiners ──► inbound ──► mesh, courier, standing, relay
 *	session, relay, standing, courier ── who is a member? ──► members ──► mesh.View
 *	mesh ── gossip ──► gossip ──► session
 *	nat, streams ── what do the packets show? ──► traffic, tunnel
 *	relay ── the data path ──► forwarder ──► tunnel/bind
 */

// book is what is read of the records; *mesh.Mesh is one.
type book interface {
	View() *mesh.View
	VerifyChain(chain []*x509.Certificate) (identity.NodeID, error)
	Proof(chain []*x509.Certificate) [][]byte
}

// members tells who is a member, out of the records as they are now. Nothing here waits.
type members struct {
	state *place.State
	book  book
	// sessions is what Remote asks.
	sessions *session.Sessions
}

// Record returns a member.
func (m *members) Record(id identity.NodeID) (mesh.Member, bool) { return m.book.View().Member(id) }

// Member reports whether a node is an active member.
func (m *members) Member(id identity.NodeID) bool {
	member, ok := m.Record(id)
	return ok && member.State == mesh.Active
}

// Anchor reports whether a node is an active member that strangers reach.
func (m *members) Anchor(id identity.NodeID) bool {
	member, ok := m.Record(id)
	return ok && member.State == mesh.Active && len(member.Record.Endpoints) > 0
}

// AnchorsOf returns the members through which a node says that it is reached, and of an anchor those that it belongs to.
func (m *members) AnchorsOf(id identity.NodeID) []identity.NodeID {
	view := m.book.View()
	member, _ := view.Member(id)
	rings := view.Rings()
	if !rings.Has(id) {
		return member.Record.Anchors
	}
	out := slices.Clone(member.Record.Anchors)
	for _, other := range rings.Neighbours(id) {
		if !slices.Contains(out, other) {
			out = append(out, other)
		}
	}
	return out
}

// Spent reports whether all uses of an invite are taken, as far as the records tell.
func (m *members) Spent(invite identity.KeyID) bool {
	for _, one := range m.book.View().Invites {
		if one.ID == invite {
			return len(one.Used) >= one.Terms.Uses
		}
	}
	return false
}

// Remote returns the address that a member's control session comes from.
func (m *members) Remote(id identity.NodeID) (netip.AddrPort, bool) { return m.sessions.Remote(id) }

// Credential is what this node shows in handshakes: its chain, root included, so that a member that lacks records
// can still verify it.
func (m *members) Credential() tls.Certificate {
	c := tls.Certificate{PrivateKey: m.state.Key, Leaf: m.state.Chain[0]}
	for _, cert := range m.state.Chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}

// finalReasons are those that no record still to come, and no clock set right, can cure. Whoever is refused for one is given the records.
var finalReasons = []roster.Reason{
	roster.ReasonRevoked, roster.ReasonIssuerRevoked, roster.ReasonInviteRevoked, roster.ReasonInviteUsed,
}

// Verify says whose chain it is, or why it is no member's; whoever is none for good is told so, and given the records that say it.
func (m *members) Verify(chain []*x509.Certificate) (identity.NodeID, error) {
	id, err := m.book.VerifyChain(chain)
	if err != nil && slices.Contains(finalReasons, roster.ReasonOf(err)) {
		return id, &session.Refusal{Code: node.CodeNotMember, Reason: err.Error(), Proof: m.book.Proof(chain)}
	}
	return id, err
}

// streamMembers is members as streams are verified: with their own kind of refusal.
type streamMembers struct{ *members }

// Verify is that of members.
func (m streamMembers) Verify(chain []*x509.Certificate) (identity.NodeID, error) {
	id, err := m.members.Verify(chain)
	if no, ok := errors.AsType[*session.Refusal](err); ok {
		err = &stream.Refusal{Code: uint16(no.Code), Reason: no.Reason, Proof: no.Proof}
	}
	return id, err
}

// records is members as the courier's keyring reads them.
type records struct{ *members }

// Member returns a member.
func (r records) Member(id identity.NodeID) (mesh.Member, bool) { return r.Record(id) }

// inbound takes what comes by the sessions.
type inbound struct {
	log      *slog.Logger
	mesh     *mesh.Mesh
	courier  *courier.Courier
	standing *standing.Standing
	relay    *relay.Server
	unknown  atomic.Uint64 // messages and streams of no known kind
	hosts    func(from identity.NodeID, c net.Conn)
	indirect atomic.Uint64             // requests for a relay, or a host, that did not come from the member itself
	refused  atomic.Uint64             // joiners
	lines    limit.Lines[netip.Prefix] // of joins that came to nothing, by where they came from
}

// Message is called by session, from its goroutines, and does not wait.
func (in *inbound) Message(from, by identity.NodeID, p session.Proto, payload []byte) {
	switch p {
	case session.ProtoGossip:
		in.mesh.HandleMessage(from, by, payload)
	case session.ProtoSignal:
		in.courier.Take(from, by, payload)
	case session.ProtoAsk:
		in.standing.Asked(from, payload)
	default:
		in.unknown.Add(1)
	}
}

// Stream is called by session, in a goroutine of the stream's own.
func (in *inbound) Stream(from identity.NodeID, p session.Proto, c net.Conn) {
	switch p {
	case session.ProtoGossipStream:
		in.mesh.HandleGossipStream(from, c)
	case session.ProtoSync:
		in.mesh.HandleSync(from, c)
	case session.ProtoRelay:
		if session.Bringer(c) != from { // whoever forwards a request could name any member as its source
			c.Close()
			in.indirect.Add(1)
			return
		}
		in.relay.Serve(context.Background(), from, c) // ends with the session
	case session.ProtoHost:
		if session.Bringer(c) != from || in.hosts == nil {
			c.Close()
			in.indirect.Add(1)
			return
		}
		in.hosts(from, c)
	default:
		c.Close()
		in.unknown.Add(1)
	}
}

// Join answers a joiner's connection.
func (in *inbound) Join(c session.JoinConn) {
	who, err := join.Serve(context.Background(), c, in.mesh.Admission()) // ends with the connection
	address, _ := netip.ParseAddrPort(c.RemoteAddr().String())
	// Anybody can be refused as often as it likes, and who holds an invite can break off after each admission.
	skipped, due := 0, true
	if err != nil {
		skipped, due = in.lines.Due(time.Now(), limit.Host(address.Addr()))
	}
	switch {
	case err != nil && who.IsZero():
		in.refused.Add(1)
		if due {
			in.log.Info("join refused", "address", address.String(), "error", err, "skipped", skipped)
		}
	case err != nil:
		if due {
			in.log.Info("admitted, first record not received", "id", who.Short(), "error", err, "skipped", skipped)
		}
	default:
		in.log.Info("admitted", "id", who.Short())
	}
}

// Proof takes the records for which a node refuses this one.
func (in *inbound) Proof(from identity.NodeID, records [][]byte) { in.mesh.HandleProof(from, records) }

// Dropped counts what was dropped here, by reason.
func (in *inbound) Dropped() map[string]uint64 {
	return map[string]uint64{
		"session: unknown message or stream": in.unknown.Load(), "request not from the member itself": in.indirect.Load(), "join: refused": in.refused.Load(),
	}
}

// gossip is how mesh reaches other members: over the control sessions.
type gossip struct{ sessions *session.Sessions }

var _ mesh.Sessions = gossip{}

func (g gossip) SendGossip(to identity.NodeID, payload []byte) error {
	return g.sessions.Send(to, session.ProtoGossip, payload)
}

func (g gossip) OpenGossip(ctx context.Context, to identity.NodeID) (net.Conn, error) {
	return g.sessions.Open(ctx, to, session.ProtoGossipStream)
}

func (g gossip) OpenSync(ctx context.Context, to identity.NodeID) (net.Conn, error) {
	return g.sessions.Open(ctx, to, session.ProtoSync)
}

func (g gossip) Neighbours() []identity.NodeID { return g.sessions.Preferred() }

// carrier tells what the packets to a member show, and by which way they go; *tunnel.Tunnel is one.
type carrier interface {
	Activity(id identity.NodeID) (a bind.Activity, way netip.AddrPort)
}

// grounded is the tunnel, and what it stands on.
type grounded struct {
	*tunnel.Tunnel
	state *place.State // nil: there is none
	log   *slog.Logger
}

// SetPort implements node.Tunnel. A port that could not be kept is found again after the next start.
func (g grounded) SetPort(port uint16) error {
	if err := g.Tunnel.SetPort(port); err != nil {
		return err
	}
	if g.state == nil {
		return nil
	}
	if err := g.state.KeepPort(port); err != nil {
		g.log.Warn("port not kept for the next start", "port", port, "error", err)
	}
	return nil
}

// Gateways implements node.Tunnel.
func (grounded) Gateways() []netip.Addr { return portmap.Gateways() }

// Running implements node.Tunnel.
func (g grounded) Running() (string, uint16) { return g.Name(), g.Port() }

// traffic is what nat looks at to see whether a path is alive.
type traffic struct{ tunnel carrier }

// Activity implements nat.Traffic. What goes by a stream says nothing about the path that nat knows.
func (t traffic) Activity(peer identity.NodeID) (lastTx, lastRx time.Time) {
	a, way := t.tunnel.Activity(peer)
	if bind.IsStream(way.Addr()) {
		return lastTx, lastRx
	}
	return a.LastTx, a.LastRx
}

// last is when packets last went to a peer or came from it, by a path.
func (t traffic) last(peer identity.NodeID) time.Time {
	tx, rx := t.Activity(peer)
	if tx.After(rx) {
		return tx
	}
	return rx
}

// paths are told when nothing may go through a relay any more; *nat.NAT has them.
type paths interface{ RelayGone(id identity.NodeID) }

// relays are this node's two parts in relaying.
type relays struct {
	server  *relay.Server
	client  *relay.Client
	forward *bind.Forwards
	paths   paths // that go through others
}

// Set says whether this node relays for others, and at most how many bytes a second; 0: no limit.
func (r relays) Set(enabled bool, limit int) {
	r.server.Set(relay.Terms{Enabled: enabled, Limit: limit})
	r.forward.SetLimit(limit)
}

func (r relays) Follow(anchors []identity.NodeID)  { r.client.Follow(anchors) }
func (r relays) Wanted() []identity.NodeID         { return r.client.Anchors() }
func (r relays) Load(anchor identity.NodeID) uint8 { return r.client.Load(anchor) }

// Drop ends all relaying for and by a node that is no member any more.
func (r relays) Drop(id identity.NodeID) {
	r.server.Drop(id)
	r.paths.RelayGone(id)
}

func (r relays) Moved(id identity.NodeID, to netip.AddrPort) {
	r.server.Moved(id, to)
	r.client.Moved(id, to)
}

// forwarder is the data path of the relay: the socket's.
type forwarder struct{ *bind.Forwards }

func (f forwarder) Forward(from, to relay.Half) (relay.Counter, error) {
	counters, err := f.Set(bind.Half(from), bind.Half(to))
	if err != nil {
		return nil, err
	}
	return forwarded{counters}, nil
}

func (f forwarder) Unforward(from relay.Half) { f.Remove(bind.Half(from)) }

type forwarded struct{ counters *bind.ForwardCounters }

func (f forwarded) Traffic() relay.Traffic {
	s := f.counters.Load()
	return relay.Traffic{Packets: s.Packets, Bytes: s.Bytes, Dropped: s.Dropped, Last: s.Last}
}

// anchorDialer opens relay control streams on the session with an anchor. If there is none and it is to wait, the hub has the
// anchor dialled, since the client says that it needs it.
type anchorDialer struct{ sessions *session.Sessions }

// DialRelay implements relay.Dialer.
func (d anchorDialer) DialRelay(ctx context.Context, anchor identity.NodeID, wait bool) (net.Conn, netip.AddrPort, error) {
	remote, ok := d.sessions.Remote(anchor)
	if !ok && wait {
		var err error
		if remote, err = d.sessions.Await(ctx, anchor); err != nil {
			return nil, netip.AddrPort{}, fmt.Errorf("dial relay: %w", session.ErrNoRoute)
		}
	} else if !ok {
		return nil, netip.AddrPort{}, fmt.Errorf("dial relay: %w", session.ErrNoRoute)
	}
	if wait {
		d.sessions.Doubt(anchor) // an anchor that is dead ought to be found so before the request has waited its time
	}
	c, err := d.sessions.OpenDirect(ctx, anchor, session.ProtoRelay)
	return c, remote, err
}

// network tells standing of changes of the network and of the shared port.
type network struct {
	changes chan struct{} // of capacity 1
	watch   func(context.Context) (<-chan struct{}, error)
	ports   <-chan uint16
	prefix  <-chan struct{} // IPv4 is reached another way
	ask     func()          // which way, anew; must not block
	log     *slog.Logger
	trouble atomic.Pointer[string]

	// owned by whoever runs it
	seen <-chan struct{} // of watch; nil: not watched
}

func newNetwork(a *agent) *network {
	return &network{
		changes: make(chan struct{}, 1), ports: a.socket.PortChanges(), prefix: a.nat64.Events(), ask: a.nat64.Changed, log: a.log,
		watch: func(ctx context.Context) (<-chan struct{}, error) { return netwatch.Watch(ctx, a.foreign) },
	}
}

// Watch begins to watch until ctx ends; Run tells. It comes before standing looks at the network for the first time, so that no
// change falls between the two.
func (n *network) Watch(ctx context.Context) {
	var err error
	if n.seen, err = n.watch(ctx); err != nil {
		n.log.Warn("network not watched", "error", err)
		text := "changes of the network are not noticed at once: " + err.Error()
		n.trouble.Store(&text)
	}
	select {
	case <-n.ports: // the port was opened before: no change
	default:
	}
}

// Run tells of changes until ctx ends.
func (n *network) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, open := <-n.seen:
			if !open {
				n.seen = nil
				continue
			}
			n.ask()
		case <-n.ports:
		case <-n.prefix:
		}
		select {
		case n.changes <- struct{}{}:
		default:
		}
	}
}
