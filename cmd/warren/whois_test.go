package main

import (
	"net/netip"
	"strings"
	"testing"

	"warren/mesh/api"
)

// TestFind: who is meant, in all the ways in which people have it at hand.
func TestFind(t *testing.T) {
	s := exampleStatus()
	s.Peers[0].Routes = []netip.Prefix{netip.MustParsePrefix("192.168.7.0/24")}
	s.Peers[0].PublicKey = "k1="
	s.Peers[4].Addresses = nil
	for text, want := range map[string]string{
		"alpha": "alpha", "beta": "beta", "BETA": "beta", "beta.": "beta", "100.71.0.1": "alpha", "fd00:1122:3344::1": "alpha",
		"100.71.0.2": "beta", "100.71.0.2:22": "beta", "100.71.0.2/32": "beta", "[fd00:1122:3344::2]:80": "beta", "[fd00:1122:3344::2]": "beta", "::ffff:100.71.0.2": "beta",
		"http://100.71.0.2:8080": "beta", "http://100.71.0.2/x": "beta", "192.168.7.30": "beta", "198.51.100.7": "beta", "198.51.100.7:41641": "beta", "k1=": "beta",
		"ivjm": "beta", "ivjm3k2qpaxxxxxxxxxx": "beta", "gamma": "gamma", "phone": "phone", "100.70.0.9": "phone", "epsilon": "epsilon", "old": "old", "gggg": "old",
		"2001:db8::1": "!no node has the address", "198.51.100.7:1": "!no node has the address", "bata": "!nobody is called", "iv": "!nobody is called", "": "!nobody is called", "100.71.0.99": "!no node has",
	} {
		got, err := find(s, text)
		if no, fails := strings.CutPrefix(want, "!"); fails != (err != nil) || fails && !strings.Contains(err.Error(), no) || !fails && got.Name != want {
			t.Errorf("%q: got %q and error %v, want %q", text, got.Name, err, want)
		}
	}
	// One underlay address for two, as behind one NAT; and the name of who was thrown out, taken by somebody else.
	s.Peers[1].Path = api.Path{Kind: api.PathDirect, Address: netip.MustParseAddrPort("198.51.100.7:5")}
	if _, err := find(s, "198.51.100.7"); err == nil || !strings.Contains(err.Error(), "beta (198.51.100.7:41641), gamma (198.51.100.7:5)") {
		t.Errorf("two behind one address: got %v, want both", err)
	}
	s.Revoked[0].Name = "gamma"
	if got, err := find(s, "gamma"); err != nil || got.revoked != nil {
		t.Errorf("a name that changed hands: got %+v and %v, want the member", got, err)
	}
	s.Peers[1].Name = "beta"
	if _, err := find(s, "beta"); err == nil || !strings.Contains(hintFor(err), "whole ID") {
		t.Errorf("one name for two: got %v", err)
	}
}
