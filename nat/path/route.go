package path

import (
	"net/netip"
	"time"

	"warren/mesh/identity"
	"warren/nat/due"
)

// preferDirect is how long a relay that works already waits for ICE: most pairs need no relay then, and the change to
// a direct path that comes later loses nothing.
const preferDirect = 200 * time.Millisecond

// route chooses between the ways to the peer: straight to an address of it, through a relay, or none. Its parts, the path in
// use and the relays, do not move by themselves.
type route struct {
	*core
	current
	relays *relays
	trying trying    // as Machine last said
	hollow hollow    // of relayed paths
	news   routeNews // for Machine
}

// hollow keeps pairs from going to and fro between relays when it is the peer that sends nothing.
type hollow struct {
	left int // relays, since something came in by one
	next time.Time
}

// trying is what the route has to know of the introduction.
type trying struct {
	on      bool // ICE runs
	started time.Time
	waiting bool // an ask or offer is out
	begun   time.Time
	forlorn bool // one side has no UDP: a direct path, as on one LAN, would be a surprise
	far     bool // the relay agreed on is a long line away: a direct path takes longer than its channel
}

// routeNews is what the introduction has to know.
type routeNews struct {
	died     bool // the path; another is wanted
	failing  bool // the path answers no checks so far
	doubtful bool // the path; another would be good
	moved    bool // to an address that ICE did not find
	relayed  bool // there is a relayed path now
	unspared bool // the relay held ready is none any more
}

// used is what the relays have to know of the path in use, and of the introduction.
type used struct {
	path      Path
	suspect   time.Time // since when; zero: it is believed in
	restarted bool      // the peer's process is another one than the path was made with
	trying    trying
}

func newRoute(c *core, now time.Time) route {
	out := &checks{core: c}
	s := &relays{core: c, checks: out}
	return route{core: c, relays: s, current: current{
		core: c, checks: out, relays: s, sources: sources{core: c}, since: now, reason: "no path yet",
	}}
}

func (t *route) used() used {
	return used{path: t.path, suspect: t.life.suspectSince, restarted: t.restarted, trying: t.trying}
}

// by reports whether the path goes through a channel.
func (u used) by(r *relay) bool { return u.path.Kind == Relayed && r.addr == u.path.Addr }

// works reports whether there is a path that is believed in.
func (u used) works() bool { return u.path.Kind != None && u.suspect.IsZero() }

// headStart is until when a relay that works waits for ICE; zero: it does not.
func (t trying) headStart() time.Time {
	switch {
	case !t.on:
		return time.Time{}
	case t.forlorn, t.far:
		return t.started
	}
	return t.started.Add(preferDirect)
}

// wake is the earliest time at which something is due.
func (t *route) wake() time.Time { return due.Sooner(t.relays.wake(t.used()), t.current.wake()) }

// attempt notes the credentials of a new attempt and prepares its relay. While a path works, checks go
// on under the old ones until the attempt has won: the peer may never learn of one whose answer was lost.
func (t *route) attempt(now time.Time, keys exchange, anchors choice) {
	t.checks.newest = keys
	if t.path.Kind == None {
		t.checks.agree()
	} else if t.restarted && t.path.Kind == Relayed {
		t.checks.agree() // nobody is left to answer under the old ones, and the relay is the same
		t.checks.forget()
	}
	t.planRelay(now, anchors)
}

// direct moves to an address of the peer.
func (t *route) direct(now time.Time, addr netip.AddrPort, reason Reason) {
	t.checks.agree()
	t.elsewhere.addr = netip.AddrPort{}
	t.sources.note(now, addr)
	t.set(now, Path{Addr: addr, Kind: Direct}, reason)
	t.relays.retireAll(now, t.used())
}

// firstAnswered is the reason of a path that ICE has not chosen yet.
const firstAnswered = Reason("the first that has answered ICE")

// early uses an address that has answered a check of ICE while there is no path: what answers carries (RFC 8445, section 12.1), and to wait for
// the nomination would cost one more round trip. ICE goes on, and has the last word; the relays stay until then.
func (t *route) early(now time.Time, addr netip.AddrPort) {
	if (t.path.Kind == None || t.used().unproven(&t.relays.channels)) && t.underlay(addr) {
		t.checks.agree()
		t.elsewhere.addr = netip.AddrPort{}
		t.set(now, Path{Addr: addr, Kind: Direct}, firstAnswered)
	}
}

// nominated moves to what ICE has chosen.
func (t *route) nominated(now time.Time, addr netip.AddrPort) {
	const reason = "nominated by ICE"
	if t.path.Kind == Direct && t.path.Addr == addr && t.agreed == t.checks.newest && !t.restarted {
		t.set(now, t.path, reason)
		t.relays.retireAll(now, t.used())
		return
	}
	t.direct(now, addr, reason)
}

// moveElsewhere adopts the address that the peer's checks come from.
func (t *route) moveElsewhere(now time.Time) {
	t.news.moved = true
	reason := Reason("the peer has moved")
	if t.path.Kind == None {
		reason = "the peer answers where it has written from"
	}
	t.direct(now, t.elsewhere.addr, reason)
}

