//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// usage is what a process has used and holds.
type usage struct {
	cpu     time.Duration
	rss     float64 // MiB
	packets float64 // sent and received on the wire
	bytes   float64
}

// use reads the usage of a node's agent.
func (b *bed) use(n *Node) usage {
	b.t.Helper()
	pid := n.Agent().PID()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	b.must(err)
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	var u usage
	for _, i := range []int{11, 12} { // utime and stime in ticks of 10 ms: fields 14 and 15 of proc(5)
		ticks, err := strconv.Atoi(fields[i])
		b.must(err)
		u.cpu += time.Duration(ticks) * 10 * time.Millisecond
	}
	pages, err := strconv.Atoi(fields[21])
	b.must(err)
	u.rss = float64(pages*os.Getpagesize()) / (1 << 20)
	w := b.wire(n)
	u.packets, u.bytes = w.packets, w.bytes
	return u
}

// wire reads what has gone over a node's line so far.
func (b *bed) wire(n *Node) (u usage) {
	b.t.Helper()
	b.must(n.Host.Do(func() error {
		for name, sum := range map[string]*float64{"packets": &u.packets, "bytes": &u.bytes} {
			for _, way := range []string{"rx", "tx"} {
				// /sys shows the namespace of its mount, /proc/thread-self that of the thread.
				v, err := counter("eth0", way, name)
				if err != nil {
					return err
				}
				*sum += v
			}
		}
		return nil
	}))
	return u
}

// counter reads a counter of an interface of this thread's namespace out of /proc/net/dev.
func counter(ifname, way, name string) (float64, error) {
	raw, err := os.ReadFile("/proc/thread-self/net/dev")
	if err != nil {
		return 0, err
	}
	column := map[string]int{"rx bytes": 0, "rx packets": 1, "tx bytes": 8, "tx packets": 9}[way+" "+name]
	for line := range strings.Lines(string(raw)) {
		if before, after, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(before) == ifname {
			return strconv.ParseFloat(strings.Fields(after)[column], 64)
		}
	}
	return 0, fmt.Errorf("no counters of %s in %s", ifname, filepath.Join("/proc", "net", "dev"))
}

// homes makes a full mesh of direct tunnels, of a public anchor and homes behind NATs, and returns when it stands.
func (b *bed) homes(size int) []*Node {
	b.t.Helper()
	founder := b.node("n0", nil)
	b.must(founder.Create(b.ctx, "home"))
	b.must(founder.Start(b.ctx))
	for i := 1; i < size; i++ {
		name := fmt.Sprintf("n%d", i)
		n := b.node(name, b.Router("home-"+name, natlab.EIMAPDF))
		token, err := founder.Invite(b.ctx)
		b.must(err)
		b.must(n.Join(b.ctx, token))
	}
	for _, n := range b.nodes[1:] {
		b.must(n.Launch())
	}
	for _, n := range b.nodes {
		_, err := n.Wait(b.ctx, "all are up", func(s api.Status) bool {
			up := 0
			for _, p := range s.Peers {
				if p.Connected() && p.Path.Kind == api.PathDirect {
					up++
				}
			}
			return up == size-1
		})
		b.must(err)
	}
	return b.nodes
}

// TestIdle asserts what a node costs that has nothing to do in a mesh of twenty, within a minute after its start.
func TestIdle(t *testing.T) {
	t.Parallel()
	b := bedWith(t, buildPlain, 4*time.Minute) // the race detector has its own cost
	nodes := b.homes(20)
	b.step("every node has a tunnel to every other")
	for span := range 4 {
		dear := b.dear(nodes[1:], 15*time.Second)
		if len(dear) == 0 {
			return
		}
		b.step("span %d: over the bounds\n  %s", span, strings.Join(dear, "\n  "))
	}
	t.Errorf("a minute after the start some nodes cost still more than %+v", idleBounds)
}

// idleBounds are about twice what the dearest of twenty nodes cost in the first minute, in which records spread and
// ports are sampled: up to 30 packets and 4.2 kB a second, 69 MiB. What BenchmarkIdle measures later is less. Processor
// time, up to 560 ms a minute, has more room: other tests make each step dearer. What they delay belongs to the start.
var idleBounds = struct{ packets, bytes, rss, cpu float64 }{packets: 60, bytes: 8400, rss: 140, cpu: 3000}

// dear lists which of these nodes cost more than the bounds, per second, in MiB, and in ms a minute.
func (b *bed) dear(nodes []*Node, span time.Duration) (list []string) {
	b.t.Helper()
	before := make(map[*Node]usage)
	for _, n := range nodes {
		before[n] = b.use(n)
	}
	begin := time.Now()
	time.Sleep(span) // nothing happens: there is nothing to wait for
	for _, n := range nodes {
		now, took := b.use(n), time.Since(begin)
		packets, bytes := (now.packets-before[n].packets)/took.Seconds(), (now.bytes-before[n].bytes)/took.Seconds()
		cpu := (now.cpu - before[n].cpu).Seconds() * 1000 / took.Minutes()
		cost := fmt.Sprintf("%s idle: %.1f packets/s, %.0f B/s, %.0f ms CPU/min, %.0f MiB", n.Name(), packets, bytes, cpu, now.rss)
		b.step("%s", cost)
		if packets > idleBounds.packets || bytes > idleBounds.bytes || now.rss > idleBounds.rss || cpu > idleBounds.cpu {
			list = append(list, cost)
		}
	}
	return list
}

// BenchmarkIdle measures what a node costs that has nothing to do, in full meshes of three sizes behind NATs with one
// public anchor: memory and goroutines, CPU time and traffic per minute. The difference between the sizes is what a
// connected peer costs.
func BenchmarkIdle(b *testing.B) {
	for _, size := range []int{3, 12, 20} {
		b.Run(fmt.Sprintf("nodes=%d", size), func(b *testing.B) {
			bed := newBenchBed(b)
			nodes := bed.homes(size)
			last := nodes[size-1]
			const span = 60 * time.Second
			for b.Loop() {
				time.Sleep(10 * time.Second) // let the introductions settle
				before := bed.use(last)
				time.Sleep(span)
				after := bed.use(last)
				b.ReportMetric(after.rss, "MiB-RSS")
				b.ReportMetric(float64((after.cpu-before.cpu).Milliseconds())/span.Minutes(), "CPU-ms/min")
				b.ReportMetric((after.packets-before.packets)/span.Minutes(), "packets/min")
				b.ReportMetric((after.bytes-before.bytes)/span.Seconds(), "B/s")
			}
			bed.must(last.Agent().Signal(syscall.SIGQUIT)) // Go's runtime lists the goroutines and ends
			<-last.Agent().Done()
			b.ReportMetric(float64(strings.Count(last.Agent().Output(), "\ngoroutine ")), "goroutines")
			last.Kill()
		})
	}
}
