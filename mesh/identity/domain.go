package identity

import (
	"fmt"
	"strings"
)

// MaxDomain bounds the domain of a mesh, in bytes: with a member's name of 63 bytes before it, it stays below the 253 of RFC 1035.
const MaxDomain = 128

// privateTops are the domains that nobody on the Internet can own: internal is set aside for private use by ICANN (resolution of 29 July
// 2024), home.arpa by RFC 8375. Whoever joins a mesh has its domain answered by the mesh: a founder must not be able to take another's.
var privateTops = []string{"internal", "home.arpa"}

// Zone is the domain of the mesh: the one in its root, else NAME.internal with what a label cannot hold in NAME made a hyphen.
func (t RootTerms) Zone() string {
	if t.Domain != "" {
		return t.Domain
	}
	label := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, t.Name)
	if label = strings.Trim(label, "-"); label == "" {
		label = "mesh"
	}
	return label + ".internal"
}

// CheckDomain says what is wrong with the domain of a mesh: it is in lower case, without a dot at its end, of labels as host names have them
// (RFC 1123, 2.1), and lies below internal or home.arpa.
func CheckDomain(domain string) error {
	if len(domain) > MaxDomain {
		return fmt.Errorf("domain %.40q…: want at most %d bytes", domain, MaxDomain)
	}
	for label := range strings.SplitSeq(domain, ".") {
		if !isLabel(label) {
			return fmt.Errorf("domain %q: want names of lower-case letters, digits and inner hyphens with dots between, like home.internal", domain)
		}
	}
	for _, top := range privateTops {
		if strings.HasSuffix(domain, "."+top) {
			return nil
		}
	}
	return fmt.Errorf("domain %q: want one that nobody can own on the Internet, below .internal or .home.arpa, like %s.internal", domain, firstLabel(domain))
}

func firstLabel(domain string) string {
	label, _, _ := strings.Cut(domain, ".")
	return label
}

func isLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(label, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' })
}