// watch looks for the signs of a dead path, and does what follows from them.
func (t *route) watch(now time.Time, activity Wake) {
	if t.life.suspect() {
		t.watchSuspect(now, activity)
	} else {
		t.look(now, activity)
	}
	t.leaveHollow(now, activity)
}

// leaveHollow leaves a relay that passes checks on and nothing else, for one that is ready, or has another agreed on.
func (t *route) leaveHollow(now time.Time, activity Wake) {
	if t.path.Kind != Relayed {
		return
	}
	if activity.LastRx.After(t.since) {
		t.hollow = hollow{}
	}
	if !t.life.hollow(activity) || now.Before(t.hollow.next) {
		return
	}
	t.hollow.next = now.Add(hollowFor << min(t.hollow.left, 5))
	t.hollow.left++
	t.relays.avoided.put(now, now, t.path.Via)
	r := t.relays.other(t.used())
	if r == nil {
		t.news.failing = true
		return
	}
	t.replaceRelay(now, r, because("relay through %s passes checks on and nothing else, now through %s", t.path.Via, r.anchor))
}

// watchSuspect waits for the answer to a check, and gets ready for its not coming: the longer it is overdue, the more is
// done; see life.
func (t *route) watchSuspect(now time.Time, activity Wake) {
	if t.leaveDirect(now) {
		return
	}
	given := now.Sub(t.life.suspectSince) >= t.life.grace
	if given && t.elsewhere.works(now) || t.overdue(now) && t.elsewhere.heard.After(t.life.suspectSince) {
		t.moveElsewhere(now)
		return
	}
	interval := t.path.checkInterval()
	switch t.life.judge(now, activity, interval) {
	case holdOn:
	case checkAgain:
		t.check(now)
	case seekOther:
		t.news.doubtful = true
	case giveUp:
		t.dead(now)
		return
	}
	if t.path.RTT == 0 {
		return // nothing is overdue yet
	}
	doubtful, failing := t.life.overdue(now, interval)
	if doubtful {
		t.emit(Doubt{Via: t.path.Via})
	}
	if failing {
		t.news.failing = true
	}
}

// leaveDirect gives a direct path up that answers no check, when UDP is blocked at one of its ends and a relay works. There
// is nothing to wait for then; on a LAN there may be.
func (t *route) leaveDirect(now time.Time) bool {
	if !t.trying.forlorn || t.path.Kind != Direct || local(t.path.Addr.Addr()) || !t.life.suspect() ||
		now.Sub(t.life.suspectSince) < t.path.checkInterval() || t.relays.ready() == nil {
		return false
	}
	t.dead(now)
	return true
}

// dead gives the path up for the next best.
func (t *route) dead(now time.Time) {
	old := t.path
	reason := because("direct path to %s is dead: %d checks unanswered in %s",
		old.Addr, t.life.failedChecks, now.Sub(t.life.suspectSince).Round(100*time.Millisecond))
	if old.Kind == Relayed {
		reason = because("relay through %s is dead: %d checks unanswered", old.Via, t.life.failedChecks)
	}
	t.set(now, Path{}, reason)
	t.checks.agree()
	if r := t.relays.at(old.Addr); r != nil {
		t.relays.close(r)
		t.relays.why = reason
	}
	t.useRelay(now)
	t.news.died = true
}

// checkAnswered takes an answer for the way that it came by: a relay, the path, another address of the peer's.
func (t *route) checkAnswered(now time.Time, id uint64) {
	p, ok := t.checks.answered(id)
	if !ok {
		return
	}
	proves := t.used().unproven(&t.relays.channels) && p.to == t.path.Addr
	if t.relays.answered(now, p) {
		t.leaveRelay(now)
		t.leaveDirect(now)
		t.useRelay(now)
	}
	switch p.to {
	case t.path.Addr:
		t.path = t.path.measured(p.trip(now))
		if t.restarted && t.path.Kind == Relayed && t.agreed == t.checks.newest {
			t.set(now, t.path, "the peer has restarted")
		}
		t.answered(now)
		if proves {
			t.news.relayed = true
			t.report(false)
		}
	case t.elsewhere.addr:
		t.elsewhere.heard = now
		if t.overdue(now) || t.path.Kind != Direct {
			t.moveElsewhere(now)
		}
	}
}

// peerChecked notices where the peer sends from. An address that is not the path's is a peer whose
// mapping moved, or one that chose otherwise: both addresses are checked and the path moves only if
// it is dead and the other answers.
func (t *route) peerChecked(now time.Time, from netip.AddrPort) {
	switch {
	case from == t.path.Addr:
		t.followed(now)
	case IsVirtual(from.Addr()):
		t.relayChecked(now, from)
	case t.rejects(from.Addr()) || !t.agreed.ok():
	case t.path.Kind == Direct && t.path.RTT == 0 && now.Sub(t.since) < settle, now.Sub(t.elsewhere.asked) < checkEvery:
		// A new path is to answer first, and one check is enough.
	case t.trying.waiting && now.Sub(t.trying.begun) < settle:
		// ICE is about to choose.
	default:
		t.elsewhere.seen(now, from)
		t.checks.send(now, from)
		t.suspect(now)
	}
}

