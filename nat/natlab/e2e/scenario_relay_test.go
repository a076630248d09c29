//go:build linux

package e2e

import (
	"context"
	"sync"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// relayed makes two hosts behind symmetric NATs, which reach each other only through one of two public anchors.
func relayed(t *testing.T) (b *bed, one, two, x, y *Node) {
	t.Helper()
	b = newBed(t, 2*time.Minute)
	one, two = b.node("one", nil), b.node("two", nil)
	x = b.node("x", b.Router("home-x", natlab.Symmetric))
	y = b.node("y", b.Router("home-y", natlab.Symmetric))
	b.must(Found(b.ctx, "home", one, two, x, y))
	b.connected(x, y, api.PathRelay)
	return b, one, two, x, y
}

// standby waits until both hosts use one relay and hold another ready, and returns them in this order.
func (b *bed) standby(x, y *Node, anchors ...*Node) (used, ready *Node) {
	b.t.Helper()
	byName := make(map[string]*Node)
	for _, n := range anchors {
		byName[n.Name()] = n
	}
	ways := func(n, to *Node) (string, string) {
		p, _ := Peer(b.status(n), to.Name())
		return p.Path.Via, p.Path.Standby
	}
	b.eventually("both ends use one relay and hold another ready", func() bool {
		via, spare := ways(x, y)
		via2, spare2 := ways(y, x)
		used, ready = byName[via], byName[spare]
		return used != nil && ready != nil && via == via2 && spare == spare2
	})
	return used, ready
}

// TestRelayKilled kills the relay in use as a power cut would: the one held ready takes over.
func TestRelayKilled(t *testing.T) {
	t.Parallel()
	bed, one, two, x, y := relayed(t)
	bed.step("relayed")
	used, ready := bed.standby(x, y, one, two)
	bed.step("%s relays, %s is ready", used.Name(), ready.Name())

	to := bed.status(y).Self.Addresses[0]
	ctx, cancel := context.WithCancel(bed.ctx)
	defer cancel()
	var pinging sync.WaitGroup
	pinging.Go(func() {
		for ctx.Err() == nil {
			_ = x.Ping(ctx, to, time.Second) // traffic: without it nobody would miss the relay for a while
		}
	})
	begun := time.Now()
	bed.kill(used)
	_, err := x.Wait(bed.ctx, "the other relay is used", func(s api.Status) bool {
		p, _ := Peer(s, y.Name())
		return p.Path.Kind == api.PathRelay && p.Path.Via == ready.Name()
	})
	bed.must(err)
	bed.must(x.WaitPing(bed.ctx, y))
	bed.must(y.WaitPing(bed.ctx, x))
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("pings were answered again %s after the relay was killed, want 10 s at most", took)
	}
	bed.step("the other one relays")
	cancel()
	pinging.Wait()
}
