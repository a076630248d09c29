package node

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"net"
	"net/netip"
	"time"

	"warren/mesh/identity"
	"warren/mesh/join"
	"warren/mesh/roster"
	"warren/mesh/session"
	"warren/mesh/signal"
	"warren/nat"
)

// The verbs that the owners of a member call, from goroutines of theirs: they read snapshots and never wait.

// credential is what this node shows in handshakes: its chain, root included, so that a member that lacks records
// can still verify it.
func (m *member) credential() tls.Certificate {
	c := tls.Certificate{PrivateKey: m.state.key, Leaf: m.state.chain[0]}
	for _, cert := range m.state.chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}

func (m *member) keysOf(id identity.NodeID) (signal.Keys, bool) {
	other, ok := m.mesh.View().Member(id)
	if !ok || other.State != roster.Active {
		return signal.Keys{}, false
	}
	public, ok := m.publicKey(other)
	return signal.Keys{Signing: public, Sealing: other.Record.SealingKey}, ok
}

// publicKey returns the key that a member's ID is the hash of, which is why it can be remembered.
func (m *member) publicKey(other roster.Member) (ed25519.PublicKey, bool) {
	if known, ok := m.public.Load(other.ID); ok {
		return known.(ed25519.PublicKey), true
	}
	cert, err := identity.ParseCert(other.Record.Certificate)
	if err != nil {
		return nil, false
	}
	public, ok := cert.PublicKey.(ed25519.PublicKey)
	if ok {
		m.public.Store(other.ID, public)
	}
	return public, ok
}

func (m *member) active(id identity.NodeID) bool { return m.mesh.Member(id) }

// relaying reports whether this node relays for others: whoever can be reached does, unless told not to.
func (m *member) relaying() bool { return m.routes.Load().relaying }

// inOverlay keeps addresses of the mesh itself from becoming candidates: a tunnel must not run through itself.
func (m *member) inOverlay(addr netip.Addr) bool {
	view := m.mesh.View()
	return view.Prefix6.Contains(addr) || view.Prefix4.IsValid() && view.Prefix4.Contains(addr)
}

// activity is called by nat for each peer: the path is alive while packets come in.
func (m *member) activity(id identity.NodeID) (lastTx, lastRx time.Time) {
	// What goes by a stream says nothing about the path that nat knows.
	if e := m.routes.Load().endpoints[id]; e != nil && !m.usesStream(id) {
		a := e.Activity()
		return a.LastTx, a.LastRx
	}
	return lastTx, lastRx
}

// anchors lists the members with a session, nearest first: any of them can say what address it sees, and relay.
func (m *member) anchors() []nat.Anchor { return m.routes.Load().anchors }

// onMessage is called by session, from its goroutines.
func (m *member) onMessage(from identity.NodeID, p session.Proto, payload []byte) {
	switch p {
	case session.ProtoGossip:
		m.mesh.HandleMessage(from, payload)
	case session.ProtoSignal:
		select {
		case m.incoming <- incomingSignal{from: from, sealed: payload}:
		default:
			m.dropped.add("signal: queue full")
		}
	case session.ProtoAsk:
		m.asked(from, payload)
	default:
		m.dropped.add("session: unknown message")
	}
}

// onStream is called by session, in a goroutine of the stream's own.
func (m *member) onStream(from identity.NodeID, p session.Proto, c net.Conn) {
	switch p {
	case session.ProtoGossipStream:
		m.mesh.HandleGossipStream(from, c)
	case session.ProtoSync:
		m.mesh.HandleSync(from, c)
	case session.ProtoRelay:
		if !session.IsDirect(c) { // whoever forwards a request could name any member as its source
			c.Close()
			m.dropped.add("relay: request not from the member itself")
			return
		}
		m.relays.Serve(context.Background(), from, c) // ends with the session
	default:
		c.Close()
		m.dropped.add("session: unknown stream")
	}
}

// admit answers a joiner's connection.
func (m *member) admit(c session.JoinConn) {
	who, err := join.Serve(context.Background(), c, m.mesh) // ends with the connection
	switch {
	case err != nil && who.IsZero():
		m.dropped.add("join: refused")
		m.log.Info("join refused", "address", c.RemoteAddr().String(), "reason", err)
	case err != nil:
		m.log.Info("admitted, first record not received", "peer", who.Short(), "error", err)
	default:
		m.log.Info("admitted", "peer", who.Short())
	}
}
