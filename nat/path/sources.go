package path

import (
	"net/netip"
	"slices"
	"time"
)

const (
	maxProven = 16
	// provenFor is above the time between two checks of an idle path, so a path of the peer's that is not ours stays. A
	// mapping of a NAT that is left for longer may be another's by now.
	provenFor = 5 * time.Minute
)

// sources are the addresses from which the peer has shown itself, least recent first: it may send WireGuard packets from
// there, and do so before this side has moved. What the peer merely claims is no proof, or it could take the packets of
// another for its own.
type sources struct {
	*core
	proven []proven
}

type proven struct {
	addr netip.AddrPort
	at   time.Time // last
}

// note takes an address; it tells whether that is new.
func (s *sources) note(now time.Time, addr netip.AddrPort) bool {
	if !addr.IsValid() || IsVirtual(addr.Addr()) || s.rejects(addr.Addr()) {
		return false
	}
	known := false
	s.proven = slices.DeleteFunc(s.proven, func(p proven) bool {
		known = known || p.addr == addr
		return p.addr == addr || now.Sub(p.at) > provenFor
	})
	s.proven = append(s.proven, proven{addr: addr, at: now})
	s.proven = s.proven[max(0, len(s.proven)-maxProven):]
	return !known
}

// list returns the addresses.
func (s *sources) list() (list []netip.AddrPort) {
	for _, p := range s.proven {
		list = append(list, p.addr)
	}
	return list
}

// elsewhere is where the peer's checks come from, if not from the path.
type elsewhere struct {
	addr  netip.AddrPort
	heard time.Time // when it last answered a check of ours
	asked time.Time // when it was last sent one, as long as the path is the same
}

// works reports whether the peer was lately reached there.
func (e *elsewhere) works(now time.Time) bool {
	return e.addr.IsValid() && now.Sub(e.heard) < firstGrace
}

// seen notes that the peer's checks come from there, and that one is sent back.
func (e *elsewhere) seen(now time.Time, from netip.AddrPort) {
	if e.addr != from {
		e.addr, e.heard = from, time.Time{}
	}
	e.asked = now
}
