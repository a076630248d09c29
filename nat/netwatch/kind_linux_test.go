package netwatch

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestIsVirtual(t *testing.T) {
	attrs := func(name string) netlink.LinkAttrs { return netlink.LinkAttrs{Name: name, Index: 7} }
	device := func(name string) netlink.Link { return &netlink.Device{LinkAttrs: attrs(name)} }
	veth := func(name string) netlink.Link { return &netlink.Veth{LinkAttrs: attrs(name)} }
	bridge := func(name string) netlink.Link { return &netlink.Bridge{LinkAttrs: attrs(name)} }
	tuntap := func(name string, mode netlink.TuntapMode) netlink.Link {
		return &netlink.Tuntap{LinkAttrs: attrs(name), Mode: mode}
	}
	kind := func(name, kind string) netlink.Link {
		return &netlink.GenericLink{LinkAttrs: attrs(name), LinkType: kind}
	}
	card := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "eth1", MasterIndex: 7}}
	container := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth1", MasterIndex: 7}}
	machine := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "vnet0", MasterIndex: 7}, Mode: netlink.TUNTAP_MODE_TAP}
	for _, c := range []struct {
		link    netlink.Link
		ports   []netlink.Link
		gateway bool
		want    bool
	}{
		// A name decides nothing about a real card, whatever it begins with.
		{link: device("green0")}, {link: device("site0")}, {link: device("wtp0")}, {link: device("tunnel-lan")}, {link: device("dummy-lan")},
		{link: device("wg-lan0")}, {link: device("ztop0")}, {link: device("docker0")}, {link: device("virbr-uplink")}, {link: device("vnet-office")},
		{link: veth("veth1")}, {link: veth("eth0")}, {link: veth("warren-lan")}, {link: kind("cali-lan", "macvlan")}, {link: kind("vti7", "vlan")},
		{link: tuntap("tap0", netlink.TUNTAP_MODE_TAP)}, {link: kind("ppp0", "ppp")}, {link: kind("proton-lan", "bond")},
		// Tunnels are tunnels, whatever they are called; only an uplink that is none of another VPN's is one all the same.
		{link: tuntap("eth7", netlink.TUNTAP_MODE_TUN), want: true}, {link: tuntap("eth7", netlink.TUNTAP_MODE_TUN), gateway: true, want: true},
		{link: kind("lan0", "wireguard"), want: true}, {link: kind("lan0", "wireguard"), gateway: true, want: true},
		{link: kind("lan0", "vxlan"), want: true}, {link: kind("lan0", "dummy"), want: true},
		{link: kind("he-ipv6", "sit"), want: true}, {link: kind("he-ipv6", "sit"), gateway: true},
		{link: tuntap("zt5u4uptmb", netlink.TUNTAP_MODE_TAP), want: true}, {link: tuntap("zt5", netlink.TUNTAP_MODE_TAP)},
		// Bridges of containers and virtual machines, and those of people.
		{link: bridge("docker0"), want: true}, {link: bridge("docker0"), ports: []netlink.Link{container}, want: true},
		{link: bridge("virbr0"), ports: []netlink.Link{machine}, want: true}, {link: bridge("br-0123456789ab"), want: true},
		{link: bridge("docker0"), gateway: true}, {link: bridge("virbr0"), ports: []netlink.Link{machine, card}},
		{link: bridge("br0")}, {link: bridge("br-lan")}, {link: bridge("docker-lan")}, {link: bridge("vmbr0")}, {link: bridge("br-0123456789abc")},
		{link: device("vboxnet0"), want: true}, {link: device("vmnet8"), want: true}, {link: device("vmnet8"), gateway: true}, {link: device("vmnet-lan")},
	} {
		if got := isVirtual(c.link, append(c.ports, c.link), c.gateway); got != c.want {
			t.Errorf("%s of kind %s, gateway %v, %d ports: got virtual %v, want %v", c.link.Attrs().Name, c.link.Type(), c.gateway, len(c.ports), got, c.want)
		}
	}
}

// Links of the kernel's own making are told apart by what they are.
func TestOddNames(t *testing.T) {
	inSpace(t)
	var want []netip.Addr
	for i, name := range []string{"green0", "site0", "veth1", "wtp0", "tunnel-lan", "dummy-lan", "wg-lan0", "docker7", "zt5u4uptmb"} {
		addr := netip.AddrFrom4([4]byte{192, 168, byte(100 + i), 2})
		add(t, name, addr.String()+"/24", &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "far" + name[:3]})
		want = append(want, addr)
	}
	add(t, "eth7", "10.66.0.1/24", &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "eth7"}, Mode: netlink.TUNTAP_MODE_TUN})
	add(t, "docker0", "172.17.0.1/16", &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "docker0"}})
	add(t, "br-lan", "192.168.7.1/24", &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br-lan"}})
	want = append(want, netip.MustParseAddr("192.168.7.1"))
	links, _, err := query()
	if err != nil {
		t.Fatal(err)
	}
	if got := choose(links, nil); !slices.Equal(got, want) {
		t.Errorf("got addresses %v, want %v", got, want)
	}
}
