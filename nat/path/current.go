package path

import (
	"net/netip"
	"slices"
	"time"
)

// current is the path in use, the watch over it, and what the world is told of both. It moves when it is told to.
type current struct {
	*core
	checks *checks
	relays *relays // the peer may send through them too

	path      Path
	since     time.Time
	reason    Reason    // of the last change
	proved    time.Time // when the peer last answered a check over the path of that time, or sent one
	restarted bool      // the peer's process is another one than the path was made with
	history   history
	life      life
	sources   sources
	elsewhere elsewhere
}

// wake is the earliest time at which something is due.
func (c *current) wake() time.Time {
	if c.path.Kind == None {
		return time.Time{}
	}
	return c.life.wake(c.path.checkInterval())
}

// set moves to another path (or to none) and reports it.
func (c *current) set(now time.Time, p Path, reason Reason) {
	if p.Addr != c.path.Addr || p.Kind != c.path.Kind || c.restarted {
		c.since = now
		c.history.note(Change{At: now, Path: p, Reason: reason})
	}
	c.path, c.reason = p, reason
	c.life, c.elsewhere.asked = life{}, time.Time{}
	restarted := c.restarted && p.Kind != None
	if p.Kind != None {
		c.restarted = false
		c.life.begin(now, p.grace())
		c.check(now)
	}
	c.report(restarted)
}

func (c *current) report(restarted bool) {
	c.emit(Report{Event{
		Peer:          c.cfg.Peer,
		Path:          c.path,
		Controlling:   c.controlling,
		PeerRestarted: restarted,
		Sources:       c.beside(),
		Reason:        c.reason,
	}})
}

// beside lists where the peer may send from besides the path: the addresses that it has proven, former paths among them,
// and the relays. Without them, WireGuard would take the packets of a peer that switches first for those of a
// stranger.
func (c *current) beside() []netip.AddrPort {
	list := append(c.sources.list(), c.relays.addrs()...)
	return slices.DeleteFunc(list, func(a netip.AddrPort) bool { return a == c.path.Addr })
}

// prove notes that the peer is at an address.
func (c *current) prove(now time.Time, addr netip.AddrPort) {
	if c.sources.note(now, addr) {
		c.report(false)
	}
}

// check sends a check over the path.
func (c *current) check(now time.Time) {
	if c.checks.send(now, c.path.Addr) {
		c.life.checked(now)
	}
}

// suspect begins checking the path now.
func (c *current) suspect(now time.Time) {
	if c.path.Kind == None || c.life.suspect() {
		return
	}
	c.life.accuse(now, c.path.grace())
	c.check(now)
}

// suspectAnew is suspect for a path that may be suspect already: the suspicion begins again.
func (c *current) suspectAnew(now time.Time) {
	c.life.suspectSince = time.Time{}
	c.suspect(now)
}

// suspectDirect is suspect for a direct path: the peer begins an introduction when it finds the path broken or has moved, and
// this side may have nothing to send by which it would notice. Relayed peers try for a direct path anyway.
func (c *current) suspectDirect(now time.Time) {
	if c.path.Kind == Direct {
		c.suspect(now)
	}
}

// look is for the signs of a dead path: packets out and none in, a flow that stopped, an idle path that lost its mapping.
func (c *current) look(now time.Time, activity Wake) {
	l := &c.life
	switch {
	case c.path.Kind == None:
	case l.silent(now, activity, c.path.checkInterval()), isDue(now, l.idleAt):
		c.suspect(now)
	case isDue(now, l.poll) || l.poll.IsZero():
		l.poll = nextPoll(now, activity)
	}
}

// overdue reports whether the path has left a check unanswered for longer than it takes.
func (c *current) overdue(now time.Time) bool {
	return c.life.suspect() && c.path.RTT != 0 && now.Sub(c.life.suspectSince) >= c.path.checkInterval()
}

// answered ends a suspicion and plans the next check of an idle path.
func (c *current) answered(now time.Time) {
	c.proved = now
	every := idleEvery
	if !c.controlling && now.Sub(c.life.peerCheck) < 35*time.Second {
		every = followEvery
	}
	c.life.believe(now, now.Add(every-time.Duration(c.random.Float64()*float64(3*time.Second))))
}

// followed notes that the peer has checked the path itself.
func (c *current) followed(now time.Time) {
	l := &c.life
	l.peerCheck, c.proved = now, now
	if !c.controlling && !l.suspect() && !l.idleAt.IsZero() {
		l.idleAt = followed(now, l.idleAt, l.heard)
	}
}
