package noise

import (
	"encoding/binary"
	"net/netip"
)

// Received is what came of a message of a handshake.
type Received struct {
	Peer *Peer // who sent it, proven. Nil if it was dropped, or was a cookie
	Type Type
	Drop Drop
}

// Receive takes an initiation, a response or a cookie, and appends what is to be done to out. src is where it came from; the zero
// value says that it was carried by an introduction, whose sender is known, so that no load stands against it. load says that more
// such messages come than can be looked at: for UnderLoadTime from then on senders have to show a cookie. Msg is not kept.
//
// The source of a response is proven. That of an initiation is only as good as its stamp: after a restart of this node a copy of
// the last initiation of a peer is taken once more, from wherever it comes.
func (m *Machine) Receive(msg []byte, src netip.AddrPort, load bool, now Moment, out []Action) (Received, []Action) {
	if load {
		m.loadUntil = now.At.Add(UnderLoadTime)
	}
	r := Received{Type: TypeOf(msg)}
	switch r.Type {
	case Initiation, Response:
		if !m.checker.mac1(msg) {
			r.Drop = DropMAC
			return r, out
		}
		if src.IsValid() && now.At < m.loadUntil {
			if !m.checker.mac2(msg, src, now.At) {
				if cookie := m.checker.reply(msg, src, now.At); cookie != nil {
					out = append(out, Action{Kind: SendCookie, Packet: cookie})
				}
				r.Drop = DropLoad
				return r, out
			}
			if m.limiter != nil && !m.limiter.Allow(src.Addr().Unmap()) {
				r.Drop = DropLoad
				return r, out
			}
		}
		if r.Type == Initiation {
			r.Peer, r.Drop, out = m.takeInitiation(msg, now, out)
		} else {
			r.Peer, r.Drop, out = m.takeResponse(msg, now, out)
		}
	case Cookie:
		r.Drop = m.takeCookie(msg, now.At)
	default:
		r.Drop = DropMalformed
	}
	return r, out
}

// takeInitiation responds to an initiation.
func (m *Machine) takeInitiation(msg []byte, now Moment, out []Action) (*Peer, Drop, []Action) {
	state, s, who, stamp, ok := m.initiation(msg)
	if !ok {
		return nil, DropForged, out
	}
	p := m.peers[who]
	drop := Kept
	switch {
	case p == nil:
		drop = DropStranger
	case !stamp.After(p.stamps.heard):
		drop = DropStale
	case now.At.Sub(p.times.initiationHeard) <= InitiationRate:
		drop = DropFlood
	}
	if drop != Kept {
		s.wipe()
		return nil, drop, out
	}
	p.stamps.heard = stamp
	p.times.initiationHeard = now.At

	out = p.settle(now, out)
	k, response := p.respond(state, s, binary.LittleEndian.Uint32(msg[4:]), now.At)
	p.keys.offer(k)
	p.times.handshakeSent = now.At
	p.times.zeroAt = now.At.Add(ZeroAfterTime)
	p.traffic.heardSome(now.At, false, true)
	p.traffic.sentSome(now.At, false)
	return p, Kept, append(out, Action{Kind: SendResponse, Peer: p, Packet: response})
}

// takeResponse ends a handshake of ours. The keepalive tells the peer that it has ended.
func (m *Machine) takeResponse(msg []byte, now Moment, out []Action) (*Peer, Drop, []Action) {
	index := binary.LittleEndian.Uint32(msg[8:])
	e := m.table.get(index)
	if e == nil || e.attempt == nil {
		return nil, DropIndex, out
	}
	p, a := e.peer, e.attempt
	if out = p.settle(now, out); m.table.get(index) != e {
		return nil, DropIndex, out // a handshake of the peer's own was done before
	}
	k := a.read(msg, p.psk, now.At)
	if k == nil {
		return nil, DropForged, out
	}
	m.table.replace(&entry{index: index, peer: p, pair: k})
	for way, other := range p.attempts {
		switch {
		case other == a:
			p.attempts[way] = nil
		case other != nil && other.at <= a.at:
			p.abandon(way) // a later one may be what the peer has now
		}
	}
	p.keys.answer(k)
	p.complete(now)
	p.times.zeroAt = now.At.Add(ZeroAfterTime)
	p.traffic.heardSome(now.At, false, true)
	out = append(out, Action{Kind: Ready, Peer: p})
	return p, Kept, p.keepalive(now.At, out)
}

// takeCookie keeps a cookie for the messages to come. The handshake goes on when it would have.
func (m *Machine) takeCookie(msg []byte, now Instant) Drop {
	e := m.table.get(binary.LittleEndian.Uint32(msg[4:]))
	if e == nil {
		return DropIndex
	}
	if !e.peer.macs.take(msg, now) {
		return DropNoHandshake
	}
	return Kept
}
