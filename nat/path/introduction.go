package path

import (
	"net/netip"
	"slices"
	"time"

	"warren/nat/due"
	"warren/nat/natkind"
)

// Bounds of what the peer can make this node do.
const (
	// askSpacing bounds how often the peer can make this node offer anew.
	askSpacing = 300 * time.Millisecond
	// offerSpacing bounds how often the peer can make this node start an agent.
	offerSpacing = 100 * time.Millisecond
	// demandBurst attempts may follow each other as the peer likes, and one each demandEvery in the long run: what fails again and
	// again is not worth more.
	demandBurst = 8
	demandEvery = 2 * time.Second
	trustedMax  = 4
	// lateFor is how long messages of the peer's former process may still arrive.
	lateFor = 3 * time.Second
)

// introduction brings two nodes to try ICE at the same time, as often as that is of use. Its parts do not know each other:
// what is out (sig), what is tried (try), when to begin again (retry), and whom all that is with (remote).
type introduction struct {
	*core
	local  Local
	remote remote
	sig    signalling
	try    attempt
	retry  ladder
	path   Path      // in use, as Machine last said
	use    relayUse  // the same
	news   introNews // for Machine
}

// introNews is what the route has to know.
type introNews struct {
	started   bool // an attempt
	restarted bool // the peer's process is another one
	// An offer of the peer came straight from heard; an answer came straight from reached, trip after the offer went there.
	heard, reached netip.AddrPort
	trip           time.Duration
}

// remote is the peer's process as last heard.
type remote struct {
	instance, previous [8]byte
	changed            time.Time // when it took the place of previous
	heard              time.Time // when it last said something
	noUDP              bool      // it uses what it offers as relays, and nothing else
	demands            time.Time // until when the attempts that it has demanded would take, one each demandEvery
}

// mayDemand is when the peer may have another attempt begun, if that is not at once.
func (r *remote) mayDemand(now time.Time) (at time.Time, yes bool) {
	at = r.demands.Add(-(demandBurst - 1) * demandEvery)
	return at, !at.After(now)
}

// demand counts an attempt that begins because the peer wants it.
func (r *remote) demand(now time.Time) { r.demands = later(r.demands, now).Add(demandEvery) }

func newIntroduction(c *core) introduction {
	return introduction{core: c, sig: signalling{core: c}, try: attempt{core: c}, retry: ladder{core: c}}
}

// wake is the earliest time at which something is due.
func (i *introduction) wake() time.Time {
	next := due.Sooner(due.Sooner(i.sig.wake(), i.try.wake()), i.retry.at)
	if i.sig.waiting {
		next = due.Sooner(next, i.sig.memory.wake())
	}
	return next
}

// repeat sends again what may have been lost.
func (i *introduction) repeat(now time.Time) {
	if i.sig.waiting && isDue(now, i.sig.next) {
		i.transmit(now)
	}
	i.remember(now)
	if i.try.repeatDue(now) {
		i.trickle()
	}
}

// idle reports whether no introduction is under way.
func (i *introduction) idle() bool { return !i.try.on && !i.sig.waiting }

// begin starts a new introduction: the controlling side offers, the other asks for an offer.
func (i *introduction) begin(now time.Time) {
	i.end()
	i.retry.at = time.Time{}
	i.sig.begin(now)
	i.transmit(now)
}

// again begins anew unless an introduction is under way, or was so lately that its outcome cannot be judged yet.
func (i *introduction) again(now time.Time) {
	if i.idle() && now.Sub(later(i.sig.begun, i.try.started)) >= attemptTime {
		i.begin(now)
	}
}

// hurry is again for those who cannot wait six seconds: two in a row may follow at once, more may not.
func (i *introduction) hurry(now time.Time) {
	if i.idle() {
		i.rush(now)
	}
}

// rush is hurry for those whom the attempt under way cannot help.
func (i *introduction) rush(now time.Time) {
	if i.retry.hurry(now) {
		i.begin(now)
	}
}

// transmit sends the ask or offer (again), as long as there is nothing better to do.
func (i *introduction) transmit(now time.Time) {
	if i.path.Kind != None && i.sig.sent > spareRepeats {
		i.sig.waiting = false // Machine.goOn plans the next one
		return
	}
	i.sig.transmit(now, i.local, i.use)
}

// routable sends at once what waits for a route or an answer, or for a route alone if there is one perhaps: each of N sessions that come
// up would have all offers to N peers repeated.
func (i *introduction) routable(now time.Time, perhaps bool) {
	switch {
	case perhaps && (!i.sig.waiting || i.sig.noRoute == ""):
	case i.sig.waiting:
		if i.sig.routable(now) {
			i.transmit(now)
		}
	case i.path.Kind == None && !i.try.on:
		i.begin(now)
	}
}

