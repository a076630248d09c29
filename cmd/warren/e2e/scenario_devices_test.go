//go:build linux

package e2e

import (
	"context"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// phone is a plain WireGuard device of the lab: Debian's wg-quick and wireguard-go, with the configuration that warren has printed.
type phone struct {
	*Node
	file  string
	addrs []netip.Addr
}

// newPhone has a node host a device, which comes up behind a router.
func (b *bed) newPhone(host *Node, name string, behind *natlab.Router) *phone {
	b.t.Helper()
	p := &phone{Node: &Node{Host: b.Host(name, behind)}}
	p.file = filepath.Join(p.Host.Dir(), name+".conf")
	_, err := host.Warren(b.ctx, "", "device", "add", name, "--no-dns", "--tag", "lab", "-o", p.file)
	b.must(err)
	list := b.devices(host)
	for _, d := range list.Devices {
		if d.Name == name {
			p.addrs = d.Addresses
		}
	}
	if len(p.addrs) != 2 {
		b.t.Fatalf("device %s: got addresses %v of %+v", name, p.addrs, list)
	}
	b.must(p.quick(b.ctx, "up"))
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = p.quick(ctx, "down") // it may be down already
	})
	return p
}

func (p *phone) quick(ctx context.Context, verb string) error {
	_, err := p.Host.Run(ctx, "env", "WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go", "wg-quick", verb, p.file)
	return err
}

// devices are what a node hosts.
func (b *bed) devices(n *Node) api.DeviceList {
	b.t.Helper()
	list, err := api.NewClient(filepath.Join(n.Host.Dir(), "run", "warren", "home.sock")).Devices(b.ctx)
	b.must(err)
	return list
}

// TestDevices has phones reach the mesh through a member that hosts them, with nothing but WireGuard's own tools: that member, another one behind a
// NAT, each other, in both families, by name, without the system's forwarding. They stay while it starts anew, and are cut off when they
// are removed.
func TestDevices(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 3*time.Minute)
	founder, a := bed.node("founder", nil), bed.node("a", bed.Router("home-a", natlab.EIMAPDF))
	bed.must(Found(bed.ctx, "home", founder, a))
	bed.meshed(founder, a)
	host, far := bed.named(founder, "hosts").Self.Addresses, bed.named(a, "hosts").Self.Addresses
	if out, err := founder.Host.Run(bed.ctx, "sysctl", "-n", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"); err != nil || strings.Join(strings.Fields(out), "") != "00" {
		t.Fatalf("the host forwards by itself: %q, %v", out, err)
	}
	first := bed.newPhone(founder, "phone", bed.Router("home-p", natlab.EIMAPDF))
	second := bed.newPhone(founder, "tablet", nil)

	bed.step("they are up")
	texts := func(lists ...[]netip.Addr) (out []string) {
		for _, list := range lists {
			for _, addr := range list {
				out = append(out, addr.String())
			}
		}
		return out
	}
	bed.must(first.pingAll(bed.ctx, texts(host)))
	bed.must(first.pingAll(bed.ctx, texts(far, second.addrs)))
	bed.must(second.pingAll(bed.ctx, texts(host, far, first.addrs)))
	bed.must(a.pingAll(bed.ctx, texts(first.addrs, second.addrs)))
	for i := range far {
		if got := bed.asks(first.Node, []string{"udp", "tcp"}[i], host[i], "a.home.internal", dns.TypeA); got != "NOERROR "+far[0].String() {
			t.Errorf("the phone asks for a: got %s", got)
		}
	}
	bed.eventually("a knows the phone by name", func() bool {
		got := bed.looks(a, "ahosts", "phone.home.internal")
		return strings.Contains(got, first.addrs[0].String()) && strings.Contains(got, first.addrs[1].String())
	})
	if out, err := founder.Warren(bed.ctx, "", "device", "show", "phone"); err != nil || !strings.Contains(out, "AllowedIPs = ") || strings.Contains(out, "PrivateKey = \n") {
		t.Errorf("show: got %q, %v", out, err)
	}
	if list := bed.devices(founder); list.Devices[0].LastHandshake == nil || list.Devices[0].Tags[0] != "lab" {
		t.Errorf("list: got %+v", list)
	}
	if _, err := founder.Warren(bed.ctx, "", "device", "add", "a"); err == nil || !strings.Contains(err.Error(), "a is a member already") {
		t.Errorf("a device with a member's name: got %v", err)
	}

	bed.step("TCP through the host")
	bed.serve(a)
	for _, more := range [][]string{nil, {"-R"}} {
		for _, to := range far {
			if mbits := bed.bulk(first.Node, to, 2, more...); mbits < 1/crowd() {
				t.Errorf("TCP to %s %v: got %.2f Mbit/s", to, more, mbits)
			} else {
				bed.step("TCP to %s %v: %.0f Mbit/s", to, more, mbits)
			}
		}
	}

	bed.step("the host starts anew")
	bed.must(founder.Stop())
	bed.must(founder.Start(bed.ctx))
	bed.must(first.pingAll(bed.ctx, texts(host, far)))

	bed.step("one is removed")
	_, err := founder.Warren(bed.ctx, "", "device", "remove", "phone")
	bed.must(err)
	bed.eventually("it is cut off, and its name is gone", func() bool {
		return first.Ping(bed.ctx, host[0], 300*time.Millisecond) != nil && bed.looks(a, "hosts", "phone") == ""
	})
	bed.must(second.pingAll(bed.ctx, texts(host, far)))
	if _, err := founder.Warren(bed.ctx, "", "device", "remove", "phone"); err == nil || !strings.Contains(err.Error(), "no device called") {
		t.Errorf("removed again: got %v", err)
	}
	bed.step("end")
}
