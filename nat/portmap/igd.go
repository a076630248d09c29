package portmap

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/dcps/internetgateway2"
	"github.com/huin/goupnp/soap"

	"warren/nat/ranges"
)

const (
	maxXML      = 256 << 10 // of a description or an answer; real ones have some 5 KB
	httpTimeout = 3 * time.Second
	tries       = 4 // of external ports, and of services
	description = "warren"
)

// upnpError is a code of UPnP's errors: those of its architecture, WANIPConnection:2 and WANIPv6FirewallControl:1.
type upnpError int

const (
	upnpActionFailed    upnpError = 501
	upnpNotAuthorized   upnpError = 606
	upnpPinholeOff      upnpError = 702
	upnpFirewallOff     upnpError = 703 // in WANIPv6FirewallControl: inbound pinholes are forbidden
	upnpNoSuchEntry     upnpError = 704
	upnpNoSuchPort      upnpError = 714
	upnpConflict        upnpError = 718
	upnpSamePorts       upnpError = 724
	upnpPermanentOnly   upnpError = 725
	upnpNoPortAvailable upnpError = 728
	upnpConflictOther   upnpError = 729
)

// String says in words why.
func (e upnpError) String() string {
	switch e {
	case upnpActionFailed:
		return "the router failed to do it: its line may be down, or it is behind another NAT"
	case upnpNotAuthorized:
		return "the router's settings forbid it"
	case upnpPinholeOff:
		return "the router's IPv6 firewall is off"
	case upnpFirewallOff:
		return "the router's settings forbid IPv6 pinholes"
	case upnpConflict, upnpConflictOther, upnpSamePorts:
		return "the port is another host's"
	case upnpNoPortAvailable:
		return "the router has no port to spare"
	}
	return "the router refused with UPnP error " + strconv.Itoa(int(e))
}

// codeOf returns the code of an error that the router sent, or 0.
func codeOf(err error) upnpError {
	var fault *soap.SOAPFaultError
	if errors.As(err, &fault) {
		return upnpError(fault.Detail.UPnPError.Errorcode)
	}
	return 0
}

// explain turns the router's error into a refusal in words.
func explain(err error) error {
	if code := codeOf(err); code != 0 {
		return refusal(code.String())
	}
	return err
}

// newHTTP returns a client that connects to the gateway of the place and to nothing else, whatever host a URL names:
// descriptions are not trusted to send us anywhere.
func newHTTP(n Network, p place) *http.Client {
	dial := func(ctx context.Context, _, addr string) (net.Conn, error) {
		_, text, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return nil, err
		}
		return n.Dial(ctx, "tcp", p.local, netip.AddrPortFrom(p.gateway, uint16(port)))
	}
	return &http.Client{
		Timeout:       httpTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     bounded{&http.Transport{DialContext: dial, DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10}},
	}
}

// bounded ends bodies after maxXML bytes, which the library would read without an end.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	answer.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(answer.Body, maxXML), answer.Body}
	return answer, nil
}

// describe fetches the description at the location.
func describe(ctx context.Context, client *http.Client, location *url.URL) (*goupnp.RootDevice, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, location.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("fetch UPnP description: %w", err)
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("fetch UPnP description: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch UPnP description: %s", answer.Status)
	}
	return parseDescription(answer.Body, location)
}

// parseDescription reads a device's description. URLs in it are relative to the location, as UPnP 1.1 has it; the
// URLBase of 1.0 could only name the same place or a wrong one.
func parseDescription(r io.Reader, location *url.URL) (*goupnp.RootDevice, error) {
	root := new(goupnp.RootDevice)
	d := xml.NewDecoder(io.LimitReader(r, maxXML))
	d.DefaultSpace = goupnp.DeviceXMLNamespace
	if err := d.Decode(root); err != nil {
		return nil, fmt.Errorf("read UPnP description: %w", err)
	}
	root.SetURLBase(location)
	return root, nil
}

// probeIGD finds the router's description.
func probeIGD(ctx context.Context, n Network, p place) (*goupnp.RootDevice, *http.Client, *url.URL, error) {
	location, err := discover(ctx, n, p)
	if err != nil {
		return nil, nil, nil, err
	}
	client := newHTTP(n, p)
	root, err := describe(ctx, client, location)
	return root, client, location, err
}

// connection is what WANIPConnection:1, :2 and WANPPPConnection:1 have in common.
type connection interface {
	GetExternalIPAddressCtx(ctx context.Context) (string, error)
	AddPortMappingCtx(ctx context.Context, remoteHost string, externalPort uint16, protocol string, internalPort uint16,
		internalClient string, enabled bool, description string, lease uint32) error
	DeletePortMappingCtx(ctx context.Context, remoteHost string, externalPort uint16, protocol string) error
}

