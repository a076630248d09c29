//go:build linux

package e2e

import (
	"os"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// stopWithin bounds the end of an agent generously: it takes less than half a second, and at most about one when the others do
// not answer its good-byes.
const stopWithin = 5 * time.Second

// TestStopIsPrompt stops agents that have somebody to say good-bye to: members, relays, a router that maps a port.
func TestStopIsPrompt(t *testing.T) {
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
	plain := bed.node("plain", bed.Router("plain-home", natlab.EIMAPDF))
	a := bed.node("a", bed.Router("symmetric-a", natlab.Symmetric))
	b := bed.node("b", bed.Router("symmetric-b", natlab.Symmetric))
	strict := bed.node("strict", bed.Router("strict-home", natlab.UDPBlocked))
	bed.must(Found(bed.ctx, "home", founder, mapped, plain, a, b, strict))
	all := []*Node{mapped, founder, plain, strict, a, b}
	bed.byTransport(strict, founder, api.PathDirect, api.TransportTCP)
	bed.connected(a, b, api.PathRelay)
	bed.meshed(all...)
	_, err := mapped.Wait(bed.ctx, "its router maps the port", func(s api.Status) bool { return s.Self.Anchor })
	bed.must(err)
	for _, n := range all {
		bed.promptStop(n)
		bed.must(n.Start(bed.ctx))
	}
	bed.step("with nobody who answers")
	bed.meshed(all...)
	bed.Cut(plain.Host)
	bed.Cut(founder.Host)
	bed.promptStop(plain)
	bed.promptStop(founder)
}

// promptStop stops an agent, which must not take long.
func (b *bed) promptStop(n *Node) {
	b.t.Helper()
	begin := time.Now()
	b.must(n.Stop())
	took := time.Since(begin)
	b.t.Logf("%s stopped in %v", n.Name(), took.Round(time.Millisecond))
	if took > stretch(stopWithin) {
		b.t.Errorf("%s took %v to stop, want less than %v", n.Name(), took, stopWithin)
	}
}
