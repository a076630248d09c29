//go:build linux

package e2e

import (
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
