//go:build linux

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/icmp"

	"warren/mesh/api"
)

// settled asserts that within the limits every pair that can talk does, and has the best route, and returns how long
// both took.
func (s *soak) settled(what string) (talk, routes time.Duration) {
	s.t.Helper()
	begin := time.Now()
	silent, slow := s.silentPairs(begin, begin.Add(s.limits.talk))
	for _, pair := range slow {
		s.step("slow: %s", pair)
	}
	if len(silent) > 0 {
		s.t.Fatalf("%s: after %v no echo yet\n  %s\nthe lab:\n%s", what, s.limits.talk, strings.Join(silent, "\n  "), s.state())
	}
	talk = time.Since(begin)
	for wrong := s.wrongRoutes(); len(wrong) > 0; wrong = s.wrongRoutes() {
		if time.Since(begin) > s.limits.route {
			s.t.Fatalf("%s: after %v wrong routes\n  %s\nthe lab:\n%s", what, s.limits.route, strings.Join(wrong, "\n  "), s.state())
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, r := range s.all {
		if agent := r.Agent(); agent != nil {
			select {
			case <-agent.Done():
				s.t.Fatalf("%s: the agent of %s has ended: %s", what, r, lastLines(agent.Output()))
			default:
			}
		}
	}
	return talk, time.Since(begin)
}

// slowAnswer is what an event may cost a pair without being told in the log.
const slowAnswer = 2 * time.Second

// silentPairs has each node send echoes to those after it that it can talk to, and returns those that have not answered
// at the deadline, and those that took long. An echo shows both directions.
func (s *soak) silentPairs(begin, deadline time.Time) (silent, slow []string) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for i, x := range s.all {
		wanted := make(map[netip.Addr]*resident)
		for _, y := range s.all[i+1:] {
			if s.canTalk(x, y) {
				wanted[y.addr] = y
			}
		}
		all.Go(func() {
			answered := func(y *resident) {
				if took := time.Since(begin); took > slowAnswer {
					mu.Lock()
					defer mu.Unlock()
					slow = append(slow, fmt.Sprintf("%s and %s after %.1f s", x, y, took.Seconds()))
				}
			}
			if err := x.Host.Do(func() error { return echoes(wanted, deadline, answered) }); err != nil {
				s.t.Errorf("%s: %v", x, err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, y := range wanted {
				silent = append(silent, s.describePair(x, y))
			}
		})
	}
	all.Wait()
	return silent, slow
}

// echoes sends echo requests from the namespace that it is called in until all of the addresses have answered, and takes
// out of the map those that have, and tells them.
func echoes(wanted map[netip.Addr]*resident, deadline time.Time, answered func(*resident)) error {
	c, err := icmp.ListenPacket("ip4:icmp", "0.0.0.0")
	if err != nil {
		return err
	}
	defer c.Close()
	id := int(0x4000 + meterIDs.Add(1)&0x3fff)
	buf := make([]byte, 1500)
	for seq := 0; len(wanted) > 0 && time.Now().Before(deadline); seq++ {
		for to := range wanted {
			sendEcho(c, to, id, seq) // fails while the agent starts
		}
		c.SetReadDeadline(time.Now().Add(5 * echoEvery))
		for len(wanted) > 0 {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				break
			}
			for to, y := range wanted {
				if isEcho(buf[:n], from, to, id) {
					answered(y)
					delete(wanted, to)
				}
			}
		}
	}
	return nil
}

// wrongRoutes lists the pairs that can talk and whose route is another one than the best. With loss every choice is
// right for a moment only.
func (s *soak) wrongRoutes() (wrong []string) {
	statuses := make(map[*resident]api.Status)
	for _, r := range s.all {
		if !r.down {
			statuses[r], _ = r.Status(s.ctx) // none yet: its routes are wrong
		}
	}
	for i, x := range s.all {
		for _, y := range s.all[i+1:] {
			if !s.canTalk(x, y) || x.lossy || y.lossy {
				continue
			}
			want := routeBetween(x.kind(), y.kind())
			if got := pairRoute(statuses[x], statuses[y], x.Node, y.Node); got != want {
				wrong = append(wrong, fmt.Sprintf("%s: got %q, want %q", s.describePair(x, y), got, want))
			}
		}
	}
	return wrong
}

// describePair tells what both ends say of each other.
func (s *soak) describePair(x, y *resident) string {
	say := func(a, b *resident) string {
		st, err := a.Status(s.ctx)
		if err != nil {
			return err.Error()
		}
		p, _ := Peer(st, b.Name())
		return fmt.Sprintf("%s: %s %s %s %s", a.Name(), b.Name(), p.State, route(st, b.Node), p.Reason)
	}
	return fmt.Sprintf("%s and %s (%s; %s)", x, y, say(x, y), say(y, x))
}

// holding is what an agent holds.
type holding struct {
	rss         float64 // MiB
	descriptors int
}

// holdings are those of the agents that are never restarted.
func (s *soak) holdings() map[*resident]holding {
	all := make(map[*resident]holding)
	for _, r := range s.all {
		if r.steadfast {
			open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.Agent().PID()))
			s.must(err)
			all[r] = holding{s.use(r.Node).rss, len(open)}
		}
	}
	return all
}

