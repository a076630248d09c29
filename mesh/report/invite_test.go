package report

import (
	"net/netip"
	"testing"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/roster"
)

// TestTokenReach holds from where a token is said to be of use.
func TestTokenReach(t *testing.T) {
	at := func(id identity.NodeID, addr string) identity.TokenAnchor {
		return identity.TokenAnchor{Addr: netip.MustParseAddrPort(addr), ID: [8]byte(id[:8])}
	}
	left := member(idB, "b", netip.MustParseAddrPort("198.51.100.9:9277"))
	left.State = roster.Left
	members := []roster.Member{member(idA, "a", netip.MustParseAddrPort("192.168.1.7:9277")), left, member(idGate, "gate", atGate)}
	for _, tt := range []struct {
		name    string
		anchors []identity.TokenAnchor
		want    string
	}{
		{"none", nil, api.ReachNone},
		{"a private address", []identity.TokenAnchor{at(idA, "192.168.1.7:9277")}, api.ReachLocal},
		{"a carrier's, and a local IPv6", []identity.TokenAnchor{at(idA, "100.64.3.4:9277"), at(idA, "[fd00::7]:9277")}, api.ReachLocal},
		{"link-local", []identity.TokenAnchor{at(idA, "[fe80::7]:9277")}, api.ReachLocal},
		{"an address of this host that it does not announce", []identity.TokenAnchor{at(idA, "192.168.1.7:9277"), at(idA, "[2600::7]:9277")}, api.ReachUnproven},
		{"another port of an anchor", []identity.TokenAnchor{at(idGate, "203.0.113.5:9278")}, api.ReachUnproven},
		{"of one that has left", []identity.TokenAnchor{at(idB, "198.51.100.9:9277")}, api.ReachUnproven},
		{"an anchor", []identity.TokenAnchor{at(idA, "192.168.1.7:9277"), at(idGate, atGate.String())}, api.ReachAnywhere},
	} {
		if got := TokenReach(tt.anchors, members); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}
