//go:build linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"warren/nat/natlab"
)

// Random events over eight nodes, one at a time; after each, all who can talk have to. `make soak` does so for half an
// hour. With the seed that a run prints, the same events come in the same order:
//
//	WARREN_SOAK=30m WARREN_SEED=1234 go test ./cmd/warren/e2e -run TestSoak -v -timeout 60m
//
// WARREN_EVENTS is a regular expression for the events to choose from, as "roam udp-blocked|crash anchor2";
// WARREN_DEBUG=1 has the agents log all that they can; WARREN_SOAK_LINE has the homes far away, as 50ms,5%: the round trip between
// two of them, and the loss of each line in each direction.
//
// In `make test` it is short and always the same, and the limits are wide: other tests have the machine at the same time.

// soakLimits are how long all may take to be in order after an event.
type soakLimits struct {
	length time.Duration // of the whole
	talk   time.Duration // until every pair that can talk does
	route  time.Duration // until every such pair has the best route that there is
}

func soakSettings(t *testing.T) (limits soakLimits, seed uint64) {
	limits, seed = soakLimits{15 * time.Second, 30 * time.Second, 60 * time.Second}, 2
	if text := os.Getenv("WARREN_SOAK"); text != "" {
		seed = rand.Uint64N(1_000_000)
		length, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("WARREN_SOAK: %v", err)
		}
		limits = soakLimits{length, 10 * time.Second, 60 * time.Second}
	}
	if text := os.Getenv("WARREN_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("WARREN_SEED: %v", err)
		}
	}
	return limits, seed
}

// resident is a node of the soak, with what the lab does to it.
type resident struct {
	*Node
	networks  [2]*natlab.Router // between which it roams; nil: it stays on the Internet
	steadfast bool              // its agent is never restarted, so that it would show what it leaks
	addr      netip.Addr        // its overlay address

	down, cut, lossy bool
	side             int // of the partition, if there is one
}

// kind is that of the network where it is now.
func (r *resident) kind() natlab.Kind {
	if r.Host.Router() == nil {
		return natlab.Public
	}
	return r.Host.Router().Kind
}

func (r *resident) String() string {
	trouble := ""
	switch {
	case r.down:
		trouble = ", down"
	case r.cut:
		trouble = ", cut off"
	case r.lossy:
		trouble = ", lossy"
	}
	return fmt.Sprintf("%s (%s%s)", r.Name(), r.kind(), trouble)
}

// soak is a run under way.
type soak struct {
	*bed
	limits  soakLimits
	rng     *rand.Rand
	only    *regexp.Regexp // the events to choose from
	all     []*resident
	anchors []*resident // the first two of all
	split   bool
	// commonest tells, for each agent that was ended to count its goroutines, what most of them did.
	commonest map[*resident]string
}

func newSoak(b *bed, limits soakLimits, seed uint64) *soak {
	b.t.Helper()
	only, err := regexp.Compile(os.Getenv("WARREN_EVENTS"))
	if err != nil {
		b.t.Fatalf("WARREN_EVENTS: %v", err)
	}
	s := &soak{bed: b, limits: limits, rng: rand.New(rand.NewPCG(seed, 0)), only: only}
	for i, name := range []string{"anchor1", "anchor2"} {
		s.all = append(s.all, &resident{Node: b.node(name, nil), steadfast: i == 0})
	}
	s.anchors = s.all[:2]
	kinds := networks()[1:] // but public
	far := given(b.t, "WARREN_SOAK_LINE")
	for i, k := range kinds {
		r := &resident{steadfast: k.kind == natlab.EIMAPDF || k.kind == natlab.Symmetric}
		r.networks[0] = b.Router(k.name+"-home", k.kind)
		r.networks[1] = b.Router(k.name+"-away", kinds[(i+1)%len(kinds)].kind)
		b.apart(far, r.networks[:]...)
		r.Node = b.node(k.name, r.networks[0])
		s.all = append(s.all, r)
	}
	b.must(Found(b.ctx, "home", b.nodes[0], b.nodes[1:]...))
	for _, r := range s.all {
		r.addr = b.status(r.Node).Self.Addresses[0]
	}
	return s
}

// action is one event that the present state allows.
type action struct {
	weight int
	name   string
	do     func()
}

