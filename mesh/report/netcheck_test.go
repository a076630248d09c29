package report

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/mesh/verdict"
	"warren/nat/natkind"
	"warren/nat/natprobe"
	"warren/nat/portmap"
	"warren/nat/reach"
)

// The addresses of these tests.
var (
	host4   = netip.MustParseAddr("192.168.1.2")
	host6   = netip.MustParseAddr("2001:db8::2")
	mapped  = netip.MustParseAddrPort("198.51.100.9:40000")
	public  = netip.MustParseAddrPort("9.9.9.9:9277")
	private = netip.MustParseAddrPort("192.168.1.9:9277")
)

// answers is a report of two anchors, of which some answer.
func answers(n int) natprobe.Report {
	r := natprobe.Report{Port: 40000}
	for i, id := range []identity.NodeID{idGate, idB} {
		a := natprobe.Answer{Server: natprobe.Server{ID: id}}
		if i < n {
			a.Mapped, a.RTT = mapped, time.Duration(20-10*i)*time.Millisecond
		}
		r.Answers = append(r.Answers, a)
	}
	return r
}

// networkOf is a network with a NAT of the easiest kind.
func networkOf(change func(*Network)) Network {
	n := Network{
		Started: ago(time.Second), Took: 1500 * time.Millisecond, Name: "a", Port: 9277, Hosts: []netip.Addr{host4}, Streams: Streams{State: "open", Reason: "answered"},
		IPv4:    Measurement{Report: answers(2), Seen: []netip.AddrPort{mapped, mapped}},
		Anchors: []Anchor{{ID: idGate, Name: "gate", Address: public, Session: true, RTT: 12 * time.Millisecond}},
	}
	n.IPv4.Report.Mapping, n.IPv4.Report.Filtering = natkind.MappedIndependent, natkind.FilteredByAddressAndPort
	if change != nil {
		change(&n)
	}
	return n
}

func silentNet(look verdict.Look) func(*Network) {
	return func(n *Network) { n.IPv4.Report, n.Anchors[0].Look = answers(0), look }
}

func TestNetcheck(t *testing.T) {
	sym := func(n *Network) { n.IPv4.Report.Mapping = natkind.MappedByAddressAndPort }
	router := func(r portmap.RouterStatus) func(*Network) {
		return func(n *Network) {
			sym(n)
			r.Gateway = netip.MustParseAddr("192.168.1.1")
			n.Routers = []portmap.RouterStatus{r}
		}
	}
	refusing := []portmap.ProtocolStatus{{Name: "PCP", State: portmap.Absent}, {Name: "UPnP", State: portmap.Refused, Reason: "not authorised"}}
	for _, tt := range []struct {
		name    string
		change  func(*Network)
		verdict string
		says    string
		portal  bool
	}{
		{"easy", nil, api.NetEasy, "all peers but those whose NAT maps by destination", false},
		{"reached from outside", func(n *Network) {
			n.Reach = []reach.Candidate{{Addr: private, State: reach.Unreachable}, {Addr: public, State: reach.Reachable}}
		}, api.NetOpen, "strangers reach this node at 9.9.9.9:9277", false},
		{"hard", sym, api.NetHard, "on the router, forward UDP port 9277", false},
		{"hard, refused", router(portmap.RouterStatus{Protocols: refusing}), api.NetHard, "the router 192.168.1.1 refuses port mappings by UPnP (not authorised)", false},
		{"hard, another NAT", router(portmap.RouterStatus{Mapping: &portmap.Mapping{External: private}}), api.NetHard, "another NAT stands behind it", false},
		{"hard, mapped in vain", router(portmap.RouterStatus{Mapping: &portmap.Mapping{External: public}}), api.NetHard, "maps the port to 9.9.9.9:9277, but nobody gets through", false},
		{"refused by the firewall here", func(n *Network) {
			silentNet(verdict.Look{TCP: verdict.TCPOpen})(n)
			n.Unsent = []verdict.Unsent{{To: public, Count: 3, First: now, Last: now}}
		}, api.NetBlocked, "none over the Internet; this machine's firewall refuses UDP to 9.9.9.9:9277 (operation not permitted", false},
		{"one anchor refused", func(n *Network) { n.Unsent = []verdict.Unsent{{To: private, Count: 3, First: now, Last: now}} },
			api.NetEasy, "this machine's firewall refuses UDP to 192.168.1.9:9277", false},
		{"a route that discards", func(n *Network) {
			n.Unsent = []verdict.Unsent{{To: public, By: verdict.ByRouting, Count: 3, First: now, Last: now}}
		}, api.NetEasy, "see: ip rule; ip route get 9.9.9.9", false},
		{"blocked", silentNet(verdict.Look{TCP: verdict.TCPOpen}), api.NetBlocked, "no anchor answers by UDP, and one does by TCP", false},
		{"blocked, streams in use", func(n *Network) {
			silentNet(verdict.Look{})(n)
			n.Streams = Streams{UDP: verdict.UDPBlocked, State: "blocked", Blocked: "no anchor answers"}
		}, api.NetBlocked, "drops UDP", false},
		{"portal by TLS", silentNet(verdict.Look{TCP: verdict.TCPForeign, Detail: "somebody else"}), api.NetPortal, "captive portal (somebody else)", true},
		{"portal by a page", func(n *Network) { silentNet(verdict.Look{TCP: verdict.TCPClosed})(n); n.Page = "answers 302" }, api.NetPortal, "captive portal (answers 302)", true},
		{"offline", silentNet(verdict.Look{TCP: verdict.TCPSilent}), api.NetOffline, "no anchor answers", false},
		{"no network", func(n *Network) { n.Hosts, n.IPv4, n.Anchors = nil, Measurement{}, nil }, api.NetOffline, "no address on any network", false},
		{"nobody to ask", func(n *Network) { n.IPv4, n.Anchors = Measurement{}, nil }, api.NetUnknown, "no other anchor", false},
		{"no socket", func(n *Network) { n.IPv4 = Measurement{Err: errors.New("no socket")} }, api.NetUnknown, "not known", false},
	} {
		got := Netcheck(networkOf(tt.change))
		if text := got.Conclusion + "\n" + got.Advice; got.Verdict != tt.verdict || !strings.Contains(text, tt.says) || got.Portal.Suspected != tt.portal {
			t.Errorf("%s: got %s, portal %v, want %s, %v and %q:\n%s", tt.name, got.Verdict, got.Portal, tt.verdict, tt.portal, tt.says, text)
		}
	}
}

