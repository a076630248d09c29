package path

import (
	"net/netip"
	"slices"
	"time"
)

// route is the path in use, the relay beside it, and the watch over both.
type route struct {
	*core
	path      Path
	since     time.Time
	reason    Reason // of the last change
	restarted bool   // the peer's process is another one than the path was made with
	history   history

	proven []proven       // least recent first
	newest exchange       // of the newest attempt, agreed on or not
	alt    netip.AddrPort // where the peer's checks come from, if not from the path
	altOK  time.Time      // when alt last answered one of ours

	relays relays
	life   life
	trying trying    // as Machine last said
	news   routeNews // for Machine
}

// proven is an address from which the peer has shown itself.
type proven struct {
	addr netip.AddrPort
	at   time.Time // last
}

const (
	maxProven = 16
	// provenFor is above the time between two checks of an idle path, so a path of the peer's that is not ours stays. A
	// mapping of a NAT that is left for longer may be another's by now.
	provenFor = 5 * time.Minute
)

// trying is what the route has to know of the introduction.
type trying struct {
	on      bool // ICE runs
	started time.Time
	waiting bool // an ask or offer is out
	begun   time.Time
	forlorn bool // one side has no UDP: a direct path, as on one LAN, would be a surprise
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

// wake is the earliest time at which something is due.
func (t *route) wake() time.Time {
	first := t.relayWake()
	switch {
	case t.path.Kind == None:
		return first
	case !t.life.suspectSince.IsZero():
		return earlier(first, earlier(t.life.lastCheck.Add(t.checkInterval()), t.life.suspectSince.Add(t.life.grace)))
	}
	return earlier(first, earlier(t.life.idleAt, t.life.poll))
}

// attempt notes the credentials of a new attempt and prepares its relay. While a path works, checks go
// on under the old ones until the attempt has won: the peer may never learn of one whose answer was lost.
func (t *route) attempt(now time.Time, keys exchange, anchors choice) {
	t.newest = keys
	if t.path.Kind == None {
		t.agree()
	} else if t.restarted && t.path.Kind == Relayed {
		t.agree() // nobody is left to answer under the old ones, and the relay is the same
		t.life.pending = [16]pendingCheck{}
	}
	t.planRelay(now, anchors)
}

func (t *route) agree() {
	if t.newest.ok() {
		t.agreed = t.newest
	}
}

// prove notes that the peer is at an address: it may send WireGuard packets from there, and do so before this side
// has moved. What the peer merely claims is no proof, or it could take the packets of another for its own.
func (t *route) prove(now time.Time, addr netip.AddrPort) {
	if t.note(now, addr) {
		t.report(false)
	}
}

// note is prove without the report; it tells whether the address is new.
func (t *route) note(now time.Time, addr netip.AddrPort) bool {
	if !addr.IsValid() || IsVirtual(addr.Addr()) || t.rejects(addr.Addr()) {
		return false
	}
	known := false
	t.proven = slices.DeleteFunc(t.proven, func(p proven) bool {
		known = known || p.addr == addr
		return p.addr == addr || now.Sub(p.at) > provenFor
	})
	t.proven = append(t.proven, proven{addr: addr, at: now})
	t.proven = t.proven[max(0, len(t.proven)-maxProven):]
	return !known
}

// direct moves to an address of the peer.
func (t *route) direct(now time.Time, addr netip.AddrPort, reason Reason) {
	t.agree()
	t.alt = netip.AddrPort{}
	t.note(now, addr)
	t.set(now, Path{Addr: addr, Kind: Direct}, reason)
	t.retireRelays(now)
}

// set moves to another path (or to none) and reports it.
func (t *route) set(now time.Time, p Path, reason Reason) {
	if p.Addr != t.path.Addr || p.Kind != t.path.Kind || t.restarted {
		t.since = now
		t.history.note(Change{At: now, Path: p, Reason: reason})
	}
	t.path, t.reason = p, reason
	t.life = life{checkID: t.life.checkID, pending: t.life.pending}
	restarted := t.restarted && p.Kind != None
	if p.Kind != None {
		t.restarted = false
		t.life.heard = now
		t.life.suspectSince, t.life.grace = now, p.grace()
		t.sendCheck(now, p.Addr)
	}
	t.report(restarted)
}

func (t *route) report(restarted bool) {
	t.emit(Report{Event{
		Peer:          t.cfg.Peer,
		Path:          t.path,
		Controlling:   t.controlling,
		PeerRestarted: restarted,
		Sources:       t.sources(),
		Reason:        t.reason,
	}})
}

// sources lists where the peer may send from besides the path: the addresses that it has proven, former paths among them,
// and the relay. Without them, WireGuard would take the packets of a peer that switches first for those of a
// stranger.
func (t *route) sources() []netip.AddrPort {
	var list []netip.AddrPort
	for _, p := range t.proven {
		list = append(list, p.addr)
	}
	for _, r := range t.relays.list {
		if r.addr.IsValid() {
			list = append(list, r.addr)
		}
	}
	return slices.DeleteFunc(list, func(a netip.AddrPort) bool { return a == t.path.Addr })
}

// altWorks reports whether the peer was lately reached at the address that its checks come from.
func (t *route) altWorks(now time.Time) bool {
	return t.alt.IsValid() && now.Sub(t.altOK) < firstGrace
}

// moveToAlt adopts the address that the peer's checks come from.
func (t *route) moveToAlt(now time.Time) {
	t.news.moved = true
	t.direct(now, t.alt, "the peer has moved")
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
	t.agree()
	if r := t.relays.at(old.Addr); r != nil {
		t.closeRelay(r)
		t.relays.why = reason
	}
	t.useRelay(now)
	t.news.died = true
}
