package path

import (
	"time"

	"warren/mesh/identity"
)

// Times of signalling.
const (
	// firstRepeat is above the round trip through an anchor on another continent; a repeat too early
	// costs one sealed message, too late it costs the user this wait.
	firstRepeat = 400 * time.Millisecond
	lastRepeat  = time.Minute // towards a peer that is switched off
	// askSpacing bounds how often the peer can make this node offer anew.
	askSpacing = 300 * time.Millisecond
	refusedFor = 5 * time.Second
	// offerSpacing bounds how often the peer can make this node start an agent.
	offerSpacing = 100 * time.Millisecond
	// spareRepeats is how often an offer is repeated while there is a path that it might improve.
	spareRepeats = 4
	trustedMax   = 4
	// lateFor is how long messages of the peer's former process may still arrive.
	lateFor = 3 * time.Second
)

// signalling is the ask (controlled) or offer (controlling) that is out.
//
//	          begin               answer / offer
//	(silent) ──────► waiting ──────────────────────► attempt
//	                  │  ▲ repeat, with back-off
//	                  └──┘
type signalling struct {
	number  uint64      // of the newest attempt: made (controlling) or seen (controlled)
	own     Credentials // controlling: of attempt number
	waiting bool
	begun   time.Time
	sent    int // messages since begin that had a route
	tries   int // those that had none
	rung    int // of the back-off; a peer that is heard from is worth trying sooner
	last    time.Time
	next    time.Time
	noRoute string
	refused bool
	early   Message // candidates that overtook their offer
}

func (s *signalling) wake() time.Time {
	if !s.waiting {
		return time.Time{}
	}
	return s.next
}

// begin starts a new introduction: the controlling side offers, the other asks for an offer.
func (m *Machine) begin(now time.Time) {
	m.endAttempt()
	m.retry.at = time.Time{}
	m.sig.waiting, m.sig.begun, m.sig.sent, m.sig.tries, m.sig.rung, m.sig.refused = true, now, 0, 0, 0, false
	if m.controlling {
		m.sig.number++
		m.sig.own = m.newCredentials()
	}
	m.transmit(now)
}

func (m *Machine) newCredentials() Credentials {
	c := Credentials{Ufrag: m.cfg.Random(8), Pwd: m.cfg.Random(24)}
	m.own = append([]Credentials{c}, m.own...)
	if len(m.own) > trustedMax {
		// The pair agreed on last stays, however many offers were never answered: the path lives on it.
		drop := len(m.own) - 1
		if m.agreed.ok && m.own[drop] == m.agreed.own {
			drop--
		}
		m.own = append(m.own[:drop:drop], m.own[drop+1:]...)
	}
	m.emit(Trust{Own: append([]Credentials(nil), m.own...)})
	return c
}

// transmit sends the ask or offer (again), with the candidates of now.
func (m *Machine) transmit(now time.Time) {
	if m.cur.path.Kind != None && m.sig.sent > spareRepeats {
		m.sig.waiting = false
		m.climb(now)
		return
	}
	msg := Message{Kind: KindAsk, Attempt: m.sig.number}
	if m.controlling {
		msg = Message{
			Kind: KindOffer, Attempt: m.sig.number, Ufrag: m.sig.own.Ufrag, Pwd: m.sig.own.Pwd,
			Candidates: Lines(m.local.Candidates), Relays: m.local.Relays,
		}
	}
	m.sig.next = now.Add(m.backoff(firstRepeat, lastRepeat, m.sig.rung))
	m.sig.rung++
	m.sig.sent++
	m.sig.last = now
	m.sig.noRoute = ""
	m.send(msg)
}

func (m *Machine) send(msg Message) {
	msg.Instance = m.cfg.Instance
	m.emit(Send{Message: msg})
}

// unroutable takes back the message just sent: it is not one that the peer failed to answer.
func (m *Machine) unroutable(now time.Time, in Unroutable) {
	m.sig.noRoute = in.Text
	if !m.sig.waiting || in.Kind != KindAsk && in.Kind != KindOffer {
		return
	}
	m.sig.sent = max(0, m.sig.sent-1)
	m.sig.next = now.Add(m.backoff(time.Second, 30*time.Second, m.sig.tries))
	m.sig.tries++
}

// routable sends at once what waits for a route or an answer.
func (m *Machine) routable(now time.Time) {
	switch {
	case m.sig.waiting && m.sig.noRoute == "" && now.Sub(m.sig.last) < askSpacing:
	case m.sig.waiting:
		m.sig.tries, m.sig.rung = 0, 0
		m.transmit(now)
	case m.cur.path.Kind == None && !m.try.on:
		m.begin(now)
	}
}

// received dispatches a message after a look at the process that it comes from.
func (m *Machine) received(now time.Time, msg Message) {
	if msg.Instance == m.remote.previous && now.Sub(m.remote.changed) < lateFor {
		return // from a process that is gone
	}
	if msg.Instance != m.remote.instance {
		m.newInstance(now, msg.Instance)
	}
	m.sig.rung = 0
	switch {
	case msg.Kind == KindAsk && m.controlling:
		m.asked(now, msg)
	case msg.Kind == KindOffer && !m.controlling:
		m.offered(now, msg)
	case msg.Kind == KindAnswer && m.controlling:
		m.answered(now, msg)
	case msg.Kind == KindCandidates:
		m.trickled(now, msg)
	case msg.Kind == KindRefuse && m.sig.waiting:
		m.sig.refused = true
		m.sig.next = later(m.sig.next, now.Add(refusedFor))
	}
}

