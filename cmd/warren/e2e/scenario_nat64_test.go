//go:build linux

package e2e

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
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

	bed.must(Found(bed.ctx, "home", founder, four))
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
	if log := six.Agent().Output(); !strings.Contains(log, "IPv4 by NAT64") {
		t.Errorf("got no word of the NAT64 in the log")
	}
}
