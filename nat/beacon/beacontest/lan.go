// Package beacontest is a local network in memory, on which beacons travel as on a switch: to all ports but, as with
// multicast loopback, also to other programs on the host that sent.
//
// It can drop packets and keeps all that were sent, for tests of what a stranger sees. It does not know what they say.
//
// Its methods may be called concurrently.
package beacontest

import (
	"errors"
	"net"
	"net/netip"
	"sync"

	"warren/nat/beacon"
)

// LAN is a switch.
type LAN struct {
	mu    sync.Mutex
	ports map[*port]bool
	next  uint16 // source port of the next Conn
	sent  []Seen
	drop  func(beacon.Send) bool
}

// Seen is a packet as a stranger on the LAN sees it.
type Seen struct {
	From netip.AddrPort
	To   netip.AddrPort // zero for the group
	Raw  []byte
}

// New returns an empty LAN.
func New() *LAN { return &LAN{ports: make(map[*port]bool), next: 40000} }

// Network returns a host's way onto the LAN: each Open is a socket of its own, on a random port. The host's interface to
// this LAN is the link with this index; what is sent on others goes nowhere.
func (l *LAN) Network(link int) beacon.Network { return network{l, link} }

// Drop has packets lost for which f says so; nil: none.
func (l *LAN) Drop(f func(beacon.Send) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop = f
}

// Sent returns all packets that were sent so far.
func (l *LAN) Sent() []Seen {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Seen(nil), l.sent...)
}

// Inject sends a stranger's packet to the group.
func (l *LAN) Inject(from netip.AddrPort, raw []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.ports {
		p.deliver(from, raw)
	}
}

type network struct {
	lan  *LAN
	link int
}

// Open implements beacon.Network.
func (n network) Open(links []beacon.Link) (beacon.Conn, error) {
	for _, link := range links {
		if link.Index != n.link {
			continue
		}
		n.lan.mu.Lock()
		defer n.lan.mu.Unlock()
		n.lan.next++
		p := &port{lan: n.lan, link: link, number: n.lan.next, packets: make(chan beacon.Packet, 1024), done: make(chan struct{})}
		n.lan.ports[p] = true
		return p, nil
	}
	return nil, errors.New("open beacons in memory: no such link")
}

// port is one program's sockets.
type port struct {
	lan     *LAN
	link    beacon.Link
	number  uint16
	packets chan beacon.Packet
	done    chan struct{}
	once    sync.Once
}

// addr is the address that packets of a family come from; zero when the link has none.
func (p *port) addr(f beacon.Family) netip.AddrPort {
	for _, prefix := range p.link.Prefixes {
		if prefix.Addr().Is4() == (f == beacon.IPv4) {
			return netip.AddrPortFrom(prefix.Addr(), p.number)
		}
	}
	return netip.AddrPort{}
}

func (p *port) deliver(from netip.AddrPort, raw []byte) {
	select {
	case p.packets <- beacon.Packet{Link: p.link.Index, From: from, Raw: append([]byte(nil), raw...)}:
	default: // a receiver that does not keep up loses packets
	}
}

// Receive implements beacon.Conn.
func (p *port) Receive() (beacon.Packet, error) {
	select {
	case packet := <-p.packets:
		return packet, nil
	case <-p.done:
		return beacon.Packet{}, net.ErrClosed
	}
}

// Send implements beacon.Conn.
func (p *port) Send(s beacon.Send) error {
	family := s.Group
	if family == 0 {
		family = beacon.IPv6
		if s.To.Addr().Is4() {
			family = beacon.IPv4
		}
	}
	from := p.addr(family)
	l := p.lan
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.Link != p.link.Index || !from.IsValid() {
		return errors.New("send beacon in memory: no address of the family on the link")
	}
	l.sent = append(l.sent, Seen{From: from, To: s.To, Raw: append([]byte(nil), s.Raw...)})
	if l.drop != nil && l.drop(s) {
		return nil
	}
	for other := range l.ports {
		switch {
		case s.Group != 0 && other.addr(family).IsValid(), s.Group == 0 && other.addr(family) == s.To:
			other.deliver(from, s.Raw)
		}
	}
	return nil
}

// Close implements beacon.Conn.
func (p *port) Close() error {
	p.once.Do(func() {
		p.lan.mu.Lock()
		delete(p.lan.ports, p)
		p.lan.mu.Unlock()
		close(p.done)
	})
	return nil
}
