package path

import (
	"time"

	"warren/nat/natkind"
)

// Times of signalling.
const (
	// firstRepeat is above the round trip through an anchor on another continent; a repeat too early
	// costs one sealed message, too late it costs the user this wait.
	firstRepeat = 400 * time.Millisecond
	lastRepeat  = time.Minute // towards a peer that is switched off
	// askSpacing bounds how often the peer can make this node offer anew.
	askSpacing = 300 * time.Millisecond
	// routeSpacing gathers the sessions that come up together: each may be the first that leads to the peer.
	routeSpacing = 100 * time.Millisecond
	refusedFor   = 5 * time.Second
	// offerSpacing bounds how often the peer can make this node start an agent.
	offerSpacing = 100 * time.Millisecond
	// spareRepeats is how often an offer is repeated while there is a path that it might improve.
	spareRepeats = 4
	// hurryTime is in which two introductions may begin for events that may come often.
	hurryTime  = 10 * time.Second
	trustedMax = 4
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
	early   Message     // candidates that overtook their offer
	told    []Candidate // controlling: in the first offer of this number, perhaps the one that is answered
}

func (s *signalling) wake() time.Time {
	if !s.waiting {
		return time.Time{}
	}
	return s.next
}

// introduction brings two nodes to try ICE at the same time, as often as that is of use.
type introduction struct {
	*core
	local  Local
	remote remote
	sig    signalling
	try    attempt
	retry  ladder
	// hurried are the last two times that an introduction was begun in a hurry.
	hurried [2]time.Time
	path    Path      // in use, as Machine last said
	use     relayUse  // the same
	news    introNews // for Machine
}

// introNews is what the route has to know.
type introNews struct {
	started   bool // an attempt
	restarted bool // the peer's process is another one
}

// remote is the peer's process as last heard.
type remote struct {
	instance, previous [8]byte
	changed            time.Time // when it took the place of previous
	noUDP              bool      // it uses what it offers as relays, and nothing else
}

// wake is the earliest time at which something is due.
func (i *introduction) wake() time.Time {
	return earlier(earlier(i.sig.wake(), i.try.wake()), i.retry.at)
}

// repeat sends again what may have been lost.
func (i *introduction) repeat(now time.Time) {
	if i.sig.waiting && due(now, i.sig.next) {
		i.transmit(now)
	}
	if r := i.try.repeats; i.try.on && r >= 0 && r < len(trickleAgain) && due(now, i.try.started.Add(trickleAgain[r])) {
		i.try.repeats++
		i.trickle()
	}
}

// begin starts a new introduction: the controlling side offers, the other asks for an offer.
func (i *introduction) begin(now time.Time) {
	i.end()
	i.retry.at = time.Time{}
	i.sig.waiting, i.sig.begun, i.sig.sent, i.sig.tries, i.sig.rung, i.sig.refused = true, now, 0, 0, 0, false
	if i.controlling {
		// By the clock, for the peer may remember numbers of a process or a machine before this one: it takes no
		// second key for one number.
		i.sig.number = max(i.sig.number+1, uint64(max(0, now.UnixMilli())))
		i.sig.own = i.newCredentials()
	}
	i.transmit(now)
}

// again begins anew unless an introduction is under way, or was so lately that its outcome cannot be judged yet.
func (i *introduction) again(now time.Time) {
	if !i.try.on && !i.sig.waiting && now.Sub(later(i.sig.begun, i.try.started)) >= attemptTime {
		i.begin(now)
	}
}

// hurry is again for those who cannot wait six seconds: two in a row may follow at once, more may not.
func (i *introduction) hurry(now time.Time) {
	if !i.try.on && !i.sig.waiting {
		i.rush(now)
	}
}

// rush is hurry for those whom the attempt under way cannot help.
func (i *introduction) rush(now time.Time) {
	if now.Sub(i.hurried[0]) < hurryTime {
		return
	}
	i.hurried = [2]time.Time{i.hurried[1], now}
	i.begin(now)
}

