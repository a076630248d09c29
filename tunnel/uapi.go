package tunnel

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// setDevice tells a device what there is to be. A peer that it has not is made before its settings are: of one that IpcSetOperation makes
// itself, it writes a field that everybody reads under a lock without taking that lock (handlePostConfig), while others may have the peer already.
func setDevice(dev *device.Device, c wgtypes.Config) error {
	if said := uapi(c); said != "" {
		if err := dev.IpcSet(said); err != nil {
			return err
		}
	}
	for _, p := range c.Peers {
		key := device.NoisePublicKey(p.PublicKey)
		switch {
		case p.Remove:
			dev.RemovePeer(key)
			continue
		case p.UpdateOnly:
		case dev.LookupPeer(key) == nil:
			if _, err := dev.NewPeer(key); err != nil {
				return fmt.Errorf("peer %v: %w", p.PublicKey, err)
			}
		}
		if err := dev.IpcSet(uapiPeer(p)); err != nil {
			return fmt.Errorf("peer %v: %w", p.PublicKey, err)
		}
	}
	return nil
}

// uapi writes the settings of the device itself in the words of WireGuard's configuration protocol, as a client of the control socket would.
func uapi(c wgtypes.Config) string {
	var said words
	if c.PrivateKey != nil {
		said.add("private_key", hexOf(*c.PrivateKey))
	}
	if c.ListenPort != nil {
		said.add("listen_port", *c.ListenPort)
	}
	return said.String()
}

// uapiPeer writes those of a peer that stays. The order counts: what is said of a peer follows its key, and update_only stands before what would
// make the peer.
func uapiPeer(p wgtypes.PeerConfig) string {
	var said words
	said.add("public_key", hexOf(p.PublicKey))
	if p.UpdateOnly {
		said.add("update_only", true)
	}
	if p.PresharedKey != nil {
		said.add("preshared_key", hexOf(*p.PresharedKey))
	}
	if p.Endpoint != nil {
		said.add("endpoint", p.Endpoint)
	}
	if p.PersistentKeepaliveInterval != nil {
		said.add("persistent_keepalive_interval", int(p.PersistentKeepaliveInterval.Seconds()))
	}
	if p.ReplaceAllowedIPs {
		said.add("replace_allowed_ips", true)
	}
	for _, prefix := range p.AllowedIPs {
		said.add("allowed_ip", prefix.String())
	}
	return said.String()
}

// words are lines of the configuration protocol.
type words struct{ strings.Builder }

func (w *words) add(key string, value any) { fmt.Fprintf(w, "%s=%v\n", key, value) }

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
