package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/join"
)

// TestTokenReach holds what is said of a token that is not of use everywhere: at both ends, and what to do.
func TestTokenReach(t *testing.T) {
	for reach, want := range map[string]string{
		api.ReachAnywhere: "", "": "", api.ReachNone: "holds no address", api.ReachLocal: "only addresses of private networks (192.168.1.7:9300)", api.ReachUnproven: "no member has reached this node from outside",
	} {
		warning, hint := tokenReach(api.Invite{Reach: reach, Anchors: []string{"192.168.1.7:9300"}}, 9300)
		if (warning == "") != (want == "") || !strings.Contains(warning, want) || (hint == "") != (want == "") {
			t.Errorf("%q: got %q and %q, want %q", reach, warning, hint, want)
		}
		for _, part := range []string{"forward UDP port 9300", `endpoint = "HOST:9300"`, "on a member that is reachable"} {
			if want != "" && !strings.Contains(hint, part) {
				t.Errorf("%q: got the hint %q, want %q in it", reach, hint, part)
			}
		}
	}
}

func TestJoinHint(t *testing.T) {
	token := func(addrs ...string) string {
		out := identity.Token{Mesh: identity.MeshID{1}, Seed: [32]byte{2}}
		for _, a := range addrs {
			out.Anchors = append(out.Anchors, identity.TokenAnchor{Addr: netip.MustParseAddrPort(a)})
		}
		return out.Encode()
	}
	late := fmt.Errorf("join: %w", context.DeadlineExceeded)
	for _, tt := range []struct {
		name, token string
		err         error
		want        string
	}{
		{"a private address", token("192.168.1.7:9277"), late, "private networks (192.168.1.7:9277): join from the network where it was made"},
		{"a private and a carrier's", token("192.168.1.7:9277", "100.64.0.9:9277"), late, "100.64.0.9:9277"},
		{"a local IPv6", token("[fd00::7]:9277"), late, "[fd00::7]:9277"},
		{"a public one too", token("192.168.1.7:9277", "198.51.100.7:9277"), late, ""},
		{"no address", token(), late, ""},
		{"no token", "warren1xyz", late, ""},
		{"a member has said no", token("192.168.1.7:9277"), fmt.Errorf("join: %w", join.Refuse(join.CodeExpired, "expired")), ""},
	} {
		if got := joinHint(tt.err, tt.token); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
