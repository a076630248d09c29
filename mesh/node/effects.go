package node

import (
	"fmt"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

/* When a change of a setting takes effect
 *
 * There is one list of all settings, by their keys in the config file. What takes effect at a reload is read out of Settings by plan; what
 * the interface and its device are made of is not, and a reload that finds it changed says so: the key, what the file says, and what runs.
 */

// Effect says when a change of a setting takes effect.
type Effect uint8

// The effects.
const (
	AtReload Effect = iota + 1 // warren up, SIGHUP
	AtStart                    // when the agent starts again
)

// Effects is the list, by the keys of the config file: those of its tables [interface], [mesh] and [[peer]].
var Effects = map[string]Effect{
	"interface.name":             AtStart,
	"interface.port":             AtStart,
	"interface.private_key_file": AtStart,
	"interface.mtu":              AtReload,
	"interface.addresses":        AtReload,
	"mesh.anchor":                AtReload,
	"mesh.endpoint":              AtReload,
	"mesh.incoming":              AtReload,
	"mesh.ipv4":                  AtReload,
	"mesh.lan":                   AtReload,
	"mesh.stream_ports":          AtReload,
	"mesh.relay_limit":           AtReload,
	"mesh.names":                 AtReload,
	"peer.name":                  AtReload,
	"peer.public_key":            AtReload,
	"peer.allowed_ips":           AtReload,
	"peer.endpoint":              AtReload,
	"peer.preshared_key_file":    AtReload,
	"peer.persistent_keepalive":  AtReload,
	"peer.share":                 AtReload,
}

// running is what the agent runs with of the settings that take effect at the start.
type running struct {
	began Interface // what the settings said then
	name  string    // of the interface
	port  uint16    // 0: not open
	key   wgtypes.Key
}

// pending says what of the settings waits for the next start, a line for each, by comparing with what runs.
func (r running) pending(now Interface) (out []string) {
	say := func(key, file, runs string) {
		if file == "" {
			out = append(out, fmt.Sprintf("%s is not in the config file any more; the agent runs with %s until it starts again", key, runs))
			return
		}
		out = append(out, fmt.Sprintf("%s %s takes effect when the agent starts again; it runs with %s", key, file, runs))
	}
	switch {
	case now.Name == r.name || now.Name == "" && r.began.Name == "":
	default:
		say("interface.name", now.Name, r.name)
	}
	switch {
	case r.port == 0 || now.Port == r.port:
	case now.Port != 0:
		say("interface.port", fmt.Sprint(now.Port), fmt.Sprint(r.port))
	case r.began.Port != 0:
		say("interface.port", "", fmt.Sprint(r.port))
	}
	switch {
	case now.PrivateKey == wgtypes.Key{} && r.began.PrivateKey != wgtypes.Key{}:
		say("interface.private_key_file", "", "the key of "+r.key.String())
	case now.PrivateKey != wgtypes.Key{} && now.PrivateKey.PublicKey() != r.key:
		say("interface.private_key_file", "with the key of "+now.PrivateKey.PublicKey().String(), "that of "+r.key.String())
	}
	return out
}

// runningOf is what an agent with these options runs with.
func runningOf(o Options) running {
	name, port := o.Tunnel.Running()
	return running{began: o.Settings.Interface, name: name, port: port, key: o.Key}
}

// inOne puts the lines into one warning; "" for none.
func inOne(pending []string) string { return strings.Join(pending, "; ") }
