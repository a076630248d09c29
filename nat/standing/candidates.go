package standing

import (
	"net/netip"
	"slices"
	"time"

	"warren/mesh/session"
	"warren/nat/portmap"
	"warren/nat/ranges"
)

const (
	// lookEvery is when this host's addresses are read without a notice of a change: what a notice missed, this mends.
	lookEvery = time.Minute
	// lookAgain is when a system is asked again that could not be asked.
	lookAgain = time.Second
	// maxUsable bounds what a node announces: each address costs every member.
	maxUsable = 6
	// expectFor is how long a packet of a helper is waited for: longer than a test takes, so that one that is late is not taken
	// for a stranger's.
	expectFor = 10 * time.Second
)

// readHosts reads this host's addresses if that is due, and returns when it is next. When the system cannot be asked for a
// moment, what it said before holds: an address that is gone costs a check that fails, one that is missing costs the path, or the
// join by a token without it.
func (l *loop) readHosts(now time.Time) (next time.Time) {
	if now.Before(l.lookAt) {
		return l.lookAt
	}
	list, err := l.o.Host.Addresses()
	if err != nil {
		if l.snap.Trouble == "" {
			l.log.Warn("own addresses not known, those of before are used", "error", err)
		}
		l.snap.Trouble = "this host's addresses cannot be looked at, those of before are used: " + err.Error()
		l.lookAt = now.Add(lookAgain)
		return l.lookAt
	}
	l.snap.Hosts, l.snap.Trouble = slices.Clone(list), ""
	l.snap.NAT64 = l.o.Host.NAT64()
	l.lookAt = now.Add(lookEvery)
	return l.lookAt
}

// readMapper has the routers asked, and takes what they have said.
func (l *loop) readMapper(d *Desired) {
	l.snap.External, l.snap.TCPMapped, l.snap.Routers = nil, nil, nil
	if d.Mode == Never {
		l.o.Mapper.Set(portmap.Wanted{})
		l.snap.PortMapping = portMapping(d.Mode, nil)
		return
	}
	l.o.Mapper.Set(portmap.Wanted{Port: d.Port, TCP: d.MapTCP})
	l.snap.Routers = l.o.Mapper.Snapshot().Routers
	l.snap.TCPMapped = l.o.Mapper.TCPMappings()
	l.snap.PortMapping = portMapping(d.Mode, l.snap.Routers)
	for _, r := range l.snap.Routers {
		if r.Mapping != nil && r.Mapping.Public() {
			l.snap.External = append(l.snap.External, r.Mapping.External)
		}
	}
}

// candidates are the addresses that this node believes to be reachable at.
func (l *loop) candidates(d *Desired) (out []netip.AddrPort) {
	if d.Mode == Never {
		return nil
	}
	out = slices.Clone(d.Endpoints)
	for _, addr := range l.snap.Hosts {
		if d.Port != 0 && (ranges.IsPublic(addr) || d.Mode == Always && len(d.Endpoints) == 0) {
			out = append(out, netip.AddrPortFrom(addr, d.Port))
		}
	}
	return append(out, l.snap.External...)
}

// testReach has the addresses tested that are due, and says which may be announced. An anchor by setting says so of all its
// addresses; else those count that another member has reached from a socket of its own, and until one could be asked, those that
// look public. It returns when to call again.
func (l *loop) testReach(now time.Time, d *Desired) (next time.Time) {
	candidates := l.candidates(d)
	l.machine.SetCandidates(now, candidates)
	l.machine.SetHelpers(d.Helpers)
	asks, next := l.machine.Step(now)
	for _, ask := range asks {
		l.o.STUN.Expect(ask.ID, now.Add(expectFor))
		if err := l.o.Sessions.Send(ask.Helper, session.ProtoAsk, encode(message{version: versionDialBack, id: ask.ID, addr: ask.Addr})); err != nil {
			l.dropped.add(notAsked)
		}
	}
	usable := candidates
	if d.Mode == Auto {
		usable = l.machine.Usable()
	}
	slices.SortFunc(usable, netip.AddrPort.Compare)
	usable = slices.Compact(usable)
	l.snap.Usable = slices.Clip(usable[:min(len(usable), maxUsable)])
	l.snap.Reach = l.machine.Snapshot()
	return next
}
