package path

import (
	"net/netip"
	"time"
)

// checks are those that are out, over whatever way. They are made under the credentials agreed on last.
type checks struct {
	*core
	newest  exchange // of the newest attempt, agreed on or not
	last    uint64   // the last ID given
	pending [16]pendingCheck
}

type pendingCheck struct {
	id uint64
	to netip.AddrPort
	at time.Time
}

// trip is the time that the answer took.
func (p pendingCheck) trip(now time.Time) time.Duration { return max(now.Sub(p.at), time.Microsecond) }

// agree has the checks from here on made under the newest credentials.
func (c *checks) agree() {
	if c.newest.ok() {
		c.agreed = c.newest
	}
}

// send checks an address; false when nothing was agreed on yet.
func (c *checks) send(now time.Time, to netip.AddrPort) bool {
	if !c.agreed.ok() {
		return false
	}
	c.last++
	*c.slot(c.last) = pendingCheck{id: c.last, to: to, at: now}
	c.emit(Check{ID: c.last, To: to, Own: c.agreed.own, Remote: c.agreed.remote})
	return true
}

// answered returns the check of that ID, once.
func (c *checks) answered(id uint64) (p pendingCheck, ok bool) {
	s := c.slot(id)
	if s.id != id || id == 0 {
		return p, false
	}
	p, *s = *s, pendingCheck{}
	return p, true
}

// forget takes no answer any more to what is out.
func (c *checks) forget() { c.pending = [16]pendingCheck{} }

func (c *checks) slot(id uint64) *pendingCheck { return &c.pending[id%uint64(len(c.pending))] }
