package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"testing"
	"time"
)

func (b *fakeBackend) Netcheck(context.Context) (Netcheck, error) { return b.netcheck, b.err }

func (b *fakeBackend) Why(_ context.Context, req WhyRequest) (Why, error) {
	b.asked = append(b.asked, req)
	return b.why, b.err
}

func (b *fakeBackend) Denials(context.Context) (Denials, error) { return b.denials, b.err }

func exampleDenials() Denials {
	at, from, to := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), netip.MustParseAddr("100.71.0.2"), netip.MustParseAddr("100.71.0.1")
	return Denials{Time: at, Dropped: map[string]uint64{"malformed": 1}, Denied: []Denied{{
		From: "beta", To: "alpha", Source: from, Target: to, Protocol: "tcp", Port: 22, Direction: DeniedIn, Reason: "not allowed by the policy", Count: 3, First: at, Last: at,
	}}}
}

func exampleNetcheck() Netcheck {
	at, yes, no := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), true, false
	return Netcheck{
		Time: at, TookMS: 1204, Name: "alpha", Port: 9277, Verdict: NetHard, Conclusion: "direct connections: only with some peers", Advice: "turn on UPnP",
		IPv4: Family{UDP: UDPWorks, Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.10")}, Seen: []netip.AddrPort{netip.MustParseAddrPort("203.0.113.6:40001")},
			Mapping: "address-and-port-dependent", Filtering: "address-and-port-dependent", PortKept: &no, Hairpin: &yes, Asked: 2, Answered: 2},
		IPv6: Family{UDP: UDPUnused, Mapping: "unknown", Filtering: "unknown", Reason: "this host has no IPv6 address"},
		Routers: []Router{{Gateway: netip.MustParseAddr("192.168.1.1"), Remark: "another NAT stands behind it",
			Protocols: []RouterProtocol{{Name: "PCP", State: "absent", Reason: "no answer"}, {Name: "UPnP", State: "present"}},
			Mapping:   &PortMapping{Protocol: "UPnP", External: netip.MustParseAddrPort("10.0.0.4:9277"), Expires: &at}}},
		Reachable: []Reachable{{Address: netip.MustParseAddrPort("203.0.113.6:9277"), State: "unreachable"}},
		Anchors:   []AnchorCheck{{Name: "beta", Address: netip.MustParseAddrPort("198.51.100.7:9277"), Session: true, SessionMS: 12.5, STUNMS: 12.1, TCP: TCPOpen}},
		Streams:   StreamUse{State: "open"}, Portal: Portal{Reason: "anchors answer"},
	}
}

func exampleWhy() Why {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	relay := Path{Kind: PathRelay, Address: netip.MustParseAddrPort("198.51.100.7:9277"), Via: "beta"}
	return Why{
		Time: at, Peer: Peer{ID: "gammaid", Name: "gamma", State: PeerUp, Path: relay, Life: Life{LastHandshake: &at}}, Verdict: "both-map-by-destination",
		Conclusion: "gamma is reached through beta", Cause: "both NATs map ports by destination", Fix: "turn on UPnP",
		Here:     Standing{Name: "alpha", Known: true, Time: &at, Mapping: "address-dependent", Filtering: "unknown", PortMapping: "absent", Version: "1.0.0"},
		There:    Standing{Known: true, Time: &at, Mapping: "address-dependent", Filtering: "unknown", PortMapping: "refused", Version: "1.0.0"},
		Attempts: []Attempt{{Started: at, Ended: &at, More: 1, Result: "failed", Pairs: []Pair{{Remote: netip.MustParseAddrPort("192.0.2.1:9277"), Type: "srflx", Sent: 40, Result: "no answer"}}}},
		Changes:  []Change{{Time: at, Path: relay, Reason: "no direct path yet"}},
		Signals:  Signals{LastHeard: &at, NextTry: &at}, Session: &Session{Address: netip.MustParseAddrPort("192.0.2.1:9277"), LatencyMS: 3},
		Asked: Asked{Pinged: true, PingMS: 3.5}, Gossip: "alive", GossipAt: &at, Relays: []RelayCheck{{Name: "beta", Ready: true, InUse: true}},
	}
}

func TestDiagnosisGolden(t *testing.T) {
	for _, tt := range []struct {
		name, path, body string
		backend          fakeBackend
	}{
		{"netcheck.json", "/v1/netcheck", "", fakeBackend{netcheck: exampleNetcheck()}},
		{"netcheck-empty.json", "/v1/netcheck", "", fakeBackend{}},
		{"why.json", "/v1/why", `{"peer":"gamma"}`, fakeBackend{why: exampleWhy()}},
		{"why-empty.json", "/v1/why", `{"peer":"gamma"}`, fakeBackend{}},
	} {
		w := request(NewServer(&tt.backend, slog.New(slog.DiscardHandler)).routes(), http.MethodPost, tt.path, tt.body)
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, w.Body.Bytes(), "", "  "); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%s: got status %d, %v", tt.name, w.Code, err)
		}
		golden(t, tt.name, pretty.Bytes())
	}
}

func TestDiagnosisRoundTrip(t *testing.T) {
	backend := &fakeBackend{netcheck: exampleNetcheck(), why: exampleWhy(), denials: exampleDenials()}
	client, _ := start(t, backend, nil)
	report, err := client.Netcheck(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	why, err := client.Why(t.Context(), WhyRequest{Peer: "gamma"})
	if err != nil {
		t.Fatal(err)
	}
	denied, err := client.Denials(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	denials := exampleDenials()
	denials.Schema = Schema
	for _, pair := range [][2]any{{denied, denials}, {report, exampleNetcheck().complete()}, {why, exampleWhy().complete()}} {
		got, _ := json.Marshal(pair[0])
		want, _ := json.Marshal(pair[1])
		if !bytes.Equal(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	backend.err = &Error{Code: CodeNotFound, Message: "no member is called x"}
	var got *Error
	if _, err := client.Why(t.Context(), WhyRequest{Peer: "x"}); !errors.As(err, &got) || got.Code != CodeNotFound {
		t.Errorf("got %v, want the agent's error", err)
	}
	if _, err := client.Netcheck(t.Context()); !errors.As(err, &got) {
		t.Errorf("got %v, want the agent's error", err)
	}
}
