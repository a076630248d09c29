package identity

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"net/netip"
	"testing"
)

// A founder takes no network that leads to others: not for a root that it makes, and not in one that it made otherwise.
func TestPrefix4IsPrivate(t *testing.T) {
	for text, want := range map[string]bool{
		"100.64.0.0/10": true, "100.70.0.0/16": true, "100.127.255.248/29": true, "10.0.0.0/8": true, "10.77.0.0/16": true,
		"172.16.0.0/12": true, "172.31.255.0/24": true, "192.168.0.0/16": true, "192.168.1.0/24": true,
		"8.8.8.0/24": false, "127.0.0.0/8": false, "0.0.0.0/0": false, "0.0.0.0/8": false, "100.0.0.0/8": false, "100.64.0.0/9": false, "100.128.0.0/16": false,
		"11.0.0.0/8": false, "172.0.0.0/8": false, "172.32.0.0/16": false, "192.168.0.0/15": false, "192.169.0.0/16": false, "192.0.0.0/8": false,
		"169.254.0.0/16": false, "224.0.0.0/8": false, "240.0.0.0/8": false, "198.18.0.0/15": false,
		"10.0.0.0/30": false, "10.0.0.1/8": false, "fd00::/48": false, "::ffff:10.0.0.0/104": false,
	} {
		prefix := netip.MustParsePrefix(text)
		if err := CheckPrefix4(prefix); (err == nil) != want {
			t.Errorf("%s: got %v, want it to be allowed: %v", text, err, want)
		}
		root, err := NewRoot(testKey("root"), RootTerms{Name: "home", Prefix4: prefix}, start)
		if (err == nil) != want {
			t.Errorf("a root with %s: got %v, want it to be made: %v", text, err, want)
		}
		if !want {
			root = rootWith(t, text)
			if _, err := ParseCert(root.Raw); !errors.Is(err, ErrCertificate) {
				t.Errorf("a root with %s of another program: got %v, want it refused", text, err)
			}
			if err := CheckRoot(root); !errors.Is(err, ErrCertificate) {
				t.Errorf("a root with %s, checked: got %v, want it refused", text, err)
			}
		}
		if terms, err := RootTermsOf(root); (err == nil) != want || want && terms.Prefix4 != prefix {
			t.Errorf("%s: got terms %+v, %v", text, terms, err)
		}
	}
}

// rootWith is a root that says what NewRoot would not let it say, rightly signed.
func rootWith(t *testing.T, prefix4 string) *x509.Certificate {
	t.Helper()
	good, err := NewRoot(testKey("root"), RootTerms{Name: "home"}, start)
	if err != nil {
		t.Fatal(err)
	}
	value, err := asn1.Marshal(rootTermsDER{Prefix4: prefix4})
	if err != nil {
		t.Fatal(err)
	}
	template := *good
	for _, e := range good.Extensions {
		if e.Id.Equal(oidRoot) {
			e.Value = value
			template.ExtraExtensions = append(template.ExtraExtensions, e)
		}
	}
	der, err := x509.CreateCertificate(bytes.NewReader(make([]byte, 64)), &template, &template, publicKey(testKey("root")), testKey("root"))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