// transmit sends the ask or offer (again), with the candidates of now.
func (i *introduction) transmit(now time.Time) {
	if i.path.Kind != None && i.sig.sent > spareRepeats {
		i.sig.waiting = false
		i.climb(now)
		return
	}
	msg := Message{Kind: KindAsk, Attempt: i.sig.number}
	if i.controlling {
		msg = Message{
			Kind: KindOffer, Attempt: i.sig.number, Ufrag: i.sig.own.Ufrag, Pwd: i.sig.own.Pwd,
			Candidates: Lines(i.local.Candidates), Relays: i.use.offers(i.local.Relays),
		}
		if i.sig.sent == 0 {
			i.sig.told = i.local.Candidates
		}
	}
	i.sig.next = now.Add(i.backoff(firstRepeat, lastRepeat, i.sig.rung))
	i.sig.rung++
	i.sig.sent++
	i.sig.last = now
	i.sig.noRoute = ""
	i.send(msg)
}

func (i *introduction) send(msg Message) {
	msg.Instance = i.cfg.Instance
	i.emit(Send{Message: msg})
}

// unroutable takes back the message just sent: it is not one that the peer failed to answer.
func (i *introduction) unroutable(now time.Time, in Unroutable) {
	i.sig.noRoute = in.Text
	if !i.sig.waiting || in.Kind != KindAsk && in.Kind != KindOffer {
		return
	}
	i.sig.sent = max(0, i.sig.sent-1)
	i.sig.next = now.Add(i.backoff(time.Second, 30*time.Second, i.sig.tries))
	i.sig.tries++
}

// routable sends at once what waits for a route or an answer.
func (i *introduction) routable(now time.Time) {
	switch {
	case i.sig.waiting && i.sig.noRoute == "" && now.Sub(i.sig.last) < routeSpacing:
		i.sig.next = earlier(i.sig.next, i.sig.last.Add(routeSpacing)) // what was sent may have gone the wrong way
	case i.sig.waiting:
		i.sig.tries, i.sig.rung = 0, 0
		i.transmit(now)
	case i.path.Kind == None && !i.try.on:
		i.begin(now)
	}
}

// received dispatches a message after a look at the process that it comes from.
func (i *introduction) received(now time.Time, msg Message) {
	if msg.Instance == i.remote.previous && now.Sub(i.remote.changed) < lateFor {
		return // from a process that is gone
	}
	if msg.Instance != i.remote.instance {
		i.newInstance(now, msg.Instance)
	}
	i.sig.rung = 0
	if msg.Kind == KindAsk || msg.Kind == KindOffer || msg.Kind == KindAnswer {
		i.remote.noUDP = natkind.Unpack(msg.NAT).UDPBlocked
	}
	switch {
	case msg.Kind == KindAsk && i.controlling:
		i.asked(now, msg)
	case msg.Kind == KindOffer && !i.controlling:
		i.offered(now, msg)
	case msg.Kind == KindAnswer && i.controlling:
		i.answered(now, msg)
	case msg.Kind == KindCandidates:
		i.trickled(now, msg)
	case msg.Kind == KindRefuse && i.sig.waiting:
		i.sig.refused = true
		i.sig.next = later(i.sig.next, now.Add(refusedFor))
	}
}

// newInstance notes the peer's process. One that replaces another has forgotten all that was agreed, but may well answer the
// ask or offer that is out: an anchor kept it, or it was repeated.
func (i *introduction) newInstance(now time.Time, instance [8]byte) {
	if i.remote.instance != ([8]byte{}) {
		i.remote.previous, i.remote.changed = i.remote.instance, now
		i.news.restarted = true
		i.stop()
		if !i.controlling {
			i.sig.number = 0
		}
	}
	i.remote.instance = instance
	i.sig.early = Message{}
}

