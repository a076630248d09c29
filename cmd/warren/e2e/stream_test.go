//go:build linux

package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"warren/nat/natlab"
)

// stream is one TCP connection of iperf3 from one node to another, of 10 Mbit/s: enough to be missed, and not so much
// that the machine has nothing else to do. What counts is what the receiver sees.
type stream struct {
	server, client *natlab.Process
	bed            *bed
}

const (
	streamPort = "5201"
	// interval is how often iperf3 tells what has arrived; the stall is measured in these.
	interval = 100 * time.Millisecond
)

// stream starts one. It ends by stop, or with the lab.
func (b *bed) stream(from, to *Node) *stream {
	b.t.Helper()
	addrs, err := to.Overlay(b.ctx)
	b.must(err)
	s := &stream{bed: b}
	s.server, err = to.Host.Start("iperf3", "-s", "-1", "-p", streamPort, "-i", fmt.Sprint(interval.Seconds()), "--forceflush")
	b.must(err)
	b.eventually("iperf3 listens on "+to.Name(), func() bool { return strings.Contains(s.server.Output(), "Server listening") })
	s.client, err = from.Host.Start("iperf3", "-c", addrs[0].String(), "-p", streamPort, "-b", "10M", "-t", "3600", "--connect-timeout", "5000")
	b.must(err)
	s.flows()
	return s
}

func (s *stream) stop() {
	s.bed.must(s.client.Kill())
	s.bed.must(s.server.Kill())
}

// received matches the line of one interval at the receiver: "[  5]   0.00-0.10   sec   122 KBytes  10.0 Mbits/sec".
var received = regexp.MustCompile(`(?m)^\[ *\d+\] +[\d.]+-[\d.]+ +sec +([\d.]+) +[KMG]?Bytes`)

// intervals tells, for each interval so far, whether anything arrived in it.
func (s *stream) intervals() (some []bool) {
	for _, m := range received.FindAllStringSubmatch(s.server.Output(), -1) {
		some = append(some, strings.Trim(m[1], "0.") != "")
	}
	return some
}

// flows waits until something has arrived in each of the last ten intervals, and asserts that it is the first
// connection that goes on.
func (s *stream) flows() {
	s.bed.t.Helper()
	for _, p := range []*natlab.Process{s.server, s.client} {
		select {
		case <-p.Done():
			s.bed.t.Fatalf("%s has ended:\n%s\n%s", p, s.client.Output(), lastLines(s.server.Output()))
		default:
		}
	}
	begin := len(s.intervals())
	s.bed.eventually("the stream flows", func() bool {
		some := s.intervals()
		return len(some) >= begin+10 && !strings.Contains(fmt.Sprint(some[len(some)-10:]), "false")
	})
	if n := strings.Count(s.server.Output(), "connected to"); n != 1 {
		s.bed.t.Fatalf("got %d connections, want 1:\n%s", n, s.server.Output())
	}
}

// stall is the longest time in which nothing arrived, among the intervals from the nth on.
func (s *stream) stall(n int) (longest time.Duration) {
	run := time.Duration(0)
	for _, some := range s.intervals()[n:] {
		if run += interval; some {
			run = 0
		}
		longest = max(longest, run)
	}
	return longest
}

// streamed measures for how long an event stalls the stream.
func (w *world) streamed(s *stream, e event) time.Duration {
	w.t.Helper()
	n := len(s.intervals())
	w.disturb(w.x, w.y, e.want, eventLimit, func() time.Time {
		from := e.happen(w)
		if !from.IsZero() { // what was before does not count
			n = len(s.intervals())
		}
		return from
	})
	s.flows()
	stall := s.stall(n)
	if e.after != nil {
		e.after(w)
	}
	return stall
}

// TestStreamSurvives has one TCP connection live through what a laptop's day brings: its network changes, the router of
// the other side gets another address, an agent crashes.
func TestStreamSurvives(t *testing.T) {
	t.Parallel()
	w := worldOf(newBed(t, 2*time.Minute), natlab.EIMAPDF, natlab.EIMAPDF)
	w.connected(w.x, w.y, routeDirect)
	s := w.stream(w.x, w.y)
	for _, e := range eventTable() {
		switch e.name {
		case "roam/a", "rebind/b", "crash/b":
			stall := w.streamed(s, e)
			w.step("%s stalls the stream for %v", e.name, stall)
		}
	}
	s.stop()
}
