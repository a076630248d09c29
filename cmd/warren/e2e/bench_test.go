//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/icmp"
)

// The bars of the grid: the first answer after both agents have been started at once.
const (
	directBar = 300 * time.Millisecond
	relayBar  = 500 * time.Millisecond
)

// BenchmarkGrid measures, for each pair of kinds of networks, the time from the start of both agents, which are members
// already, to the first answer to a ping between them, and until both say that the route is the one that is
// wanted. The founder, a public anchor, runs all the time. One pair alone: -bench 'Grid/sym-sym'; WARREN_ROUNDS says how often.
func BenchmarkGrid(b *testing.B) {
	var rows []string
	for _, p := range grid() {
		b.Run(p.String(), func(b *testing.B) {
			bed := newBenchBed(b)
			founder := bed.node("founder", nil)
			x, y := bed.node("a", bed.Router("home-a", p.x.kind)), bed.node("b", bed.Router("home-b", p.y.kind))
			bed.must(Found(bed.ctx, "home", founder, x, y))
			bed.routed(x, y, p.want)
			to, err := y.Overlay(bed.ctx)
			bed.must(err)
			var pings, routes []time.Duration
			for b.Loop() {
				for range rounds(b) {
					bed.must(x.Stop())
					bed.must(y.Stop())
					start := time.Now()
					bed.must(x.Launch())
					bed.must(y.Launch())
					var first time.Time
					bed.must(x.Host.Do(func() (err error) { first, err = firstEcho(to[0], 30*time.Second); return err }))
					pings = append(pings, first.Sub(start))
					bed.routed(x, y, p.want)
					routes = append(routes, time.Since(start))
				}
			}
			rows = append(rows, gridRow(b, p, pings, routes))
		})
	}
	if len(rows) > 0 {
		fmt.Printf("\n%-24s %-7s %10s %10s %10s %10s   [ms]\n%s\n\n", "pair", "route", "first ping", "worst", "route", "worst", strings.Join(rows, "\n"))
	}
}

// routed waits until both ends of a pair say that the route is the one that is wanted.
func (b *bed) routed(x, y *Node, want string) {
	b.t.Helper()
	b.eventually(fmt.Sprintf("%s and %s by %s", x.Name(), y.Name(), want), func() bool {
		atX, errX := x.Status(b.ctx)
		atY, errY := y.Status(b.ctx)
		return errX == nil && errY == nil && pairRoute(atX, atY, x, y) == want
	})
}

// gridRow reports what was measured of a pair, and returns its row.
func gridRow(b *testing.B, p pair, pings, routes []time.Duration) string {
	slices.Sort(pings)
	slices.Sort(routes)
	ms := func(d time.Duration) float64 { return float64(d.Milliseconds()) }
	median, worst := pings[len(pings)/2], pings[len(pings)-1]
	there, thereWorst := routes[len(routes)/2], routes[len(routes)-1]
	b.ReportMetric(ms(median), "ping-ms-median")
	b.ReportMetric(ms(worst), "ping-ms-worst")
	b.ReportMetric(ms(there), "route-ms-median")
	b.ReportMetric(ms(thereWorst), "route-ms-worst")
	row := fmt.Sprintf("%-24s %-7s %10.0f %10.0f %10.0f %10.0f", p, p.want, ms(median), ms(worst), ms(there), ms(thereWorst))
	bar := relayBar
	if p.want == routeDirect {
		bar = directBar
	}
	if median > bar {
		row += fmt.Sprintf("   over %v", bar)
	}
	return row
}

// firstEcho sends an echo request every 5 ms, from the namespace that it is called in, until one is answered. The first
// ones find no interface yet.
func firstEcho(to netip.Addr, limit time.Duration) (time.Time, error) {
	return firstEchoEvery(to, limit, 5*time.Millisecond)
}

// firstEchoEvery is firstEcho with another time between two requests.
func firstEchoEvery(to netip.Addr, limit, every time.Duration) (time.Time, error) {
	c, err := icmp.ListenPacket("ip4:icmp", "0.0.0.0")
	if err != nil {
		return time.Time{}, err
	}
	defer c.Close()
	deadline := time.Now().Add(limit)
	id := int(0x4000 + meterIDs.Add(1))
	buf := make([]byte, 1500)
	for seq := 0; time.Now().Before(deadline); seq++ {
		sendEcho(c, to, id, seq) // fails until the interface is there
		c.SetReadDeadline(time.Now().Add(every))
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				break
			}
			if isEcho(buf[:n], from, to, id) {
				return time.Now(), nil
			}
		}
	}
	return time.Time{}, errors.New("no echo from " + to.String() + " within " + limit.String())
}