// TestNetcheckShowsTheEvidence holds all that stands beside the verdict.
func TestNetcheckShowsTheEvidence(t *testing.T) {
	yes, no := true, false
	got := Netcheck(networkOf(func(n *Network) {
		n.Hosts = []netip.Addr{host6, host4}
		n.IPv4.Report.Port, n.IPv4.Report.Hairpin = 1, natkind.Arrived
		n.Reach = []reach.Candidate{{Addr: private, State: reach.Untested}}
		n.Routers = []portmap.RouterStatus{{Gateway: host4, Remark: "odd", Protocols: []portmap.ProtocolStatus{{Name: "PCP", State: portmap.Present, Reason: "x"}},
			Mapping: &portmap.Mapping{Protocol: "PCP", External: public, Expires: now}}}
		n.Streams.Since = now
	}))
	expires := now
	for _, tt := range []struct {
		what      string
		got, want any
	}{
		{"IPv4", got.IPv4, api.Family{UDP: api.UDPWorks, Addresses: []netip.Addr{host4}, Seen: []netip.AddrPort{mapped}, Mapping: "endpoint-independent",
			Filtering: "address-and-port-dependent", PortKept: &no, Hairpin: &yes, Asked: 2, Answered: 2}},
		{"IPv6", got.IPv6, api.Family{UDP: api.UDPUnsure, Addresses: []netip.Addr{host6}, Mapping: "unknown", Filtering: "unknown", Reason: "no other anchor has a public IPv6 address"}},
		{"routers", got.Routers, []api.Router{{Gateway: host4, Remark: "odd", Protocols: []api.RouterProtocol{{Name: "PCP", State: "present", Reason: "x"}},
			Mapping: &api.PortMapping{Protocol: "PCP", External: public, Public: true, Expires: &expires}}}},
		{"reachable", got.Reachable, []api.Reachable{{Address: private, State: "untested"}}},
		{"anchors", got.Anchors, []api.AnchorCheck{{Name: "gate", Address: public, Session: true, SessionMS: 12, STUNMS: 20}}},
		{"streams", got.Streams, api.StreamUse{State: "open", Since: &expires}},
		{"portal", got.Portal, api.Portal{Reason: "anchors answer by UDP"}},
		{"rest", [4]any{got.Time, got.TookMS, got.Name, got.Port}, [4]any{ago(time.Second), 1500.0, "a", uint16(9277)}},
	} {
		if !reflect.DeepEqual(tt.got, tt.want) {
			t.Errorf("%s: got %+v, want %+v", tt.what, tt.got, tt.want)
		}
	}
	kept := Netcheck(networkOf(nil)).IPv4
	if kept.PortKept == nil || !*kept.PortKept || kept.Hairpin != nil {
		t.Errorf("got port kept %v and hairpin %v, want yes and not known", kept.PortKept, kept.Hairpin)
	}
	blocked := Netcheck(networkOf(func(n *Network) {
		n.Streams = Streams{UDP: verdict.UDPBlocked, State: "blocked", Reason: "no anchor answers", Blocked: "no anchor answers"}
	})).Streams
	if want := (api.StreamUse{State: "blocked", InUse: true, Reason: "no anchor answers"}); blocked != want {
		t.Errorf("got %+v, want %+v", blocked, want)
	}
}

