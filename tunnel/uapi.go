package tunnel

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// uapi writes a change in the words of WireGuard's configuration protocol, as a client of the control socket would. The order counts:
// what is said of a peer follows its key, and update_only stands before what would make the peer.
func uapi(c wgtypes.Config) string {
	var b strings.Builder
	say := func(key string, value any) { fmt.Fprintf(&b, "%s=%v\n", key, value) }
	if c.PrivateKey != nil {
		say("private_key", hexOf(*c.PrivateKey))
	}
	if c.ListenPort != nil {
		say("listen_port", *c.ListenPort)
	}
	for _, p := range c.Peers {
		say("public_key", hexOf(p.PublicKey))
		if p.Remove {
			say("remove", true)
		}
		if p.UpdateOnly {
			say("update_only", true)
		}
		if p.PresharedKey != nil {
			say("preshared_key", hexOf(*p.PresharedKey))
		}
		if p.Endpoint != nil {
			say("endpoint", p.Endpoint)
		}
		if p.PersistentKeepaliveInterval != nil {
			say("persistent_keepalive_interval", int(p.PersistentKeepaliveInterval.Seconds()))
		}
		if p.ReplaceAllowedIPs {
			say("replace_allowed_ips", true)
		}
		for _, prefix := range p.AllowedIPs {
			say("allowed_ip", prefix.String())
		}
	}
	return b.String()
}

// endpointsIn reads from what the device says of itself where it sends to, for each peer that has an endpoint.
func endpointsIn(said string) map[wgtypes.Key]netip.AddrPort {
	out := make(map[wgtypes.Key]netip.AddrPort)
	var of wgtypes.Key
	for line := range strings.Lines(said) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch name {
		case "public_key":
			key, _ := hex.DecodeString(value)
			copy(of[:], key)
		case "endpoint":
			if addr, err := netip.ParseAddrPort(value); err == nil {
				out[of] = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
			}
		}
	}
	return out
}

func hexOf(k wgtypes.Key) string { return hex.EncodeToString(k[:]) }
