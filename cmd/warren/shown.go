package main

import (
	"log/slog"
	"net/netip"
	"regexp"
	"strings"
	"unicode"

	"warren/tunnel/bind"
)

// internal matches addresses that only this program knows what to do with, with brackets and port or without.
var internal = regexp.MustCompile(`\[?\b(0?100::[0-9a-f:]*[0-9a-f])(?:\]:[0-9]+|\])?`)

// forPeople puts in words what addresses in a text stand for that are none of the underlay.
func forPeople(text string) string {
	if !strings.Contains(text, "100::") {
		return text
	}
	return internal.ReplaceAllStringFunc(text, func(found string) string {
		addr, err := netip.ParseAddr(internal.FindStringSubmatch(found)[1])
		if words := bind.Words(addr); err == nil && words != "" {
			return words
		}
		return found
	})
}

// attrForPeople is forPeople for what is logged.
func attrForPeople(attr slog.Attr) slog.Attr {
	switch v := attr.Value.Any().(type) {
	case netip.AddrPort:
		if words := bind.Words(v.Addr()); words != "" {
			attr.Value = slog.StringValue(words)
		}
	case netip.Addr:
		if words := bind.Words(v); words != "" {
			attr.Value = slog.StringValue(words)
		}
	case string:
		attr.Value = slog.StringValue(forPeople(v))
	case error:
		attr.Value = slog.StringValue(forPeople(v.Error()))
	}
	return attr
}

// clean makes text from other machines harmless for a terminal, and readable: what is not printable becomes a question mark.
func clean(text string) string {
	return strings.Map(func(c rune) rune {
		if c == '\n' || c == '\t' {
			return ' '
		}
		if !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, forPeople(text))
}
