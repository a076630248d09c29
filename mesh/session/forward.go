package session

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/time/rate"

	"warren/mesh/identity"
	"warren/nat/limit"
)

// The way of a message: Send → link.push → datagram or unidirectional stream → receive on the far side, which delivers
// it, or passes it on, or parks it.

// maxCopies bounds the members that are chosen to carry one message. That it goes another way beside the first is for the few that mend
// what has just broken: when all is silent because all are busy, copies of everything would keep them so.
const maxCopies = 2

// Of gossip less is copied: what is lost of it goes by other members too, or is found missing.
var (
	copiesOfSignals = limit.Rate{PerSecond: 1, Burst: 48}
	copiesOfGossip  = limit.Rate{PerSecond: 0.25, Burst: 4}
)

// router carries messages and streams over the links of a table, and passes them on for others. Its methods may be called
// concurrently.
type router struct {
	// constant
	self     identity.NodeID
	roster   Roster
	inbound  Inbound // nil: nobody takes anything
	table    *table
	parking  *parking
	counters *counters
	ways     *ways
	began    time.Time     // of this process
	spare    *rate.Limiter // of copies
	gossip   *rate.Limiter // of those of gossip

	splices atomic.Int32
}

// Send sends a message to a node: over the session with it, else in an envelope by a member that may reach it. It never
// blocks; nil means that the message is on its way, not that it arrived. payload is copied. The error is ErrNoRoute when
// there is no session at all that could lead there, ErrTooLarge above MaxMessage.
func (s *Sessions) Send(to identity.NodeID, p Proto, payload []byte) error {
	return s.router.send(to, p, payload)
}

func (r *router) send(to identity.NodeID, p Proto, payload []byte) error {
	if len(payload) > MaxMessage {
		return fmt.Errorf("send %d bytes to %s: %w", len(payload), to.Short(), ErrTooLarge)
	}
	if p == 0 || to.IsZero() || to == r.self {
		return fmt.Errorf("send to %s: %w", to.Short(), ErrNoRoute)
	}
	// A session that is being checked may be dead: the message goes another way too, and the protocols bear to get it
	// twice. A signal is what mends dead paths, and seldom: it goes another way also when the session has been silent.
	reliable := func(l *link) bool {
		return l.pulse.sure() || !l.pulse.doubtful() && (p != ProtoSignal || r.young(l))
	}
	sent := false
	if l := r.table.link(to); l != nil {
		frame := header{kind: frameDirect, proto: p}.appendTo(make([]byte, 0, directSize+len(payload)))
		sent = l.push(append(frame, payload...))
		if sent && reliable(l) {
			return nil
		}
	}
	by := func(l *link) bool {
		h := header{kind: frameEnvelope, hops: maxHops, to: to, from: r.self, proto: p}
		frame := h.appendTo(make([]byte, 0, envelopeSize+len(payload)))
		return l.push(append(frame, payload...))
	}
	var back *link // by which the node's own signal came
	if p == ProtoSignal {
		now := time.Now()
		via, sole := r.ways.back(now, to)
		if back = r.table.link(via); back != nil && sole && !sent && reliable(back) && by(back) {
			r.ways.rely(now, to)
			return nil
		}
	}
	copies := 0
	for l := range r.hops(to, true) {
		if copies++; copies > maxCopies || sent && !r.mayCopy(p) {
			break
		}
		pushed := by(l)
		sent = sent || pushed
		if l == back {
			back = nil
		}
		if pushed && reliable(l) {
			break
		}
	}
	if back != nil && (!sent || r.spare.Allow()) && by(back) {
		sent = true
	}
	if !sent && !r.sendEarly(to, p, payload) {
		return fmt.Errorf("send to %s: %w", to.Short(), ErrNoRoute)
	}
	return nil
}

// When many start at once, all is silent for longer than a dead session would be, and copies of what all have to say would keep it so. A
// session that has just come up is most likely alive.
const (
	startTime = 10 * time.Second // of this process
	youngTime = 2 * time.Second  // of a session
)

// young reports whether a link has just come up in a process that has just begun.
func (r *router) young(l *link) bool {
	return l.since.Sub(r.began) < startTime && time.Since(l.since) < youngTime
}

// sendEarly sends a message, for want of a session, on the heels of a hello that is not answered yet. The far side reads it when it has accepted this
// node; should it not, nobody does, and the protocols bear that.
func (r *router) sendEarly(to identity.NodeID, p Proto, payload []byte) bool {
	for _, l := range r.table.greeted(to) {
		return l.push(append(header{kind: frameDirect, proto: p}.appendTo(nil), payload...))
	}
	if p != ProtoSignal {
		return false
	}
	best := r.table.greeted(identity.NodeID{})
	slices.SortFunc(best, func(a, b *link) int { return cmp.Or(cmp.Compare(a.near, b.near), a.id.Compare(b.id)) })
	for _, l := range best {
		if r.roster.Member(l.id) {
			return l.push(append(header{kind: frameEnvelope, hops: maxHops, to: to, from: r.self, proto: p}.appendTo(nil), payload...))
		}
	}
	return false
}

