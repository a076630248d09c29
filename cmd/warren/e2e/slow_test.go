//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// What members pay for each other over lines that are barely lines: a modem's rate, a fifth lost, packets a second late and in
// any order, and all of it at once. One home has the line, everybody else a good one. Its table:
//
//	go test ./cmd/warren/e2e -run '^$' -bench Slow -timeout 60m

// slowLines are the lines of the table.
func slowLines() []slowLine {
	const modem, far = 64_000, 300 * time.Millisecond
	return []slowLine{
		{"narrow", natlab.Line{Delay: far, Rate: modem}},
		{"lossy", natlab.Line{Delay: far, Loss: 0.2}},
		{"shaking", natlab.Line{Delay: far, Jitter: time.Second}},
		{"all", natlab.Line{Delay: far, Jitter: time.Second, Loss: 0.2, Rate: modem}},
	}
}

type slowLine struct {
	name string
	line natlab.Line
}

// modemRate is the rate that shares are told of, in bytes a second; the lines without a limit have it as their measure, too.
const modemRate = 64_000 / 8

// slowLimit is when a meeting is given up.
const slowLimit = 2 * time.Minute

// slowHome is a mesh whose members are on good lines but one.
type slowHome struct {
	*bed
	home    *natlab.Router
	slow    *Node
	others  []*Node
	founder *Node
}

// slowHome makes the mesh; its agents do not run but the founder's. The slow one is a member that has met nobody but the founder.
func (b *bed) slowHome(line natlab.Line, size int) *slowHome {
	b.t.Helper()
	s := &slowHome{bed: b, founder: b.node("founder", nil), home: b.Router("home-slow", natlab.EIMAPDF)}
	b.must(Found(b.ctx, "home", s.founder))
	s.slow = b.node("slow", s.home)
	b.must(Admit(b.ctx, s.founder, s.slow))
	_, err := s.slow.Wait(b.ctx, "the founder introduces it", func(st api.Status) bool { return slices.Contains(st.Self.Anchors, "founder") })
	b.must(err)
	b.must(s.slow.Stop())
	for i := range size - 2 {
		name := fmt.Sprintf("n%d", i)
		n := b.node(name, b.Router("home-"+name, natlab.EIMAPDF))
		token, err := s.founder.Invite(b.ctx)
		b.must(err)
		b.must(n.Join(b.ctx, token))
		b.must(n.Start(b.ctx))
		s.others = append(s.others, n)
	}
	b.Line(s.home, line)
	return s
}

// together is whether the slow one and all others say that they are up.
func (s *slowHome) together() bool {
	st, err := s.slow.Status(s.ctx)
	if err != nil {
		return false
	}
	for _, n := range append([]*Node{s.founder}, s.others...) {
		there, err := n.Status(s.ctx)
		mine, _ := Peer(st, n.Name())
		theirs, _ := Peer(there, s.slow.Name())
		if err != nil || !mine.Connected() || !theirs.Connected() {
			return false
		}
	}
	return true
}

// cost is what went over the slow line, up and down, in bytes.
type cost struct{ up, down float64 }

func (s *slowHome) cost(during func()) cost {
	up, down := s.Carried(s.home)
	during()
	upNow, downNow := s.Carried(s.home)
	return cost{float64(upNow.Minus(up).Bytes), float64(downNow.Minus(down).Bytes)}
}

// changes counts what an agent's log tells of paths and sessions that came and went.
func changes(n *Node, since time.Time) (paths, downs int) {
	for _, m := range logLine.FindAllStringSubmatch(n.Agent().Output(), -1) {
		if at, err := time.Parse(time.RFC3339Nano, m[1]); err != nil || at.Before(since) {
			continue
		}
		switch strings.Trim(m[2], `"`) {
		case "path changed":
			paths++
		case "session down":
			downs++
		}
	}
	return paths, downs
}

// upload sends bytes by TCP through the tunnel to the founder for so long, and returns how many arrived a second.
func (s *slowHome) upload(long time.Duration) float64 {
	s.t.Helper()
	to := s.status(s.founder).Self.Addresses[0]
	var server net.Listener
	s.must(s.founder.Host.Do(func() (err error) { server, err = net.Listen("tcp", net.JoinHostPort(to.String(), "1000")); return err }))
	defer server.Close()
	var got atomic.Int64
	go func() {
		c, err := server.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 1<<16)
		for {
			n, err := c.Read(buf)
			got.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	var c net.Conn
	s.must(s.slow.Host.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", server.Addr().String(), 30*time.Second)
		return err
	}))
	defer c.Close()
	go io.Copy(c, endless{})
	time.Sleep(long / 4) // the start of a stream
	before, begin := got.Load(), time.Now()
	time.Sleep(long)
	return float64(got.Load()-before) / time.Since(begin).Seconds()
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// BenchmarkSlow measures the meeting, a quiet minute, and a TCP stream.
func BenchmarkSlow(b *testing.B) {
	var rows []string
	for _, size := range []int{3, 8} {
		for _, l := range slowLines() {
			b.Run(fmt.Sprintf("%s/members=%d", l.name, size), func(b *testing.B) {
				for b.Loop() {
					rows = append(rows, slowRow(b, l, size))
				}
			})
		}
	}
	if len(rows) > 0 {
		fmt.Printf("\n%-10s %8s %9s %9s %10s %9s %9s %6s %6s %9s   [meeting: s, bytes; a quiet minute: bytes a second, share of 64 kbit/s; TCP: bytes a second; load %s]\n%s\n\n",
			"line", "members", "ping", "all up", "bytes", "up", "down", "share", "paths", "TCP", load(), strings.Join(rows, "\n"))
	}
}

func slowRow(b *testing.B, l slowLine, size int) string {
	s := newBenchBed(b).slowHome(l.line, size)
	to := s.status(s.others[0]).Self.Addresses[0]
	var first, all time.Duration
	begin := time.Now()
	meeting := s.cost(func() {
		s.must(s.slow.Launch("--log-level", "debug"))
		var at time.Time
		s.must(s.slow.Host.Do(func() (err error) { at, err = firstEchoEvery(to, 2*time.Minute, time.Second); return err }))
		first = at.Sub(begin)
		for all = time.Since(begin); !s.together(); all = time.Since(begin) {
			if all > slowLimit {
				b.Fatalf("%s: not all are up after %v", l.name, slowLimit)
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	time.Sleep(30 * time.Second)
	since := time.Now()
	const span = time.Minute
	quiet := s.cost(func() { time.Sleep(span) })
	paths, downs := changes(s.slow, since)
	up, down := quiet.up/span.Seconds(), quiet.down/span.Seconds()
	share := 100 * max(up, down) / modemRate
	tcp := s.upload(30 * time.Second)
	b.ReportMetric(share, "%-of-64kbit")
	b.ReportMetric(tcp, "TCP-B/s")
	return fmt.Sprintf("%-10s %8d %9.1f %9.1f %10.0f %9.0f %9.0f %5.1f%% %3d/%2d %9.0f", l.name, size, first.Seconds(), all.Seconds(), meeting.up+meeting.down, up, down, share, paths, downs, tcp)
}