// actions lists them. At most one trouble lasts at a time: a cut, a partition or an anchor that is down; so there
// is always an anchor that both of a pair can reach, or there is nothing to ask of the pair.
func (s *soak) actions() (all []action) {
	add := func(weight int, do func(), format string, args ...any) {
		if name := fmt.Sprintf(format, args...); s.only.MatchString(name) {
			all = append(all, action{weight, name, do})
		}
	}
	trouble := s.split
	for _, r := range s.all {
		trouble = trouble || r.cut || r.down
	}
	for _, r := range s.all {
		if home := r.Host.Router(); home != nil {
			add(2, home.Outer().Rebind, "rebind %s", r)
			add(1, home.Flush, "flush %s", r)
			add(1, home.Outer().Flush, "flush the outer router of %s", r)
			add(1, r.Host.Renumber, "another address for %s", r)
			if !r.cut && !r.lossy {
				add(2, func() { swap(r.Host, r.networks[0], r.networks[1]) }, "roam %s", r)
			}
		}
		if !r.steadfast && !r.down {
			add(1, func() { s.must(r.Stop()); s.must(r.Launch()) }, "restart %s", r)
			add(1, func() { s.kill(r.Node); s.must(r.Launch()) }, "crash %s", r)
		}
		if r.lossy {
			add(8, func() { s.Mend(r.Host); r.lossy = false }, "no more loss at %s", r)
		} else if !r.cut {
			add(1, func() { s.Loss(r.Host, 100); r.lossy = true }, "loss of a tenth at %s", r)
		}
		if r.cut {
			add(12, func() { s.Mend(r.Host); r.cut, r.lossy = false, false }, "mend %s", r)
		} else if !trouble {
			add(1, func() { s.Cut(r.Host); r.cut = true }, "cut %s", r)
		}
	}
	relay := s.anchors[1]
	switch {
	case relay.down:
		add(12, func() { s.must(relay.Launch()); relay.down = false }, "%s is back", relay)
	case !trouble:
		add(6, func() { s.kill(relay.Node); relay.down = true }, "%s is killed", relay)
	}
	switch {
	case s.split:
		add(12, func() { s.Heal(); s.split = false }, "heal")
	case !trouble:
		add(6, s.divide, "partition")
	}
	return all
}

// divide cuts the Internet into two halves with an anchor each.
func (s *soak) divide() {
	var halves [2][]natlab.Attached
	for i, r := range s.all {
		r.side = i
		if i >= 2 {
			r.side = s.rng.IntN(2)
		}
		if r.networks[0] == nil {
			halves[r.side] = append(halves[r.side], r.Host)
			continue
		}
		halves[r.side] = append(halves[r.side], r.networks[0], r.networks[1]) // it may roam
	}
	s.Partition(halves[0], halves[1])
	s.split = true
}

// next picks an action by its weight.
func (s *soak) next() action {
	all := s.actions()
	sum := 0
	for _, a := range all {
		sum += a.weight
	}
	n := s.rng.IntN(sum)
	for _, a := range all {
		if n -= a.weight; n < 0 {
			return a
		}
	}
	panic("internal error: weights")
}

// linked reports whether packets get from one to the other through the lab, by whatever route.
func (s *soak) linked(x, y *resident) bool {
	return x == y || !x.down && !y.down && !x.cut && !y.cut && (!s.split || x.side == y.side)
}

// canTalk reports whether two nodes have to reach each other: they are linked, and to one anchor.
func (s *soak) canTalk(x, y *resident) bool {
	for _, a := range s.anchors {
		if x != y && s.linked(x, y) && !a.down && s.linked(a, x) && s.linked(a, y) {
			return true
		}
	}
	return false
}

// heal undoes all that lasts.
func (s *soak) heal() {
	s.Heal()
	s.split = false
	for _, r := range s.all {
		s.Mend(r.Host)
		r.cut, r.lossy = false, false
		if r.down {
			s.must(r.Launch())
			r.down = false
		}
	}
}

// TestSoak does random events to a mesh, and asserts after each that all who can talk do, by the best route that
// there is; and in the end that no agent has grown.
func TestSoak(t *testing.T) {
	t.Parallel()
	limits, seed := soakSettings(t)
	build := build
	if limits.length > time.Minute {
		build = buildPlain // what memory an agent with the race detector uses says nothing
	}
	b := bedWith(t, build, 2*limits.length+4*time.Minute)
	t.Logf("WARREN_SEED=%d", seed)
	s := newSoak(b, limits, seed)
	talk, routes := s.settled("the beginning")
	b.step("all is in order after %.1f s, routes after %.1f s", talk.Seconds(), routes.Seconds())
	warm := s.holdings()
	var slowest, slowestRoute time.Duration
	begin, count := time.Now(), 0
	for ; time.Since(begin) < limits.length; count++ {
		a := s.next()
		a.do()
		what := fmt.Sprintf("event %d of seed %d, %s", count+1, seed, a.name)
		talk, routes := s.settled(what)
		b.step("%s: all talk after %.1f s, routes after %.1f s", what, talk.Seconds(), routes.Seconds())
		slowest, slowestRoute = max(slowest, talk), max(slowestRoute, routes)
		if time.Since(begin) < limits.length/4 {
			warm = s.holdings() // what a busy life needs is not growth
		}
	}
	s.heal()
	s.settled("the end")
	b.step("%d events; the slowest took %.1f s until all talked, %.1f s until all routes were there", count, slowest.Seconds(), slowestRoute.Seconds())
	s.notGrown(warm)
}

// state tells what the lab does to whom.
func (s *soak) state() string {
	var lines []string
	for _, r := range s.all {
		line := "  " + r.String()
		if s.split {
			line += fmt.Sprintf(", side %d", r.side)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}
