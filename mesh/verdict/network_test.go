package verdict

import (
	"net/netip"
	"strings"
	"testing"

	"warren/nat/natkind"
)

func TestNetVerdicts(t *testing.T) {
	works := func(mapping natkind.Mapping, filtering natkind.Filtering) Network {
		return Network{Port: 9277, IPv4: Family{V4: true, Present: true, Mapping: mapping, Filtering: filtering, Asked: 2, Answered: 2}}
	}
	silent := func(tcp TCP) Network {
		n := works(natkind.MappingUnknown, natkind.FilteringUnknown)
		n.IPv4.Answered, n.Looks = 0, []Look{{TCP: tcp}}
		return n
	}
	const (
		eim, sym      = natkind.MappedIndependent, natkind.MappedByAddressAndPort
		strict, loose = natkind.FilteredByAddressAndPort, natkind.FilteredNot
	)
	router := func(n Network, r Router) Network {
		r.Gateway = netip.MustParseAddr("192.168.1.1")
		n.Routers = []Router{r}
		return n
	}
	reached := works(sym, strict)
	reached.Open = netip.MustParseAddrPort("203.0.113.9:9277")
	only6 := Network{Port: 9277, IPv4: Family{V4: true}, IPv6: Family{Present: true, Asked: 2, Answered: 2, Mapping: natkind.Unmapped, Filtering: strict}}
	lonely := works(natkind.MappingUnknown, natkind.FilteringUnknown)
	lonely.IPv4.Asked, lonely.IPv4.Answered = 0, 0
	unsure := works(natkind.MappingUnknown, natkind.FilteredLoosely)
	unsure.IPv4.Answered = 1
	portal := silent(TCPForeign)
	portal.Portal = Portal{Suspected: true, Reason: "192.0.2.1:443 answers, but not with TLS"}
	inUse := silent(TCPSilent)
	inUse.Streams = true // by a proxy
	second := router(works(sym, strict), Router{})
	second.Routers = append(second.Routers, Router{Gateway: netip.MustParseAddr("10.0.0.1"), RefusedBy: "PCP", Reason: "no resources"})
	tests := []struct {
		name string
		n    Network
		kind NetKind
		says []string
	}{
		{"public", works(natkind.Unmapped, loose), NetOpen, []string{"with every peer"}},
		{"full cone", works(eim, loose), NetOpen, []string{"lets strangers in"}},
		{"reached from outside", reached, NetOpen, []string{"strangers reach this node at 203.0.113.9:9277"}},
		{"address-restricted", works(eim, natkind.FilteredByAddress), NetEasy, []string{"likely with every peer"}},
		{"port-restricted", works(eim, strict), NetEasy, []string{"all peers but those whose NAT maps by destination"}},
		{"public behind a firewall", works(natkind.Unmapped, strict), NetEasy, []string{"a firewall keeps strangers out", "let UDP port 9277 in"}},
		{"IPv6 only", only6, NetEasy, []string{"a firewall keeps strangers out"}},
		{"symmetric", works(sym, strict), NetHard, []string{"only with peers that strangers can reach", "mapping is address-and-port-dependent", "on the router, forward UDP port 9277"}},
		{"symmetric, router silent", router(works(sym, strict), Router{}), NetHard, []string{"turn on UPnP or NAT-PMP on the router 192.168.1.1, or forward UDP port 9277"}},
		{"symmetric, router refuses", router(works(sym, strict), Router{RefusedBy: "UPnP", Reason: "not authorised"}), NetHard, []string{"192.168.1.1 refuses port mappings by UPnP (not authorised)"}},
		{"symmetric, a second router refuses", second, NetHard, []string{"the router 10.0.0.1 refuses port mappings by PCP (no resources)"}},
		{"symmetric, another NAT behind", router(works(sym, strict), Router{Mapped: true}), NetHard, []string{"another NAT stands behind it"}},
		{"symmetric, mapped in vain", router(works(sym, strict), Router{Mapped: true, Public: true}), NetHard, []string{"nobody gets through"}},
		{"one anchor", unsure, NetUnknown, []string{"not known; needs two anchors at different addresses, and 1 of 2 answers"}},
		{"blocked", silent(TCPOpen), NetBlocked, []string{"no anchor answers by UDP, and one does by TCP", "let UDP out"}},
		{"blocked, but by the proxy", inUse, NetBlocked, []string{"drops UDP", "by TCP streams"}},
		{"offline", silent(TCPSilent), NetOffline, []string{"neither by UDP nor by TCP"}},
		{"portal", portal, NetPortal, []string{"captive portal (192.0.2.1:443", "log in"}},
		{"nobody to ask", lonely, NetUnknown, []string{"no other anchor"}},
		{"batches are lost", Network{Batches: true, IPv4: works(eim, strict).IPv4}, NetEasy, []string{"likely with all peers but", "batches of packets are lost on the way"}},
		{"no network", Network{IPv4: Family{V4: true}}, NetOffline, []string{"no address on any network"}},
	}
	for _, tt := range tests {
		v := JudgeNetwork(tt.n)
		conclusion, advice := v.Words()
		text := conclusion + "\n" + advice
		if v.Kind != tt.kind || !strings.HasPrefix(text, "direct connections: ") {
			t.Errorf("%s: got %s, want %s:\n%s", tt.name, v.Kind, tt.kind, text)
		}
		for _, part := range tt.says {
			if !strings.Contains(text, part) {
				t.Errorf("%s: got\n%s\nwant %q in it", tt.name, text, part)
			}
		}
	}
}

