package identity

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"warren/nat/ranges"
)

// The extensions that hold terms, under the enterprise number that RFC 5612 sets aside and that
// therefore clashes with nobody's. They are not critical: other X.509 software may ignore them.
var (
	oidInvite    = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 9277, 1}
	oidRoot      = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 9277, 2}
	oidPromotion = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 9277, 3}
)

// promotionValue is all that the promotion extension can say: NULL.
var promotionValue = []byte{5, 0}

const (
	maxTags     = 16
	maxTagSize  = 32
	maxMeshName = 63
)

// inviteTermsDER is the invite extension:
//
//	SEQUENCE { uses INTEGER, admin BOOLEAN, nodeLife INTEGER (seconds), tags SEQUENCE OF string }
//
// A tag is a PrintableString, or a UTF8String if it has an underscore, which PrintableString lacks.
type inviteTermsDER struct {
	Uses     int
	Admin    bool
	NodeLife int64
	Tags     []string
}

// rootTermsDER is the root extension: SEQUENCE { prefix4 UTF8String, domain UTF8String OPTIONAL }, prefix4 "" for none. The mesh's name is
// the root's common name, and the domain follows from it where none is given. Versions that know of no domain skip it.
type rootTermsDER struct {
	Prefix4 string `asn1:"utf8"`
	Domain  string `asn1:"utf8,optional"`
}

// TermsOf reads the terms of an invite certificate. The error wraps ErrCertificate.
func TermsOf(invite *x509.Certificate) (InviteTerms, error) {
	value := findExtension(invite, oidInvite)
	if value == nil {
		return InviteTerms{}, formError("not an invite")
	}
	terms, err := parseInviteTerms(value)
	terms.Expires = invite.NotAfter
	return terms, err
}

// RootTermsOf reads the terms of a root certificate. The error wraps ErrCertificate.
func RootTermsOf(root *x509.Certificate) (RootTerms, error) {
	value := findExtension(root, oidRoot)
	if value == nil {
		return RootTerms{}, formError("not a root")
	}
	terms, err := parseRootTerms(value)
	if err != nil {
		return RootTerms{}, err
	}
	terms.Name = root.Subject.CommonName
	if terms.check() != nil {
		return RootTerms{}, formError("terms of a root")
	}
	return terms, nil
}

func parseInviteTerms(value []byte) (InviteTerms, error) {
	var der inviteTermsDER
	if rest, err := asn1.Unmarshal(value, &der); err != nil || len(rest) > 0 || der.NodeLife < 0 || der.NodeLife > int64(NodeLife/time.Second) {
		return InviteTerms{}, formError("terms of an invite")
	}
	terms := InviteTerms{Uses: der.Uses, Admin: der.Admin, Tags: der.Tags, NodeLife: time.Duration(der.NodeLife) * time.Second}
	again, err := terms.extension() // checks the values; equal bytes mean that there is one encoding only
	if err != nil || !bytes.Equal(again.Value, value) {
		return InviteTerms{}, formError("terms of an invite")
	}
	return terms, nil
}

func parseRootTerms(value []byte) (RootTerms, error) {
	var der rootTermsDER
	if rest, err := asn1.Unmarshal(value, &der); err != nil || len(rest) > 0 {
		return RootTerms{}, formError("terms of a root")
	}
	terms := RootTerms{Domain: der.Domain}
	if der.Prefix4 == "" {
		return terms, nil
	}
	prefix, err := netip.ParsePrefix(der.Prefix4)
	if err != nil || prefix.String() != der.Prefix4 {
		return RootTerms{}, formError("terms of a root")
	}
	terms.Prefix4 = prefix
	return terms, nil
}

func (t InviteTerms) extension() (pkix.Extension, error) {
	if t.Uses < 1 || t.Uses > MaxUses {
		return pkix.Extension{}, fmt.Errorf("%d uses: want 1 to %d", t.Uses, MaxUses)
	}
	if t.NodeLife < 0 || t.NodeLife > NodeLife || t.NodeLife%time.Second != 0 {
		return pkix.Extension{}, fmt.Errorf("node life %s: want whole seconds, at most %s", t.NodeLife, NodeLife)
	}
	if err := CheckTags(t.Tags); err != nil {
		return pkix.Extension{}, err
	}
	value, err := asn1.Marshal(inviteTermsDER{Uses: t.Uses, Admin: t.Admin, NodeLife: int64(t.NodeLife / time.Second), Tags: t.Tags})
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("encode terms: %w", err)
	}
	return pkix.Extension{Id: oidInvite, Value: value}, nil
}

func (t RootTerms) extension() (pkix.Extension, error) {
	if err := t.check(); err != nil {
		return pkix.Extension{}, err
	}
	der := rootTermsDER{Domain: t.Domain}
	if t.Prefix4.IsValid() {
		der.Prefix4 = t.Prefix4.String()
	}
	value, err := asn1.Marshal(der)
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("encode terms: %w", err)
	}
	return pkix.Extension{Id: oidRoot, Value: value}, nil
}

func (t RootTerms) check() error {
	if t.Name == "" || len(t.Name) > maxMeshName || !IsText(t.Name) {
		return fmt.Errorf("mesh name %q: want 1 to %d bytes of printable text", t.Name, maxMeshName)
	}
	if t.Domain != "" {
		if err := CheckDomain(t.Domain); err != nil {
			return err
		}
	}
	if t.Prefix4.IsValid() {
		return CheckPrefix4(t.Prefix4)
	}
	return nil
}

// CheckPrefix4 says what is wrong with the IPv4 network of an overlay. Whoever joins a mesh has its network routed into the tunnel, so
// the founder may take none that leads to others: it lies in a private range (RFC 1918) or in that of carriers (RFC 6598), and
// has 8 to 29 bits.
func CheckPrefix4(p netip.Prefix) error {
	inside := func(private netip.Prefix) bool { return private.Bits() <= p.Bits() && private.Contains(p.Addr()) }
	if p.IsValid() && p == p.Masked() && p.Bits() <= 29 && slices.ContainsFunc(ranges.Overlays, inside) {
		return nil
	}
	return fmt.Errorf("overlay network %s: want an IPv4 network of at most 29 bits in 100.64.0.0/10, 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16", p)
}

// CheckTags says what is wrong with a list of tags: at most 16 of them, none twice, each of 1 to 32 letters a-z, digits, hyphens, underscores, dots and
// colons.
func CheckTags(tags []string) error {
	if len(tags) > maxTags {
		return fmt.Errorf("%d tags: at most %d", len(tags), maxTags)
	}
	for i, tag := range tags {
		if !isTag(tag) {
			return fmt.Errorf("tag %q: want 1 to %d letters a-z, digits, hyphens, underscores, dots and colons", tag, maxTagSize)
		}
		if slices.Contains(tags[:i], tag) {
			return fmt.Errorf("tag %q: given twice", tag)
		}
	}
	return nil
}

func isTag(tag string) bool {
	return tag != "" && len(tag) <= maxTagSize && !strings.ContainsFunc(tag, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.:", r)
	})
}

// IsText reports whether text can be shown as it is: UTF-8 in which every character is printable by unicode.IsPrint. So it
// has no control characters, of C1 neither, no marks that turn the direction of writing, and no white space but the plain one.
func IsText(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

func findExtension(cert *x509.Certificate, id asn1.ObjectIdentifier) []byte {
	for _, extension := range cert.Extensions {
		if extension.Id.Equal(id) {
			return extension.Value
		}
	}
	return nil
}
