package portmap

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/huin/goupnp/dcps/internetgateway2"
)

// pinhole is a client for one opening in a router's IPv6 firewall, by UPnP's WANIPv6FirewallControl:1. The router
// opens it only for the address that asks, so it is asked over IPv6, from the address that is to be reached.
type pinhole struct {
	// Constant after newPinhole.
	net   Network
	place place

	service *internetgateway2.WANIPv6FirewallControl1 // by probe
	id      uint16                                    // of the pinhole
	asked   bool                                      // id is one
}

func newPinhole(n Network, p place) *pinhole { return &pinhole{net: n, place: p} }

func (*pinhole) name() string { return UPnP }

func (c *pinhole) probe(ctx context.Context) error {
	root, client, location, err := probeIGD(ctx, c.net, c.place)
	if err != nil {
		return err
	}
	// The error says only that there is no such service.
	services, _ := internetgateway2.NewWANIPv6FirewallControl1ClientsFromRootDevice(root, location)
	if len(services) == 0 {
		return fmt.Errorf("%w: its UPnP device makes no IPv6 pinholes", errAbsent)
	}
	c.service = services[0]
	c.service.SOAPClient.HTTPClient = *client
	if _, allowed, err := c.service.GetFirewallStatusCtx(ctx); err == nil && !allowed {
		return refusal(upnpFirewallOff.String())
	}
	return ctx.Err()
}

func (c *pinhole) open(ctx context.Context) (grant, error) {
	g := grant{external: netip.AddrPortFrom(c.place.local, c.place.port), life: lifetime}
	seconds := uint32(lifetime / time.Second)
	if c.asked {
		err := c.service.UpdatePinholeCtx(ctx, c.id, seconds)
		if err == nil {
			return g, nil
		}
		if codeOf(err) == 0 {
			return grant{}, err
		}
		c.asked = false // the router has forgotten it
	}
	// No remote host and port 0 mean everyone.
	id, err := c.service.AddPinholeCtx(ctx, "", 0, c.place.local.String(), c.place.port, uint16(c.place.protocol()), seconds)
	if err != nil {
		return grant{}, explain(err)
	}
	c.id, c.asked = id, true
	return g, nil
}

func (c *pinhole) close(ctx context.Context) error {
	if !c.asked {
		return nil
	}
	err := c.service.DeletePinholeCtx(ctx, c.id)
	if codeOf(err) == upnpNoSuchEntry {
		err = nil // its lease is over
	}
	c.asked = err != nil
	return explain(err)
}
