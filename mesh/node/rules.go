package node

import (
	"warren/mesh"
	"warren/tunnel"
)

// Filter lets packets in and out of the tunnel by rules; package tunnel/filter.
type Filter interface {
	SetRules(tunnel.Rules)
}

// planRules says who may begin flows with whom, as far as this machine has a say.
func planRules(self mesh.Member, f facts) tunnel.Rules {
	out := tunnel.Rules{Open: true, Incoming: !f.settings.NoIncoming}
	for _, prefix := range ownPrefixes(self) {
		out.Own = append(out.Own, prefix.Addr())
	}
	for _, s := range f.settings.Static {
		if s.Share || s.Device {
			out.Through = append(out.Through, s.AllowedIPs...)
		}
	}
	return out
}
