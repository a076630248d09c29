//go:build linux

package e2e

import (
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestUDPBlocked asserts that a host whose network drops UDP joins over TCP, reaches the public founder by a stream and
// a home relayed by it, and that everything goes by UDP by itself when the network lets it pass, and back again.
func TestUDPBlocked(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 3*time.Minute)
	network := bed.Router("strict", natlab.UDPBlocked)
	founder := bed.node("founder", nil)
	home := bed.node("home", bed.Router("home-router", natlab.EIMAPDF))
	strict := bed.node("strict-host", network)
	bed.must(Found(bed.ctx, "mesh", founder, home))
	bed.connected(founder, home, api.PathDirect)

	blocked := func() {
		t.Helper()
		bed.step("by a stream")
		bed.byTransport(strict, founder, api.PathDirect, api.TransportTCP)
		bed.byTransport(founder, strict, api.PathDirect, api.TransportTCP)
		bed.byTransport(strict, home, api.PathRelay, api.TransportTCP)
		bed.byTransport(home, strict, api.PathRelay, "")
		bed.meshed(founder, home, strict)
		if warnings := strings.Join(bed.status(strict).Warnings, "\n"); !strings.Contains(warnings, "UDP") {
			t.Errorf("got warnings %q, want one about UDP", warnings)
		}
		bed.step("all reached")
	}
	open := func() {
		t.Helper()
		bed.step("by UDP")
		bed.byTransport(strict, founder, api.PathDirect, "")
		bed.byTransport(founder, strict, api.PathDirect, "")
		bed.byTransport(strict, home, api.PathDirect, "")
		bed.byTransport(home, strict, api.PathDirect, "")
		bed.meshed(founder, home, strict)
		_, err := strict.Wait(bed.ctx, "nothing is said of UDP", func(s api.Status) bool {
			return !strings.Contains(strings.Join(s.Warnings, "\n"), "UDP")
		})
		bed.must(err)
		bed.step("all reached")
	}

	bed.step("a host joins whose network drops UDP")
	bed.must(Admit(bed.ctx, founder, strict))
	blocked()
	bed.step("UDP works again")
	network.Rule(natlab.EIMAPDF)
	open()
	bed.step("UDP is dropped")
	network.Rule(natlab.UDPBlocked)
	bed.must(strict.WaitPing(bed.ctx, home))
	blocked()
	bed.step("the agent of the founder starts anew")
	bed.must(founder.Stop())
	bed.must(founder.Start(bed.ctx))
	blocked()
}

// TestRevokedWithoutUDP asserts that a member that was thrown out while it was away hears so by TCP, and ends.
func TestRevokedWithoutUDP(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	founder, thief := bed.node("founder", nil), bed.node("thief", bed.Router("strict", natlab.UDPBlocked))
	bed.must(Found(bed.ctx, "home", founder, thief))
	bed.byTransport(thief, founder, api.PathDirect, api.TransportTCP)
	bed.must(thief.Stop())
	_, err := founder.Warren(bed.ctx, "", "revoke", "thief", "--reason", "stolen")
	bed.must(err)
	bed.must(thief.Launch())
	bed.endsWith(thief, 2, "revoked", "founder", "stolen")
}

// TestPrivateMeshWithoutUDP asserts that members of a mesh in which nobody has a public address use TCP as well, where a
// firewall between the networks of a company drops UDP.
func TestPrivateMeshWithoutUDP(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	campus := bed.Router("campus", natlab.EIMAPDF)
	branch := bed.AddRouter(natlab.RouterOptions{Name: "branch", Kind: natlab.UDPBlocked, Behind: campus})
	founder, desk, guest := bed.node("founder", campus), bed.node("desk", campus), bed.node("guest", branch)
	bed.must(founder.Create(bed.ctx, "firm"))
	bed.must(founder.Start(bed.ctx, "--config", bed.configure(founder, "mesh.anchor = \"always\"\n")))
	bed.must(Admit(bed.ctx, founder, desk))
	bed.must(Admit(bed.ctx, founder, guest))
	bed.byTransport(guest, founder, api.PathDirect, api.TransportTCP)
	bed.byTransport(guest, desk, api.PathRelay, api.TransportTCP)
	bed.meshed(founder, desk, guest)
	bed.step("the firewall lets UDP pass")
	branch.Rule(natlab.EIMAPDF)
	bed.byTransport(guest, founder, api.PathDirect, "")
	bed.byTransport(guest, desk, api.PathDirect, "")
	bed.meshed(founder, desk, guest)
	bed.step("and drops it again")
	branch.Rule(natlab.UDPBlocked)
	bed.must(guest.WaitPing(bed.ctx, desk))
	bed.byTransport(guest, founder, api.PathDirect, api.TransportTCP)
	bed.byTransport(guest, desk, api.PathRelay, api.TransportTCP)
	bed.meshed(founder, desk, guest)
}

// byTransport asserts the kind of a path and what carries it.
func (b *bed) byTransport(x, y *Node, kind, transport string) {
	b.t.Helper()
	_, err := x.Wait(b.ctx, y.Name()+" is up, "+kind+" "+transport, func(s api.Status) bool {
		p, ok := Peer(s, y.Name())
		return ok && p.Connected() && p.Path.Kind == kind && p.Path.Transport == transport
	})
	b.must(err)
}
