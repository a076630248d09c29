package main

import (
	"context"
	"net/netip"
	"time"

	"warren/mesh/api"
)

func moment(before time.Duration) *time.Time {
	at := exampleTime.Add(-before)
	return &at
}

// Netcheck finds what the world's net is: hard (the default), open, blocked, portal or lonely.
func (f *fakeAgent) Netcheck(context.Context) (api.Netcheck, error) {
	addr, port, yes, no := netip.MustParseAddr, netip.MustParseAddrPort, true, false
	f.mu.Lock()
	defer f.mu.Unlock()
	n := api.Netcheck{
		Time: exampleTime, TookMS: 1200, Name: "alpha", Port: 9277, Verdict: api.NetHard,
		Conclusion: "direct connections: only with peers that strangers can reach; this NAT's mapping is address-and-port-dependent",
		Advice:     "turn on UPnP or NAT-PMP on the router 192.168.1.1, or forward UDP port 9277 to this machine",
		IPv4: api.Family{UDP: api.UDPWorks, Addresses: []netip.Addr{addr("192.168.1.10")}, Seen: []netip.AddrPort{port("203.0.113.6:40001"), port("203.0.113.6:40002")},
			Mapping: "address-and-port-dependent", Filtering: "address-and-port-dependent", PortKept: &no, Asked: 2, Answered: 2},
		IPv6: api.Family{UDP: api.UDPUnused, Mapping: "unknown", Filtering: "unknown", Reason: "this host has no IPv6 address"},
		Routers: []api.Router{{Gateway: addr("192.168.1.1"), Protocols: []api.RouterProtocol{
			{Name: "PCP", State: "absent", Reason: "no answer"}, {Name: "NAT-PMP", State: "absent"}, {Name: "UPnP", State: "refused", Reason: "not authorised"}}}},
		Anchors: []api.AnchorCheck{
			{Name: "beta", Address: port("198.51.100.7:9277"), Session: true, SessionMS: 12.5, STUNMS: 12.1, TCP: api.TCPOpen},
			{Name: "delta\x1b[2J", Address: port("[2001:db8::7]:9277"), TCP: api.TCPSilent},
		},
		Streams: api.StreamUse{State: "open"}, Portal: api.Portal{Reason: "anchors answer by UDP"},
	}
	switch f.net {
	case "open":
		n.Verdict, n.Conclusion, n.Advice = api.NetOpen, "direct connections: with every peer that can send UDP; strangers reach this node at 203.0.113.6:9277", ""
		n.IPv4.Mapping, n.IPv4.Filtering, n.IPv4.Seen, n.IPv4.Hairpin = "endpoint-independent", "address-and-port-dependent", []netip.AddrPort{port("203.0.113.6:9277")}, &yes
		n.IPv6 = api.Family{UDP: api.UDPWorks, Mapping: "none", Filtering: "address-and-port-dependent", Asked: 2, Answered: 2}
		n.Routers = []api.Router{{Gateway: addr("192.168.1.1"), Protocols: []api.RouterProtocol{{Name: "PCP", State: "absent"}, {Name: "UPnP", State: "present"}},
			Mapping: &api.PortMapping{Protocol: "UPnP", External: port("203.0.113.6:9277"), Public: true, Expires: moment(-20 * time.Minute)}}}
		n.Reachable = []api.Reachable{{Address: port("203.0.113.6:9277"), State: "reachable"}, {Address: port("[2001:db8::9]:9277"), State: "unreachable"}}
	case "blocked", "portal":
		n.Verdict, n.Conclusion, n.Advice = api.NetBlocked, "direct connections: none over the Internet; this network drops UDP, so packets go by TCP streams through anchors, more slowly", "let UDP out, at least to port 9277 of the anchors"
		n.IPv4 = api.Family{UDP: api.UDPSilent, Mapping: "unknown", Filtering: "unknown", Asked: 2, Reason: "no anchor answers by UDP"}
		n.Streams = api.StreamUse{State: "blocked", InUse: true, Since: moment(3 * time.Minute), Reason: "no answer"}
		n.Portal.Reason = "anchors answer by TCP with the mesh's certificates"
		n.Anchors[0].STUNMS = 0
		if f.net == "portal" {
			n.Streams.InUse, n.Portal = false, api.Portal{Suspected: true, Reason: `http://198.51.100.7 answers 302 and leads to "http://login.hotel/"`}
			n.Anchors[0].Session, n.Anchors[0].TCP = false, api.TCPForeign
			n.Conclusion = "direct connections: none; something answers in the anchors' place, probably a captive portal"
			n.Advice = "open a web page in a browser here and log in"
		}
	case "lonely":
		n = api.Netcheck{Time: exampleTime, Port: 9277, Verdict: api.NetUnknown, Conclusion: "direct connections: not known; there is no other anchor on the Internet to ask",
			IPv4:    api.Family{UDP: api.UDPUnsure, Reason: "no other anchor has a public IPv4 address"},
			IPv6:    api.Family{UDP: api.UDPUnused, Reason: "this host has no IPv6 address"},
			Streams: api.StreamUse{State: "open"}, Portal: api.Portal{Reason: "there is no anchor to ask"}}
	}
	return n, nil
}

