package session

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"warren/mesh/identity"
)

// The way of a message: Send → link.push → datagram or unidirectional stream → receive on the far side, which delivers
// it, or passes it on, or parks it.

// Send sends a message to a node: over the session with it, else in an envelope by a member that may reach it. It never
// blocks; nil means that the message is on its way, not that it arrived. payload is copied. The error is ErrNoRoute when
// there is no session at all that could lead there, ErrTooLarge above MaxMessage.
func (s *Sessions) Send(to identity.NodeID, p Proto, payload []byte) error {
	if len(payload) > MaxMessage {
		return fmt.Errorf("send %d bytes to %s: %w", len(payload), to.Short(), ErrTooLarge)
	}
	if p == 0 || to.IsZero() || to == s.options.Self {
		return fmt.Errorf("send to %s: %w", to.Short(), ErrNoRoute)
	}
	sent, doubtful := false, false
	if l := s.table.link(to); l != nil {
		frame := header{kind: frameDirect, proto: p}.appendTo(make([]byte, 0, directSize+len(payload)))
		sent = l.push(append(frame, payload...))
		doubtful = l.doubtful()
	}
	// A session that is being checked may be dead: the message goes both ways, and the protocols bear to get it twice.
	if !sent || doubtful {
		if hops := s.hops(to, true); len(hops) > 0 {
			h := header{kind: frameEnvelope, hops: maxHops, to: to, from: s.options.Self, proto: p}
			frame := h.appendTo(make([]byte, 0, envelopeSize+len(payload)))
			sent = hops[0].push(append(frame, payload...)) || sent
		}
	}
	if !sent {
		return fmt.Errorf("send to %s: %w", to.Short(), ErrNoRoute)
	}
	return nil
}

// hops returns the links over which dst may be reached, best first, without those to dst itself and to the members
// in not. At the source of a message, where nobody else would find a way, the fastest session serves as a last resort.
func (s *Sessions) hops(dst identity.NodeID, source bool, not ...identity.NodeID) []*link {
	var sure, doubtful []*link
	taken := append([]identity.NodeID{dst, s.options.Self}, not...)
	if s.options.NextHops != nil {
		for _, id := range s.options.NextHops(dst) {
			if slices.Contains(taken, id) {
				continue
			}
			taken = append(taken, id)
			if l := s.table.link(id); l == nil {
				continue
			} else if l.doubtful() {
				doubtful = append(doubtful, l)
			} else {
				sure = append(sure, l)
			}
		}
	}
	if all := append(sure, doubtful...); len(all) > 0 || !source {
		return all
	}
	var best *link
	for _, l := range s.table.links(identity.NodeID{}) {
		if l.id == dst || l.doubtful() {
			continue
		}
		// What we dialled is an anchor; what dialled us is most likely not.
		if best == nil || l.dialled && !best.dialled || l.dialled == best.dialled && l.rtt() < best.rtt() {
			best = l
		}
	}
	if best == nil {
		return nil
	}
	return []*link{best}
}

// readDatagrams is a link's main goroutine; it ends with the connection.
func (s *Sessions) readDatagrams(l *link) {
	defer s.ended(l)
	for {
		frame, err := l.conn.ReceiveDatagram(l.conn.Context())
		if err != nil {
			// Also a failure that is not the connection's end ends it, so that no link is left half served.
			l.close(CodeProtocol, "datagrams not supported")
			return
		}
		s.receive(l, frame)
	}
}

// readMessages takes in large messages, each on a stream of its own.
func (s *Sessions) readMessages(l *link) {
	for {
		st, err := l.conn.AcceptUniStream(l.conn.Context())
		if err != nil {
			return
		}
		if !l.spawn(func() { s.readMessage(l, st) }) {
			return
		}
	}
}

func (s *Sessions) readMessage(l *link, st *quic.ReceiveStream) {
	st.SetReadDeadline(time.Now().Add(largeTimeout))
	frame, err := io.ReadAll(io.LimitReader(st, maxFrame+1))
	if err != nil || len(frame) > maxFrame {
		st.CancelRead(streamRefused)
		s.counters.add(dropMalformed)
		return
	}
	s.receive(l, frame)
}

// receive takes one frame, which it owns, from a link.
func (s *Sessions) receive(l *link, frame []byte) {
	h, payload, err := parseFrame(frame)
	if err != nil {
		s.counters.add(dropMalformed)
		return
	}
	switch h.kind {
	case framePing:
		l.push(header{kind: framePong, nonce: h.nonce}.appendTo(nil))
	case framePong:
		l.pong(h.nonce)
	case frameDirect:
		s.deliver(l.id, h.proto, payload)
	case frameEnvelope:
		s.receiveEnvelope(l, h, frame, payload)
	}
}

func (s *Sessions) deliver(from identity.NodeID, p Proto, payload []byte) {
	if s.options.OnMessage != nil {
		s.options.OnMessage(from, p, payload)
	}
}

// receiveEnvelope delivers a forwarded message, or passes it on.
func (s *Sessions) receiveEnvelope(l *link, h header, frame, payload []byte) {
	if reason := s.checkEnvelope(l, h); reason != dropNone {
		s.counters.add(reason)
		return
	}
	if h.to == s.options.Self {
		// Whoever has a session with us but sends by others may have found it dead.
		if direct := s.table.link(h.from); direct != nil {
			direct.checkSoon()
		}
		s.deliver(h.from, h.proto, payload)
		return
	}
	if !l.mayForward() {
		s.counters.add(dropRate)
		return
	}
	frame[1] = h.hops - 1
	if next := s.onward(l, h); next != nil && next.push(frame) {
		s.counters.add(countForwarded)
		return
	}
	if h.proto != ProtoSignal {
		s.counters.add(dropNoRoute)
	} else if !s.parking.put(time.Now(), h.to, l.id, frame) {
		s.counters.add(dropParkFull)
	}
}

// checkEnvelope says why an envelope that came over l must go no further, or dropNone.
func (s *Sessions) checkEnvelope(l *link, h header) reason {
	switch {
	case h.from == s.options.Self:
		return dropLoop
	case h.hops == maxHops && h.from != l.id:
		return dropForged // it has not been forwarded yet, so it can only be the sender's own
	case h.to != s.options.Self && h.hops == 0:
		return dropHops
	default:
		return dropNone
	}
}

// onward returns the link over which an envelope that came over l leaves, or nil. A further forwarding member
// is only of use when the envelope may be passed on once more.
func (s *Sessions) onward(l *link, h header) *link {
	if direct := s.table.link(h.to); direct != nil {
		return direct
	}
	if h.hops < 2 {
		return nil
	}
	if hops := s.hops(h.to, false, l.id, h.from); len(hops) > 0 {
		return hops[0]
	}
	return nil
}

// isNoRoute reports whether a stream was reset because a forwarding member knew no way on.
func isNoRoute(err error) bool {
	reset, ok := errors.AsType[*quic.StreamError](err)
	return ok && reset.ErrorCode == streamNoRoute
}
