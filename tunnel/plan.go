package tunnel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/identity"
)

// clean returns the peers, the static ones first, with masked prefixes, each prefix for one peer and each key and member once, and all
// conflicts as an error.
func clean(peers []Peer, self wgtypes.Key) ([]Peer, error) {
	var errs []error
	owner := make(map[netip.Prefix]wgtypes.Key)
	seen, members := make(map[wgtypes.Key]bool), make(map[identity.NodeID]bool)
	out := make([]Peer, 0, len(peers))
	for _, p := range staticFirst(peers) {
		switch {
		case p.PublicKey == self:
			errs = append(errs, fmt.Errorf("set peer %v: this node's own key: %w", p.PublicKey, ErrConflict))
			continue
		case seen[p.PublicKey], members[p.ID]:
			errs = append(errs, fmt.Errorf("set peer %v: listed twice: %w", p.PublicKey, ErrConflict))
			continue
		}
		seen[p.PublicKey], members[p.ID] = true, !p.ID.IsZero()
		var allowed []netip.Prefix
		for _, prefix := range p.AllowedIPs {
			prefix = prefix.Masked()
			first, taken := owner[prefix]
			switch {
			case !prefix.IsValid() || prefix.Addr().Is4In6():
				errs = append(errs, fmt.Errorf("set peer %v: allowed IP %v is not a prefix", p.PublicKey, prefix))
			case taken && first != p.PublicKey:
				errs = append(errs, fmt.Errorf("set peer %v: allowed IP %v: %w (%v)", p.PublicKey, prefix, ErrConflict, first))
			case !taken:
				owner[prefix] = p.PublicKey
				allowed = append(allowed, prefix)
			}
		}
		p.AllowedIPs = allowed
		out = append(out, p)
	}
	return out, errors.Join(errs...)
}

// staticFirst sorts static peers before members, and leaves each kind in its order.
func staticFirst(peers []Peer) []Peer {
	return slices.SortedStableFunc(slices.Values(peers), func(a, b Peer) int {
		switch {
		case a.ID.IsZero() == b.ID.IsZero():
			return 0
		case a.ID.IsZero():
			return -1
		}
		return 1
	})
}

// plan returns the changes that lead from what the device has, or is known to have, to what is wanted: removals first, so that
// their prefixes are free. A key that was another's before is removed as well, and made anew. held is what was last set.
func plan(have map[wgtypes.Key]wgtypes.Peer, want []Peer, held map[wgtypes.Key]holder) []wgtypes.PeerConfig {
	stays := make(map[wgtypes.Key]bool, len(want))
	for _, p := range want {
		before, known := held[p.PublicKey]
		stays[p.PublicKey] = !known || before.id == p.ID
	}
	var changes []wgtypes.PeerConfig
	for key := range have {
		if !stays[key] {
			changes = append(changes, wgtypes.PeerConfig{PublicKey: key, Remove: true})
		}
	}
	for _, p := range want {
		old, ok := have[p.PublicKey]
		if !ok || !stays[p.PublicKey] {
			changes = append(changes, added(p))
		} else if c, differs := changed(old, p, held[p.PublicKey].endpoint); differs {
			changes = append(changes, c)
		}
	}
	return changes
}

// added is the whole configuration of a new peer.
func added(p Peer) wgtypes.PeerConfig {
	c := wgtypes.PeerConfig{PublicKey: p.PublicKey, AllowedIPs: ipNets(p.AllowedIPs)}
	if p.PresharedKey != (wgtypes.Key{}) {
		c.PresharedKey = &p.PresharedKey
	}
	if p.Endpoint.IsValid() {
		c.Endpoint = net.UDPAddrFromAddrPort(p.Endpoint)
	}
	if k := wholeSeconds(p.Keepalive); k != 0 {
		c.PersistentKeepaliveInterval = &k
	}
	return c
}

// Equal reports whether two peers are to be set alike; prefixes in another order are another peer.
func (p Peer) Equal(o Peer) bool {
	return p.ID == o.ID && p.PublicKey == o.PublicKey && p.PresharedKey == o.PresharedKey && slices.Equal(p.AllowedIPs, o.AllowedIPs) &&
		p.Endpoint == o.Endpoint && p.Keepalive == o.Keepalive && p.Answers == o.Answers && p.Hosted == o.Hosted && p.Controlling == o.Controlling
}

// changed is the difference between a peer that is there and the wanted one. Prefixes are only added where that is enough: to
// take one away all have to be set anew.
func changed(old wgtypes.Peer, p Peer, endpoint netip.AddrPort) (c wgtypes.PeerConfig, differs bool) {
	c = wgtypes.PeerConfig{PublicKey: p.PublicKey, UpdateOnly: true}
	if p.PresharedKey != old.PresharedKey {
		c.PresharedKey, differs = &p.PresharedKey, true
	}
	if p.Endpoint.IsValid() && p.Endpoint != endpoint {
		c.Endpoint, differs = net.UDPAddrFromAddrPort(p.Endpoint), true
	}
	if k := wholeSeconds(p.Keepalive); k != old.PersistentKeepaliveInterval {
		c.PersistentKeepaliveInterval, differs = &k, true
	}
	missing := make(map[netip.Prefix]bool, len(p.AllowedIPs))
	for _, prefix := range p.AllowedIPs {
		missing[prefix] = true
	}
	kept := 0
	for _, n := range old.AllowedIPs {
		prefix := prefixOf(n)
		if missing[prefix] {
			delete(missing, prefix)
			kept++
		}
	}
	switch {
	case kept < len(old.AllowedIPs):
		c.ReplaceAllowedIPs, c.AllowedIPs, differs = true, ipNets(p.AllowedIPs), true
	case len(missing) > 0:
		add := slices.DeleteFunc(slices.Clone(p.AllowedIPs), func(prefix netip.Prefix) bool { return !missing[prefix] })
		c.AllowedIPs, differs = ipNets(add), true
	}
	return c, differs
}

// as is what the device has of a peer once the peer is set.
func as(p Peer) wgtypes.Peer {
	return wgtypes.Peer{
		PublicKey: p.PublicKey, PresharedKey: p.PresharedKey, PersistentKeepaliveInterval: wholeSeconds(p.Keepalive), AllowedIPs: ipNets(p.AllowedIPs),
	}
}

// wholeSeconds rounds a keepalive up to what WireGuard can have.
func wholeSeconds(d time.Duration) time.Duration {
	return min(max((d+time.Second-1).Truncate(time.Second), 0), 65535*time.Second)
}

func ipNets(list []netip.Prefix) []net.IPNet {
	out := make([]net.IPNet, len(list))
	for i, p := range list {
		out[i] = net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	}
	return out
}

func prefixOf(n net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}