// newInstance notes the peer's process. One that replaces another has forgotten all that was agreed.
func (m *Machine) newInstance(now time.Time, instance [8]byte) {
	if m.remote.instance != ([8]byte{}) {
		m.remote.previous, m.remote.changed = m.remote.instance, now
		m.remote.restarted = true
		m.endAttempt()
		m.suspect(now)
		if !m.controlling {
			m.sig.number = 0
		}
	}
	m.remote.instance = instance
	m.sig.early = Message{}
}

// asked offers, or repeats the offer that crossed the ask. An ask that names the newest attempt comes
// from a peer that has seen the offer and already failed at it.
func (m *Machine) asked(now time.Time, msg Message) {
	m.sig.refused = false
	switch {
	case m.sig.waiting && msg.Attempt < m.sig.number:
		if m.sig.noRoute != "" || now.Sub(m.sig.last) >= askSpacing/2 {
			m.transmit(now)
		}
	case m.try.on && msg.Attempt < m.sig.number:
		// It crossed the answer.
	case now.Sub(m.sig.begun) < askSpacing:
		m.retry.at = m.sig.begun.Add(askSpacing)
	default:
		m.begin(now)
	}
}

// offered answers, the same to each repeat of one offer.
func (m *Machine) offered(now time.Time, msg Message) {
	if msg.Attempt < m.sig.number {
		return
	}
	if msg.Attempt == m.sig.number && m.try.number == msg.Attempt {
		m.offeredAgain(now, msg)
		return
	}
	if now.Sub(m.try.started) < offerSpacing {
		return // it will be repeated
	}
	m.endAttempt()
	m.sig.number, m.sig.waiting, m.sig.noRoute = msg.Attempt, false, ""
	m.retry.at = time.Time{}
	own := m.newCredentials()
	chosen := m.chooseRelay(msg.Relays)
	remote := ParseCandidates(msg.Candidates, m.cfg.Reject)
	if m.sig.early.Attempt == msg.Attempt {
		remote, _ = merge(remote, ParseCandidates(m.sig.early.Candidates, m.cfg.Reject))
	}
	m.sig.early = Message{}
	m.startAttempt(now, msg.Attempt, own, Credentials{Ufrag: msg.Ufrag, Pwd: msg.Pwd}, remote, chosen)
	m.send(m.answer())
}

func (m *Machine) answer() Message {
	return Message{
		Kind: KindAnswer, Attempt: m.try.number, Ufrag: m.try.own.Ufrag, Pwd: m.try.own.Pwd,
		Candidates: Lines(m.local.Candidates), Relay: m.try.relay,
	}
}

// offeredAgain repeats a lost answer. If ICE has meanwhile failed here, the offer is of no use any more.
func (m *Machine) offeredAgain(now time.Time, msg Message) {
	switch {
	case m.try.on:
		m.try.deadline = now.Add(attemptTime)
		m.addRemote(ParseCandidates(msg.Candidates, m.cfg.Reject))
		m.send(m.answer())
	case m.try.won:
		m.send(m.answer())
	case !m.sig.waiting && now.Sub(m.sig.last) >= askSpacing:
		m.begin(now)
	}
}

// answered starts the attempt that the peer has already begun.
func (m *Machine) answered(now time.Time, msg Message) {
	if msg.Attempt != m.sig.number {
		return
	}
	remote := ParseCandidates(msg.Candidates, m.cfg.Reject)
	if !m.sig.waiting {
		m.addRemote(remote)
		return
	}
	m.sig.waiting, m.sig.noRoute = false, ""
	m.startAttempt(now, msg.Attempt, m.sig.own, Credentials{Ufrag: msg.Ufrag, Pwd: msg.Pwd}, remote, msg.Relay)
}

// trickled takes candidates that were found after the offer or answer.
func (m *Machine) trickled(now time.Time, msg Message) {
	switch {
	case m.try.on && msg.Attempt == m.try.number:
		m.addRemote(ParseCandidates(msg.Candidates, m.cfg.Reject))
	case !m.controlling && msg.Attempt > m.sig.number:
		m.sig.early = msg
	}
}

// chooseRelay picks the anchor with the shortest way from peer to peer; with none in common, the one
// nearest to the peer. The one in use stays, so that a retry for a direct path leaves the relayed one
// alone.
func (m *Machine) chooseRelay(offers []RelayOffer) identity.NodeID {
	var best, nearest identity.NodeID
	var least uint64
	var near uint32
	for _, theirs := range offers {
		if theirs.Anchor == m.cfg.Self || theirs.Anchor == m.cfg.Peer {
			continue
		}
		if nearest.IsZero() || theirs.RTTms < near {
			nearest, near = theirs.Anchor, theirs.RTTms
		}
		for _, ours := range m.local.Relays {
			if ours.Anchor != theirs.Anchor {
				continue
			}
			if m.cur.path.Kind == Relayed && m.cur.path.Via == ours.Anchor {
				return ours.Anchor
			}
			sum := uint64(ours.RTTms) + uint64(theirs.RTTms)
			if best.IsZero() || sum < least || sum == least && ours.Anchor.Compare(best) < 0 {
				best, least = ours.Anchor, sum
			}
		}
	}
	if best.IsZero() {
		return nearest
	}
	return best
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
