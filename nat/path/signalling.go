package path

import (
	"time"
	"warren/nat/due"
)

// Times of signalling.
const (
	// firstRepeat is above the round trip through an anchor on another continent; a repeat too early
	// costs one sealed message, too late it costs the user this wait.
	firstRepeat = 400 * time.Millisecond
	lastRepeat  = time.Minute // towards a peer that is switched off
	// routeSpacing gathers the sessions that come up together: each may be the first that leads to the peer.
	routeSpacing = 100 * time.Millisecond
	refusedFor   = 5 * time.Second
	// spareRepeats is how often an offer is repeated while there is a path that it might improve.
	spareRepeats = 4
	// What a reminder is of may come behind it for so long.
	leastPatience = 50 * time.Millisecond
	mostPatience  = 400 * time.Millisecond
)

// signalling is the ask (controlled) or offer (controlling) that is out, and its repetition.
//
//	          begin               answer / offer
//	(silent) ──────► waiting ──────────────────────► attempt
//	                  │  ▲ repeat, with back-off
//	                  └──┘
type signalling struct {
	*core
	number  uint64      // of the newest attempt: made (controlling) or seen (controlled)
	own     Credentials // controlling: of attempt number
	waiting bool
	begun   time.Time
	sent    int  // messages since begin that had a route
	tries   int  // those that had none
	rung    int  // of the back-off; a peer that is heard from is worth trying sooner
	excused bool // since last: this side was late itself
	last    time.Time
	next    time.Time
	noRoute string
	refused bool
	early   Message // candidates that overtook their offer
	memory  memory
	told    []Candidate // controlling: in the first offer of this number, perhaps the one that is answered

	reminded bool   // controlling: what has left last is a reminder
	lacked   bool   // controlling: the peer has said that it lacks the offer
	lacks    uint64 // controlled: the number of an offer of which a reminder has come; zero: none
}

func (s *signalling) wake() time.Time {
	if !s.waiting {
		return time.Time{}
	}
	return s.next
}

// begin makes what is to be transmitted a new one.
func (s *signalling) begin(now time.Time) {
	s.waiting, s.begun, s.sent, s.tries, s.rung, s.refused = true, now, 0, 0, 0, false
	s.reminded, s.lacked = false, false
	if s.controlling {
		// By the clock, for the peer may remember numbers of a process or a machine before this one: it takes no
		// second key for one number.
		s.number = max(s.number+1, uint64(max(0, now.UnixMilli())))
		s.own = s.newCredentials()
	}
}

// message is the ask or offer that is out, with what this node knows of itself now.
func (s *signalling) message(local Local, use relayUse) Message {
	if !s.controlling {
		return Message{Kind: KindAsk, Attempt: s.number, Lacks: s.lacks}
	}
	return Message{
		Kind: KindOffer, Attempt: s.number, Ufrag: s.own.Ufrag, Pwd: s.own.Pwd,
		Candidates: Lines(local.Candidates), Relays: use.offers(local.Relays),
	}
}

// transmit sends the ask or offer (again).
func (s *signalling) transmit(now time.Time, local Local, use relayUse) {
	msg := s.message(local, use)
	if s.controlling && s.sent == 0 {
		s.told = local.Candidates
	}
	if s.reminded = s.suffices(now); s.reminded {
		msg = Message{Kind: KindRemind, Attempt: s.number}
	}
	s.lacked, s.lacks = false, 0
	s.next = now.Add(max(s.backoff(firstRepeat, lastRepeat, s.rung), s.cfg.Answers.spacing(now, 0)))
	s.rung++
	s.excused = false
	s.sent++
	s.last = now
	s.noRoute = ""
	s.send(msg)
}

// suffices reports whether the peer need only be reminded of an offer. Candidates that have come since are told by themselves. Relays are not:
// the peer takes one of its own, and what that comes to the next attempt mends.
func (s *signalling) suffices(now time.Time) bool {
	return s.controlling && s.sent > 0 && !s.lacked && !s.cfg.Answers.mayRepeat(now)
}

// mayAsk reports that no ask has just left that may still be on its way.
func (s *signalling) mayAsk(now time.Time) bool {
	return s.noRoute != "" || now.Sub(s.last) >= askSpacing
}

// miss notes a reminder of an offer that has not come, and plans to ask for it: most likely it is on its way, and larger.
func (s *signalling) miss(now time.Time, number uint64) {
	s.lacks = number
	s.next = due.Sooner(s.next, now.Add(s.cfg.Answers.share(now, leastPatience, mostPatience)))
}

// excuse leaves an answer more time, once, when this side comes late to repeat what it asks for: the answer may lie unread, or be as late.
func (s *signalling) excuse(now time.Time, late time.Duration) {
	if s.waiting && s.noRoute == "" && !s.excused && isDue(now, s.next) {
		s.excused = true
		s.next = now.Add(min(due.Turns*late, longestAnswer))
	}
}

// overdue reports whether what is out should have been answered by now, and plans its repetition for when it should, if not.
func (s *signalling) overdue(now time.Time, least time.Duration) bool {
	at := s.last.Add(s.cfg.Answers.spacing(now, least))
	if now.Before(at) {
		s.next = due.Sooner(s.next, at)
		return false
	}
	return true
}

// trickle tells the whole candidate list again, after it grew.
func (s *signalling) trickle(list []Candidate, p Predicted) {
	s.send(Message{Kind: KindCandidates, Attempt: s.number, Candidates: Lines(list), Predicted: p})
}

// unroutable takes back the message just sent: it is not one that the peer failed to answer.
func (s *signalling) unroutable(now time.Time, in Unroutable) {
	s.noRoute = in.Text
	if !s.waiting || in.Kind != KindAsk && in.Kind != KindOffer && in.Kind != KindRemind {
		return
	}
	s.sent = max(0, s.sent-1)
	s.next = now.Add(s.backoff(time.Second, 30*time.Second, s.tries))
	s.tries++
}

// routable reports whether what waits for a route or an answer is to be sent at once.
func (s *signalling) routable(now time.Time) bool {
	if s.noRoute == "" && !s.overdue(now, routeSpacing) {
		return false // what was sent may have gone the wrong way
	}
	if at := s.memory.last.Add(s.cfg.Answers.spacing(now, routeSpacing)); s.sent == 0 && !s.memory.last.IsZero() && now.Before(at) {
		s.next = due.Sooner(s.next, at)
		return false // what went straight may be answered yet
	}
	s.tries, s.rung = 0, 0
	return true
}

// refuse leaves a peer that does not know this node some time to learn of it.
func (s *signalling) refuse(now time.Time) {
	s.refused = true
	s.next = later(s.next, now.Add(refusedFor))
}

// answered ends the waiting: the peer runs the attempt of that number.
func (s *signalling) answered(number uint64) {
	s.number, s.waiting, s.noRoute, s.lacks = number, false, "", 0
}

// overtaken returns the candidates that came before the offer of that number, and forgets what came early.
func (s *signalling) overtaken(number uint64) (lines []string) {
	if s.early.Attempt == number {
		lines = s.early.Candidates
	}
	s.early = Message{}
	return lines
}
