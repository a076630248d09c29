package beacon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// system is the network of the operating system. For each family there are two sockets: one on the port of beacons, shared
// with other programs, that hears the group; and one on a random port that speaks and hears the answers, which
// a shared port would give to any of those that share it.
type system struct{}

// Open implements Network.
func (system) Open(links []Link) (Conn, error) {
	c := &sockets{links: links, packets: make(chan Packet, inboxSize), done: make(chan struct{})}
	err4, err6 := c.open4(), c.open6()
	if len(c.open) == 0 {
		return nil, fmt.Errorf("open sockets for beacons: %w", errors.Join(err4, err6))
	}
	for _, s := range c.open {
		c.readers.Go(func() { c.read(s) })
	}
	return c, nil
}

// sockets is a Conn.
type sockets struct {
	// Constant after Open.
	links   []Link
	open    []socket
	speak4  *ipv4.PacketConn // nil: no IPv4
	speak6  *ipv6.PacketConn
	packets chan Packet
	done    chan struct{}
	readers sync.WaitGroup

	closing sync.Once
}

// socket is one with the function that reads it: the interface, the sender, and whether the destination suits it.
type socket struct {
	conn net.PacketConn
	read func(buf []byte) (n, link int, from net.Addr, meant bool, err error)
}

// open4 opens the sockets of IPv4. It fails when no link has the family.
func (c *sockets) open4() error {
	listen, speak, err := pair("udp4", "0.0.0.0")
	if err != nil {
		return err
	}
	hear, say := ipv4.NewPacketConn(listen), ipv4.NewPacketConn(speak)
	err = errors.Join(hear.SetControlMessage(ipv4.FlagInterface|ipv4.FlagDst, true), say.SetControlMessage(ipv4.FlagInterface, true),
		say.SetMulticastTTL(1), say.SetTTL(1), say.SetMulticastLoopback(true))
	joined := false
	for _, link := range c.links {
		if link.has(IPv4) {
			failed := hear.JoinGroup(&net.Interface{Index: link.Index, Name: link.Name}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(Group4, 0)))
			joined = joined || failed == nil
			err = errors.Join(err, failed)
		}
	}
	if !joined {
		listen.Close()
		speak.Close()
		return err
	}
	reader := func(p *ipv4.PacketConn, group bool) func([]byte) (int, int, net.Addr, bool, error) {
		return func(buf []byte) (int, int, net.Addr, bool, error) {
			n, cm, from, err := p.ReadFrom(buf)
			if cm == nil {
				return n, 0, from, false, err
			}
			return n, cm.IfIndex, from, !group || cm.Dst.Equal(Group4.AsSlice()), err
		}
	}
	c.speak4 = say
	c.open = append(c.open, socket{listen, reader(hear, true)}, socket{speak, reader(say, false)})
	return nil
}

// open6 opens the sockets of IPv6. It fails when no link has the family.
func (c *sockets) open6() error {
	listen, speak, err := pair("udp6", "::")
	if err != nil {
		return err
	}
	hear, say := ipv6.NewPacketConn(listen), ipv6.NewPacketConn(speak)
	err = errors.Join(hear.SetControlMessage(ipv6.FlagInterface|ipv6.FlagDst, true), say.SetControlMessage(ipv6.FlagInterface, true),
		say.SetMulticastHopLimit(1), say.SetHopLimit(1), say.SetMulticastLoopback(true))
	joined := false
	for _, link := range c.links {
		if link.has(IPv6) {
			failed := hear.JoinGroup(&net.Interface{Index: link.Index, Name: link.Name}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(Group6, 0)))
			joined = joined || failed == nil
			err = errors.Join(err, failed)
		}
	}
	if !joined {
		listen.Close()
		speak.Close()
		return err
	}
	reader := func(p *ipv6.PacketConn, group bool) func([]byte) (int, int, net.Addr, bool, error) {
		return func(buf []byte) (int, int, net.Addr, bool, error) {
			n, cm, from, err := p.ReadFrom(buf)
			if cm == nil {
				return n, 0, from, false, err
			}
			return n, cm.IfIndex, from, !group || cm.Dst.Equal(Group6.AsSlice()), err
		}
	}
	c.speak6 = say
	c.open = append(c.open, socket{listen, reader(hear, true)}, socket{speak, reader(say, false)})
	return nil
}

// pair opens the shared socket that hears the group and the one of our own that speaks.
func pair(network, host string) (listen, speak net.PacketConn, err error) {
	shared := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		if err := raw.Control(func(fd uintptr) { failed = share(int(fd)) }); err != nil {
			return err
		}
		return failed
	}}
	if listen, err = shared.ListenPacket(context.Background(), network, net.JoinHostPort(host, fmt.Sprint(Port))); err != nil {
		return nil, nil, err
	}
	if speak, err = net.ListenPacket(network, net.JoinHostPort(host, "0")); err != nil {
		listen.Close()
		return nil, nil, err
	}
	return listen, speak, nil
}

// read is the goroutine of one socket. One byte more than a beacon has shows what is too long.
func (c *sockets) read(s socket) {
	buf := make([]byte, Size+1)
	for {
		n, link, from, meant, err := s.read(buf)
		if err != nil {
			c.shut()
			return
		}
		addr, ok := from.(*net.UDPAddr)
		if !ok || !meant {
			continue // to the port and not to the group: nothing of ours does that
		}
		source := addr.AddrPort()
		p := Packet{Link: link, From: netip.AddrPortFrom(source.Addr().Unmap(), source.Port()), Raw: append([]byte(nil), buf[:n]...)}
		select {
		case c.packets <- p:
		case <-c.done:
			return
		}
	}
}

// Receive implements Conn.
func (c *sockets) Receive() (Packet, error) {
	select {
	case p := <-c.packets:
		return p, nil
	case <-c.done:
		return Packet{}, net.ErrClosed
	}
}

// Send implements Conn. It is called by one goroutine, so that the interface chosen holds for the packet.
func (c *sockets) Send(s Send) error {
	link := &net.Interface{Index: s.Link}
	for _, l := range c.links {
		if l.Index == s.Link {
			link.Name = l.Name
		}
	}
	family, to := s.Group, s.To
	switch {
	case family == IPv4:
		to = netip.AddrPortFrom(Group4, Port)
	case family == IPv6:
		to = netip.AddrPortFrom(Group6.WithZone(link.Name), Port)
	case to.Addr().Is4():
		family = IPv4
	default:
		family = IPv6
	}
	var err error
	switch {
	case family == IPv4 && c.speak4 != nil:
		if err = c.speak4.SetMulticastInterface(link); err == nil {
			_, err = c.speak4.WriteTo(s.Raw, nil, net.UDPAddrFromAddrPort(to))
		}
	case family == IPv6 && c.speak6 != nil:
		if err = c.speak6.SetMulticastInterface(link); err == nil {
			_, err = c.speak6.WriteTo(s.Raw, nil, net.UDPAddrFromAddrPort(to))
		}
	}
	if err != nil {
		return fmt.Errorf("send beacon to %s on %s: %w", to, link.Name, err)
	}
	return nil
}

// Close ends Receive and frees the sockets. It may be called again.
func (c *sockets) Close() error {
	c.shut()
	c.readers.Wait()
	return nil
}

// shut is Close without waiting, for the readers.
func (c *sockets) shut() {
	c.closing.Do(func() {
		close(c.done)
		for _, s := range c.open {
			s.conn.Close()
		}
	})
}