// TestWebPagesAreLookedForLast holds when an anchor is asked for a web page, and which one.
func TestWebPagesAreLookedForLast(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Network)
		want   string // "" for none
	}{
		{"UDP answers", nil, ""},
		{"TCP answers", silentNet(verdict.Look{TCP: verdict.TCPOpen}), ""},
		{"another answers", silentNet(verdict.Look{TCP: verdict.TCPForeign}), ""},
		{"nothing answers", silentNet(verdict.Look{TCP: verdict.TCPSilent}), "9.9.9.9:80"},
		{"nothing answers, the first anchor is inside", func(n *Network) {
			silentNet(verdict.Look{})(n)
			n.Anchors = slices.Insert(n.Anchors, 0, Anchor{Address: private})
		}, "9.9.9.9:80"},
		{"nothing answers, all anchors are inside", func(n *Network) { silentNet(verdict.Look{})(n); n.Anchors[0].Address = private }, ""},
	} {
		got, ok := networkOf(tt.change).PageAt()
		if ok != (tt.want != "") || ok && got.String() != tt.want {
			t.Errorf("%s: got %v, %v, want %q", tt.name, got, ok, tt.want)
		}
	}
}

func TestAnchors(t *testing.T) {
	m := meshOf(func(m *Mesh) {
		m.Records.Members = []roster.Member{
			member(idA, "a", public), member(identity.NodeID{10}, "zoe", private, public), member(identity.NodeID{11}, "yan", private), member(idB, "b"), member(idGate, "zz", atGate),
			{ID: identity.NodeID{12}, Name: "left", State: roster.Left, Record: member(idB, "", public).Record},
		}
	})
	got := m.Anchors()
	want := []Anchor{
		{ID: idGate, Name: "zz", Address: atGate, Session: true, RTT: 2 * time.Millisecond}, {ID: identity.NodeID{11}, Name: "yan", Address: private}, {ID: identity.NodeID{10}, Name: "zoe", Address: public},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v: those with a session first, then by name, at public addresses", got, want)
	}
	for i := range byte(20) {
		m.Records.Members = append(m.Records.Members, member(identity.NodeID{100 + i}, "m", public))
	}
	if got := m.Anchors(); len(got) != maxAnchors || got[0].ID != idGate {
		t.Errorf("got %d anchors, want %d", len(got), maxAnchors)
	}
}

// TestWordsAreTheAPIs holds that verdicts use the words that the API documents.
func TestWordsAreTheAPIs(t *testing.T) {
	for got, want := range map[string]string{
		verdict.NetOpen.String(): api.NetOpen, verdict.NetEasy.String(): api.NetEasy, verdict.NetHard.String(): api.NetHard, verdict.NetBlocked.String(): api.NetBlocked,
		verdict.NetPortal.String(): api.NetPortal, verdict.NetOffline.String(): api.NetOffline, verdict.NetUnknown.String(): api.NetUnknown,
		verdict.UDPWorks.String(): api.UDPWorks, verdict.UDPSilent.String(): api.UDPSilent, verdict.UDPUnused.String(): api.UDPUnused, verdict.UDPUnsure.String(): api.UDPUnsure,
		verdict.TCPOpen.String(): api.TCPOpen, verdict.TCPClosed.String(): api.TCPClosed, verdict.TCPSilent.String(): api.TCPSilent, verdict.TCPForeign.String(): api.TCPForeign,
	} {
		if got != want {
			t.Errorf("got word %q, want %q", got, want)
		}
	}
}
