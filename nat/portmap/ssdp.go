package portmap

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

const (
	portSSDP = 1900
	maxSSDP  = 2048 // answers have some 400 bytes
)

// search are the times at which SSDP's question is put, and its end: UDP loses packets, and devices may take up to MX
// seconds before they answer to a group (UPnP Device Architecture 2.0, section 1.3.3).
var search = []time.Duration{500 * time.Millisecond, time.Second, 1500 * time.Millisecond}

// The kinds of gateways, both asked for: one of the second version has to answer for the first, and some do not.
var searchTargets = []string{
	"urn:schemas-upnp-org:device:InternetGatewayDevice:1",
	"urn:schemas-upnp-org:device:InternetGatewayDevice:2",
}

// groups returns where the question goes: to the router itself, and to the group for those that listen only there.
func groups(gateway netip.Addr) []netip.AddrPort {
	group := netip.AddrFrom4([4]byte{239, 255, 255, 250})
	if gateway.Is6() {
		group = netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 0x0c}).WithZone(gateway.Zone())
	}
	return []netip.AddrPort{netip.AddrPortFrom(gateway, portSSDP), netip.AddrPortFrom(group, portSSDP)}
}

// discover asks the router for the address of its description. The error wraps errAbsent when it gives none.
func discover(ctx context.Context, n Network, p place) (*url.URL, error) {
	c, err := n.ListenPacket(p.local)
	if err != nil {
		return nil, fmt.Errorf("search for UPnP devices: %w", err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	buf := make([]byte, maxSSDP)
	for _, wait := range search {
		_ = c.SetDeadline(time.Now().Add(wait))
		var sent error
		for _, to := range groups(p.gateway) {
			for _, target := range searchTargets {
				if _, err := c.WriteTo(question(to, target), net.UDPAddrFromAddrPort(to)); err != nil {
					sent = err
				}
			}
		}
		for {
			size, from, err := c.ReadFrom(buf)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if isTimeout(err) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("search for UPnP devices: %w", errors.Join(err, sent))
			}
			if udp, ok := from.(*net.UDPAddr); !ok || !fromRouter(udp.AddrPort().Addr().Unmap(), p) {
				continue
			}
			if location, err := parseSSDP(buf[:size]); err == nil {
				return location, nil
			}
		}
	}
	return nil, errAbsent
}

// fromRouter reports whether an answer can be the router's. In IPv6 it has several addresses, and chooses.
func fromRouter(from netip.Addr, p place) bool {
	if from.WithZone("") == p.gateway.WithZone("") {
		return true
	}
	own, err := p.local.Prefix(64)
	return from.Is6() && err == nil && own.Contains(from)
}

// question is an M-SEARCH request.
func question(to netip.AddrPort, target string) []byte {
	host := netip.AddrPortFrom(to.Addr().WithZone(""), to.Port())
	return fmt.Appendf(nil, "M-SEARCH * HTTP/1.1\r\nHOST: %v\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: %s\r\n\r\n", host, target)
}

// parseSSDP reads an answer of an Internet gateway and returns the address of its description.
func parseSSDP(b []byte) (*url.URL, error) {
	answer, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil {
		return nil, fmt.Errorf("read SSDP answer: %w", err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK || !strings.Contains(answer.Header.Get("ST"), ":InternetGatewayDevice:") {
		return nil, errors.New("read SSDP answer: not of an Internet gateway")
	}
	location, err := url.Parse(answer.Header.Get("Location"))
	if err != nil {
		return nil, fmt.Errorf("read SSDP answer: %w", err)
	}
	// A name would be looked up, and UPnP devices have none.
	if _, err := netip.ParseAddr(location.Hostname()); err != nil || location.Scheme != "http" || location.User != nil {
		return nil, fmt.Errorf("read SSDP answer: location %q", location)
	}
	return location, nil
}