// Leads reports whether there is a session, or one in the making on which messages can go already.
func (s *Sessions) Leads() bool {
	return len(s.router.preferred()) > 0 || len(s.table.greeted(identity.NodeID{})) > 0
}

// mayCopy reports whether a message that is on its way may go another way too.
func (r *router) mayCopy(p Proto) bool {
	return (p != ProtoGossip || r.gossip.Allow()) && r.spare.Allow()
}

// readDatagrams is a link's main goroutine; it ends with the connection.
func (r *router) readDatagrams(l *link) {
	for {
		frame, err := l.conn.ReceiveDatagram(l.conn.Context())
		if err != nil {
			// Also a failure that is not the connection's end ends it, so that no link is left half served.
			l.close(CodeProtocol, "datagrams not supported")
			return
		}
		r.receive(l, frame)
	}
}

// readMessages takes in large messages, each on a stream of its own.
func (r *router) readMessages(l *link) {
	for {
		st, err := l.conn.AcceptUniStream(l.conn.Context())
		if err != nil {
			return
		}
		if !l.spawn(func() { r.readMessage(l, st) }) {
			return
		}
	}
}

func (r *router) readMessage(l *link, st *quic.ReceiveStream) {
	st.SetReadDeadline(time.Now().Add(largeTimeout))
	frame, err := io.ReadAll(io.LimitReader(st, maxFrame+1))
	if err != nil || len(frame) > maxFrame {
		st.CancelRead(streamRefused)
		r.counters.add(dropMalformed)
		return
	}
	r.receive(l, frame)
}

// receive takes one frame, which it owns, from a link.
func (r *router) receive(l *link, frame []byte) {
	l.pulse.hear()
	h, payload, err := parseFrame(frame)
	if err != nil {
		r.counters.add(dropMalformed)
		return
	}
	switch h.kind {
	case framePing:
		if !l.meter.ping() {
			r.counters.add(dropRate)
			return
		}
		l.push(header{kind: framePong, nonce: h.nonce}.appendTo(nil))
	case framePong:
		l.pulse.pong(h.nonce)
	case frameDirect:
		r.deliver(l.id, l, h.proto, payload)
	case frameEnvelope:
		r.receiveEnvelope(l, h, frame, payload)
	}
}

// deliver hands on a message that came over l, within what that may bring. Strangers have nothing to say but their records.
func (r *router) deliver(from identity.NodeID, l *link, p Proto, payload []byte) {
	stranger := !r.roster.Member(l.id)
	switch {
	case stranger && p != ProtoGossip:
		r.counters.add(dropStranger)
	case !l.meter.message(p, from != l.id, stranger):
		r.counters.add(dropRate)
	case r.inbound != nil:
		r.inbound.Message(from, l.id, p, payload)
	}
}

// receiveEnvelope delivers a forwarded message, or passes it on.
func (r *router) receiveEnvelope(l *link, h header, frame, payload []byte) {
	if reason := r.checkEnvelope(l, h); reason != dropNone {
		r.counters.add(reason)
		return
	}
	if h.to == r.self {
		// Whoever has a session with us but sends by others may have found it dead.
		if direct := r.table.link(h.from); direct != nil {
			direct.pulse.evade()
			direct.checkSoon(checkPause)
		}
		r.deliver(h.from, l, h.proto, payload)
		return
	}
	if !l.favours.mayForward() {
		r.counters.add(dropRate)
		return
	}
	frame[1] = h.hops - 1
	if next := r.onward(l, h); next != nil && next.push(frame) {
		r.counters.add(countForwarded)
		return
	}
	if h.proto != ProtoSignal {
		r.counters.add(dropNoRoute)
	} else if !r.parking.put(time.Now(), h.to, h.from, l.id, frame) {
		r.counters.add(dropParkFull)
	}
}

// checkEnvelope says why an envelope that came over l must go no further, or dropNone.
func (r *router) checkEnvelope(l *link, h header) reason {
	switch {
	case h.from == r.self:
		return dropLoop
	case !r.roster.Member(l.id):
		return dropStranger // a chain proves an invite, not yet membership: strangers speak for themselves alone
	case h.hops == maxHops && h.from != l.id:
		return dropForged // it has not been forwarded yet, so it can only be the sender's own
	case h.to != r.self && h.hops == 0:
		return dropHops
	default:
		return dropNone
	}
}

// onward returns the link over which an envelope that came over l leaves, or nil. A further forwarding member
// is only of use when the envelope may be passed on once more.
func (r *router) onward(l *link, h header) *link {
	if direct := r.table.link(h.to); direct != nil {
		return direct
	}
	if h.hops < 2 {
		return nil
	}
	for next := range r.hops(h.to, false, l.id, h.from) {
		return next
	}
	return nil
}

// isNoRoute reports whether a stream was reset because a forwarding member knew no way on.
func isNoRoute(err error) bool {
	reset, ok := errors.AsType[*quic.StreamError](err)
	return ok && reset.ErrorCode == streamNoRoute
}
