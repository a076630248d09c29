//go:build linux

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// What an event costs, measured by an echo every 20 ms in each direction, and then once more to a stream of iperf3. All
// of them, five times each:
//
//	go test ./cmd/warren/e2e -run '^$' -bench Events -timeout 60m
//
// One of them, once, with what happened in the log of -v (see eventTable for the names; flush/a is below flush):
//
//	WARREN_ROUNDS=1 go test ./cmd/warren/e2e -run '^$' -bench 'Events/rebind/a' -v
//
// WARREN_BINARY names a program to measure instead of the one built from this tree, WARREN_LOG=1 prints the agents'
// logs in the end.

// rounds is how often a measurement is repeated.
func rounds(b *testing.B) int {
	n, err := strconv.Atoi(os.Getenv("WARREN_ROUNDS"))
	switch {
	case os.Getenv("WARREN_ROUNDS") == "":
		return 5
	case err != nil || n < 1:
		b.Fatalf("WARREN_ROUNDS is %q, want a number from 1 on", os.Getenv("WARREN_ROUNDS"))
	}
	return n
}

// eventLimit is when a tunnel is given up that does not come back.
const eventLimit = 60 * time.Second

// world is where an event happens: homes behind port-restricted NATs, each with a second network to go to, symmetric
// ones, and two public anchors. Only what an event needs is built.
type world struct {
	*bed
	anchors        []*Node
	x, y           *Node
	homeX, homeY   *natlab.Router
	otherX, otherY *natlab.Router
}

// newWorld is worldOf for a benchmark.
func newWorld(b *testing.B, x, y natlab.Kind) *world {
	b.Helper()
	return worldOf(newBenchBed(b), x, y)
}

// worldOf founds a mesh of two anchors and two homes of these kinds.
func worldOf(b *bed, x, y natlab.Kind) *world {
	b.t.Helper()
	w := &world{bed: b}
	w.anchors = []*Node{w.node("anchor1", nil), w.node("anchor2", nil)}
	w.homeX, w.homeY = w.Router("home-a", x), w.Router("home-b", y)
	w.otherX, w.otherY = w.Router("other-a", x), w.Router("other-b", y)
	w.x, w.y = w.node("a", w.homeX), w.node("b", w.homeY)
	w.must(Found(w.ctx, "home", w.anchors[0], w.anchors[1], w.x, w.y))
	w.anchored(w.x, w.y)
	return w
}

// anchored waits until each of the nodes has a session with both anchors.
func (w *world) anchored(nodes ...*Node) {
	w.t.Helper()
	for _, n := range nodes {
		_, err := n.Wait(w.ctx, "both anchors introduce it", func(s api.Status) bool {
			return !slices.ContainsFunc(w.anchors, func(a *Node) bool { return !slices.Contains(s.Self.Anchors, a.Name()) })
		})
		w.must(err)
	}
}

// swap moves a host to the one of two networks where it is not.
func swap(h *natlab.Host, x, y *natlab.Router) {
	if h.Router() == x {
		x = y
	}
	h.Move(x)
}

// event is one row of the table.
type event struct {
	name string
	x, y natlab.Kind // of the two homes
	want string      // the route before and after
	// happen does it, and returns the moment from which the outage counts; zero: the moment it was called.
	happen func(*world) time.Time
	after  func(*world) // undoes what would spoil the next round; may be nil
}

// at makes an event's function of one that takes no time worth speaking of.
func at(f func(*world)) func(*world) time.Time {
	return func(w *world) time.Time { f(w); return time.Time{} }
}

func restart(n func(*world) *Node) func(*world) {
	return func(w *world) { node := n(w); w.must(node.Stop()); w.must(node.Launch()) } // another may relay by then
}

func crash(n func(*world) *Node) func(*world) {
	return func(w *world) { node := n(w); w.kill(node); w.must(node.Launch()) }
}

func sideA(w *world) *Node { return w.x }
func sideB(w *world) *Node { return w.y }

// cutFor is how long the line is cut in the event of that name.
const cutFor = 20 * time.Second

