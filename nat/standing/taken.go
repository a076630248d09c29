package standing

import (
	"net/netip"
	"slices"
	"time"

	"warren/nat/due"
	"warren/nat/reach"
)

// LetsIn reports whether strangers have been seen to come in by a port of one of this host's own addresses.
func (s *Snapshot) LetsIn(port uint16) bool {
	return slices.ContainsFunc(s.Reach, func(c reach.Candidate) bool {
		return c.State == reach.Reachable && c.Addr.Port() == port && slices.Contains(s.Hosts, c.Addr.Addr())
	})
}

// portSettles is how long after a change of the port answers may come in to questions from the one before.
const portSettles = time.Second

// held is the port that the shared socket has, and since when.
type held struct {
	port    uint16
	network uint64
	since   time.Time
}

// readTaken finds out whether this host itself translates its port: an anchor sees one of its own addresses, and another port. Who sees
// the right one proves nothing: the machine behind has not written to that anchor.
func (l *loop) readTaken(now time.Time, d *Desired) (next time.Time) {
	if is := (held{port: d.Port, network: l.snap.Network}); l.held.port != is.port || l.held.network != is.network {
		is.since = now
		l.held = is
		l.snap.Taken = Taken{}
	}
	settled := l.held.since.Add(portSettles)
	if now.Before(settled) {
		return settled
	}
	seen, until := l.seenLately(settled, now)
	l.snap.Taken = taken(l.snap.Hosts, d.Port, seen)
	return until
}

// seenLately are where servers have seen the shared socket since then, and until when that is so of all of them: what one has said that
// does not answer any more is not so for ever.
func (l *loop) seenLately(since, now time.Time) (out []netip.AddrPort, until time.Time) {
	for _, one := range l.o.STUN.Sightings() {
		if end := one.At.Add(sightingFor); one.At.After(since) && now.Before(end) {
			out, until = append(out, one.Mapped), due.Sooner(until, end)
		}
	}
	return out, until
}

// taken judges what was seen.
func taken(hosts []netip.Addr, port uint16, seen []netip.AddrPort) Taken {
	for _, at := range seen {
		if port != 0 && at.Port() != port && slices.Contains(hosts, at.Addr()) {
			return Taken{Port: port, Seen: at}
		}
	}
	return Taken{}
}
