package path

import (
	"net/netip"
	"testing"
)

// Candidates are addresses that one host may have, and nothing that reaches many, this host itself, or nobody.
func TestUsable(t *testing.T) {
	for _, addr := range []string{
		"127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "0.1.2.3", "::", "224.0.0.251", "239.255.95.26", "ff02::1", "255.255.255.255",
		"240.0.0.1", "fe80::1", "100::1", "::ffff:127.0.0.1",
	} {
		if Usable(netip.MustParseAddr(addr)) {
			t.Errorf("got %s usable, want it refused", addr)
		}
	}
	for _, addr := range []string{"192.168.1.5", "10.1.2.3", "169.254.7.7", "100.64.1.1", "198.51.100.7", "2001:db8::1", "fd00::1", "::ffff:10.1.2.3"} {
		if !Usable(netip.MustParseAddr(addr)) {
			t.Errorf("got %s refused, want it usable", addr)
		}
	}
}

// Many ports of one address are one victim's. The candidates that are trickled count too.
func TestPortsOfOneAddress(t *testing.T) {
	at := func(last byte, port uint16) Candidate {
		return NewCandidate(ServerReflexive, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, last}), port), 0)
	}
	var list []Candidate
	for port := range uint16(16) {
		list = append(list, at(1, 2000+port), at(2, 2000+port))
	}
	got := ParseCandidates(Lines(list[:MaxCandidates]), nil)
	if len(got) != 2*maxPorts {
		t.Errorf("got %d candidates at two addresses, want %d", len(got), 2*maxPorts)
	}
	all, added := merge(got, []Candidate{at(1, 1), at(3, 1)})
	if len(added) != 1 || added[0].Addr.Addr() != at(3, 1).Addr.Addr() || len(all) != len(got)+1 {
		t.Errorf("got %v added, want that at a third address only", added)
	}
}
