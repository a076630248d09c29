//go:build linux

package natlab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// MappingProtocols say which of them a router offers to its LAN. PCP and
// NAT-PMP come together, as they do in the daemon that is used.
type MappingProtocols struct {
	UPnP bool // IGD:2, with WANIPv6FirewallControl
	PCP  bool // PCP and NAT-PMP
}

// mappedNet is where the routers' addresses for mapped ports are. The daemon
// refuses to map ports of the addresses that the lab's Internet is made of,
// because they are reserved for documentation; these are not.
const mappedNet = "11.0.113.0/24"

// mappingTables prepares the router's ruleset for the daemon, which knows the
// names of its chains and adds to them. A pinhole, and what was translated to
// an inside address, may pass.
const mappingTables = `
table inet lab {
	chain miniupnpd { }
	chain prerouting_miniupnpd { }
	chain postrouting_miniupnpd { }
	chain prerouting {
		type nat hook prerouting priority dstnat - 5; policy accept;
		jump prerouting_miniupnpd
	}
	chain postrouting {
		type nat hook postrouting priority srcnat - 5; policy accept;
		jump postrouting_miniupnpd
	}
}
insert rule inet lab forward jump miniupnpd
insert rule inet lab forward ct status dnat accept
`

// CheckMapping says that this machine lacks the daemon for OfferMapping, or returns nil.
func CheckMapping() error {
	if _, err := exec.LookPath("miniupnpd"); err != nil {
		return errors.New("check lab: this machine lacks miniupnpd (apt-get install miniupnpd-nftables)")
	}
	return nil
}

// OfferMapping starts Debian's miniupnpd in the router, and returns when it
// listens. Mapped ports have the address Mapped, a second one of the router.
// What the router forgets by Flush and Rebind is the daemon's rules too: end
// the process before, and offer again after.
func (r *Router) OfferMapping(o MappingProtocols) *Process {
	l := r.lab
	// Only its LAN's host is missing for a router to run programs as hosts do.
	h := &Host{Name: r.Name, lab: l, space: r.space}
	h.furnish()
	l.must(r.space.nft(mappingTables))
	conf := []string{
		"ext_ifname=wan", "listening_ip=lan", "http_port=0", "secure_mode=yes", "system_uptime=no",
		"upnp_table_name=lab", "upnp_nat_table_name=lab", "upnp_forward_chain=miniupnpd",
		"upnp_nat_chain=prerouting_miniupnpd", "upnp_nat_postrouting_chain=postrouting_miniupnpd",
		"uuid=1ce88a3d-b6f0-413c-b62a-88cada69d875",
		"enable_upnp=" + yes(o.UPnP), "enable_natpmp=" + yes(o.PCP),
		"allow 1024-65535 0.0.0.0/0 1024-65535", "deny 0-65535 0.0.0.0/0 0-65535",
	}
	if mapped := r.Mapped(); mapped.IsValid() {
		// Set twice, it stays as it is.
		l.must(r.space.ip(fmt.Sprintf("addr replace %s/32 dev wan", mapped)))
		l.must(l.core.ip(fmt.Sprintf("route replace %s via %s", mapped, r.WAN4())))
		conf = append(conf, "ext_ip="+mapped.String())
	}
	file := filepath.Join(h.Dir(), "miniupnpd.conf")
	l.must(os.WriteFile(file, []byte(strings.Join(conf, "\n")+"\n"), 0o644))
	pid := filepath.Join(h.Dir(), "run", "miniupnpd.pid")
	l.must(ignoreNotExist(os.Remove(pid)))
	p, err := h.Start("miniupnpd", "-d", "-f", file, "-P", "/run/miniupnpd.pid")
	l.must(err)
	l.must(r.awaitMapping(h, p, o))
	return p
}

// awaitMapping waits until the daemon's sockets are open.
func (r *Router) awaitMapping(h *Host, p *Process, o MappingProtocols) error {
	var want []string
	if o.UPnP {
		want = append(want, ":1900 ")
	}
	if o.PCP {
		want = append(want, ":5351 ")
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		out, err := h.Run(context.Background(), "ss", "-Hlnu")
		if err != nil {
			return err
		}
		open := 0
		for _, port := range want {
			if strings.Contains(out, port) {
				open++
			}
		}
		select {
		case <-p.Done():
			return fmt.Errorf("start %s: it has ended: %s", p, p.Output())
		default:
		}
		switch {
		case open == len(want):
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("start %s: not listening after 10 s: %s", p, p.Output())
		}
	}
}

// Mapped is the router's second IPv4 address, that of mapped ports; the zero
// Addr behind another router and without IPv4.
func (r *Router) Mapped() netip.Addr {
	if r.behind != nil || !r.wan.addr4.IsValid() {
		return netip.Addr{}
	}
	base := netip.MustParsePrefix(mappedNet).Addr().As4()
	base[3] = byte(r.wan.number + 1) // maxPlugs are less than a /24 has
	return netip.AddrFrom4(base)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