// notGrown asserts that the agents that were never restarted hold what they held when they were warm, within a minute
// for what lingers, and that they have as many goroutines as freshly started ones.
func (s *soak) notGrown(warm map[*resident]holding) {
	s.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		var grown []string
		for r, now := range s.holdings() {
			was := warm[r]
			s.step("%s holds %.0f MiB, %d descriptors; it held %.0f MiB, %d descriptors", r.Name(), now.rss, now.descriptors, was.rss, was.descriptors)
			// A garbage-collected heap is as large as its last peak.
			if now.rss > 1.5*was.rss+10 || now.descriptors > was.descriptors+8 {
				grown = append(grown, fmt.Sprintf("%s: %+v, was %+v", r.Name(), now, was))
			}
		}
		if len(grown) == 0 {
			break
		}
		if time.Now().After(deadline) {
			s.t.Errorf("agents have grown:\n%s", strings.Join(grown, "\n"))
			break
		}
		time.Sleep(time.Second)
	}
	if s.limits.length < time.Minute {
		return // a few events leave no pile of goroutines
	}
	old := s.goroutines()
	for _, r := range s.all {
		if r.steadfast {
			s.must(r.Start(s.ctx))
		}
	}
	s.settled("the agents started anew")
	fresh := s.goroutines()
	for r, n := range old {
		s.step("%s had %d goroutines; as many as %d are there after a start", r.Name(), n, fresh[r])
		if n > fresh[r]+fresh[r]/4+10 {
			s.t.Errorf("%s had %d goroutines, want about %d as after a start:\n%s", r.Name(), n, fresh[r], s.commonest[r])
		}
	}
}

// goroutines ends the agents that are never restarted, which then list their goroutines, and counts these.
func (s *soak) goroutines() map[*resident]int {
	s.t.Helper()
	all := make(map[*resident]int)
	for _, r := range s.all {
		if !r.steadfast {
			continue
		}
		agent := r.Agent()
		s.must(agent.Signal(syscall.SIGQUIT))
		<-agent.Done()
		stacks := strings.Split(agent.Output(), "\ngoroutine ")[1:]
		all[r] = len(stacks)
		if s.commonest == nil {
			s.commonest = make(map[*resident]string)
		}
		s.commonest[r] = commonest(stacks)
		s.kill(r.Node)
	}
	return all
}

// commonest lists what the most goroutines do, by where they were created.
func commonest(stacks []string) string {
	count := make(map[string]int)
	for _, stack := range stacks {
		_, by, _ := strings.Cut(stack, "created by ")
		by, _, _ = strings.Cut(by, " in goroutine")
		count[by]++
	}
	var lines []string
	for by, n := range count {
		lines = append(lines, fmt.Sprintf("%4d %s", n, by))
	}
	slices.Sort(lines)
	slices.Reverse(lines)
	return strings.Join(lines[:min(10, len(lines))], "\n")
}
