package courier

import (
	"errors"
	"net/netip"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session"
	"warren/mesh/signal"
	"warren/nat/path"
)

// roleOf is the part of a message in the key agreement.
func roleOf(kind path.Kind) signal.Role {
	switch kind {
	case path.KindOffer:
		return signal.Offer
	case path.KindAnswer:
		return signal.Answer
	default:
		return signal.Plain
	}
}

// transmit seals a message and sends it. The caller has a slot, which is given up once the message is sealed.
func (c *Courier) transmit(to identity.NodeID, m path.Message) {
	var handshake []byte
	switch m.Kind {
	case path.KindOffer:
		if c.peers.mayBegin(to, c.Told(to).Heard, time.Now()) {
			handshake = c.tunnel.Initiation(to, m.Attempt)
		}
	case path.KindAnswer:
		psk, initiation, err := c.sealer.Agree(time.Now(), to, m.Attempt)
		if err != nil {
			c.queue.leave()
			c.unsealed(to, err)
			return
		}
		c.queue.leave() // for as long as the tunnel takes
		var ok bool
		if handshake, ok = c.settle(to, *psk, initiation); !ok {
			return
		}
		c.queue.rejoin()
	}
	sealed, ok := c.seal(to, m, handshake)
	c.queue.leave()
	if !ok {
		return
	}
	if err := c.send(to, m.Straight, sealed); err != nil {
		c.count(noRoute)
	}
}

// settle does what has to be done before an answer leaves. The preshared key is in place: the peer has it as soon as it reads the answer, and
// shakes hands. The handshake that the offer has carried goes on with that key. The answer is as good without one: it is then done by a path.
func (c *Courier) settle(to identity.NodeID, psk signal.PSK, initiation []byte) (response []byte, ok bool) {
	if !c.adopt(to, psk) {
		return nil, false
	}
	if initiation == nil {
		return nil, true
	}
	response, err := c.tunnel.Respond(to, initiation)
	if err != nil {
		c.count(foreignHandshake)
		c.log.Debug("handshake refused", "id", to.Short(), "error", err)
		return nil, true
	}
	return response, true
}

// send sends a sealed message by a session, or straight to an address.
func (c *Courier) send(to identity.NodeID, straight netip.AddrPort, sealed []byte) error {
	switch {
	case !straight.IsValid():
		return c.sessions.Send(to, session.ProtoSignal, sealed)
	case c.letters == nil:
		return ErrNoSession
	}
	return c.letters.Send(straight, sealed)
}

func (c *Courier) seal(to identity.NodeID, m path.Message, handshake []byte) (sealed []byte, ok bool) {
	switch m.Kind {
	case path.KindAsk, path.KindOffer, path.KindAnswer:
		m.NAT = c.standing.Pack()
	default:
		m.NAT = 0
	}
	payload, err := m.Encode()
	if err != nil { // nat says what cannot be said
		c.count(notEncoded)
		c.log.Warn("signal not encoded", "id", to.Short(), "error", err)
		return nil, false
	}
	sealed, _, err = c.sealer.Seal(time.Now(), to, signal.Message{Role: roleOf(m.Kind), Attempt: m.Attempt, Payload: payload, Handshake: handshake})
	if err != nil {
		c.unsealed(to, err)
	}
	return sealed, err == nil
}

func (c *Courier) unsealed(to identity.NodeID, err error) {
	c.count(notSealed)
	c.log.Debug("signal not sealed", "id", to.Short(), "error", err)
}

// serve does one job of a lane, which has a slot until it is computed.
func (c *Courier) serve(l *lane, j job, nat NAT) {
	switch {
	case j.sealed != nil:
		c.receive(l.id, j, nat)
	case j.opened != nil:
		c.queue.leave()
		c.act(l.id, *j.opened, nat)
	default:
		c.transmit(l.id, j.message)
	}
	if c.queue.forgotten(l) { // what the message has left behind
		c.forget(l.id)
	}
	c.queue.done(l)
}

// receive opens a message that is said to come from a peer. When it comes from another, it goes on in the lane of that one:
// a member that forwards may lie about the sender, and is not to have one peer wait for the tunnel of another. It cannot be
// refused either, since its nonce is spent now, and the same message by an honest way would be a replay. The caller has a slot,
// which is given up once the message is opened.
func (c *Courier) receive(hint identity.NodeID, j job, nat NAT) {
	from, got, ok := c.open(hint, j.sealed)
	c.queue.leave()
	got.message.Straight = j.straight
	if ok && j.by != nobody && j.by != from {
		c.sessions.Came(from, j.by)
	}
	switch {
	case !ok:
	case from != hint:
		c.put(from, in, job{opened: &got, by: from})
	default:
		c.queue.settle(from, j.number, got.message)
		c.act(from, got, nat)
	}
}

func (c *Courier) open(hint identity.NodeID, sealed []byte) (from identity.NodeID, got opened, ok bool) {
	from, inner, psk, err := c.sealer.Open(time.Now(), sealed)
	if err != nil {
		c.count(reasonOf(err))
		c.refused(from, err)
		if skew := new(signal.SkewError); errors.As(err, &skew) {
			c.clockOf(from, skew.Ahead)
		}
		c.log.Debug("signal not opened", "id", hint.Short(), "error", err)
		return from, got, false
	}
	message, err := path.Decode(inner.Payload)
	if err != nil || roleOf(message.Kind) != inner.Role || message.Attempt != inner.Attempt && inner.Role != signal.Plain {
		c.count(malformed)
		return from, got, false
	}
	now := time.Now()
	c.sealer.Runs(now, from, message.Instance)
	c.clockOf(from, inner.At.Sub(now))
	return from, opened{message: message, psk: psk, handshake: inner.Handshake}, true
}

// act hands an opened message to nat. The preshared key of an answer is in place before: nat's path may bring a handshake at once.
//
// A peer that has restarted has no session, and its clock may be an earlier one: WireGuard would refuse its handshakes as old (section 5.1 of its paper)
// until the clock is where it was. So the tunnel forgets what it knows of the process before: at its ask already, so that the offer can carry a
// handshake with the new one.
func (c *Courier) act(from identity.NodeID, got opened, nat NAT) {
	switch got.message.Kind {
	case path.KindAsk, path.KindOffer, path.KindAnswer:
		if c.peers.begunAnew(from, got.message.Instance) {
			c.tunnel.Anew(from)
		}
	}
	if got.psk != nil && !c.adopt(from, *got.psk) {
		return
	}
	c.heard(from, got.message.NAT)
	// Before nat, whose path may come up at once, and then need no handshake.
	done := got.psk != nil && got.handshake != nil && c.tunnel.Conclude(from, got.message.Instance, got.handshake)
	nat.Deliver(from, got.message)
	if got.message.Kind == path.KindAnswer && !done {
		c.tunnel.Agreed(from, got.message.Instance)
	}
}

// adopt makes psk the preshared key of the tunnel to a peer.
func (c *Courier) adopt(id identity.NodeID, psk signal.PSK) bool {
	if err := c.tunnel.SetPresharedKey(id, psk); err != nil {
		c.count(keyNotSet)
		c.log.Warn("preshared key not set", "id", id.Short(), "error", err)
		return false
	}
	return true
}
