package identity

import (
	"bytes"
	"encoding/base64"
	"net/netip"
	"strings"
)

// The two symbols that no name has, as a name has no capitals: for a dot, and to fill up to three bytes.
const (
	symbolDot  = "A"
	symbolFill = "B"
)

// packName returns a DNS name as symbols, four in three bytes; nil for what is none.
func packName(name string) []byte {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if !isHostName(name) {
		return nil
	}
	text := strings.ReplaceAll(name, ".", symbolDot) + strings.Repeat(symbolFill, (4-len(name)%4)%4)
	packed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	return packed
}

// unpackName is the reverse of packName; empty for what it never makes.
func unpackName(packed []byte) string {
	text := base64.RawURLEncoding.EncodeToString(packed)
	name := strings.ReplaceAll(strings.TrimRight(text, symbolFill), symbolDot, ".")
	if !bytes.Equal(packName(name), packed) {
		return ""
	}
	return name
}

// isHostName reports whether a text can be a host's name in DNS, and is no address.
func isHostName(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil || name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}
