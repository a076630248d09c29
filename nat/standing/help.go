package standing

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session"
	"warren/nat/limit"
	"warren/nat/natprobe"
	"warren/nat/ranges"
	"warren/nat/stunwire"
)

/* Dialling back, and helping to measure a NAT
 *
 * A node asks a member elsewhere, over its control session, to send to an address that the node believes to have. The helper
 * sends a STUN Binding request (RFC 8489) with the transaction that the node chose, three times, from a socket made for it: a
 * stranger to every NAT and firewall on the way. If it arrives, strangers can reach that address.
 *
 * A member that measures (try) has the helper also tell the port of that socket, and answer there for three seconds
 * (natprobe.Help).
 *
 * A member can make others send 60 bytes to an address of its choice, seldom, and no more. Where its packets do not come from by
 * its session, that must be an address of the Internet: a helper sends nothing into its own network, nor into a network behind it.
 */

// Limits of what this node sends for others. One that asks cannot use up what the others have, nor can all of them together have
// it sent to one host that has not asked, as far as its session shows.
const (
	helpsPerSecond = 8
	helpsAtOnce    = 16
)

var (
	helpsForAll  = limit.Rate{PerSecond: helpsPerSecond, Burst: helpsAtOnce}
	helpsForOne  = limit.Rate{PerSecond: 1, Burst: 6}
	helpsToThird = limit.Rate{PerSecond: 0.5, Burst: 6}
)

// aid says who is helped, and where to.
type aid struct {
	askers *limit.Sources[identity.NodeID]
	thirds *limit.Sources[netip.Prefix] // hosts that have not asked themselves
}

func newAid() aid {
	return aid{limit.NewSources[identity.NodeID](helpsForAll, helpsForOne), limit.NewSources[netip.Prefix](helpsForAll, helpsToThird)}
}

// allows reports whether a member may be helped once more. own says that it is at the target itself.
func (a aid) allows(now time.Time, from identity.NodeID, target netip.Addr, own bool) bool {
	return a.askers.Allow(now, from) && (own || a.thirds.Allow(now, limit.Host(target)))
}

// dialBackTimes are when the helper sends: a loss must not look like a firewall.
var dialBackTimes = [...]time.Duration{0, 250 * time.Millisecond, 500 * time.Millisecond}

// order is an ask of another member that is granted.
type order struct {
	from identity.NodeID
	message
}

// refusal is a helper's word that it cannot send to the address of a test.
type refusal struct {
	helper identity.NodeID
	id     [12]byte
}

// reason names why a message of protocol 6 went nowhere, for the counters.
type reason int

// The reasons.
const (
	refused     reason = iota // malformed, from nobody who may ask, or about an address that nobody is helped with
	tooMany                   // above the limits
	notAsked                  // no way to a helper
	notAnswered               // no way back to who asked
	reasons
)

// String names the reason in metrics.
func (r reason) String() string {
	return [...]string{"dial back: refused", "dial back: too many", "dial back: not asked", "dial back: not answered"}[r]
}

// counters count what was dropped. Their methods may be called concurrently.
type counters [reasons]atomic.Uint64

func (c *counters) add(r reason) { c[r].Add(1) }

// Dropped returns how many messages went nowhere so far, by reason.
func (s *Standing) Dropped() map[string]uint64 {
	counts := make(map[string]uint64)
	for r := range s.dropped {
		if n := s.dropped[r].Load(); n > 0 {
			counts[reason(r).String()] = n
		}
	}
	return counts
}

// Asked takes a message of protocol 6. It never blocks, and keeps nothing of raw.
func (s *Standing) Asked(from identity.NodeID, raw []byte) {
	m, err := decode(raw)
	if err != nil {
		s.dropped.add(refused)
		return
	}
	switch m.version {
	case versionTold:
		s.takeTold(from, m)
	case versionUnable:
		select {
		case s.unable <- refusal{helper: from, id: m.id}:
		default:
		}
	default:
		s.takeAsk(from, m)
	}
}

// takeAsk grants what a member asks for, within limits.
func (s *Standing) takeAsk(from identity.NodeID, m message) {
	d := s.desired.Load()
	own := d.comesFrom(from, m.addr.Addr())
	switch {
	case !s.o.Members.Member(from) || d.inOverlay(m.addr.Addr()) || !own && !ranges.IsPublic(m.addr.Addr()):
		s.dropped.add(refused)
		return
	case !s.aid.allows(time.Now(), from, m.addr.Addr(), own):
		s.dropped.add(tooMany)
		return
	}
	select {
	case s.orders <- order{from, m}:
	default:
		s.dropped.add(tooMany)
	}
}

// inOverlay keeps addresses of the mesh itself from being sent to: what comes through a tunnel says nothing of the way there. All
// are, until Set has told which.
func (d *Desired) inOverlay(addr netip.Addr) bool {
	return d == nil || slices.ContainsFunc(d.Overlay, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// comesFrom reports whether the session with a member comes from that address.
func (d *Desired) comesFrom(id identity.NodeID, addr netip.Addr) bool {
	return d != nil && slices.ContainsFunc(d.Helpers, func(h Helper) bool { return h.ID == id && h.Addr == addr })
}

// takeTold gives a helper's word to the measurement that asked for help.
func (s *Standing) takeTold(from identity.NodeID, m message) {
	s.mu.Lock()
	w, known := s.waiting[m.id]
	s.mu.Unlock()
	switch {
	case !known: // late
	case w.helper != from:
		s.dropped.add(refused)
	default:
		select {
		case w.told <- natprobe.Told{ID: m.id, Port: m.addr.Port()}:
		default: // it was said before
		}
	}
}

// help does what a member asked for: as many at once as the limits let in within three seconds.
func (s *Standing) help(ctx context.Context, o order) {
	sockets := family{s.o.Host, o.addr.Addr().Is4()}
	if o.version == versionDialBack {
		if dialBack(ctx, sockets, o.id, o.addr) != nil {
			s.answer(o.from, message{version: versionUnable, id: o.id})
		}
		return
	}
	err := natprobe.Help(ctx, sockets, o.id, o.addr, func(port uint16) {
		s.answer(o.from, message{version: versionTold, id: o.id, addr: netip.AddrPortFrom(netip.Addr{}, port)})
	})
	if err != nil && ctx.Err() == nil {
		s.log.Debug("no help", "id", o.from.Short(), "error", err)
	}
}

func (s *Standing) answer(to identity.NodeID, m message) {
	if err := s.o.Sessions.Send(to, session.ProtoAsk, encode(m)); err != nil {
		s.dropped.add(notAnswered)
	}
}

// dialBack sends the Binding request from a fresh socket and ends within a second. An error means that nothing has left this host:
// it has no address of the family, or no route.
func dialBack(ctx context.Context, sockets natprobe.Sockets, id [12]byte, addr netip.AddrPort) error {
	c, err := sockets.Listen()
	if err != nil {
		return err
	}
	defer c.Close()
	request := stunwire.Bare(id)
	start := time.Now()
	for i, at := range dialBackTimes {
		timer := time.NewTimer(time.Until(start.Add(at)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		if _, err := c.WriteTo(request, net.UDPAddrFromAddrPort(addr)); err != nil && i == 0 {
			return err
		}
	}
	return nil
}
