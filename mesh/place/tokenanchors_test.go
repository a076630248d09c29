package place

import (
	"net/netip"
	"slices"
	"testing"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// A token is for hosts with either family. What is checked is what its text holds: it has little room.
func TestTokenHoldsBothFamilies(t *testing.T) {
	self, one, two := identity.NodeID{1}, identity.NodeID{2}, identity.NodeID{3}
	member := func(id identity.NodeID, endpoints ...string) roster.Member {
		m := roster.Member{ID: id, State: roster.Active, Record: record.Node{}}
		for _, e := range endpoints {
			m.Record.Endpoints = append(m.Record.Endpoints, netip.MustParseAddrPort(e))
		}
		return m
	}
	const (
		here4, here6 = "203.0.113.1:9277", "[2001:db8::1]:9277"
		home         = "192.168.1.5:9277"
	)
	for _, c := range []struct {
		name    string
		local   []string
		members []roster.Member
		want    []string
	}{
		{"IPv4 judged unreachable, members with IPv6 only", []string{here4, here6},
			[]roster.Member{member(self, here6), member(one, "[2001:db8:1::1]:9277"), member(two, "[2001:db8:2::1]:9277")},
			[]string{here6, here4, "[2001:db8:1::1]:9277"}},
		{"several addresses of one family", []string{here4, here6},
			[]roster.Member{member(self, here4, "203.0.113.2:9277", here6), member(one, "[2001:db8:1::1]:9277")},
			[]string{here4, here6, "[2001:db8:1::1]:9277"}},
		{"only another member has IPv4", []string{here6},
			[]roster.Member{member(self, here6), member(one, "[2001:db8:1::1]:9277"), member(two, "198.51.100.7:9277", "[2001:db8:2::1]:9277")},
			[]string{here6, "198.51.100.7:9277", "[2001:db8:2::1]:9277"}},
		{"behind a NAT", []string{home},
			[]roster.Member{member(self), member(one, "198.51.100.7:9277", "[2001:db8:1::1]:9277"), member(two, "198.51.100.8:9277", "[2001:db8:2::1]:9277")},
			[]string{"198.51.100.7:9277", "[2001:db8:1::1]:9277", "198.51.100.8:9277", home}},
		{"IPv4 only", []string{here4}, []roster.Member{member(self, here4), member(one, "198.51.100.7:9277")}, []string{here4, "198.51.100.7:9277"}},
		{"alone on a LAN", []string{home}, []roster.Member{member(self)}, []string{home}},
	} {
		f := TokenFacts{Self: self, Members: c.members, Up: map[identity.NodeID]bool{one: true, two: true}}
		for _, l := range c.local {
			f.Local = append(f.Local, netip.MustParseAddrPort(l))
		}
		token, err := identity.ParseToken(identity.Token{Anchors: TokenAnchors(f)}.Encode())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range token.Anchors {
			got = append(got, a.Addr.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