func TestFamilies(t *testing.T) {
	for _, tt := range []struct {
		f    Family
		want UDP
		says string
	}{
		{Family{V4: true}, UDPUnused, "this host has no IPv4 address"},
		{Family{Asked: 2, Answered: 2}, UDPUnused, "this host has no IPv6 address"},
		{Family{Present: true, Trouble: "listen udp6: no such family", Asked: 1}, UDPUnsure, "listen udp6: no such family"},
		{Family{Present: true, V4: true}, UDPUnsure, "no other anchor has a public IPv4 address"},
		{Family{Present: true, Asked: 3}, UDPSilent, "no anchor answers by UDP"},
		{Family{Present: true, Asked: 3, Answered: 1}, UDPWorks, "needs two anchors at different addresses, and 1 of 3 answers"},
		{Family{Present: true, Asked: 3, Answered: 3, Mapping: natkind.MappedIndependent}, UDPWorks, "no anchor has helped to find out how packets are filtered"},
		{Family{Present: true, Asked: 3, Answered: 3, Mapping: natkind.MappedIndependent, Filtering: natkind.FilteredNot}, UDPWorks, ""},
	} {
		if got := tt.f.UDP(); got != tt.want {
			t.Errorf("%+v: got UDP %s, want %s", tt.f, got, tt.want)
		}
		if got := words(tt.f.Lack(), nil); got != tt.says {
			t.Errorf("%+v: got lack %q, want %q", tt.f, got, tt.says)
		}
	}
}

func TestPortals(t *testing.T) {
	asked := func(answered int, looks ...Look) Network {
		return Network{IPv4: Family{Present: true, Asked: 2, Answered: answered}, Looks: looks}
	}
	for _, tt := range []struct {
		name string
		n    Network
		want Portal
		sure bool
	}{
		{"UDP answers", asked(1, Look{TCP: TCPForeign, Detail: "x"}), Portal{Reason: "anchors answer by UDP"}, true},
		{"TCP answers", asked(0, Look{TCP: TCPForeign, Detail: "x"}, Look{TCP: TCPOpen}), Portal{Reason: "anchors answer by TCP with the mesh's certificates"}, true},
		{"nobody to ask", Network{}, Portal{Reason: "there is no anchor to ask"}, true},
		{"another answers", asked(0, Look{TCP: TCPSilent}, Look{TCP: TCPForeign, Detail: "x"}), Portal{Suspected: true, Reason: "x"}, true},
		{"nothing answers", asked(0, Look{TCP: TCPClosed}, Look{}), Portal{Reason: "nothing answers in the anchors' place"}, false},
	} {
		if got, sure := JudgePortal(tt.n); got != tt.want || sure != tt.sure {
			t.Errorf("%s: got %+v %v, want %+v %v", tt.name, got, sure, tt.want, tt.sure)
		}
	}
	nothing := Portal{Reason: "nothing"}
	if got := nothing.PageAt(""); got != nothing {
		t.Errorf("no page: got %+v, want %+v", got, nothing)
	}
	if got, want := nothing.PageAt("a page"), (Portal{Suspected: true, Reason: "a page"}); got != want {
		t.Errorf("a page: got %+v, want %+v", got, want)
	}
}