// igd is a client for one mapping by UPnP IGD.
type igd struct {
	// Constant after newIGD.
	net   Network
	place place

	service   connection // by probe
	port      uint16     // the external one last given or asked for
	asked     bool       // there may be a mapping
	permanent bool       // the router knows no leases
}

func newIGD(n Network, p place) *igd { return &igd{net: n, place: p, port: p.port} }

func (*igd) name() string { return UPnP }

// transport is the protocol as UPnP names it.
func (c *igd) transport() string {
	if c.place.tcp {
		return "TCP"
	}
	return "UDP"
}

// probe finds the service of the line that has an address. When none has, the first will say why.
func (c *igd) probe(ctx context.Context) error {
	root, client, location, err := probeIGD(ctx, c.net, c.place)
	if err != nil {
		return err
	}
	services := connections(root, client, location)
	if len(services) == 0 {
		return fmt.Errorf("%w: its UPnP device maps no ports", errAbsent)
	}
	c.service = services[0]
	for _, s := range services {
		if addr, err := externalOf(ctx, s); err == nil && ranges.Of(addr) != ranges.Useless {
			c.service = s
			break
		}
	}
	return ctx.Err()
}

// connections returns the services of a description that map ports, the newest kind first.
func connections(root *goupnp.RootDevice, client *http.Client, location *url.URL) []connection {
	var all []connection
	// The errors say only that there is no such service.
	v2, _ := internetgateway2.NewWANIPConnection2ClientsFromRootDevice(root, location)
	for _, s := range v2 {
		s.SOAPClient.HTTPClient = *client
		all = append(all, s)
	}
	v1, _ := internetgateway2.NewWANIPConnection1ClientsFromRootDevice(root, location)
	for _, s := range v1 {
		s.SOAPClient.HTTPClient = *client
		all = append(all, s)
	}
	ppp, _ := internetgateway2.NewWANPPPConnection1ClientsFromRootDevice(root, location)
	for _, s := range ppp {
		s.SOAPClient.HTTPClient = *client
		all = append(all, s)
	}
	return all[:min(len(all), tries)]
}

// externalOf asks a service for its address on the Internet's side.
func externalOf(ctx context.Context, s connection) (netip.Addr, error) {
	text, err := s.GetExternalIPAddressCtx(ctx)
	if err != nil {
		return netip.Addr{}, err
	}
	if text == "" {
		return netip.IPv4Unspecified(), nil // what some say while the line is down
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("read external address: %w", err)
	}
	return addr.Unmap(), nil
}

func (c *igd) open(ctx context.Context) (grant, error) {
	addr, err := externalOf(ctx, c.service)
	if err != nil {
		return grant{}, explain(err)
	}
	if addr.IsUnspecified() || !addr.Is4() {
		return grant{}, refusal(pcpNetworkFailure.String())
	}
	for try := 1; ; try++ {
		err = c.add(ctx)
		if code := codeOf(err); try == tries || code != upnpConflict && code != upnpConflictOther {
			break
		}
		c.port = 20000 + rand.N[uint16](40000)
	}
	if err != nil {
		return grant{}, explain(err)
	}
	g := grant{external: netip.AddrPortFrom(addr, c.port), life: lifetime}
	if c.permanent {
		g.life = 0
	}
	return g, nil
}

// add asks for the external port, with a lease if the router knows such.
func (c *igd) add(ctx context.Context) error {
	for {
		lease := uint32(lifetime / time.Second)
		if c.permanent {
			lease = 0
		}
		before := c.asked
		c.asked = true
		err := c.service.AddPortMappingCtx(ctx, "", c.port, c.transport(), c.place.port, c.place.local.String(), true, description, lease)
		if codeOf(err) == upnpPermanentOnly && !c.permanent {
			c.permanent = true
			continue
		}
		switch codeOf(err) {
		case 0: // done, or nobody knows
		case upnpConflict, upnpConflictOther:
			c.asked = false // what stands there is another's
		default:
			c.asked = before
		}
		return err
	}
}

func (c *igd) close(ctx context.Context) error {
	if !c.asked {
		return nil
	}
	err := c.service.DeletePortMappingCtx(ctx, "", c.port, c.transport())
	if code := codeOf(err); code == upnpNoSuchPort {
		err = nil // its lease is over
	}
	c.asked = err != nil
	return explain(err)
}
