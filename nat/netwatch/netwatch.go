// Package netwatch knows the host's own underlay addresses and says when they, or the default routes, change.
package netwatch

import (
	"context"
	"net/netip"
)

// Addresses returns the addresses that may be offered to peers, best first. skip reports the interface
// names to leave out besides the known virtual ones (the node's own TUN device); it may be nil.
func Addresses(skip func(ifname string) bool) []netip.Addr { return nil }

// Watch returns a channel that gets a value, coalesced, after each change of what Addresses(skip)
// returns or of the default routes, and after a sleep of the machine. It is closed when ctx ends.
func Watch(ctx context.Context, skip func(ifname string) bool) <-chan struct{} {
	return make(chan struct{})
}
