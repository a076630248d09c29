//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// network is one kind of network of the grid.
type network struct {
	name string
	kind natlab.Kind
}

// networks are the seven kinds whose pairs make the grid.
func networks() []network {
	return []network{
		{"public", natlab.Public},
		{"eim-eif", natlab.EIMEIF},
		{"eim-apdf", natlab.EIMAPDF},
		{"double", natlab.DoubleNAT},
		{"sym", natlab.Symmetric},
		{"double-sym", natlab.SymmetricCarrier},
		{"udp-blocked", natlab.UDPBlocked},
	}
}

// pair is one of the 28 pairs of the grid, and the route that its packets take with a public founder as anchor.
type pair struct {
	x, y network
	want string
}

func (p pair) String() string { return p.x.name + "-" + p.y.name }

// grid returns all pairs, of a kind with itself included.
func grid() []pair {
	var all []pair
	for i, x := range networks() {
		for _, y := range networks()[i:] {
			all = append(all, pair{x, y, routeBetween(x.kind, y.kind)})
		}
	}
	return all
}

// routeBetween is the best route between hosts of two networks of these kinds.
//
// A NAT that maps by destination is punched only where the other side lets strangers in. Nothing gets through a network
// that drops UDP, but a stream does: to a public node by itself, to others through the anchor.
func routeBetween(x, y natlab.Kind) string {
	hard := func(k natlab.Kind) bool { return k == natlab.Symmetric || k == natlab.SymmetricCarrier }
	open := func(k natlab.Kind) bool { return k == natlab.Public || k == natlab.EIMEIF }
	switch {
	case x == natlab.UDPBlocked || y == natlab.UDPBlocked:
		return routeStream
	case hard(x) && !open(y), hard(y) && !open(x):
		return routeRelay
	}
	return routeDirect
}

// pairRoute is the route of a pair as both ends tell it: a stream when one of them says so, else what both say; "" when
// they differ or are not up.
func pairRoute(atX, atY api.Status, x, y *Node) string {
	there, back := route(atX, y), route(atY, x)
	switch {
	case there == "" || back == "":
		return ""
	case there == routeStream || back == routeStream:
		return routeStream
	case there != back:
		return ""
	}
	return there
}

// TestGrid has two nodes of each kind of network in one mesh with a public founder, and asserts for each pair of kinds
// the route between one of either, and pings both ways.
// WARREN_GRID_LINE has all homes but the founder's far away, as 200ms or 50ms,5%.
func TestGrid(t *testing.T) {
	t.Parallel()
	far := given(t, "WARREN_GRID_LINE")
	pairs := grid()
	routes := make(map[string]int)
	for _, p := range pairs {
		routes[p.want]++
	}
	if len(pairs) != 28 || routes[routeDirect] != 14 || routes[routeRelay] != 7 || routes[routeStream] != 7 {
		t.Fatalf("got %d pairs, %v, want 28: 14 direct, 7 by relay, 7 by stream", len(pairs), routes)
	}
	// Fifteen agents with the race detector would have this machine busy for minutes, and other tests look for races.
	bed := bedWith(t, buildPlain, 3*time.Minute)
	founder := bed.node("founder", nil)
	bed.must(founder.Create(bed.ctx, "home"))
	bed.must(founder.Start(bed.ctx))
	first, second := make(map[string]*Node), make(map[string]*Node)
	for _, k := range networks() {
		for suffix, side := range map[string]map[string]*Node{"1": first, "2": second} {
			home := bed.Router("r-"+k.name+suffix, k.kind)
			bed.apart(far, home)
			side[k.name] = bed.node(k.name+suffix, home)
		}
	}
	for _, n := range bed.nodes[1:] {
		token, err := founder.Invite(bed.ctx)
		bed.must(err)
		bed.must(n.Join(bed.ctx, token))
	}
	bed.step("all are members")
	for _, n := range bed.nodes[1:] {
		bed.must(n.Launch())
	}
	for _, n := range bed.nodes[1:] {
		_, err := n.Wait(bed.ctx, "the agent is ready", func(s api.Status) bool { return s.State == api.StateReady })
		bed.must(err)
	}
	bed.step("all agents run")
	look := func() (wrong []string) {
		statuses := make(map[*Node]api.Status)
		for _, n := range bed.nodes {
			statuses[n] = bed.status(n)
		}
		for _, p := range pairs {
			x, y := first[p.x.name], second[p.y.name]
			if got := pairRoute(statuses[x], statuses[y], x, y); got != p.want {
				wrong = append(wrong, fmt.Sprintf("%s: got %q, want %q", p, got, p.want))
			}
		}
		return wrong
	}
	var pings sync.WaitGroup
	for _, k := range networks() {
		pings.Go(func() { bed.pingPairs(pairs, k, first, second) })
	}
	pings.Wait()
	bed.step("all have answered")
	for wrong := look(); len(wrong) > 0; wrong = look() {
		select {
		case <-bed.ctx.Done():
			t.Fatalf("routes:\n%s", strings.Join(wrong, "\n"))
		case <-time.After(200 * time.Millisecond):
		}
	}
	bed.step("all routes are there")
	var judges sync.WaitGroup
	for _, k := range networks() {
		judges.Go(func() {
			for _, p := range pairs {
				if p.x == k {
					bed.judge(first[p.x.name], second[p.y.name], told(p.x.kind, p.y.kind))
					bed.judge(second[p.y.name], first[p.x.name], told(p.y.kind, p.x.kind))
				}
			}
		})
	}
	judges.Wait()
	bed.step("status and why have told the truth of all")
}

