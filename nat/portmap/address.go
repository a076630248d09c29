package portmap

import (
	"net/netip"

	"warren/nat/ranges"
)

// remark says in words what an external address means that is not public.
func remark(a netip.Addr) string {
	switch ranges.Of(a) {
	case ranges.Private:
		return "the router's own address, " + a.String() + ", is private: it is behind another NAT (double NAT), whose port would have to be forwarded too"
	case ranges.Shared:
		return "the router's own address, " + a.String() + ", is shared: the provider translates addresses itself (carrier-grade NAT), and nobody outside can reach a port of it"
	case ranges.Useless:
		return "the router names " + a.String() + " as its own address, which nobody can send to"
	}
	return ""
}