// received dispatches a message after a look at the process that it comes from.
func (i *introduction) received(now time.Time, msg Message) {
	if i.remote.late(now, msg.Instance) {
		return
	}
	if msg.Instance != i.remote.instance {
		i.newInstance(now, msg.Instance)
	}
	i.sig.rung, i.remote.heard = 0, now
	if msg.Kind == KindAsk || msg.Kind == KindOffer || msg.Kind == KindAnswer {
		i.remote.noUDP = natkind.Unpack(msg.NAT).UDPBlocked
	}
	switch {
	case msg.Kind == KindAsk && i.controlling:
		i.asked(now, msg)
		i.sig.askedStraight(now, msg.Straight, i.local, i.use)
	case (msg.Kind == KindOffer || msg.Kind == KindRemind) && !i.controlling:
		i.offered(now, msg)
	case msg.Kind == KindAnswer && i.controlling:
		i.answered(now, msg)
	case msg.Kind == KindCandidates:
		i.trickled(msg)
	case msg.Kind == KindRefuse && i.sig.waiting:
		i.sig.refuse(now)
	}
}

// late reports whether a message is from a process that is gone.
func (r *remote) late(now time.Time, instance [8]byte) bool {
	return instance == r.previous && now.Sub(r.changed) < lateFor
}

// newInstance notes the peer's process. One that replaces another has forgotten all that was agreed, but may well answer the
// ask or offer that is out: an anchor kept it, or it was repeated.
func (i *introduction) newInstance(now time.Time, instance [8]byte) {
	if i.remote.instance != ([8]byte{}) {
		i.remote.previous, i.remote.changed = i.remote.instance, now
		i.news.restarted = true
		i.try.stop()
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
		switch {
		case i.sig.reminded && msg.Lacks == i.sig.number && i.sig.noRoute == "":
			i.sig.lacked = true
			i.transmit(now)
		case i.sig.noRoute == "" && now.Sub(i.sig.last) < askSpacing/2: // the two crossed
		case i.sig.noRoute != "" || i.sig.overdue(now, askSpacing/2):
			i.transmit(now)
		}
	case i.try.on && msg.Attempt < i.sig.number:
		// It crossed the answer.
	case now.Sub(i.sig.begun) < askSpacing:
		i.retry.at = i.sig.begun.Add(askSpacing)
	default:
		if at, yes := i.remote.mayDemand(now); !yes {
			i.retry.sooner(at)
			return
		}
		i.remote.demand(now)
		i.sig.number = max(i.sig.number, msg.Attempt) // greater only when our clock was set back
		i.begin(now)
	}
}

// offered answers, the same to each repeat of one offer. The offer of which a reminder is and which has not come is asked for.
func (i *introduction) offered(now time.Time, msg Message) {
	if msg.Attempt < i.sig.number {
		return
	}
	if msg.Attempt == i.sig.number && i.try.number == msg.Attempt {
		i.offeredAgain(now, msg)
		return
	}
	if msg.Kind == KindRemind {
		_, yes := i.remote.mayDemand(now)
		switch {
		case !i.sig.mayAsk(now):
		case i.sig.waiting:
			i.sig.miss(now, msg.Attempt)
		case yes:
			i.remote.demand(now)
			i.sig.lacks = msg.Attempt
			i.begin(now)
		}
		return
	}
	if _, yes := i.remote.mayDemand(now); !yes || now.Sub(i.try.started) < offerSpacing {
		return // it will be repeated
	}
	i.remote.demand(now)
	i.end()
	i.sig.answered(msg.Attempt)
	i.retry.at = time.Time{}
	own := i.newCredentials()
	chosen := i.local.chooseRelays(&i.cfg, i.use, i.remote.noUDP, msg.Relays)
	remote := i.candidatesOf(msg)
	remote, _ = merge(remote, ParseCandidates(i.sig.overtaken(msg.Attempt), i.overlay))
	i.start(now, msg.Attempt, exchange{own, Credentials{Ufrag: msg.Ufrag, Pwd: msg.Pwd}}, remote, chosen)
	i.try.reply(msg, i.local.Candidates)
	if i.underlay(msg.Straight) {
		i.news.heard = msg.Straight
		if !i.local.fits() {
			i.tellMore(now)
		}
	}
}