// pingPairs pings both ways in all pairs that begin with the kind.
func (b *bed) pingPairs(pairs []pair, k network, first, second map[string]*Node) {
	for _, p := range pairs {
		if p.x != k {
			continue
		}
		x, y := first[p.x.name], second[p.y.name]
		for _, way := range [][2]*Node{{x, y}, {y, x}} {
			if err := way[0].WaitPing(b.ctx, way[1]); err != nil {
				b.t.Errorf("%s: %v", p, err)
			}
		}
	}
}

// TestOtherPairs connects homes that are not in the grid: other families of addresses, and a filter that asks for the
// address alone.
func TestOtherPairs(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	founder := bed.node("founder", nil)
	six1, six2 := bed.node("six1", bed.Router("r-six1", natlab.IPv6Only)), bed.node("six2", bed.Router("r-six2", natlab.IPv6Only))
	dual := bed.node("dual", bed.Router("r-dual", natlab.DualStack))
	four := bed.node("four", bed.Router("r-four", natlab.EIMAPDF))
	sym := bed.node("sym", bed.Router("r-sym", natlab.Symmetric))
	restricted := bed.node("restricted", bed.Router("r-restricted", natlab.EIMADF))
	bed.must(Found(bed.ctx, "home", founder, six1, six2, dual, four, sym, restricted))
	bed.connected(six1, six2, routeDirect)
	bed.connected(six1, dual, routeDirect)
	bed.connected(dual, four, routeDirect)
	bed.connected(founder, six1, routeDirect)
	bed.connected(sym, restricted, routeDirect)
	bed.connected(six1, four, routeRelay) // no family in common
}

// TestTwoOfOneHome has two hosts behind one router that keeps ports where they are free, as most do: each reaches a host of
// another home directly. With one port for both, the second would get another mapping for each destination that the first
// has spoken to.
func TestTwoOfOneHome(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	home := bed.Router("home", natlab.EIMAPDF)
	founder, far := bed.node("founder", nil), bed.node("far", bed.Router("far-home", natlab.EIMAPDF))
	first, second := bed.node("first", home), bed.node("second", home)
	bed.must(Found(bed.ctx, "home", founder, far, first, second))
	bed.connected(first, far, routeDirect)
	bed.connected(second, far, routeDirect)
	bed.connected(first, second, routeDirect)
}

// TestSameLAN asserts that two hosts of one home use each other's own
// addresses, and go on when the home's line is cut.
func TestSameLAN(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	home := bed.Router("home", natlab.EIMAPDF)
	founder, a, b := bed.node("founder", nil), bed.node("a", home), bed.node("b", home)
	bed.must(Found(bed.ctx, "home", founder, a, b))
	bed.connected(a, b, api.PathDirect)
	p, err := a.WaitPath(bed.ctx, b, api.PathDirect)
	bed.must(err)
	if p.Path.Address.Addr() != b.Host.Addr4() {
		t.Errorf("got path %v, want the LAN address %v", p.Path.Address, b.Host.Addr4())
	}
	if s, err := a.StatusJSON(bed.ctx); err != nil || len(s.Peers) != 2 {
		t.Errorf("warren status --json: got %v, %v, want two peers", s, err)
	}
	bed.Cut(home)
	bed.must(a.WaitPing(bed.ctx, b))
}
