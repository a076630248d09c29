//go:build linux

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/nat/natlab"
)

// TestFarPairs has pairs of the grid meet over long lines that lose packets; the benchmark GridFar and WARREN_GRID_LINE do so with
// all of them.
func TestFarPairs(t *testing.T) {
	for _, tt := range []struct {
		line string
		pair pair
	}{
		{"200ms", pairOf("eim-apdf", "double")},
		{"50ms,5%", pairOf("sym", "sym")},
		{"200ms,5%", pairOf("eim-apdf", "udp-blocked")},
	} {
		t.Run(tt.pair.String()+" at "+tt.line, func(t *testing.T) {
			t.Parallel()
			d, err := distanceOf(tt.line)
			if err != nil {
				t.Fatal(err)
			}
			p := newPairApart(newBed(t, 2*time.Minute), d.line)
			p.strangers(tt.pair.x.kind, tt.pair.y.kind)
			_, first := p.start()
			p.routed(p.x, p.y, tt.pair.want)
			p.step("first answer after %v", first)
			p.must(p.y.WaitPing(p.ctx, p.x))
			p.step("and back")
		})
	}
}

// pairOf is the pair of the grid with these names.
func pairOf(x, y string) pair {
	all := grid()
	return all[slices.IndexFunc(all, func(p pair) bool { return p.String() == x+"-"+y })]
}

// farBar is what an event may cost at a distance: two round trips more than a second.
func farBar(d distance) time.Duration { return 2*d.trip + time.Second }

// TestFarRecovery does events to a tunnel between homes that are 200 ms apart, and asserts that answers come again. The limit is wide for
// a machine that others use too; the benchmark EventsFar has the bar.
func TestFarRecovery(t *testing.T) {
	for _, name := range []string{"rebind/a", "roam/b"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := distance{trip: 200 * time.Millisecond}
			table := eventTable()
			e := table[slices.IndexFunc(table, func(e event) bool { return e.name == name })]
			w := worldOf(newBed(t, 2*time.Minute), e.x, e.y)
			w.apart(d, w.homeX, w.homeY, w.otherX, w.otherY)
			got := w.disturb(w.x, w.y, e.want, eventLimit, func() time.Time { return e.happen(w) })
			w.step("%s at %v: %v; the bar is %v", name, d.trip, got, farBar(d))
			if got.Outage > 10*farBar(d) {
				t.Errorf("%s at %v: got an outage of %v, want about %v", name, d.trip, got.Outage, farBar(d))
			}
		})
	}
}

// BenchmarkEventsFar is Events over lines of length: in a row the distances are taken in turn, so that what else the machine does
// meets all alike.
func BenchmarkEventsFar(b *testing.B) {
	var rows []string
	far := []distance{{"0ms", 0, 0}, {"50ms", 50 * time.Millisecond, 0}, {"200ms", 200 * time.Millisecond, 0}}
	for _, e := range eventTable() {
		b.Run(e.name, func(b *testing.B) {
			w := newWorld(b, e.x, e.y)
			all := make([][]disturbance, len(far))
			for b.Loop() {
				for round := range rounds(b) {
					for i, d := range far {
						w.apart(d, w.homeX, w.homeY, w.otherX, w.otherY)
						w.anchored(w.x, w.y)
						got := w.disturb(w.x, w.y, e.want, eventLimit, func() time.Time { return e.happen(w) })
						w.step("%s at %s, round %d: %v", e.name, d.name, round+1, got)
						all[i] = append(all[i], got)
						if e.after != nil {
							e.after(w)
						}
					}
				}
			}
			row := fmt.Sprintf("%-24s %-7s", e.name, e.want)
			for i, d := range far {
				var ms []int64
				for _, got := range all[i] {
					ms = append(ms, got.Outage.Milliseconds())
				}
				slices.Sort(ms)
				row += fmt.Sprintf(" %8d %8d", ms[len(ms)/2], ms[len(ms)-1])
				b.ReportMetric(float64(ms[len(ms)/2]), d.name+"-ms")
				if d.trip > 0 && ms[len(ms)/2] > farBar(d).Milliseconds() {
					row += "!"
				}
			}
			rows = append(rows, row)
		})
	}
	if len(rows) > 0 {
		fmt.Printf("\n%-32s %17s %17s %17s   [ms without an answer, median and worst; ! over two round trips + 1 s; load %s]\n%s\n\n",
			"event", "0 ms", "50 ms", "200 ms", load(), strings.Join(rows, "\n"))
	}
}

// BenchmarkGridFar is Grid over lines of length and with loss, in turn: the first answered ping after both agents start, of a pair that
// has met before.
func BenchmarkGridFar(b *testing.B) {
	var rows []string
	far := distances()[:3]
	far = append(far, distance{"50ms-5%", 50 * time.Millisecond, 0.05})
	for _, pr := range grid() {
		b.Run(pr.String(), func(b *testing.B) {
			p := newPairApart(newBenchBed(b), distance{}.line)
			p.strangers(pr.x.kind, pr.y.kind)
			p.start()
			p.routed(p.x, p.y, pr.want)
			p.stop()
			took := make([][]int64, len(far))
			for b.Loop() {
				for range rounds(b) {
					for i, d := range far {
						p.apart(d, p.x.Host.Router(), p.y.Host.Router())
						_, first := p.start()
						p.routed(p.x, p.y, pr.want)
						took[i] = append(took[i], first.Milliseconds())
						p.stop()
					}
				}
			}
			row := fmt.Sprintf("%-24s %-7s", pr, pr.want)
			for i, d := range far {
				slices.Sort(took[i])
				median := took[i][len(took[i])/2]
				row += fmt.Sprintf(" %8d %8d", median, took[i][len(took[i])-1])
				b.ReportMetric(float64(median), strings.ReplaceAll(d.name, "%", "pc")+"-ms")
			}
			rows = append(rows, row)
		})
	}
	if len(rows) > 0 {
		fmt.Printf("\n%-32s %17s %17s %17s %17s   [ms to the first ping, median and worst; load %s]\n%s\n\n",
			"pair", "0 ms", "50 ms", "200 ms", "50 ms, 5 % loss", load(), strings.Join(rows, "\n"))
	}
}

func TestDistanceOf(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]natlab.Line{
		"200ms":    {Delay: 50 * time.Millisecond},
		"50ms,5%":  {Delay: 12500 * time.Microsecond, Loss: 0.05},
		"2.5%,1s":  {Delay: 250 * time.Millisecond, Loss: 0.025},
		"50":       {},
		"5%%":      {},
		"100%":     {},
		"-1ms":     {},
		"50ms,,5%": {},
		"":         {},
	} {
		d, err := distanceOf(text)
		if wrong := want == (natlab.Line{}); wrong != (err != nil) || !wrong && d.line(0) != want {
			t.Errorf("distanceOf(%q): got %v, %v, want %v", text, d.line(0), err, want)
		}
	}
}
