//go:build linux

package e2e

import (
	"sync"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestTightPath has machines join behind lines of 1,000 bytes whose routers tell nobody that a packet was too large. QUIC's first packet
// has 1,200 bytes at least: where it may be cut up it is, and where it may not, over IPv6 or in a tunnel on the way, TCP is used with
// small segments.
func TestTightPath(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	founder := bed.node("founder", nil)
	bed.must(Found(bed.ctx, "home", founder))
	joined := make(map[string]chan error)
	nodes := make(map[string]*Node)
	for _, test := range []struct {
		name    string
		kind    natlab.Kind
		mtu     int // of the line
		out, in int // swallowed above this
	}{
		{"cut", natlab.EIMAPDF, 1000, 9000, 9000},
		{"df", natlab.EIMAPDF, 1500, 1000, 1000},
		{"out", natlab.EIMAPDF, 1500, 800, 9000},
		{"six-in", natlab.IPv6Only, 1500, 9000, 1000},
	} {
		behind := bed.Router("home-"+test.name, test.kind)
		n := bed.node(test.name, behind)
		bed.Swallow(behind, test.out, test.in, n.Host)
		if test.mtu != 1500 {
			bed.MTU(behind, test.mtu)
			bed.Silence(behind)
		}
		token, err := founder.Invite(bed.ctx)
		bed.must(err)
		nodes[test.name], joined[test.name] = n, make(chan error, 1)
		done := joined[test.name]
		go func() { done <- n.Join(bed.ctx, token) }()
	}
	for name, done := range joined {
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
		bed.step("%s has joined", name)
	}
	// Their agents have sessions in seconds as well, by UDP where packets may be cut up, else through a stream.
	began := time.Now()
	var agents sync.WaitGroup
	for name, n := range nodes {
		agents.Go(func() {
			if err := n.Start(bed.ctx); err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			s, err := n.Wait(bed.ctx, "the founder answers", func(s api.Status) bool {
				p, ok := Peer(s, founder.Name())
				return ok && p.Connected() && n.Ping(bed.ctx, p.Addresses[0], time.Second) == nil
			})
			took := time.Since(began)
			if err != nil || took > stretch(30*time.Second) {
				t.Errorf("%s: connected after %v: %v", name, took, err)
				return
			}
			p, _ := Peer(s, founder.Name())
			bed.step("%s is connected after %.1f s: %s", name, took.Seconds(), p.Path.Kind)
		})
	}
	agents.Wait()
	bed.connected(nodes["cut"], founder, api.PathDirect)
}
