package portmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"warren/nat/ranges"
)

// Network is what a Mapper needs of the system's network. Package portmaptest has one in memory.
type Network interface {
	// Gateways returns the routers of the default routes, best first; link-local addresses with their zone.
	Gateways() []netip.Addr
	// Source returns this host's address on the gateway's network: for an IPv6 gateway, a global one.
	Source(gateway netip.Addr) (netip.Addr, error)
	// Dial connects from a local address ("udp", "tcp").
	Dial(ctx context.Context, network string, local netip.Addr, to netip.AddrPort) (net.Conn, error)
	// ListenPacket opens a UDP socket at a local address and a free port. What is sent to multicast groups leaves
	// on the network of that address.
	ListenPacket(local netip.Addr) (net.PacketConn, error)
}

// systemNetwork is the kernel's.
type systemNetwork struct{}

func (systemNetwork) Gateways() []netip.Addr { return gateways() }

// Gateways returns the routers that this machine's default routes lead to, as far as the system tells.
func Gateways() []netip.Addr { return gateways() }

// anywhere6 stands for all of IPv6's global addresses where the kernel is asked for a source; nothing is sent to it.
var anywhere6 = netip.MustParseAddr("2000::1")

func (systemNetwork) Source(gateway netip.Addr) (netip.Addr, error) {
	to := gateway
	if gateway.Is6() {
		to = anywhere6
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9)))
	var local netip.Addr
	if err == nil {
		local = c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		_ = c.Close()
	}
	if gateway.Is4() {
		if err != nil {
			return netip.Addr{}, fmt.Errorf("find address towards %v: %w", gateway, err)
		}
		return local, nil
	}
	// The kernel's choice is right on the interface of the best route only; on another one its first address serves.
	on, err := addrsOf(gateway.Zone())
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find address towards %v: %w", gateway, err)
	}
	on = slices.DeleteFunc(on, func(a netip.Addr) bool { return !a.Is6() || !ranges.IsPublic(a) })
	switch {
	case gateway.Zone() == "" && ranges.IsPublic(local), slices.Contains(on, local):
		return local, nil
	case len(on) > 0:
		return on[0], nil
	}
	return netip.Addr{}, fmt.Errorf("find address towards %v: no global one", gateway)
}

// addrsOf returns the addresses of an interface; none for "".
func addrsOf(ifname string) ([]netip.Addr, error) {
	if ifname == "" {
		return nil, nil
	}
	i, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, err
	}
	return interfaceAddrs(i)
}

func interfaceAddrs(i *net.Interface) ([]netip.Addr, error) {
	addrs, err := i.Addrs()
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	for _, a := range addrs {
		if prefix, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(prefix.IP); ok {
				all = append(all, ip.Unmap())
			}
		}
	}
	return all, nil
}

// interfaceWith returns the interface that has the address.
func interfaceWith(addr netip.Addr) (*net.Interface, error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range links {
		if addrs, err := interfaceAddrs(&i); err == nil && slices.Contains(addrs, addr) {
			return &i, nil
		}
	}
	return nil, fmt.Errorf("no interface has the address %v", addr)
}

func (systemNetwork) Dial(ctx context.Context, network string, local netip.Addr, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))}
	if network == "udp" {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	return d.DialContext(ctx, network, to.String())
}

func (systemNetwork) ListenPacket(local netip.Addr) (net.PacketConn, error) {
	i, err := interfaceWith(local)
	if err != nil {
		return nil, fmt.Errorf("listen on %v: %w", local, err)
	}
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)))
	if err != nil {
		return nil, err
	}
	if local.Is4() {
		err = ipv4.NewPacketConn(c).SetMulticastInterface(i)
	} else {
		err = ipv6.NewPacketConn(c).SetMulticastInterface(i)
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("choose interface %s: %w", i.Name, err)
	}
	return c, nil
}

// portPCP is that of PCP's and NAT-PMP's servers.
const portPCP = 5351

// resend are the times after which a request is sent again, and at last given up. RFC 6886 begins so and goes on for a
// minute; but a router is one hop away, and whoever needs longer is asked again by the ladder of retries.
var resend = []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second}

// asker asks the server of a place for something in one datagram, and gets one back.
type asker struct {
	net   Network
	place place
}

// ask sends the request until the answer is accepted. Packets that are not are ignored: accept returns false for them.
// The error wraps errAbsent when there is no answer, or is that of ctx.
func (a asker) ask(ctx context.Context, request []byte, accept func(answer []byte) bool) error {
	c, err := a.net.Dial(ctx, "udp", a.place.local, netip.AddrPortFrom(a.place.gateway, portPCP))
	if err != nil {
		return fmt.Errorf("ask %v: %w", a.place.gateway, err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	buf := make([]byte, maxPCP+1)
	for _, wait := range resend {
		_ = c.SetDeadline(time.Now().Add(wait))
		_, err := c.Write(request)
		for err == nil {
			var n int
			if n, err = c.Read(buf); err == nil && accept(buf[:n]) {
				return nil
			}
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, syscall.ECONNREFUSED):
			return fmt.Errorf("%w: its port %d is closed", errAbsent, portPCP)
		case !isTimeout(err):
			return fmt.Errorf("ask %v: %w", a.place.gateway, err)
		}
	}
	return errAbsent
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
