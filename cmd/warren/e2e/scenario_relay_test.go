//go:build linux

package e2e

import (
	"context"
	"slices"
	"strings"
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

// TestToolsOfWireGuard has wg(8) show, and write as its configuration, an agent with a peer that is relayed and peers that are reached
// directly: the endpoints of these are those of the network, that one has none.
func TestToolsOfWireGuard(t *testing.T) {
	t.Parallel()
	bed, one, _, x, y := relayed(t)
	bed.connected(x, one, api.PathDirect)
	for _, argv := range [][]string{{"wg"}, {"wg", "show", "warren0"}, {"wg", "showconf", "warren0"}, {"wg", "show", "all", "dump"}, {"wg", "show", "warren0", "endpoints"}} {
		out, err := x.Host.Run(bed.ctx, argv...)
		bed.must(err)
		if strings.Contains(out, "100::") || !strings.Contains(out, one.Host.Addr4().String()+":9277") || !strings.Contains(out, bed.status(y).Self.PublicKey) {
			t.Errorf("%v: got\n%s\nwant all peers, and endpoints of the network only", argv, out)
		}
	}
	out, err := x.Host.Run(bed.ctx, "wg", "show", "warren0", "endpoints")
	bed.must(err)
	if want := bed.status(y).Self.PublicKey + "\t(none)"; !strings.Contains(out, want) {
		t.Errorf("got endpoints\n%s\nwant none of the one that is relayed", out)
	}
	// A client that sets something still can.
	_, err = x.Host.Run(bed.ctx, "wg", "set", "warren0", "peer", bed.status(y).Self.PublicKey, "persistent-keepalive", "0")
	bed.must(err)
	bed.step("\n%s", out)
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
	if took := time.Since(begun); took > stretch(10*time.Second) {
		t.Errorf("pings were answered again %s after the relay was killed, want 10 s at most", took)
	}
	bed.step("the other one relays")
	cancel()
	pinging.Wait()
}

// TestRelayIsFull limits the anchors and has one pair flood: another pair on the same relay loses nothing to it, and one of
// the two moves to the other anchor, without a loss either.
func TestRelayIsFull(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	one, two := bed.node("one", nil), bed.node("two", nil)
	hosts := make(map[string]*Node)
	for _, name := range []string{"x", "y", "v", "w"} {
		hosts[name] = bed.node(name, bed.Router("home-"+name, natlab.Symmetric))
	}
	x, y, v, w := hosts["x"], hosts["y"], hosts["v"], hosts["w"]
	limited := func(n *Node) error {
		return n.Start(bed.ctx, "--config", bed.configure(n, "[mesh]\nrelay_limit = \"2 Mbit/s\"\n"))
	}
	bed.must(one.Create(bed.ctx, "home"))
	bed.must(limited(one))
	token, err := one.Invite(bed.ctx)
	bed.must(err)
	bed.must(two.Join(bed.ctx, token))
	bed.must(limited(two))
	for _, n := range []*Node{x, y, v, w} {
		bed.must(Admit(bed.ctx, one, n))
	}
	bed.connected(x, y, api.PathRelay)
	bed.connected(v, w, api.PathRelay)
	bed.standby(x, y, one, two)
	bed.standby(v, w, one, two)
	via := func(n, to *Node) string {
		p, _ := Peer(bed.status(n), to.Name())
		return p.Path.Via
	}
	modest, flood := via(x, y), via(v, w)
	bed.step("x and y are relayed by %s, v and w by %s", modest, flood)

	m := bed.meter(x, y)
	ctx, cancel := context.WithCancel(bed.ctx)
	defer cancel()
	var flooding sync.WaitGroup
	to := bed.status(w).Self.Addresses[0].String()
	flooding.Go(func() { v.Host.Run(ctx, "ping", "-q", "-n", "-i", "0.001", "-s", "1200", to) }) // 10 Mbit/s each way
	begun := time.Now()
	drops := func(of string) (n uint64) {
		for _, anchor := range []*Node{one, two} {
			if r := bed.status(anchor).Relay; r != nil {
				for _, member := range r.Members {
					if member.Name == of {
						n += member.Sent.Dropped
					}
				}
			}
		}
		return n
	}
	bed.eventually("the flood is held to the limit", func() bool { return drops("v") > 300 })
	bed.step("%d packets of v dropped", drops("v"))
	bed.eventually("a pair has moved to the other relay", func() bool { return via(x, y) != modest || via(v, w) != flood })
	bed.step("x and y are relayed by %s, v and w by %s", via(x, y), via(v, w))
	bed.eventually("a while has passed", func() bool { return time.Since(begun) > 20*time.Second })
	longest, sum := m.silences(begun, time.Now())
	bed.step("longest silence between x and y: %s, %s in all", longest, sum)
	if longest > 2*time.Second {
		t.Errorf("got %s of silence between x and y beside the flood, want next to none", longest)
	}
	if lost := drops("x") + drops("y"); lost > 20 {
		t.Errorf("got %d packets of x and y dropped by the relays, want next to none", lost)
	}
	cancel()
	flooding.Wait()
}

// TestRevokedIsNotRelayed asserts that a relay forwards nothing more for a member from the moment in which it is revoked.
func TestRevokedIsNotRelayed(t *testing.T) {
	t.Parallel()
	bed, one, two, x, y := relayed(t)
	used, _ := bed.standby(x, y, one, two)
	others := func(s api.Status) (n int) {
		if s.Relay != nil {
			for _, p := range s.Relay.Pairs {
				if p.A == y.Name() || p.B == y.Name() {
					n++
				}
			}
		}
		return n
	}
	carried := func(p api.RelayPair) bool { return p.FromA.Bytes > 0 } // a pair for which it only stands by has none
	if s := bed.status(used); others(s) == 0 || !slices.ContainsFunc(s.Relay.Pairs, carried) {
		t.Errorf("got %+v, want a relayed pair and its bytes", s.Relay)
	}
	_, err := one.Warren(bed.ctx, "", "revoke", y.Name())
	bed.must(err)
	if n := others(bed.status(one)); n > 0 {
		t.Errorf("%s relays %d pairs of the one that it has just revoked", one.Name(), n)
	}
	_, err = two.Wait(bed.ctx, "it relays nothing for the one that is revoked", func(s api.Status) bool { return others(s) == 0 })
	bed.must(err)
	bed.endsWith(y, 2, "revoked")
}
