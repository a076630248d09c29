package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"warren/tunnel"
)

// userHz is the unit of /proc/PID/stat's times, the same on all Linux systems that Go runs on.
const userHz = 100

// result is one transfer.
type result struct {
	mbits float64 // received per second, in millions
	bytes float64 // received
	cpu   float64 // seconds of both ends' processes
}

// measure runs the rounds and prints a line for each, and what follows from them.
func measure(ctx context.Context, p *pair, s settings, plain, ours *contestant) error {
	fmt.Printf("TCP through two namespaces over veth, MTU %d, %d stream(s), %v each, both ends on one machine\n", tunnel.DefaultMTU, s.streams, s.time)
	fmt.Println(machine())
	for _, c := range []*contestant{plain, ours} {
		err := eventually(ctx, func() error { return exec.CommandContext(ctx, "ping", "-c", "1", "-W", "1", c.addr).Run() })
		if err != nil {
			return fmt.Errorf("%s: far end does not answer", c.name)
		}
	}
	raw, err := transfer(ctx, s, &contestant{addr: p.ends[1].under.String()}, false)
	if err != nil {
		return err
	}
	fmt.Printf("%-8s %14s %14s %8s\n", "round", plain.name, ours.name, "ratio")
	all := map[*contestant][]result{}
	var ratios []float64
	for round := range s.rounds {
		order := []*contestant{plain, ours}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, c := range order {
			r, err := transfer(ctx, s, c, round%4 >= 2)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			all[c] = append(all[c], r)
		}
		a, b := all[plain][round].mbits, all[ours][round].mbits
		ratios = append(ratios, b/a)
		fmt.Printf("%-8d %8.0f Mbit/s %7.0f Mbit/s %8.2f\n", round+1, a, b, b/a)
	}
	speed := func(r result) float64 { return r.mbits }
	cost := func(r result) float64 { return r.cpu / (r.bytes / 1e9) }
	fmt.Printf("%-8s %8.0f Mbit/s %7.0f Mbit/s %8.2f\n", "median", median(all[plain], speed), median(all[ours], speed), middle(ratios))
	fmt.Printf("%-8s %9.1f s/GB %10.1f s/GB %8.2f\n", "CPU", median(all[plain], cost), median(all[ours], cost), median(all[ours], cost)/median(all[plain], cost))
	fmt.Printf("%-8s %11.0f MB %12.0f MB %8.2f   (greatest RSS of an end)\n", "memory", peak(plain), peak(ours), peak(ours)/peak(plain))
	fmt.Printf("raw veth %8.0f Mbit/s\n", raw.mbits)
	fmt.Printf("ratio of throughput, %s / %s: %.2f (rounds %.2f to %.2f)\n", ours.name, plain.name, middle(ratios), slices.Min(ratios), slices.Max(ratios))
	return nil
}

// transfer runs iperf3 once, towards the far end or, reversed, from it.
func transfer(ctx context.Context, s settings, c *contestant, reverse bool) (result, error) {
	args := []string{"-J", "-c", c.addr, "-t", fmt.Sprintf("%.0f", s.time.Seconds()), "-P", strconv.Itoa(s.streams)}
	if reverse {
		args = append(args, "-R")
	}
	// The server takes one at a time and may still be busy with the one before.
	var r result
	err := eventually(ctx, func() error {
		before := cpu(c.pids)
		client := exec.CommandContext(ctx, "iperf3", args...)
		client.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
		text, err := client.Output()
		if err != nil {
			return fmt.Errorf("iperf3: %w: %s", err, text)
		}
		var out report
		if err := json.Unmarshal(text, &out); err != nil {
			return fmt.Errorf("read iperf3: %w", err)
		}
		if out.End.Received.Bytes == 0 {
			return errors.New("iperf3: nothing received")
		}
		r = result{mbits: out.End.Received.Bits / 1e6, bytes: out.End.Received.Bytes, cpu: cpu(c.pids) - before}
		return nil
	})
	return r, err
}

// report is what is wanted of iperf3's.
type report struct {
	End struct {
		Received struct {
			Bytes float64 `json:"bytes"`
			Bits  float64 `json:"bits_per_second"`
		} `json:"sum_received"`
	} `json:"end"`
}

// cpu is the processor time that processes have used, in seconds.
func cpu(pids []int) (seconds float64) {
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		if f := strings.Fields(rest); len(f) > 12 {
			user, _ := strconv.ParseFloat(f[11], 64)
			system, _ := strconv.ParseFloat(f[12], 64)
			seconds += (user + system) / userHz
		}
	}
	return seconds
}

// peak is the greatest resident set of a contestant's processes, in MB.
func peak(c *contestant) (mb float64) {
	for _, pid := range c.pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "VmHWM:" {
				kb, _ := strconv.ParseFloat(f[1], 64)
				mb = max(mb, kb/1024)
			}
		}
	}
	return mb
}

func median(list []result, of func(result) float64) float64 {
	values := make([]float64, len(list))
	for i, r := range list {
		values[i] = of(r)
	}
	return middle(values)
}

// middle is the median.
func middle(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	if n == 0 {
		return 0
	}
	return (values[(n-1)/2] + values[n/2]) / 2
}

// machine says what the numbers were measured on.
func machine() string {
	var name unix.Utsname
	kernel := "Linux"
	if unix.Uname(&name) == nil {
		kernel += " " + unix.ByteSliceToString(name.Release[:])
	}
	version := "?"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == "golang.zx2c4.com/wireguard" {
				version = dep.Version
			}
		}
	}
	return fmt.Sprintf("on %d cores (%s), %s, %s, wireguard-go %s", runtime.NumCPU(), processor(), kernel, runtime.Version(), version)
}

// processor is the name of the first core.
func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
