//go:build linux

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// How long two members take to meet who are far from each other. The founder is a public anchor without a line; the homes of both
// have the same one, so that the round trip between the two is twice the one to the anchor. Five rounds each:
//
//	go test ./cmd/warren/e2e -run '^$' -bench Distance -timeout 60m

// distance is one kind of line of the tables.
type distance struct {
	name string
	trip time.Duration // round trip between the two
	loss float64       // at each of both lines, in each direction
}

// line is what each of the two homes has.
func (d distance) line(seed uint64) natlab.Line {
	return natlab.Line{Delay: d.trip / 4, Loss: d.loss, Seed: seed}
}

// distances are those that the bars are about.
func distances() []distance {
	const fifty, long = 50 * time.Millisecond, 200 * time.Millisecond
	return []distance{
		{"0ms", 0, 0}, {"50ms", fifty, 0}, {"200ms", long, 0},
		{"0ms-5%", 0, 0.05}, {"50ms-5%", fifty, 0.05}, {"200ms-5%", long, 0.05},
	}
}

// The bars, from the start of both processes to the first answer; loss adds a round trip to the median.
func (d distance) bar(met bool) time.Duration {
	trips := time.Duration(3)
	if met {
		trips = 2
	}
	if d.loss > 0 {
		trips++
	}
	return trips*d.trip + 150*time.Millisecond
}

// distanceOf reads "50ms", "50ms,5%" or "5%": the round trip between two homes, and what each of their lines loses in each direction.
func distanceOf(text string) (distance, error) {
	d := distance{name: text}
	for word := range strings.SplitSeq(text, ",") {
		var err error
		if share, ok := strings.CutSuffix(word, "%"); ok {
			d.loss, err = strconv.ParseFloat(share, 64)
			d.loss /= 100
		} else {
			d.trip, err = time.ParseDuration(word)
		}
		if err != nil || d.loss < 0 || d.loss >= 1 || d.trip < 0 {
			return d, fmt.Errorf("line %q: want a round trip, a loss, or both, as 50ms,5%%", text)
		}
	}
	return d, nil
}

// given is the distance that an environment variable names, or none.
func given(t testing.TB, variable string) distance {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return distance{}
	}
	d, err := distanceOf(text)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return d
}

// apart gives these homes the line of the distance, each with draws of its own.
func (b *bed) apart(d distance, homes ...*natlab.Router) {
	for i, home := range homes {
		if home != nil {
			b.Line(home, d.line(uint64(i)))
		}
	}
}

// pairApart is a pair of homes with lines, and their anchor.
type pairApart struct {
	*bed
	founder *Node
	line    func(seed uint64) natlab.Line
	x, y    *Node
	to      netip.Addr // the overlay address of y
	seed    uint64
}

func newPairApart(b *bed, line func(seed uint64) natlab.Line) *pairApart {
	b.t.Helper()
	p := &pairApart{bed: b, line: line, founder: b.node("founder", nil)}
	b.must(Found(b.ctx, "home", p.founder))
	return p
}

// strangers makes two new members at home behind networks of these kinds, that have never run at the same time and do not run now.
func (p *pairApart) strangers(kinds ...natlab.Kind) {
	p.t.Helper()
	for i, side := range []**Node{&p.x, &p.y} {
		p.seed++
		name := fmt.Sprintf("%c%d", 'a'+i, p.seed)
		home := p.Router("home-"+name, kinds[i])
		p.Line(home, p.line(p.seed))
		n := p.node(name, home)
		p.must(Admit(p.ctx, p.founder, n))
		s, err := n.Wait(p.ctx, "the founder introduces it", func(s api.Status) bool { return slices.Contains(s.Self.Anchors, p.founder.Name()) })
		p.must(err)
		p.must(n.Stop())
		*side, p.to = n, s.Self.Addresses[0]
	}
}

// start launches both at once, and returns when, and how long it took to the first answer to a ping.
func (p *pairApart) start() (begin time.Time, first time.Duration) {
	p.t.Helper()
	begin = time.Now()
	p.must(p.x.Launch("--log-level", "debug"))
	p.must(p.y.Launch("--log-level", "debug"))
	var at time.Time
	p.must(p.x.Host.Do(func() (err error) { at, err = firstEcho(p.to, time.Minute); return err }))
	return begin, at.Sub(begin)
}

// stop ends both.
func (p *pairApart) stop() {
	p.t.Helper()
	p.must(p.x.Stop())
	p.must(p.y.Stop())
}

// logLine is a line of an agent's log.
var logLine = regexp.MustCompile(`(?m)^time=(\S+) level=\S+ msg=("[^"]*"|\S+)(.*)$`)

// milestone is a step of meeting, known by a line of the log.
type milestone struct{ name, message, with string }

// milestones are the steps in the order in which they come.
var milestones = []milestone{
	{"runs", "", ""},
	{"interface", "interface up", ""},
	{"session", "session up", ""},
	{"offer", "signal sent", ""},
	{"offered", "signal received", ""},
	{"relay", "relay opened", ""},
	{"relayed", "path chosen", "path=relay"},
	{"direct", "path chosen", "path=direct"},
	{"initiation", "device", "ending handshake initiation"},
	{"keys", "device", "eceived handshake response"},
	{"keys'", "device", "ending handshake response"},
}