// asked offers, or repeats the offer that crossed the ask. An ask that names the newest attempt comes
// from a peer that has seen the offer and already failed at it.
func (i *introduction) asked(now time.Time, msg Message) {
	i.sig.refused = false
	switch {
	case i.sig.waiting && msg.Attempt < i.sig.number:
		if i.sig.noRoute != "" || now.Sub(i.sig.last) >= askSpacing/2 {
			i.transmit(now)
		}
	case i.try.on && msg.Attempt < i.sig.number:
		// It crossed the answer.
	case now.Sub(i.sig.begun) < askSpacing:
		i.retry.at = i.sig.begun.Add(askSpacing)
	default:
		i.sig.number = max(i.sig.number, msg.Attempt) // greater only when our clock was set back
		i.begin(now)
	}
}

// offered answers, the same to each repeat of one offer.
func (i *introduction) offered(now time.Time, msg Message) {
	if msg.Attempt < i.sig.number {
		return
	}
	if msg.Attempt == i.sig.number && i.try.number == msg.Attempt {
		i.offeredAgain(now, msg)
		return
	}
	if now.Sub(i.try.started) < offerSpacing {
		return // it will be repeated
	}
	i.end()
	i.sig.number, i.sig.waiting, i.sig.noRoute = msg.Attempt, false, ""
	i.retry.at = time.Time{}
	own := i.newCredentials()
	chosen := i.local.chooseRelays(&i.cfg, i.use, i.remote.noUDP, msg.Relays)
	remote := ParseCandidates(msg.Candidates, i.overlay)
	if i.sig.early.Attempt == msg.Attempt {
		remote, _ = merge(remote, ParseCandidates(i.sig.early.Candidates, i.overlay))
	}
	i.sig.early = Message{}
	i.start(now, msg.Attempt, exchange{own, Credentials{Ufrag: msg.Ufrag, Pwd: msg.Pwd}}, remote, chosen)
	i.send(i.answer())
}

func (i *introduction) answer() Message {
	return Message{
		Kind: KindAnswer, Attempt: i.try.number, Ufrag: i.try.exchange.own.Ufrag, Pwd: i.try.exchange.own.Pwd,
		Candidates: Lines(i.local.Candidates), Relay: i.try.relays.first, Spare: i.try.relays.spare,
	}
}

// offeredAgain repeats a lost answer. If ICE has meanwhile failed here, the offer is of no use any more.
func (i *introduction) offeredAgain(now time.Time, msg Message) {
	switch {
	case i.try.on:
		i.try.deadline = now.Add(i.attemptLimit())
		i.addRemote(ParseCandidates(msg.Candidates, i.overlay))
		i.send(i.answer())
	case i.try.won:
		i.send(i.answer())
	case !i.sig.waiting && now.Sub(i.sig.last) >= askSpacing:
		i.begin(now)
	}
}

// answered starts the attempt that the peer has already begun.
func (i *introduction) answered(now time.Time, msg Message) {
	if msg.Attempt != i.sig.number {
		return
	}
	remote := ParseCandidates(msg.Candidates, i.overlay)
	if !i.sig.waiting {
		i.addRemote(remote)
		return
	}
	i.sig.waiting, i.sig.noRoute = false, ""
	i.start(now, msg.Attempt, exchange{i.sig.own, Credentials{Ufrag: msg.Ufrag, Pwd: msg.Pwd}}, remote, choice{msg.Relay, msg.Spare})
	if anyNew(i.sig.told, i.local.Candidates) {
		i.tellMore(now) // what was trickled since may have been lost, as when the peer was on its way to another network
	}
}

// trickled takes candidates that were found after the offer or answer.
func (i *introduction) trickled(now time.Time, msg Message) {
	switch {
	case i.try.on && msg.Attempt == i.try.number:
		i.addRemote(ParseCandidates(msg.Candidates, i.overlay))
		i.punch(msg.Predicted)
	case !i.controlling && msg.Attempt > i.sig.number:
		i.sig.early = msg
	}
}
