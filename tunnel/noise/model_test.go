package noise

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/curve25519"
	"golang.zx2c4.com/wireguard/tai64n"
)

/* The model: two nodes on a network that loses, delays, doubles and reorders, while they restart, their calendars are set, they are
 * under load, their preshared keys differ for a while, and initiations are carried by introductions. Then the network heals, and
 * packets are sent. Whatever came before, both have to seal with the same session in the end, and every packet has to pass, once.
 */

// outcome is what became of one schedule.
type outcome struct {
	took      time.Duration // from the healing until both use the same session, and every packet passes
	explained bool          // they do not, and the log says that the initiations are stale: restarts, without the stamp, in the past
	wrong     string
}

// chaos is how bad the network is.
type chaos struct {
	loss, double float64
	least, most  time.Duration
}

func (c chaos) link(rng *rand.Rand) []time.Duration {
	var copies []time.Duration
	for n := 1; n > 0; n-- {
		if rng.Float64() < c.double && len(copies) < 3 {
			n++
		}
		if rng.Float64() >= c.loss {
			copies = append(copies, c.least+time.Duration(rng.Int64N(int64(c.most-c.least)+1)))
		}
	}
	return copies
}

func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

// schedule runs one. After the healing both send, or only one.
func schedule(t testing.TB, seed uint64, agree agreement, log func(string, ...any)) (o outcome) {
	s := newSimWith(t, seed, agree)
	if log != nil {
		s.log = log
	}
	rng := s.rng
	c := chaos{
		loss: pick(rng, 0, 0.05, 0.3, 0.7), double: pick(rng, 0, 0.1, 0.4),
		least: pick(rng, 0, time.Millisecond, 50*time.Millisecond),
	}
	c.most = c.least + pick(rng, 0, 20*time.Millisecond, 400*time.Millisecond, 8*time.Second)
	blocked := [2]bool{}
	s.link = func(from int, msg []byte) []time.Duration {
		if blocked[from] {
			return nil
		}
		return c.link(rng)
	}
	lasting := time.Duration(rng.Int64N(int64(pick(rng, 3*time.Second, 30*time.Second, 400*time.Second, 1200*time.Second))))
	for range 3 + rng.IntN(40) {
		n := s.nodes[rng.IntN(2)]
		s.at(s.now.Add(time.Duration(rng.Int64N(int64(lasting)+1))), disturb(s, n, &blocked, c))
	}
	sending := pick(rng, [2]bool{true, true}, [2]bool{true, true}, [2]bool{true, false}, [2]bool{false, true})
	if rng.IntN(2) == 0 { // traffic all the while
		for at := s.now; at < s.now.Add(lasting); at = at.Add(time.Duration(rng.Int64N(int64(4 * time.Second)))) {
			n := s.nodes[rng.IntN(2)]
			s.at(at, func() { n.send() })
		}
	}
	s.run(lasting)

	// It heals.
	s.link = func(int, []byte) []time.Duration {
		return []time.Duration{10*time.Millisecond + time.Duration(rng.Int64N(int64(20*time.Millisecond)))}
	}
	stale := [2]int{}
	for i, n := range s.nodes {
		n.load = false
		n.psk = PresharedKey{7}
		n.p.SetPresharedKey(n.psk)
		stale[i] = n.drops[DropStale]
	}
	healed := s.now
	log0 := s.log
	log0("%v healed", time.Duration(s.now))
	for s.now < healed.Add(80*time.Second) {
		first := [2]uint64{s.nodes[0].number + 1, s.nodes[1].number + 1}
		for range 5 {
			for i, n := range s.nodes {
				if sending[i] {
					n.send()
				}
			}
			s.run(400 * time.Millisecond)
		}
		same := s.nodes[0].session() != "" && s.nodes[0].session() == s.nodes[1].session()
		pass := true
		for i, n := range s.nodes {
			for number := first[i]; number <= n.number; number++ {
				pass = pass && s.nodes[1-i].got[number] == 1
			}
		}
		if same && pass {
			o.took = s.now.Sub(healed) - 2*time.Second
			break
		}
		o.took = s.now.Sub(healed)
	}
	if o.took >= 80*time.Second {
		o.explained = true // if whoever sends is told, by the other one's log, that its calendar is behind
		for i, n := range s.nodes {
			o.explained = o.explained && (!sending[1-i] || n.drops[DropStale] > stale[i])
		}
		if !o.explained {
			o.wrong = fmt.Sprintf("no agreement: %q and %q", s.nodes[0].session(), s.nodes[1].session())
		}
	}
	for i, n := range s.nodes {
		for number, times := range n.got {
			if times != 1 || number > s.nodes[1-i].number {
				o.wrong = fmt.Sprintf("node %d got packet %d %d times, of %d", i, number, times, s.nodes[1-i].number)
			}
		}
		if n.hasty != "" {
			o.wrong = n.hasty
		}
		if used := n.m.table.used; used > 5 {
			o.wrong = fmt.Sprintf("node %d has %d indices in use", i, used)
		}
	}
	return o
}

