package identity

import (
	"encoding/asn1"
	"net/netip"
	"strings"
	"testing"
)

func TestDomains(t *testing.T) {
	for _, test := range []struct {
		domain string
		says   string // "": it is good
	}{
		{"home.internal", ""},
		{"a.b.internal", ""},
		{"lab.home.arpa", ""},
		{"internal", "nobody can own"},
		{"home.arpa", "nobody can own"},
		{"example.com", "like example.internal"},
		{"google.com.internal.com", "nobody can own"},
		{"xinternal", "nobody can own"},
		{"x.yinternal", "nobody can own"},
		{"Home.internal", "lower-case"},
		{"home.internal.", "with dots between"},
		{"-a.internal", "inner hyphens"},
		{"a..internal", "with dots between"},
		{strings.Repeat("x", 64) + ".internal", "with dots between"},
		{strings.Repeat("abcdefg.", 15) + "internal", ""},
		{strings.Repeat("abcdefg.", 16) + "internal", "at most 128 bytes"},
	} {
		err := CheckDomain(test.domain)
		if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("domain %q: got %v, want %q", test.domain, err, test.says)
		}
	}
}

// TestDomainOfARoot asserts that what the root says counts, that a mesh that was made before there were domains has one, and that its root is the same
// bytes as before.
func TestDomainOfARoot(t *testing.T) {
	prefix := netip.MustParsePrefix("100.70.0.0/16")
	for _, test := range []struct{ name, domain, want string }{
		{"home", "", "home.internal"},
		{"home", "lab.home.arpa", "lab.home.arpa"},
		{"Home Lab", "", "home-lab.internal"},
		{"…", "", "mesh.internal"},
	} {
		root, err := NewRoot(testKey("root"), RootTerms{Name: test.name, Prefix4: prefix, Domain: test.domain}, start)
		if err != nil {
			t.Fatal(err)
		}
		terms, err := RootTermsOf(root)
		if err != nil || terms.Prefix4 != prefix || terms.Zone() != test.want {
			t.Errorf("mesh %q with %q: got %+v, %v, zone %q, want %q", test.name, test.domain, terms, err, terms.Zone(), test.want)
		}
		if CheckDomain(terms.Zone()) != nil {
			t.Errorf("mesh %q: %v", test.name, CheckDomain(terms.Zone()))
		}
	}
	type former struct {
		Prefix4 string `asn1:"utf8"`
	}
	want, err := asn1.Marshal(former{prefix.String()})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := (RootTerms{Name: "home", Prefix4: prefix}).extension(); err != nil || string(got.Value) != string(want) {
		t.Errorf("terms without a domain: got %x, %v, want %x", got.Value, err, want)
	}
	with, err := RootTerms{Name: "home", Prefix4: prefix, Domain: "lab.internal"}.extension()
	if err != nil {
		t.Fatal(err)
	}
	var read former
	if rest, err := asn1.Unmarshal(with.Value, &read); err != nil || len(rest) > 0 || read.Prefix4 != prefix.String() {
		t.Errorf("a version without domains reads %+v, %v of terms with one", read, err)
	}
	if _, err := NewRoot(testKey("root"), RootTerms{Name: "home", Domain: "example.com"}, start); err == nil {
		t.Error("a root with a domain of the Internet was made")
	}
}
