package node

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/place"
	"warren/nat/standing"
	"warren/tunnel/osnet"
)

// A route of a static peer that would swallow the tunnel is left out, by name, on the interface, at WireGuard and in what is shared with
// the mesh; all else stays.
func TestPlanLeavesOutWhatSwallowsTheTunnel(t *testing.T) {
	for _, tt := range []struct {
		routes []string
		left   []string // words of each that is left out
	}{
		{[]string{"10.97.0.0/16"}, nil},
		{[]string{"0.0.0.0/0", "10.97.0.0/16", "::/0"}, []string{"0.0.0.0/0 of static peer phone is left out: it is all of IPv4", "::/0 of static peer phone is left out: it is all of IPv6"}},
		{[]string{"0.0.0.0/1", "128.0.0.0/1", "10.97.0.0/16"}, []string{"0.0.0.0/1 of", "128.0.0.0/1 of"}},
		{[]string{"198.51.100.0/24", "10.97.0.0/16"}, []string{"198.51.100.0/24 of static peer phone is left out: it holds the endpoint of static peer phone, 198.51.100.7"}},
		{[]string{"198.18.0.0/24", "10.97.0.0/16"}, []string{"it holds the endpoint of static peer other"}},
		{[]string{"9.9.9.0/24", "10.97.0.0/16"}, []string{"it holds the address of "}},
		{[]string{"8.8.8.0/24", "10.97.0.0/16"}, []string{"it holds the address of "}},
		{[]string{"192.168.1.0/24", "10.97.0.0/16"}, []string{"it holds the router of this network, 192.168.1.1"}},
		{[]string{"192.168.1.4/30", "10.97.0.0/16"}, []string{"it holds an address of this machine, 192.168.1.5"}},
		{[]string{"192.168.1.1/32", "10.97.0.0/16"}, []string{"it holds the router of this network, 192.168.1.1"}},
		{[]string{"192.168.0.0/16", "10.97.0.0/16"}, nil},
		{[]string{"172.20.0.0/16", "10.97.0.0/16"}, []string{"by another interface already"}},
		{[]string{"7.7.7.0/24", "10.97.0.0/16"}, nil}, // a member says that it is there, and nobody has met it
	} {
		f := testFacts(testMember(1), testMember(2, "7.7.7.7:9277"))
		f.here.elsewhere = []osnet.Route{{Prefix: netip.MustParsePrefix("192.168.1.0/24"), Interface: "eth0"}, {Prefix: netip.MustParsePrefix("172.20.0.0/16"), Interface: "docker0"}}
		f.standing = &standing.Snapshot{Hosts: []netip.Addr{netip.MustParseAddr("192.168.1.5")}}
		f.here.gateways = []netip.Addr{netip.MustParseAddr("192.168.1.1")}
		f.contacts = []place.Contact{{ID: id(2), Addr: netip.MustParseAddrPort("9.9.9.9:9277")}}
		f.sessions[id(3)] = sessionFacts{remote: netip.MustParseAddrPort("8.8.8.8:9277")}
		f.names = map[string]netip.AddrPort{"phone.example:1": netip.MustParseAddrPort("198.51.100.7:1"), "other.example:2": netip.MustParseAddrPort("198.18.0.7:2")}
		phone := StaticPeer{Name: "phone", PublicKey: wgtypes.Key{77}, Endpoint: "phone.example:1", Share: true}
		for _, text := range tt.routes {
			phone.AllowedIPs = append(phone.AllowedIPs, netip.MustParsePrefix(text))
		}
		f.settings.Static = []StaticPeer{phone, {Name: "other", PublicKey: wgtypes.Key{78}, Endpoint: "other.example:2", AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.98.0.1/32")}}}
		got := plan(f)
		var texts []string
		for _, c := range got.conflicts {
			texts = append(texts, c.Text)
		}
		if len(texts) != len(tt.left) {
			t.Errorf("%v: got said %q, want %q", tt.routes, texts, tt.left)
			continue
		}
		for i, want := range tt.left {
			if !strings.Contains(texts[i], want) {
				t.Errorf("%v: got said %q, want %q", tt.routes, texts[i], want)
			}
		}
		for _, prefix := range phone.AllowedIPs {
			wanted := !slices.ContainsFunc(texts, func(s string) bool { return strings.HasPrefix(s, prefix.String()+" of") })
			if onLink, allowed := slices.Contains(got.link.Routes, prefix), slices.Contains(got.tunnel[0].AllowedIPs, prefix); onLink != wanted || allowed != wanted {
				t.Errorf("%v: %v: got it on the interface %t, at WireGuard %t, want %t", tt.routes, prefix, onLink, allowed, wanted)
			}
		}
		if !slices.Contains(got.link.Routes, netip.MustParsePrefix("10.98.0.1/32")) || len(got.link.Addrs) == 0 {
			t.Errorf("%v: got %+v, want the rest there", tt.routes, got.link)
		}
	}
}

// What is left out changes nothing in the settings, which the next plan reads again.
func TestSwallowingLeavesTheSettings(t *testing.T) {
	f := testFacts(testMember(1))
	all := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.97.0.0/16")}
	f.settings.Static = []StaticPeer{{Name: "phone", PublicKey: wgtypes.Key{77}, AllowedIPs: slices.Clone(all)}}
	for range 2 {
		if got := plan(f); len(got.conflicts) != 1 || !slices.Equal(f.settings.Static[0].AllowedIPs, all) {
			t.Errorf("got %v, settings %v, want one conflict, and the settings as they are", got.conflicts, f.settings.Static)
		}
	}
}