// eventTable are the events. Both sides appear, because one of both is the one that offers and does more of the work.
func eventTable() []event {
	const nat, cone, sym, direct = natlab.EIMAPDF, natlab.EIMEIF, natlab.Symmetric, routeDirect
	return []event{
		{"rebind/a", nat, nat, direct, at(func(w *world) { w.homeX.Rebind() }), nil},
		{"rebind/b", nat, nat, direct, at(func(w *world) { w.homeY.Rebind() }), nil},
		{"flush/a", nat, nat, direct, at(func(w *world) { w.homeX.Flush() }), nil},
		{"flush/b", nat, nat, direct, at(func(w *world) { w.homeY.Flush() }), nil},
		// The router above keeps the inside port where it is free, so that it makes the same mapping again; a cone takes
		// another one, which the other side's filter does not know.
		{"remap/a", cone, nat, direct, at(func(w *world) { w.homeX.Flush() }), nil},
		{"remap/b", nat, cone, direct, at(func(w *world) { w.homeY.Flush() }), nil},
		{"remap/relayed", sym, sym, routeRelay, at(func(w *world) { w.homeX.Flush() }), nil},
		{"roam/a", nat, nat, direct, at(func(w *world) { swap(w.x.Host, w.homeX, w.otherX) }), nil},
		{"roam/b", nat, nat, direct, at(func(w *world) { swap(w.y.Host, w.homeY, w.otherY) }), nil},
		{"roam/both", nat, nat, direct, at(func(w *world) {
			swap(w.x.Host, w.homeX, w.otherX)
			swap(w.y.Host, w.homeY, w.otherY)
		}), nil},
		{"address/a", nat, nat, direct, at(func(w *world) { w.x.Host.Renumber() }), nil},
		{"address/b", nat, nat, direct, at(func(w *world) { w.y.Host.Renumber() }), nil},
		{"restart/a", nat, nat, direct, at(restart(sideA)), nil},
		{"restart/b", nat, nat, direct, at(restart(sideB)), nil},
		{"restart/relayed", sym, sym, routeRelay, at(restart(sideA)), anchoredAgain},
		{"crash/a", nat, nat, direct, at(crash(sideA)), nil},
		{"crash/b", nat, nat, direct, at(crash(sideB)), nil},
		{"relay-killed", sym, sym, routeRelay, at(killRelay), revive},
		{"relay-restart", sym, sym, routeRelay, at(restart((*world).relaying)), anchoredAgain},
		{"relay-crash", sym, sym, routeRelay, at(crash((*world).relaying)), anchoredAgain},
		{"anchor-killed/direct", nat, nat, direct, at(func(w *world) { w.kill(w.anchors[0]) }), revive},
		{"cut-20s", nat, nat, direct, func(w *world) time.Time {
			w.Cut(w.homeY)
			time.Sleep(cutFor)
			w.Mend(w.homeY)
			return time.Now()
		}, nil},
	}
}

// killRelay kills the anchor that relays for a. While they change, the two ends may use different ones for a moment.
func killRelay(w *world) {
	p, _ := Peer(w.status(w.x), w.y.Name())
	i := slices.IndexFunc(w.anchors, func(n *Node) bool { return n.Name() == p.Path.Via })
	if i < 0 {
		w.t.Fatalf("a is relayed by %q, want an anchor", p.Path.Via)
	}
	w.kill(w.anchors[i])
}

// anchoredAgain waits for the sessions with an anchor that was restarted.
func anchoredAgain(w *world) { w.anchored(w.x, w.y) }

// revive starts the anchors that were killed.
func revive(w *world) {
	for _, n := range w.anchors {
		if n.Agent() == nil {
			w.must(n.Start(w.ctx))
		}
	}
	w.anchored(w.x, w.y)
}

