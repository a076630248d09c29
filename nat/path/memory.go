package path

import (
	"net/netip"
	"time"
)

/* Remembered paths
 *
 * Two that have met before, and have not moved, need nobody between them. What nat remembers of an earlier process, the address at which
 * the peer was reached, is given to the machine at its start (Met). Beside the introduction by sessions, which goes its way as if there were
 * none of this, the ask and the offer go there straight, as datagrams (Message.Straight):
 *
 *	controlling                                   controlled
 *	offer, straight ──────────────────────────▶   starts ICE, answers, checks where it came from
 *	                 ◀────────────────── answer, straight
 *	the path is where the answer came from        the path is what answers the check
 *
 * Both send, so that the NATs before both let the other in, and a few times, since the other may begin a moment later. The ask
 * says to whoever has begun before that its offer was made for a process that is gone.
 *
 * An answer to an offer that went straight to an address is made of what only the peer can read in it; that it came from there makes the
 * address a path, and the checks of a path in use begin at once. The other side has no such proof before its check is answered: the
 * offer may be somebody's who stands in between, and writes another source on it.
 */

// straightAfter is when what goes straight is sent, after the start: the processes of a pair that is started together begin some tens of
// milliseconds apart, and one of two packets in a hundred may be lost. Nobody there costs so many letters of two packets.
var straightAfter = [...]time.Duration{0, 60 * time.Millisecond, 150 * time.Millisecond, 350 * time.Millisecond, 800 * time.Millisecond}

const (
	// straightSpacing bounds how often a peer that asks straight is answered straight.
	straightSpacing = 50 * time.Millisecond
	// straightFor is how long after an offer went straight an answer from there counts: as long as an attempt may take.
	straightFor = attemptTime
	// What goes straight has to fit into one letter (mesh/letter): the rest is told later, by sessions or straight.
	straightCandidates = 5
	straightRelays     = 2
)

// memory is where the peer was met by an earlier process, and what has gone straight to it.
type memory struct {
	addr    netip.AddrPort // as Met; zero: nothing to try, or no more
	tries   int
	next    time.Time      // of the next try
	offered netip.AddrPort // where the last offer went straight
	last    time.Time      // when that, or an ask, did
}

// met begins to try an address.
func (m *memory) met(now time.Time, addr netip.AddrPort) {
	m.addr, m.tries, m.next = addr, 0, now
}

// wake is when the next try is due.
func (m *memory) wake() time.Time {
	if !m.addr.IsValid() {
		return time.Time{}
	}
	return m.next
}

// due reports whether a try is due, and counts it. The next one is never sooner after it than answers take at present, which is spacing; a
// side that comes late to one comes as late to the others.
func (m *memory) due(now time.Time, spacing time.Duration) (to netip.AddrPort, due bool) {
	if !isDue(now, m.wake()) {
		return to, false
	}
	to = m.addr
	if m.tries++; m.tries == len(straightAfter) {
		m.addr = netip.AddrPort{}
		return to, true
	}
	m.next = now.Add(max(spacing, straightAfter[m.tries]-straightAfter[m.tries-1]))
	return to, true
}

// sent notes what has gone straight.
func (m *memory) sent(now time.Time, to netip.AddrPort, kind Kind) {
	m.last = now
	if kind == KindOffer {
		m.offered = to
	}
}

// awaited reports whether an answer from that address is to an offer that went there, and how long that has taken at most.
func (m *memory) awaited(now time.Time, from netip.AddrPort) (trip time.Duration, yes bool) {
	if trip = max(now.Sub(m.last), time.Microsecond); m.offered != from || !from.IsValid() || trip > straightFor {
		return 0, false
	}
	return trip, true
}

// straight makes of a message one that goes by a letter.
func (msg Message) straight(to netip.AddrPort) Message {
	msg.Straight = to
	msg.Candidates = msg.Candidates[:min(len(msg.Candidates), straightCandidates)]
	msg.Relays = msg.Relays[:min(len(msg.Relays), straightRelays)]
	return msg
}

// underlay reports whether an address can be a path that no session has told of.
func (c *core) underlay(addr netip.AddrPort) bool {
	return addr.IsValid() && addr.Port() != 0 && Usable(addr.Addr()) && !c.rejects(addr.Addr())
}

// meet tries where the peer was met, beside the introduction, which begins if it has not.
func (i *introduction) meet(now time.Time, addr netip.AddrPort) {
	if !i.underlay(addr) || i.path.Kind != None {
		return
	}
	i.sig.memory.met(now, addr)
	if i.idle() {
		i.begin(now)
	}
	i.remember(now)
}

// remember sends straight what is out, when that is due.
func (i *introduction) remember(now time.Time) {
	switch {
	case i.path.Kind == Direct, i.try.on:
		i.sig.memory.addr = netip.AddrPort{} // found, or about to be
	case !i.sig.waiting:
	default:
		if to, due := i.sig.memory.due(now, i.cfg.Answers.spacing(now, 0)); due {
			i.sig.tellStraight(now, to, i.local, i.use)
		}
	}
}

// tellStraight sends what is out straight to an address.
func (s *signalling) tellStraight(now time.Time, to netip.AddrPort, local Local, use relayUse) {
	msg := s.message(local, use)
	s.memory.sent(now, to, msg.Kind)
	s.send(msg.straight(to))
}

// askedStraight says what is out the way that the peer's ask, or an offer of no use, has come.
func (s *signalling) askedStraight(now time.Time, from netip.AddrPort, local Local, use relayUse) {
	if s.waiting && s.underlay(from) && now.Sub(s.memory.last) >= straightSpacing {
		s.tellStraight(now, from, local, use)
	}
}

// reply sends an answer the way that the offer has come.
func (a *attempt) reply(offer Message, own []Candidate) {
	answer := a.answer(own)
	if a.underlay(offer.Straight) {
		answer = answer.straight(offer.Straight)
	}
	a.send(answer)
}

// fits reports whether a letter tells all candidates.
func (l Local) fits() bool { return len(l.Candidates) <= straightCandidates }

// candidatesOf are those of an offer or answer, the address that it came from straight first.
func (c *core) candidatesOf(msg Message) []Candidate {
	list := ParseCandidates(msg.Candidates, c.overlay)
	if !c.underlay(msg.Straight) {
		return list
	}
	here := NewCandidate(ServerReflexive, msg.Straight, 0)
	for _, told := range list {
		if told.Addr == here.Addr {
			here = told
		}
	}
	list, _ = merge([]Candidate{here}, list)
	return list
}

// answeredFrom moves to an address to which an offer went straight, and from which its answer came after trip. What is due next is a check.
func (t *route) answeredFrom(now time.Time, addr netip.AddrPort, trip time.Duration) {
	if t.path.Kind == Direct && t.path.Addr == addr && !t.restarted {
		return
	}
	t.checks.agree()
	t.elsewhere.addr = netip.AddrPort{}
	t.sources.note(now, addr)
	t.set(now, Path{Addr: addr, Kind: Direct, RTT: trip}, "the peer has answered where it was met before")
	t.relays.retireAll(now, t.used())
}

// tryThere checks the address from which an offer came straight: the path moves there when it answers.
func (t *current) tryThere(now time.Time, addr netip.AddrPort) {
	if t.path.Kind == Direct {
		return // it is checked anyway, and moves when it is overdue
	}
	t.elsewhere.seen(now, addr)
	t.checks.send(now, addr)
}