// relayChecked is peerChecked for one of the channels that is not the path.
func (t *route) relayChecked(now time.Time, from netip.AddrPort) {
	early := t.relays.checked(now, from)
	switch {
	case now.Sub(t.since) < settle:
	case t.path.Kind == Direct, t.path.Kind == Relayed && early:
		// The peer uses or tries another way. It may know why.
		t.suspect(now)
	}
}

// planRelay prepares the channels on the agreed anchors. The path in use is left alone until a better one works.
func (t *route) planRelay(now time.Time, agreed choice) {
	if t.relays.plan(now, t.used(), agreed) {
		t.useRelay(now)
	}
}

func (t *route) relayOpened(now time.Time, in RelayOpened) {
	r, unspared := t.relays.opened(now, t.used(), in)
	t.news.unspared = t.news.unspared || unspared
	if r != nil {
		t.report(false) // one source more
		if t.useRelay(now); !t.used().by(r) {
			t.relays.check(now, r)
		}
	}
}

// freshFor is how long after its start an attempt may use a channel through which nobody has answered yet.
const freshFor = 2 * time.Second

// unproven reports whether the path is such a channel still.
func (u used) unproven(list *channels) bool {
	r := list.at(u.path.Addr)
	return r != nil && r.phase == relayChecking && u.by(r)
}

func (t *route) watchRelays(now time.Time) {
	if t.relays.watch(now, t.used()) {
		t.news.unspared = true
	}
	t.leaveRelay(now)
	t.useRelay(now)
}

// useRelay moves to a relay when one works, there is nothing better, and ICE has had its time; and from one relay to
// another when both ends have agreed on that.
//
// Over a long line a channel is used as soon as it is open at this end: the answer says that the peer opens its own, and to wait for an answer
// through both would cost one more round trip. What it carries is lost if there is none; it is watched as any path that has to answer first.
func (t *route) useRelay(now time.Time) {
	best := t.relays.ready()
	if fresh := t.relays.fresh(t.relays.agreed.first); best == nil && fresh != nil && t.path.Kind == None && t.trying.on && t.trying.far && now.Sub(t.trying.started) < freshFor {
		t.moveRelay(now, fresh, "no direct path yet")
		return
	}
	switch {
	case best == nil || t.used().by(best):
	case t.path.Kind == None && !now.Before(t.trying.headStart()):
		t.moveRelay(now, best, "no direct path yet")
		t.news.relayed = true
	case t.path.Kind == Relayed && best.anchor == t.relays.agreed.first:
		old := t.relays.at(t.path.Addr)
		t.moveRelay(now, best, "both ends have agreed on another relay")
		if old != nil && !t.relays.agreed.has(old.anchor) {
			t.relays.retire(now, t.used(), old)
		}
	}
}

// leaveRelay moves to a channel that answers from one that is in doubt and does not.
func (t *route) leaveRelay(now time.Time) {
	r := t.relays.refuge(now, t.used())
	if r == nil {
		return
	}
	t.relays.avoided.put(now, t.life.suspectSince.Add(-silence), t.path.Via)
	t.replaceRelay(now, r, because("relay through %s does not answer, that through %s does", t.path.Via, r.anchor))
}

// replaceRelay moves from the relay in use, which is closed, to another one without a gap. What was agreed on is over.
func (t *route) replaceRelay(now time.Time, r *relay, reason Reason) {
	old := t.relays.at(t.path.Addr)
	t.relays.agreed = choice{first: r.anchor}
	t.moveRelay(now, r, reason)
	if old != nil {
		t.relays.close(old)
	}
	t.news.died = true
}

// relayGone leaves an anchor that is no member any more, whether it works or not.
func (t *route) relayGone(now time.Time, anchor identity.NodeID) {
	t.relays.bar(anchor)
	r := t.relays.by(anchor)
	if r == nil {
		return
	}
	if !t.used().by(r) {
		t.news.unspared = t.relays.without(r) || t.news.unspared
		return
	}
	reason := because("relay through %s: it is no member any more", anchor)
	if next := t.relays.other(t.used()); next != nil {
		t.replaceRelay(now, next, reason)
		return
	}
	t.set(now, Path{}, reason)
	t.checks.agree()
	t.relays.without(r)
	t.relays.why = reason
	t.news.died = true
}

func (t *route) moveRelay(now time.Time, r *relay, reason Reason) {
	r.end = time.Time{}
	t.set(now, Path{Addr: r.addr, Kind: Relayed, Via: r.anchor, RTT: r.rtt}, reason)
}

func (t *route) relayUse(now time.Time, local []RelayOffer) relayUse {
	return t.relays.use(now, t.used(), local)
}
