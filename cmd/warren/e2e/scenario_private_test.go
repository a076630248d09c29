//go:build linux

package e2e

import (
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestFounderBehindNAT asserts that a founder whom nobody reaches from outside is told so when it makes an invite, and whoever joins with
// that is told why nobody answers; with an endpoint configured neither is said.
func TestFounderBehindNAT(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	founder := bed.node("founder", bed.Router("home", natlab.EIMAPDF))
	stranger := bed.node("stranger", bed.Router("elsewhere", natlab.EIMAPDF))
	bed.must(founder.Create(bed.ctx, "home"))
	bed.must(founder.Start(bed.ctx))

	invite, err := founder.NewInvite(bed.ctx)
	bed.must(err)
	if invite.Reach != api.ReachLocal {
		t.Errorf("got a token that is reached %s with %v, want local", invite.Reach, invite.Anchors)
	}
	said, err := founder.Host.Command(bed.ctx, founder.argv([]string{"invite"})...).CombinedOutput()
	bed.must(err)
	for _, want := range []string{"warning: the token holds only addresses of private networks (" + founder.Host.Addr4().String(), "forward UDP port", "endpoint = "} {
		if !strings.Contains(string(said), want) {
			t.Errorf("warren invite: got\n%s\nwant %q", said, want)
		}
	}
	begin := time.Now()
	err = stranger.Join(bed.ctx, invite.Token)
	bed.step("the join took %v", time.Since(begin))
	if err == nil || !strings.Contains(err.Error(), "the token holds only addresses of private networks") {
		t.Errorf("join from elsewhere: got %v, want that the token holds private addresses only", err)
	}

	bed.must(founder.Stop())
	bed.must(founder.Start(bed.ctx, "--config", bed.configure(founder, "[mesh]\nendpoint = \"203.0.113.77:9277\"\n")))
	_, err = founder.Wait(bed.ctx, "it announces its endpoint", func(s api.Status) bool { return s.Self.Anchor })
	bed.must(err)
	if invite, err = founder.NewInvite(bed.ctx); err != nil || invite.Reach != api.ReachAnywhere {
		t.Errorf("with an endpoint: got %s with %v, %v, want anywhere", invite.Reach, invite.Anchors, err)
	}
}