// offeredAgain repeats a lost answer. If ICE has meanwhile ended here, the offer is of no use any more: the peer is asked for another one, and
// if that ask is out, it has not come to the peer, and goes again the way that the offer has come.
func (i *introduction) offeredAgain(now time.Time, msg Message) {
	switch {
	case i.try.on:
		i.try.deadline = now.Add(i.retry.attemptLimit(i.path.Kind))
		i.try.addRemote(i.candidatesOf(msg))
		if !i.try.agreed {
			i.try.reply(msg, i.local.Candidates)
		}
	case i.try.chosen: // the two crossed
	case i.try.won:
		i.try.reply(msg, i.local.Candidates)
	case !i.sig.waiting && now.Sub(i.sig.last) >= askSpacing:
		i.begin(now)
	case i.sig.waiting && i.underlay(msg.Straight):
		i.sig.askedStraight(now, msg.Straight, i.local, i.use)
	case i.sig.waiting && now.Sub(i.sig.last) >= askSpacing:
		i.transmit(now)
	}
}

// answered starts the attempt that the peer has already begun.
func (i *introduction) answered(now time.Time, msg Message) {
	if msg.Attempt != i.sig.number {
		return
	}
	remote := i.candidatesOf(msg)
	if !i.sig.waiting {
		i.try.addRemote(remote)
		return
	}
	took := now.Sub(i.sig.begun)
	i.sig.answered(msg.Attempt)
	i.start(now, msg.Attempt, exchange{i.sig.own, Credentials{Ufrag: msg.Ufrag, Pwd: msg.Pwd}}, remote, choice{msg.Relay, msg.Spare})
	i.cfg.Answers.note(now, took) // from now on: this peer may have come only now
	if trip, yes := i.sig.memory.awaited(now, msg.Straight); yes && i.underlay(msg.Straight) {
		i.news.reached, i.news.trip = msg.Straight, trip
	}
	if anyNew(i.sig.told, i.local.Candidates) || msg.Straight.IsValid() && !i.local.fits() {
		i.tellMore(now) // what was trickled since may have been lost, as when the peer was on its way to another network
	}
}

// trickled takes candidates that were found after the offer or answer.
func (i *introduction) trickled(msg Message) {
	switch {
	case i.try.runs(msg.Attempt):
		i.try.addRemote(ParseCandidates(msg.Candidates, i.overlay))
		i.try.punch(msg.Predicted)
	case !i.controlling && msg.Attempt > i.sig.number:
		i.sig.early = msg
	}
}

// start has both sides' halves tried.
func (i *introduction) start(now time.Time, number uint64, keys exchange, remote []Candidate, relays choice) {
	i.try.start(now, number, keys, remote, relays, i.retry.attemptLimit(i.path.Kind))
	i.news.started = true
}

// setLocal takes this node's candidates. What a running attempt does not know yet is trickled.
func (i *introduction) setLocal(now time.Time, l Local) {
	before := i.local.Candidates
	i.local = l.bounded()
	switch {
	case !anyNew(before, i.local.Candidates):
	case i.try.on:
		i.tellMore(now)
	case i.controlling && i.sig.waiting && i.sig.sent > 0 && i.sig.noRoute == "":
		i.trickle()
	case i.path.Kind == Relayed:
		i.hurry(now) // it may be what was missing for a direct path
	}
}

// anyNew reports whether a list has an address that the one before had not.
func anyNew(before, after []Candidate) bool {
	return slices.ContainsFunc(after, func(c Candidate) bool {
		return !slices.ContainsFunc(before, func(b Candidate) bool { return b.Addr == c.Addr })
	})
}

func (l Local) bounded() Local {
	l.Candidates = l.Candidates[:min(len(l.Candidates), MaxCandidates)]
	l.Relays = l.Relays[:min(len(l.Relays), maxRelays)]
	return l
}

// tellMore tells the peer at once what was found during the attempt, and plans its repetition.
func (i *introduction) tellMore(now time.Time) {
	i.try.planRepeats(now)
	i.trickle()
}

// trickle tells the peer all that it may try, as of now.
func (i *introduction) trickle() {
	var p Predicted
	if i.try.runs(i.sig.number) {
		p = i.try.ports.own
	}
	i.sig.trickle(i.local.Candidates, p)
}

// end stops what is under way.
func (i *introduction) end() {
	i.sig.waiting = false
	i.try.stop()
}

// succeed ends what is under way, because there is a direct path.
func (i *introduction) succeed() {
	i.end()
	i.try.won, i.try.failure = true, ""
	i.retry.leave()
}

// fail ends the attempt without success.
func (i *introduction) fail(now time.Time, text string) {
	i.end()
	i.try.failure, i.try.failed = text, now
}
