package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"warren/mesh/api"
	"warren/mesh/identity"
)

func TestNetVerdicts(t *testing.T) {
	works := func(mapping, filtering string) api.Netcheck {
		return api.Netcheck{Port: 9277, IPv4: api.Family{UDP: api.UDPWorks, Mapping: mapping, Filtering: filtering, Asked: 2, Answered: 2, Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.2")}}}
	}
	silent := func(tcp string) api.Netcheck {
		n := works("unknown", "unknown")
		n.IPv4.UDP, n.IPv4.Answered = api.UDPSilent, 0
		n.Anchors = []api.AnchorCheck{{Name: "gate", TCP: tcp}}
		return n
	}
	const eim, sym, strict = "endpoint-independent", "address-and-port-dependent", "address-and-port-dependent"
	gateway := netip.MustParseAddr("192.168.1.1")
	router := func(n api.Netcheck, state, reason string, mapping *api.PortMapping) api.Netcheck {
		n.Routers = []api.Router{{Gateway: gateway, Protocols: []api.RouterProtocol{{Name: "UPnP", State: state, Reason: reason}}, Mapping: mapping}}
		return n
	}
	reached := works(sym, strict)
	reached.Reachable = []api.Reachable{{Address: netip.MustParseAddrPort("[2001:db8::1]:9277"), State: "unreachable"}, {Address: netip.MustParseAddrPort("203.0.113.9:9277"), State: "reachable"}}
	only6 := works("", "")
	only6.IPv6, only6.IPv4 = works("none", strict).IPv4, api.Family{UDP: api.UDPUnused}
	lonely := works("unknown", "unknown")
	lonely.IPv4.UDP = api.UDPUnsure
	unsure := works("unknown", "not port-dependent")
	unsure.IPv4.Reason = "needs two anchors"
	portal := silent(api.TCPForeign)
	portal.Portal = api.Portal{Suspected: true, Reason: "192.0.2.1:443 answers, but not with TLS"}
	inUse := silent(api.TCPSilent)
	inUse.Fallback.InUse = true // by a proxy
	tests := []struct {
		name    string
		n       api.Netcheck
		verdict string
		says    []string
	}{
		{"public", works("none", eim), api.NetOpen, []string{"with every peer"}},
		{"full cone", works(eim, eim), api.NetOpen, []string{"lets strangers in"}},
		{"reached from outside", reached, api.NetOpen, []string{"strangers reach this node at 203.0.113.9:9277"}},
		{"address-restricted", works(eim, "address-dependent"), api.NetEasy, []string{"likely with every peer"}},
		{"port-restricted", works(eim, strict), api.NetEasy, []string{"all peers but those whose NAT maps by destination"}},
		{"public behind a firewall", works("none", strict), api.NetEasy, []string{"a firewall keeps strangers out", "let UDP port 9277 in"}},
		{"IPv6 only", only6, api.NetEasy, []string{"a firewall keeps strangers out"}},
		{"symmetric", works(sym, strict), api.NetHard, []string{"only with peers that strangers can reach", "on the router, forward UDP port 9277"}},
		{"symmetric, router silent", router(works(sym, strict), "absent", "", nil), api.NetHard, []string{"turn on UPnP or NAT-PMP on the router 192.168.1.1, or forward UDP port 9277"}},
		{"symmetric, router refuses", router(works(sym, strict), "refused", "not authorised", nil), api.NetHard, []string{"refuses port mappings by UPnP (not authorised)"}},
		{"symmetric, another NAT behind", router(works(sym, strict), "present", "", &api.PortMapping{}), api.NetHard, []string{"another NAT stands behind it"}},
		{"symmetric, mapped in vain", router(works(sym, strict), "present", "", &api.PortMapping{Public: true}), api.NetHard, []string{"nobody gets through"}},
		{"one anchor", unsure, api.NetUnknown, []string{"not known; needs two anchors"}},
		{"blocked", silent(api.TCPOpen), api.NetBlocked, []string{"drops UDP", "over TCP", "let UDP out"}},
		{"blocked, but by the proxy", inUse, api.NetBlocked, nil},
		{"offline", silent(api.TCPSilent), api.NetOffline, []string{"neither by UDP nor by TCP"}},
		{"portal", portal, api.NetPortal, []string{"captive portal (192.0.2.1:443", "log in"}},
		{"nobody to ask", lonely, api.NetUnknown, []string{"no other anchor"}},
		{"no network", api.Netcheck{IPv4: api.Family{UDP: api.UDPUnused}, IPv6: api.Family{UDP: api.UDPUnused}}, api.NetOffline, []string{"no address on any network"}},
	}
	for _, tt := range tests {
		concludeNet(&tt.n)
		text := tt.n.Conclusion + "\n" + tt.n.Advice
		if tt.n.Verdict != tt.verdict || !strings.HasPrefix(text, "direct connections: ") {
			t.Errorf("%s: got %s, want %s:\n%s", tt.name, tt.n.Verdict, tt.verdict, text)
		}
		for _, part := range tt.says {
			if !strings.Contains(text, part) {
				t.Errorf("%s: got\n%s\nwant %q in it", tt.name, text, part)
			}
		}
	}
}

// TestTCPLooks holds what is told of whoever answers in an anchor's place.
func TestTCPLooks(t *testing.T) {
	stranger := errors.New("no member")
	nobody := func([]*x509.Certificate) (identity.NodeID, error) { return identity.NodeID{}, stranger }
	anchor := func([]*x509.Certificate) (identity.NodeID, error) { return identity.NodeID{7}, nil }
	redirect := http.RedirectHandler("http://login.hotel/", http.StatusFound)
	plain := httptest.NewServer(redirect)
	defer plain.Close()
	secure, web := httptest.NewUnstartedServer(redirect), httptest.NewUnstartedServer(redirect)
	secure.TLS = &tls.Config{NextProtos: []string{"warren-tcp/1"}}
	for _, s := range []*httptest.Server{secure, web} {
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
		defer s.Close()
	}
	at := func(l net.Listener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, tt := range []struct {
		name   string
		to     netip.AddrPort
		verify chainVerifier
		want   string
	}{
		{"another certificate", at(secure.Listener), nobody, api.TCPForeign},
		{"the anchor's", at(secure.Listener), anchor, api.TCPOpen},
		{"another protocol", at(web.Listener), anchor, api.TCPForeign},
		{"not TLS", at(plain.Listener), anchor, api.TCPForeign},
		{"closed", at(closed), anchor, api.TCPClosed},
	} {
		got := lookTLS(t.Context(), tt.verify, identity.NodeID{7}, tt.to)
		if got.state != tt.want || (got.detail == "") != (tt.want != api.TCPForeign) {
			t.Errorf("%s: got %+v, want %s", tt.name, got, tt.want)
		}
	}
	if got := lookTLS(t.Context(), anchor, identity.NodeID{8}, at(secure.Listener)); got.state != api.TCPForeign {
		t.Errorf("another member: got %+v, want it told", got)
	}
	if got := lookHTTP(t.Context(), at(plain.Listener)); !strings.Contains(got, "answers 302") || !strings.Contains(got, "login.hotel") {
		t.Errorf("redirection: got %q", got)
	}
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("a web page")) }))
	defer page.Close()
	if got := lookHTTP(t.Context(), at(page.Listener)); got != "" {
		t.Errorf("a web page: got %q, want nothing", got)
	}
}