// disturb returns one thing that may happen to a node.
func disturb(s *sim, n *node, blocked *[2]bool, c chaos) func() {
	rng := s.rng
	switch rng.IntN(14) {
	case 0, 1, 2, 3:
		burst := 1 + rng.IntN(4)
		return func() {
			for range burst {
				n.send()
			}
		}
	case 4:
		kept := rng.IntN(2) == 0
		step := pick(rng, 0, 0, time.Second, -time.Second, time.Hour, -time.Hour)
		return func() {
			s.log("%v %d: restarts, stamp kept %v, calendar %v", time.Duration(s.now), n.id, kept, step)
			var after tai64n.Timestamp
			if kept {
				after = n.m.Stamp()
			}
			n.wall += step
			n.start(after)
		}
	case 5, 6:
		step := pick(rng, time.Second, -time.Second, time.Hour, -time.Hour, -1000*time.Hour)
		return func() { n.wall += step }
	case 7:
		return func() { n.load = !n.load }
	case 8:
		return func() { blocked[n.id] = !blocked[n.id] }
	case 9:
		return func() { n.act(n.p.Handshake(n.moment(), nil)) }
	case 10:
		key := PresharedKey{byte(rng.IntN(3))}
		return func() { n.psk = key; n.p.SetPresharedKey(key) }
	case 11:
		interval := pick(rng, 0, time.Second, 25*time.Second)
		return func() { n.persist = interval; n.p.SetPersistent(interval, s.now); n.step() }
	case 12:
		return func() { n.p.Zero(); n.begun = longAgo; n.arm() }
	default: // an introduction carries an initiation, and its response
		way, back := time.Duration(rng.Int64N(int64(3*time.Second))), time.Duration(rng.Int64N(int64(3*time.Second)))
		return func() {
			msg := n.p.Carry(n.moment())
			n.arm()
			s.at(s.now.Add(way), func() { s.nodes[1-n.id].introduced(msg, back) })
		}
	}
}

// introduced takes a message out of an introduction; what it is answered with goes the same way.
func (n *node) introduced(msg []byte, back time.Duration) {
	r, acts := n.m.Receive(msg, noSource, false, n.moment(), nil)
	n.drops[r.Drop]++
	for _, a := range acts {
		if a.Kind == SendResponse {
			n.counts[SendResponse]++
			n.sim.at(n.sim.now.Add(back), func() { n.sim.nodes[1-n.id].introduced(a.Packet, back) })
		} else {
			n.act([]Action{a})
		}
	}
	n.arm()
}

// schedules returns how many are to be run.
func schedules(t testing.TB) int {
	if env := os.Getenv("WARREN_SCHEDULES"); env != "" {
		n, err := strconv.Atoi(env)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if testing.Short() || raceEnabled {
		return 300
	}
	return 2000
}

// TestModel runs seeded schedules, most of them with a group that costs nothing in place of Curve25519, for it is the machine
// that is looked at. WARREN_SCHEDULES says how many, WARREN_SEED runs a single one and tells it.
func TestModel(t *testing.T) {
	if env := os.Getenv("WARREN_SEED"); env != "" {
		seed, err := strconv.ParseUint(env, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		o := schedule(t, seed, toy, t.Logf)
		t.Logf("%+v", o)
		if o.wrong != "" {
			t.Error(o.wrong)
		}
		return
	}
	t.Parallel()
	count := schedules(t)
	var next, explained atomic.Int64
	var mu sync.Mutex
	var wrong []string
	var took [9]int // by tens of seconds
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				seed := next.Add(1)
				if seed > int64(count) {
					return
				}
				agree := agreement(toy)
				if seed%50 == 0 {
					agree = curve25519.X25519
				}
				o := schedule(t, uint64(seed), agree, nil)
				if o.explained {
					explained.Add(1)
				}
				mu.Lock()
				if o.wrong != "" {
					wrong = append(wrong, fmt.Sprintf("seed %d: %s", seed, o.wrong))
				} else if !o.explained {
					took[o.took/(10*time.Second)]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d schedules: agreement after 0, 10, 20 … s: %v; never, and the log says that the initiations are stale: %d", count, took, explained.Load())
	if len(wrong) > 0 {
		t.Errorf("%d of %d went wrong:\n%s", len(wrong), count, strings.Join(wrong[:min(len(wrong), 20)], "\n"))
	}
}

// TestDay: 24 hours of traffic both ways. A handshake each 120 s, begun by one side, and no packet is lost or comes twice.
func TestDay(t *testing.T) {
	t.Parallel()
	every := time.Second
	if testing.Short() || raceEnabled {
		every = 10 * time.Second
	}
	for _, way := range []time.Duration{5 * time.Millisecond, 100 * time.Millisecond} {
		s := newSimWith(t, 1, toy)
		s.link = func(int, []byte) []time.Duration {
			return []time.Duration{way + time.Duration(s.rng.Int64N(int64(way)))} // so packets pass each other
		}
		end := s.now.Add(24 * time.Hour)
		for _, n := range s.nodes {
			var tick func()
			tick = func() {
				n.send()
				if s.now < end {
					s.at(s.now.Add(every), tick)
				}
			}
			s.at(s.now.Add(time.Duration(s.rng.Int64N(int64(every)))), tick)
		}
		s.until(end.Add(every + time.Second))
		handshakes := s.nodes[0].counts[SendInitiation] + s.nodes[1].counts[SendInitiation]
		if least := int(24 * time.Hour / (RekeyAfterTime + every + time.Second)); handshakes < least || handshakes > 24*3600/120+1 {
			t.Errorf("way %v: got %d handshakes, want one each 120 s", way, handshakes)
		}
		for i, n := range s.nodes {
			other := s.nodes[1-i]
			if uint64(len(n.got)) != other.number {
				t.Errorf("way %v: node %d got %d packets of %d", way, i, len(n.got), other.number)
			}
			for number, times := range n.got {
				if times != 1 {
					t.Errorf("way %v: node %d got packet %d %d times", way, i, number, times)
				}
			}
			delete(n.drops, Kept)
			if len(n.drops) > 0 {
				t.Errorf("way %v: node %d dropped %v", way, i, n.drops)
			}
		}
		t.Logf("way %v: %d handshakes, %d packets", way, handshakes, s.nodes[0].number+s.nodes[1].number)
	}
}