// BenchmarkEvents measures every event of the table on a tunnel in use.
func BenchmarkEvents(b *testing.B) {
	var rows []string
	for _, e := range eventTable() {
		b.Run(e.name, func(b *testing.B) {
			w := newWorld(b, e.x, e.y)
			var all []disturbance
			var stall time.Duration
			for b.Loop() {
				for round := range rounds(b) {
					d := w.disturb(w.x, w.y, e.want, eventLimit, func() time.Time { return e.happen(w) })
					w.step("%s, round %d: %v", e.name, round+1, d)
					all = append(all, d)
					if e.after != nil {
						e.after(w)
					}
				}
				// The outage is measured without the stream, which has its own cost: it sends again ever more seldom.
				w.connected(w.x, w.y, e.want)
				s := w.stream(w.x, w.y)
				stall = w.streamed(s, e)
				s.stop()
			}
			b.ReportMetric(float64(stall.Milliseconds()), "stall-ms")
			rows = append(rows, fmt.Sprintf("%s %10d", eventRow(b, e, all), stall.Milliseconds()))
		})
	}
	b.Run("anchor-killed/strangers", func(b *testing.B) { rows = append(rows, strangersRow(b)) })
	if len(rows) > 0 {
		fmt.Printf("\n%-24s %-7s %10s %10s %10s %12s %12s %10s   [ms]\n%s\n\n", "event", "route", "outage", "worst", "silent", "again", "worst", "TCP stall", strings.Join(rows, "\n"))
	}
}

// eventRow reports what was measured of an event, and returns its row.
func eventRow(b *testing.B, e event, all []disturbance) string {
	pick := func(f func(disturbance) time.Duration) (median, worst int64) {
		var ms []int64
		for _, d := range all {
			ms = append(ms, f(d).Milliseconds())
		}
		slices.Sort(ms)
		return ms[len(ms)/2], ms[len(ms)-1]
	}
	outage, outageWorst := pick(func(d disturbance) time.Duration { return d.Outage })
	again, againWorst := pick(func(d disturbance) time.Duration { return d.Again })
	_, silentWorst := pick(func(d disturbance) time.Duration { return d.Silent })
	b.ReportMetric(float64(outage), "outage-ms-median")
	b.ReportMetric(float64(outageWorst), "outage-ms-worst")
	b.ReportMetric(float64(again), "again-ms-median")
	b.ReportMetric(float64(againWorst), "again-ms-worst")
	row := fmt.Sprintf("%-24s %-7s %10d %10d %10d %12d %12d", e.name, e.want, outage, outageWorst, silentWorst, again, againWorst)
	if slices.ContainsFunc(all, func(d disturbance) bool { return !d.Healed }) {
		row += "   GIVEN UP"
	}
	return row
}

// strangersRow kills one of two anchors and starts two members at that moment that never spoke: what is measured is
// the time to the first answer, and to direct.
func strangersRow(b *testing.B) string {
	w := newWorld(b, natlab.EIMAPDF, natlab.EIMAPDF)
	e := event{name: "anchor-killed/strangers", want: routeDirect}
	var all []disturbance
	for b.Loop() {
		for round := range rounds(b) {
			// New ones each time: those of the last round know each other.
			var pair [2]*Node
			var to netip.Addr // of the second
			for i, side := range []string{"c", "d"} {
				name := fmt.Sprintf("%s%d", side, round+1)
				pair[i] = w.node(name, w.Router("home-"+name, natlab.EIMAPDF))
				w.must(Admit(w.ctx, w.anchors[0], pair[i]))
				w.anchored(pair[i])
				to = w.status(pair[i]).Self.Addresses[0]
				w.must(pair[i].Stop())
			}
			begin := time.Now()
			w.kill(w.anchors[0])
			w.must(pair[0].Launch())
			w.must(pair[1].Launch())
			d := disturbance{Healed: true}
			var first time.Time
			w.must(pair[0].Host.Do(func() (err error) { first, err = firstEcho(to, eventLimit); return err }))
			d.Outage = first.Sub(begin)
			d.Silent = d.Outage
			for i := range pair {
				_, err := pair[i].WaitPath(w.ctx, pair[1-i], routeDirect)
				w.must(err)
			}
			d.Again = time.Since(begin)
			w.step("%s, round %d: %v", e.name, round+1, d)
			all = append(all, d)
			for _, n := range pair {
				w.must(n.Stop())
			}
			revive(w)
		}
	}
	return eventRow(b, e, all)
}