// stepsOf returns when each milestone came first in the log of an agent, in milliseconds since the beginning; -1: it did not.
func stepsOf(n *Node, begin time.Time) []int64 {
	steps := make([]int64, len(milestones))
	for i := range steps {
		steps[i] = -1
	}
	for _, m := range logLine.FindAllStringSubmatch(n.Agent().Output(), -1) {
		at, err := time.Parse(time.RFC3339Nano, m[1])
		if err != nil {
			continue
		}
		for i, s := range milestones {
			if steps[i] < 0 && (s.message == "" || strings.Trim(m[2], `"`) == s.message && strings.Contains(m[3], s.with)) {
				steps[i] = at.Sub(begin).Milliseconds()
			}
		}
	}
	return steps
}

// BenchmarkDistance measures the time from the start of two processes to the first answered ping, of strangers and of those who have met,
// and tells where it went: the median of each step, at the one that pings and at the other.
func BenchmarkDistance(b *testing.B) {
	var rows, where []string
	for _, d := range distances() {
		b.Run(d.name, func(b *testing.B) {
			p := newPairApart(newBenchBed(b), d.line)
			var took [2][]time.Duration
			var steps [2][2][][]int64 // of strangers and acquaintances, of x and y
			for b.Loop() {
				for range rounds(b) {
					p.strangers(natlab.EIMAPDF, natlab.EIMAPDF)
					for met := range took {
						begin, first := p.start()
						p.routed(p.x, p.y, routeDirect)
						took[met] = append(took[met], first)
						for i, n := range []*Node{p.x, p.y} {
							steps[met][i] = append(steps[met][i], stepsOf(n, begin))
						}
						p.stop()
					}
				}
			}
			for met, name := range []string{"strangers", "met before"} {
				rows = append(rows, distanceRow(b, d, name, met == 1, took[met]))
				for i := range 2 {
					where = append(where, stepsRow(d.name+" "+name+", "+[]string{"a", "b"}[i], steps[met][i]))
				}
			}
		})
	}
	if len(rows) > 0 {
		names := ""
		for _, m := range milestones {
			names += fmt.Sprintf(" %10s", m.name)
		}
		fmt.Printf("\n%-24s %10s %10s %10s   [ms; load %s]\n%s\n\n%-24s%s   [ms since the start, medians]\n%s\n\n",
			"from start to first ping", "median", "worst", "bar", load(), strings.Join(rows, "\n"), "where the time goes", names, strings.Join(where, "\n"))
	}
}

// load is how busy the machine is: processes that want to run, over the last minute.
func load() string {
	raw, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(raw), " ")
	return fmt.Sprintf("%s on %d cores", first, runtime.NumCPU())
}

func distanceRow(b *testing.B, d distance, name string, met bool, took []time.Duration) string {
	slices.Sort(took)
	median, worst, bar := took[len(took)/2], took[len(took)-1], d.bar(met)
	b.ReportMetric(float64(median.Milliseconds()), strings.ReplaceAll(name, " ", "-")+"-ms")
	row := fmt.Sprintf("%-24s %10d %10d %10d", d.name+" "+name, median.Milliseconds(), worst.Milliseconds(), bar.Milliseconds())
	if median > bar {
		row += "   over"
	}
	return row
}

// stepsRow are the medians of the steps over all rounds in which they came.
func stepsRow(name string, rounds [][]int64) string {
	row := fmt.Sprintf("%-24s", name)
	for i := range milestones {
		var all []int64
		for _, r := range rounds {
			if r[i] >= 0 {
				all = append(all, r[i])
			}
		}
		slices.Sort(all)
		if len(all) == 0 {
			row += fmt.Sprintf(" %10s", "-")
		} else {
			row += fmt.Sprintf(" %10d", all[len(all)/2])
		}
	}
	return row
}

// BenchmarkShare measures the same on a line of 50 ms with agents that have one thread of Go and a share of a core, all three together.
func BenchmarkShare(b *testing.B) {
	var rows []string
	for _, cores := range []float64{0, 0.5, 0.2} {
		b.Run(fmt.Sprintf("cores=%v", cores), func(b *testing.B) {
			bed, how := newBenchBed(b), "all of it, GOMAXPROCS=1"
			if cores > 0 {
				how = bed.Share(cores) + ", GOMAXPROCS=1"
			}
			b.Setenv("GOMAXPROCS", "1") // for the agents: this process has read its own
			d := distances()[1]
			p := newPairApart(bed, d.line)
			var took [2][]time.Duration
			for b.Loop() {
				for range rounds(b) {
					p.strangers(natlab.EIMAPDF, natlab.EIMAPDF)
					for met := range took {
						_, first := p.start()
						p.routed(p.x, p.y, routeDirect)
						took[met] = append(took[met], first)
						p.stop()
					}
				}
			}
			for met, name := range []string{"strangers", "met before"} {
				rows = append(rows, distanceRow(b, d, name, met == 1, took[met])+"   "+how)
			}
		})
	}
	if len(rows) > 0 {
		fmt.Printf("\n%-24s %10s %10s %10s   [ms; load %s]\n%s\n\n", "start, a share of a core", "median", "worst", "bar", load(), strings.Join(rows, "\n"))
	}
}
