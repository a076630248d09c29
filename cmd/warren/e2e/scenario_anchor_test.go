//go:build linux

package e2e

import (
	"os"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestAnchorsByThemselves asserts who becomes an anchor without any setting: the public host, and the home whose router
// maps ports on request; not the one whose public IPv6 address a firewall closes, although it looks the same from inside.
func TestAnchorsByThemselves(t *testing.T) {
	t.Parallel()
	if err := natlab.CheckMapping(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	bed := newBed(t, 2*time.Minute)
	mapping := bed.Router("mapping", natlab.EIMAPDF)
	mapping.OfferMapping(natlab.MappingProtocols{UPnP: true, PCP: true})
	founder := bed.node("founder", nil)
	mapped := bed.node("mapped", mapping)
	closed := bed.node("closed", bed.Router("closed-home", natlab.DualStack))
	symmetric := bed.node("symmetric", bed.Router("symmetric-home", natlab.Symmetric))
	strict := bed.node("strict", bed.Router("strict-home", natlab.UDPBlocked))
	bed.must(Found(bed.ctx, "home", founder, mapped, closed, symmetric, strict))

	anchor := func(n *Node, want bool) {
		t.Helper()
		_, err := n.Wait(bed.ctx, "it knows whether it is an anchor", func(s api.Status) bool { return s.Self.Anchor == want })
		bed.must(err)
	}
	anchor(founder, true)
	anchor(mapped, true)
	anchor(closed, false)
	anchor(symmetric, false)
	bed.step("the mapped home is reached by a symmetric one")
	bed.connected(symmetric, mapped, api.PathDirect)

	bed.step("and by one without UDP, at the TCP port that its router maps too")
	bed.byTransport(strict, mapped, api.PathDirect, api.TransportTCP)
	bed.must(strict.WaitPing(bed.ctx, mapped))

	bed.step("the mapped home admits and introduces while the founder is away")
	token, err := founder.Invite(bed.ctx)
	bed.must(err)
	bed.must(founder.Stop())
	bed.Cut(founder.Host)
	late := bed.node("late", bed.Router("late-home", natlab.EIMAPDF))
	bed.must(late.Join(bed.ctx, token))
	bed.must(late.Start(bed.ctx))
	bed.connected(late, closed, api.PathDirect)
	bed.step("and carries what the one without UDP sends")
	bed.meshed(mapped, symmetric, strict, late)
}
