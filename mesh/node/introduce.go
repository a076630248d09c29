package node

import (
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/identity"
	"warren/mesh/session"
	"warren/mesh/signal"
	"warren/nat"
	"warren/tunnel"
)

// incomingSignal is a sealed introduction as it came from a session; from is a hint that nothing relies on.
type incomingSignal struct {
	from   identity.NodeID
	sealed []byte
}

// outgoingSignal is a message of nat that waits to be sealed.
type outgoingSignal struct {
	to      identity.NodeID
	message nat.Message
}

// enqueue is nat's way to the other side. It fails at once when there is no way at all.
func (m *member) enqueue(to identity.NodeID, message nat.Message) error {
	if !m.routes.Load().any() {
		return errNoRoute
	}
	select {
	case m.outgoing <- outgoingSignal{to: to, message: message}:
	default:
		m.dropped.add("signal: queue full")
	}
	return nil
}

// roles of nat's messages in the key agreement.
func roleOf(kind nat.Kind) signal.Role {
	switch kind {
	case nat.KindOffer:
		return signal.Offer
	case nat.KindAnswer:
		return signal.Answer
	default:
		return signal.Plain
	}
}

// transmit seals a message and sends it. The preshared key of an answer is in place before the answer leaves.
func (m *member) transmit(out outgoingSignal) {
	out.message.NAT = m.ownStanding(out.message.Kind)
	payload, err := out.message.Encode()
	if err != nil {
		m.log.Warn("encode signal", "peer", m.nameOf(out.to), "error", err)
		return
	}
	sealed, psk, err := m.sealer.Seal(time.Now(), out.to, signal.Message{Role: roleOf(out.message.Kind), Attempt: out.message.Attempt, Payload: payload})
	if err != nil {
		m.dropped.add("signal: not sealed")
		m.log.Debug("seal signal", "peer", m.nameOf(out.to), "error", err)
		return
	}
	if psk != nil && !m.adopt(out.to, *psk) {
		return
	}
	if err := m.sessions.Send(out.to, session.ProtoSignal, sealed); err != nil {
		m.dropped.add("signal: no route")
	}
}

// receive opens a signal and hands it to nat. The preshared key of an answer is in place before nat acts on it.
func (m *member) receive(in incomingSignal) {
	from, opened, psk, err := m.sealer.Open(time.Now(), in.sealed)
	if err != nil {
		m.dropped.add("signal: " + reasonOf(err))
		m.outlook.refused(from, err)
		m.log.Debug("open signal", "peer", in.from.Short(), "error", err)
		return
	}
	message, err := nat.Decode(opened.Payload)
	if err != nil || roleOf(message.Kind) != opened.Role || message.Attempt != opened.Attempt && opened.Role != signal.Plain {
		m.dropped.add("signal: malformed")
		return
	}
	if psk != nil && !m.adopt(from, *psk) {
		return
	}
	m.outlook.heard(from, message)
	m.nat.Deliver(from, message)
	if message.Kind == nat.KindAnswer {
		m.agreed(m.peers[from], message.Instance)
	}
}

// agreed is told that this side, which is controlling, and an instance of the peer have agreed on a preshared key. A handshake
// that was tried before could not succeed, and a new process has no session: both begin anew at once, by a way that there
// is; one that comes will see to it by itself.
func (m *member) agreed(p *peer, instance [8]byte) {
	if p == nil {
		return
	}
	another := p.instance != instance
	p.instance = instance
	if p.way().IsValid() && (another || !p.shake.since.IsZero() || !m.keysAreGood(p.key)) {
		m.handshake(p, true)
	}
}

// adopt makes psk the preshared key of the tunnel to a peer.
func (m *member) adopt(id identity.NodeID, psk signal.PSK) bool {
	p := m.peers[id]
	if p == nil {
		return false
	}
	if p.psk == wgtypes.Key(psk) {
		return true
	}
	p.psk = wgtypes.Key(psk)
	if err := m.setPSK(p.key, p.psk); err != nil {
		m.log.Warn("set preshared key", "peer", m.nameOf(id), "error", err)
		return false
	}
	return true
}

// setPSK changes one peer's preshared key and nothing else.
func (n *node) setPSK(key, psk wgtypes.Key) error {
	peers := append([]tunnel.Peer(nil), n.last.tunnel...)
	for i := range peers {
		if peers[i].PublicKey == key {
			peers[i].PresharedKey = psk
		}
	}
	n.last.tunnel = peers
	return n.tunnel.SetPeers(peers)
}

// dropCounters count what was dropped, by reason.
type dropCounters struct {
	mu     sync.Mutex
	counts map[string]uint64
}

func (d *dropCounters) add(reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.counts == nil {
		d.counts = make(map[string]uint64)
	}
	d.counts[reason]++
}

func (d *dropCounters) all() map[string]uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.counts)
}

// reasonOf names a refusal of the sealer for the counters.
func reasonOf(err error) string {
	for _, reason := range []error{
		signal.ErrMalformed, signal.ErrNotForUs, signal.ErrStranger, signal.ErrForged, signal.ErrReplayed, signal.ErrClockSkew, signal.ErrNoOffer, signal.ErrTooMany,
	} {
		if errors.Is(err, reason) {
			return strings.TrimPrefix(reason.Error(), "signal ")
		}
	}
	return "other"
}
