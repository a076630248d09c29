//go:build linux

package e2e

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/nat/natlab"
)

// TestNAT64 has machines without IPv4, behind a NAT64, join a mesh whose founder has nothing but IPv4: one by an IPv4 address in its
// token, one by a name. Both reach it directly, and a member behind a home router too.
func TestNAT64(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	prefix := netip.MustParsePrefix("64:ff9b::/96")
	mobile, home := bed.Router("mobile", natlab.DualStack), bed.Router("home", natlab.EIMAPDF)
	bed.NAT64(mobile, prefix)
	founder := bed.nodeOnly("founder", nil, natlab.Only4)
	four := bed.node("four", home)
	six := bed.nodeOnly("six", mobile, natlab.Only6)
	six.Host.Resolver(prefix)
	named := bed.nodeOnly("named", mobile, natlab.Only6)
	const name = "vpn.example.org"
	founder.Host.Resolver(netip.Prefix{}).Set(name, founder.Host.Addr4())
	named.Host.Resolver(prefix).Set(name, founder.Host.Addr4())

	bed.must(founder.Create(bed.ctx, "home", "--endpoint", name+":9277"))
	bed.must(founder.Start(bed.ctx))
	bed.must(Admit(bed.ctx, founder, four))
	bed.step("join by an IPv4 address")
	token, err := founder.Invite(bed.ctx)
	bed.must(err)
	bed.must(six.Join(bed.ctx, token))
	bed.must(six.Start(bed.ctx))
	bed.step("joined")
	bed.connected(six, founder, api.PathDirect)
	bed.step("direct to the founder")
	bed.connected(six, four, api.PathDirect)
	bed.step("direct to the one at home")
	bed.step("join by a name")
	invite, err := founder.NewInvite(bed.ctx)
	bed.must(err)
	if !slices.Contains(invite.Anchors, name+":9277") {
		t.Errorf("got a token for %v, want the name in it", invite.Anchors)
	}
	// What the name led to is in it too; a joiner may come when that is no use any more.
	parsed, err := identity.ParseToken(invite.Token)
	bed.must(err)
	parsed.Anchors = slices.DeleteFunc(parsed.Anchors, func(a identity.TokenAnchor) bool { return a.Name == "" })
	bed.must(named.Join(bed.ctx, parsed.Encode()))
	bed.must(named.Start(bed.ctx))
	bed.step("joined")
	bed.connected(named, founder, api.PathDirect)
	bed.step("direct")
	if log := six.Agent().Output(); !strings.Contains(log, "IPv4 by NAT64") {
		t.Errorf("got no word of the NAT64 in the log")
	}
}
