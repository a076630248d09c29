package agent

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// BenchmarkPeersUp has a node learn of all its peers at once, and measures until the last WireGuard handshake is done: the time that
// takes (ns/op), and what the process computes for each peer, both ends together. The latter must not grow with their number:
// beside a quiet machine a longer time makes it grow too, since whoever waits for an answer asks again (signals/peer). MB is by
// how much what is in use at the end is more than at the beginning. Keys and devices are made before.
func BenchmarkPeersUp(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root (the control socket of the WireGuard device)")
	}
	for _, peers := range []int{1, 10, 100, 500} {
		b.Run(fmt.Sprint(peers), func(b *testing.B) {
			b.Logf("%d cores, %s", runtime.GOMAXPROCS(0), runtime.Version())
			var sum cost
			for b.Loop() {
				b.StopTimer()
				s := newSwarm(b, peers, peers/2, fmt.Sprint("wgb", os.Getpid()), slog.New(slog.DiscardHandler))
				sum.begin(b)
				b.StartTimer()
				s.meet(b)
				b.StopTimer()
				sum.end(b, s)
				s.end(b)
				b.StartTimer()
			}
			sum.report(b)
		})
	}
}

// cost is what was measured, over all rounds.
type cost struct {
	rounds, handshakes, signals float64
	cpu                         time.Duration
	memory                      float64
}

func (c *cost) begin(b *testing.B) {
	c.memory -= inUse()
	c.cpu -= cpuTime(b)
}

func (c *cost) end(b *testing.B, s *swarm) {
	c.cpu += cpuTime(b)
	c.memory += inUse()
	c.rounds++
	c.handshakes += float64(s.handshakes())
	c.signals += float64(s.signals.Load())
}

func (c *cost) report(b *testing.B) {
	b.ReportMetric(float64(c.cpu.Microseconds())/c.handshakes, "cpu-µs/peer")
	b.ReportMetric(c.signals/c.handshakes, "signals/peer")
	b.ReportMetric(c.handshakes/c.rounds, "handshakes")
	b.ReportMetric(c.memory/c.rounds, "MB")
}

// cpuTime is what this process has computed so far.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// inUse is the memory in use, heap and stacks, in MB, once what is not has been collected.
func inUse() float64 {
	runtime.GC()
	runtime.GC() // what lies in pools is given up at the second one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc+m.StackInuse) / 1e6
}
