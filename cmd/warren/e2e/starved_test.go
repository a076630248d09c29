//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// starved is for how long the threads of some processes have been ready to run and did not get a processor, added up (the second field of
// schedstat, Documentation/scheduler/sched-stats.rst). What an agent must do within a time it can do only as far as it runs: on a machine that
// is not busy this is next to nothing, and bounds in time hold as they stand.
func starved(pids ...int) (sum time.Duration) {
	for _, pid := range pids {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, name := range threads {
			raw, err := os.ReadFile(name)
			if err != nil {
				continue // the thread has ended
			}
			if fields := strings.Fields(string(raw)); len(fields) > 1 {
				ns, _ := strconv.ParseInt(fields[1], 10, 64)
				sum += time.Duration(ns)
			}
		}
	}
	return sum
}

// starving returns how long the agents of the bed have been starved since it was called. A bound in time has as much added.
func (b *bed) starving() func() time.Duration {
	pids := func() (all []int) {
		for _, n := range b.nodes {
			if agent := n.Agent(); agent != nil {
				all = append(all, agent.PID())
			}
		}
		return all
	}
	before := make(map[int]time.Duration)
	for _, pid := range pids() {
		before[pid] = starved(pid)
	}
	return func() (sum time.Duration) {
		for _, pid := range pids() {
			sum += max(0, starved(pid)-before[pid]) // of a process that has ended nothing is known
		}
		return sum
	}
}

// crowd is how many times longer than on a machine of its own what a test waits for may take: 1 as long as the load leaves a share of a fifth of a
// processor for whatever is ready to run, and 8 at most. A test beside others is starved not only in its agents, which starving counts, but in
// the programs that it starts and in the lab that carries its packets.
func crowd() float64 {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 1
	}
	return crowdOf(string(raw), runtime.NumCPU())
}

func crowdOf(loadavg string, processors int) float64 {
	first, _, _ := strings.Cut(loadavg, " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 1
	}
	return min(max(load/float64(processors)/5, 1), 8)
}

// stretch is a time that a test gives to others, on a machine as crowded as this one is now.
func stretch(limit time.Duration) time.Duration { return time.Duration(float64(limit) * crowd()) }

// patience is a context that ends after the limit, counted by a clock that goes the slower the more crowded the machine is meanwhile.
func patience(limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancelCause(context.Background())
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		last := time.Now()
		for limit > 0 {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				limit -= time.Duration(float64(now.Sub(last)) / crowd())
				last = now
			}
		}
		end(context.DeadlineExceeded)
	}()
	return ctx, func() { end(context.Canceled) }
}

func TestCrowd(t *testing.T) {
	for _, test := range []struct {
		loadavg    string
		processors int
		want       float64
	}{
		{"0.10 2.00 3.00 1/100 1234", 2, 1},
		{"10.00 2.00 3.00 1/100 1234", 2, 1},
		{"30.00 2.00 3.00 1/100 1234", 2, 3},
		{"30.00 2.00 3.00 1/100 1234", 16, 1},
		{"900.00 2.00 3.00 1/100 1234", 2, 8},
		{"", 2, 1},
	} {
		if got := crowdOf(test.loadavg, test.processors); got != test.want {
			t.Errorf("crowd at %q on %d processors: got %v, want %v", test.loadavg, test.processors, got, test.want)
		}
	}
}

// TestStarved has more processes run than there are processors.
func TestStarved(t *testing.T) {
	var pids []int
	for range 3 * runtime.NumCPU() {
		busy := exec.Command("sh", "-c", "while :; do :; done")
		if err := busy.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = busy.Process.Kill()
			_ = busy.Wait()
		})
		pids = append(pids, busy.Process.Pid)
	}
	begin, before := time.Now(), starved(pids...)
	for starved(pids...)-before < 500*time.Millisecond {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("%d processes that do nothing but run, for %v: starved for %v, want more", len(pids), time.Since(begin), starved(pids...)-before)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