// Denials is what was stopped of exampleStatus's peers.
func (f *fakeAgent) Denials(context.Context) (api.Denials, error) {
	at := exampleTime.Add(-90 * time.Second)
	return api.Denials{Schema: api.Schema, Time: exampleTime, Dropped: map[string]uint64{"malformed": 1}, Denied: []api.Denied{
		{From: "beta", To: "alpha", Source: netip.MustParseAddr("100.71.0.2"), Target: netip.MustParseAddr("100.71.0.1"), Protocol: "tcp", Port: 22,
			Direction: api.DeniedIn, Reason: "not allowed by the policy", Count: 3, First: at, Last: at},
		{From: "alpha", To: "10.9.0.1", Source: netip.MustParseAddr("100.71.0.1"), Target: netip.MustParseAddr("10.9.0.1"), Protocol: "icmp",
			Direction: api.DeniedOut, Reason: "not allowed by the policy", Count: 1, First: at, Last: at},
	}}, nil
}

// Why has a verdict for each peer of exampleStatus.
func (f *fakeAgent) Why(_ context.Context, req api.WhyRequest) (api.Why, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	port := netip.MustParseAddrPort
	here := api.Standing{Name: "alpha", Known: true, Mapping: "address-and-port-dependent", Filtering: "address-and-port-dependent", PortMapping: "refused", Version: "1.0.0"}
	y := api.Why{Time: exampleTime, Here: here, There: api.Standing{Mapping: "unknown", Filtering: "unknown", PortMapping: "unknown", Version: "1.0.0"}}
	found := false
	for _, p := range f.status.Peers {
		if p.Name == req.Peer || req.Peer == "delta" && p.ID == "dddddddddd3333333333" {
			y.Peer, y.There.Name, found = p, p.Name, true
		}
	}
	switch {
	case req.Peer == "old":
		y.Peer, y.Revoked = api.Peer{Name: "old"}, &f.status.Revoked[0]
		y.Verdict, y.Conclusion, y.Cause, y.Fix = "revoked", "old is no member any more", "revoked by alpha on 1 March 2026 at 12:00 UTC: stolen", "a revoked key stays out"
	case !found:
		return y, &api.Error{Code: api.CodeNotFound, Message: "no member is called \"" + req.Peer + "\"", Hint: "did you mean beta? warren peers lists the members"}
	case req.Peer == "beta":
		y.Pinged, y.PingMS = true, 12.3
		y.Peer.Since, y.Peer.PathMTU, y.Verdict, y.Conclusion, y.Gossip = moment(2*time.Hour), 1376, "direct", "beta is reached directly", "alive"
		y.There = api.Standing{Name: "beta", Known: true, Mapping: "none", Filtering: "endpoint-independent", PortMapping: "unneeded", Version: "1.0.0"}
		y.Session = &api.Session{Address: port("198.51.100.7:41641"), LatencyMS: 12.2}
		y.Attempts = []api.Attempt{{Started: *moment(2 * time.Hour), Ended: moment(2*time.Hour - 72*time.Millisecond), Result: "found 198.51.100.7:41641",
			Pairs: []api.Pair{{Remote: port("198.51.100.7:41641"), Type: "srflx", Sent: 2, Answered: 1, Result: "answered, chosen"}}}}
		y.Changes = []api.Change{{Time: *moment(2 * time.Hour), Path: y.Peer.Path, Reason: "nominated by ICE"}}
	case req.Peer == "gamma":
		y.Peer.Since, y.Verdict, y.Conclusion, y.Gossip = moment(90*time.Second), "both-map-by-destination", "gamma is reached through the relay beta, not directly", "alive"
		y.Cause = "the routers of alpha and gamma both map ports by destination (address-and-port-dependent), so neither can be told where to send"
		y.Fix = "the router of alpha refuses port mappings: allow them there, or forward UDP port 9277 to it; or turn on UPnP or NAT-PMP on the router of gamma, or forward UDP port 9277 to it"
		y.There = api.Standing{Name: "gamma", Known: true, Ports: "random", Mapping: "address-and-port-dependent", Filtering: "unknown", PortMapping: "absent", Version: "1.0.0"}
		y.Relays = []api.RelayCheck{{Name: "beta", Ready: true, InUse: true}, {Name: "zeta", Ready: true}, {Name: "eta"}}
		y.Signals.NextTry = moment(-30 * time.Second)
		pairs := []api.Pair{{Remote: port("192.168.7.2:9277"), Type: "host", Sent: 110, Result: "no answer to 110 checks"}, {Remote: port("[2001:db8:7::2]:9277"), Type: "host", Result: "not tried: this node has no address of its family"}}
		for i := range 8 {
			pairs = append(pairs, api.Pair{Remote: netip.AddrPortFrom(netip.MustParseAddr("203.0.113.9"), uint16(40000+i)), Type: "srflx", Sent: 110, Result: "no answer to 110 checks"})
		}
		y.Attempts = []api.Attempt{{Started: *moment(36 * time.Second), Ended: moment(30 * time.Second), Result: "0 of 12 addresses answered", Pairs: pairs, More: 2}}
		y.Changes = []api.Change{{Time: *moment(90 * time.Second), Path: y.Peer.Path, Reason: "no direct path yet"},
			{Time: *moment(91 * time.Second), Path: api.Path{Kind: api.PathNone}, Reason: "direct path to 203.0.113.9:40000 is dead: 5 checks unanswered in 1s"}}
	case req.Peer == "delta":
		y.Verdict, y.Conclusion, y.Gossip, y.GossipAt = "off", "delta\x1b[2J is not reached", "dead", moment(3*time.Minute)
		y.Cause = "delta\x1b[2J has answered nothing for 3 minutes: it is switched off or offline, or its agent does not run; no other member hears it either"
		y.Fix = "start delta\x1b[2J, or see there: warren status, warren netcheck"
		y.Peer.Since, y.Signals.Unanswered, y.Signals.Since = moment(3*time.Minute), 9, moment(3*time.Minute)
	case req.Peer == "epsilon":
		y.Verdict, y.Conclusion, y.Fix = "left", "epsilon is not reached: it has left the mesh by itself", "to have it back: warren invite here, and warren join TOKEN on epsilon"
	case req.Peer == "phone":
		y.Verdict, y.Conclusion, y.Cause = "static-silent", "phone is a static peer, and not reached", "it has not called, and no endpoint is configured to call it at"
		y.Fix = "on phone set the endpoint to this machine, UDP port 9277, and the public key to k0="
	}
	return y, nil
}
