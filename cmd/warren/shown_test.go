package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
)

// Addresses that stand for relay channels, streams and handles are for no eye: neither in a log nor in what a command says.
func TestInternalAddressesAreInWords(t *testing.T) {
	channel, stream, real := netip.MustParseAddrPort("[100::200:0:0:1]:9"), netip.MustParseAddrPort("[100::300:0:0:2a]:9"), netip.MustParseAddrPort("100.64.0.1:9")
	for text, want := range map[string]string{
		"via [100::200:0:0:1]:9 in 3ms": "via relay channel 1 in 3ms", "100::300:0:0:2a": "stream 42", "dial [100::100:0:0:3]: timeout": "dial no path yet, peer 3: timeout",
		"to " + real.String(): "to 100.64.0.1:9", "fd00::100::1": "fd00::100::1", "2001:db8:100::1": "2001:db8:100::1", "100:: and 100::1": "100:: and 100::1", "": "",
	} {
		if got := clean(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	var out strings.Builder
	var level slog.LevelVar
	log := agentCommand{con: &console{err: &out}}.logger(&level).With("part", "node")
	log.Info("path changed", "address", channel, "error", fmt.Errorf("send: %w", errors.New("write to "+stream.String())), slog.Group("a", "b", stream), "to", real, "text", stream.String())
	if got := out.String(); strings.Contains(got, "100::") || !strings.Contains(got, `address="relay channel 1"`) || !strings.Contains(got, "write to stream 42") || !strings.Contains(got, `a.b="stream 42"`) || !strings.Contains(got, "to=100.64.0.1:9") {
		t.Errorf("got %s", got)
	}
}
