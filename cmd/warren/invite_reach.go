package main

import (
	"errors"
	"fmt"
	"strings"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/join"
	"warren/nat/ranges"
)

// tokenReach warns of a token that is not of use everywhere, and says what to do; "" where nothing is known against it.
func tokenReach(invite api.Invite, port uint16) (warning, hint string) {
	addrs := strings.Join(invite.Anchors, ", ")
	switch invite.Reach {
	case api.ReachNone:
		warning = "no member is known to be reachable, so the token holds no address and is good on the local network of a member only"
	case api.ReachLocal:
		warning = fmt.Sprintf("the token holds only addresses of private networks (%s): it is good for machines on the same network, and for no others", addrs)
	case api.ReachUnproven:
		warning = fmt.Sprintf("no member has reached this node from outside, so the token (%s) may be of use on the same network only", addrs)
	default:
		return "", ""
	}
	return warning, fmt.Sprintf("to let machines in from elsewhere: %s; then make a new token. Or make the token on a member that is reachable: warren netcheck there says so", openIt(port))
}

// openIt is how a node becomes reachable.
func openIt(port uint16) string {
	return fmt.Sprintf("forward UDP port %d of the router to this machine, or turn UPnP on there, or let the port in at the firewall; "+
		"if others reach it under a name or address that it cannot see, set endpoint = \"HOST:%d\" in the config file", port, port)
}

// joinHint says what may be wrong where nobody has answered and the token leads to private networks only; "" for nothing.
func joinHint(err error, token string) string {
	if said := (*join.Refusal)(nil); errors.As(err, &said) {
		return "" // somebody has answered
	}
	parsed, wrong := identity.ParseToken(token)
	if wrong != nil || len(parsed.Anchors) == 0 {
		return ""
	}
	var addrs []string
	for _, a := range parsed.Anchors {
		if ranges.IsPublic(a.Addr.Addr()) {
			return ""
		}
		addrs = append(addrs, a.Addr.String())
	}
	return fmt.Sprintf("the token holds only addresses of private networks (%s): join from the network where it was made, or have the machine that made it reached from outside "+
		"(forward its UDP port, or set endpoint = \"HOST:PORT\" there) and make a new token, or use one of another member", strings.Join(addrs, ", "))
}
