package pathmtu

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// world is a path in virtual time: it carries packets up to its MTU, to a peer that answers probes or does not.
type world struct {
	*Machine
	now     time.Time
	rtt     time.Duration
	mtu     int  // inside the tunnel; 0: nothing passes
	loss    int  // per mille, of probes and answers alike
	deaf    bool // the peer answers no probes
	out     Output
	pending []arrival
	sent    []int // sizes of all probes
	random  *rand.Rand
}

type arrival struct {
	Probe
	at time.Time
}

var (
	first  = netip.MustParseAddrPort("192.0.2.1:9277")
	second = netip.MustParseAddrPort("198.51.100.1:9277")
)

// over is a path over IPv4, with the default MTU.
func over(a netip.AddrPort) Path { return Path{Addr: a, Overhead: 60, Top: 1376, Default: 1376} }

func newWorld(mtu int) *world {
	var serial uint64
	w := &world{now: time.Unix(1000, 0), rtt: 20 * time.Millisecond, mtu: mtu, random: rand.New(rand.NewPCG(1, 2))}
	w.Machine = New(func() uint64 { serial++; return serial })
	return w
}

func (w *world) take(o Output) {
	w.out = o
	for _, p := range o.Probes {
		w.sent = append(w.sent, p.Size)
		if p.Size <= w.mtu && !w.deaf && w.random.IntN(1000) >= w.loss {
			w.pending = append(w.pending, arrival{p, w.now.Add(w.rtt)})
		}
	}
}

func (w *world) move(p Path) { w.take(w.Move(w.now, p)) }

// run lets time pass, with a packet of the size in every 10 ms (0: none) and none that is larger than the limit allows.
func (w *world) run(d time.Duration, size int) {
	for end := w.now.Add(d); w.now.Before(end); {
		if size > 0 && w.out.Report >= 0 && size >= w.out.Report {
			w.take(w.Sent(w.now, size))
		}
		w.now = w.now.Add(10 * time.Millisecond)
		due := w.pending
		w.pending = nil
		for _, a := range due {
			if a.at.After(w.now) {
				w.pending = append(w.pending, a)
				continue
			}
			w.take(w.Answer(w.now, a.Nonce, a.Size))
		}
		if !w.out.Wake.IsZero() && !w.out.Wake.After(w.now) {
			w.take(w.Tick(w.now))
		}
	}
}

// settled waits with traffic until the limit is final, and returns how long that took.
func (w *world) settled(t *testing.T, limit time.Duration) time.Duration {
	t.Helper()
	begin := w.now
	for w.out.Limit.Split {
		if w.now.Sub(begin) > limit {
			t.Fatalf("not settled within %v: %+v", limit, w.out)
		}
		w.run(10*time.Millisecond, 1000)
	}
	return w.now.Sub(begin)
}

func TestOrdinaryPathTakesOneRoundTrip(t *testing.T) {
	w := newWorld(1440)
	w.move(over(first))
	if w.run(time.Hour, 0); len(w.sent) > 0 || !w.out.Wake.IsZero() {
		t.Errorf("without traffic: got %v, want no probe and no wake-up", w.sent)
	}
	if want := (Limit{Whole: Base, Split: true, Clamp: 1376}); w.out.Limit != want {
		t.Errorf("unknown path: got %+v, want %+v", w.out.Limit, want)
	}
	if took := w.settled(t, time.Second); took > 2*w.rtt {
		t.Errorf("settled after %v, want a round trip of %v", took, w.rtt)
	}
	if want := (Limit{Whole: 1376, Clamp: 1376}); w.out.Limit != want || w.out.Verified != 1376 || w.out.Exact {
		t.Errorf("got %+v, want %+v", w.out, want)
	}
	if got, want := fmt.Sprint(w.sent), fmt.Sprint([]int{Small, Base, 1376}); got != want {
		t.Errorf("probes: got %v, want %v", got, want)
	}
	w.sent = nil
	if w.run(time.Hour, Base); len(w.sent) > 0 {
		t.Errorf("with small packets: got probes %v, want none", w.sent)
	}
	if w.run(time.Minute, 1376); len(w.sent) < 2*27 || len(w.sent) > 2*30 {
		t.Errorf("with large packets: got %d probes in a minute, want two every two seconds", len(w.sent))
	}
}

// TestEverySizeIsFound tries every path MTU, over both families and all wrappings.
func TestEverySizeIsFound(t *testing.T) {
	slowest, most := time.Duration(0), 0
	for _, overhead := range []int{60, 80, 84} {
		for _, top := range []int{1376, 1420, (9000 - overhead) &^ 15} {
			for outer := 576; outer <= 9300; outer += 7 {
				w := newWorld(outer - overhead)
				w.move(Path{Addr: first, Overhead: overhead, Top: top, Default: 1376})
				slowest = max(slowest, w.settled(t, 10*time.Second))
				most = max(most, len(w.sent))
				got := w.out.Limit
				want := min((outer-overhead)&^15, top)
				if outer-overhead >= top {
					want = top
				}
				if got.Whole != want || got.Clamp != want {
					t.Fatalf("path MTU %d, overhead %d, top %d: got %+v, want %d", outer, overhead, top, got, want)
				}
			}
		}
	}
	t.Logf("slowest %v, most probes %d", slowest, most)
	if slowest > 5*time.Second || most > 100 {
		t.Errorf("slowest %v with %d probes, want within 5 s and 100", slowest, most)
	}
}

func TestFragmentsUntilKnown(t *testing.T) {
	w := newWorld(1220)
	w.move(over(first))
	for w.out.Limit.Split {
		if w.out.Limit.Whole > 1220 {
			t.Fatalf("got %+v, larger than the path", w.out.Limit)
		}
		w.run(10*time.Millisecond, 1376)
		if w.now.Sub(time.Unix(1000, 0)) > 10*time.Second {
			t.Fatal("not settled within 10 s")
		}
	}
	if w.out.Limit.Whole != 1216 {
		t.Errorf("got %+v, want 1216", w.out.Limit)
	}
}

func TestBlackHole(t *testing.T) {
	w := newWorld(1440)
	w.move(over(first))
	w.settled(t, time.Second)
	w.mtu = 1220
	begin := w.now
	for w.out.Limit.Whole > w.mtu {
		if w.now.Sub(begin) > 3*time.Second {
			t.Fatalf("not noticed within 3 s: %+v", w.out)
		}
		w.run(10*time.Millisecond, 1376)
	}
	t.Logf("noticed after %v", w.now.Sub(begin))
	if w.settled(t, 10*time.Second); w.out.Limit.Whole != 1216 {
		t.Errorf("got %+v, want 1216", w.out.Limit)
	}
	// The path is wide again: that is noticed by the raise, and nothing is fragmented meanwhile.
	w.mtu = 1440
	for begin = w.now; w.out.Limit.Whole < 1376; w.run(10*time.Millisecond, 1000) {
		if w.out.Limit.Split || w.now.Sub(begin) > raiseEvery+time.Second {
			t.Fatalf("after %v: %+v", w.now.Sub(begin), w.out)
		}
	}
	if got := w.now.Sub(begin); got < raiseEvery-confirmEvery {
		t.Errorf("raised after %v, want %v", got, raiseEvery)
	}
}

// TestDeadPathProvesNothing cuts the path for a minute, with traffic.
func TestDeadPathProvesNothing(t *testing.T) {
	w := newWorld(1440)
	w.move(over(first))
	w.settled(t, time.Second)
	w.mtu = 0
	for range 60 {
		w.run(time.Second, 1376)
		if w.out.Limit.Whole != 1376 {
			t.Fatalf("got %+v, want what was verified before", w.out.Limit)
		}
	}
}

func TestPathIsRemembered(t *testing.T) {
	w := newWorld(1220)
	w.move(over(first))
	w.settled(t, 10*time.Second)
	w.mtu = 1440
	w.move(over(second))
	if w.out.Limit.Whole != Base || !w.out.Limit.Split || w.out.Verified != 0 {
		t.Errorf("a new path: got %+v, want the base size", w.out)
	}
	w.settled(t, time.Second)
	w.move(over(first))
	if w.out.Limit.Whole != 1216 {
		t.Errorf("a path that returns: got %+v, want 1216 at once", w.out.Limit)
	}
	// What was on its way to the old one counts for nothing.
	w.move(over(second))
	o := w.Sent(w.now, 100)
	w.move(Path{Addr: first, Overhead: 60, Top: 1376, Default: 1376})
	for _, p := range o.Probes {
		if got := w.Answer(w.now, p.Nonce, p.Size); got.Verified != 0 {
			t.Errorf("answer of the path before: got %+v", got)
		}
	}
}

func TestMutePeerKeepsTheDefault(t *testing.T) {
	w := newWorld(1440)
	w.deaf = true
	w.move(over(first))
	w.run(10*time.Second, 1000)
	if want := (Limit{Whole: 1376, Clamp: 1376}); w.out.Limit != want {
		t.Errorf("got %+v, want %+v", w.out.Limit, want)
	}
	w.sent = nil
	w.run(10*time.Minute, 1000)
	if len(w.sent) > 40 {
		t.Errorf("got %d probes in ten minutes: %v", len(w.sent), w.sent)
	}
	w.deaf = false // it was updated
	w.run(2*time.Minute, 1000)
	if w.out.Verified != 1376 {
		t.Errorf("got %+v, want 1376 verified", w.out)
	}
}

func TestLossyPath(t *testing.T) {
	wrong := 0
	for seed := range uint64(200) {
		w := newWorld(1440)
		w.loss, w.random = 100, rand.New(rand.NewPCG(seed, 1))
		w.move(over(first))
		w.settled(t, 20*time.Second)
		if w.out.Limit.Whole != 1376 {
			wrong++
		}
	}
	if wrong > 2 {
		t.Errorf("with 10 %% loss %d of 200 paths measured wrong", wrong)
	}
}

func TestNoPath(t *testing.T) {
	w := newWorld(1440)
	w.move(Path{Default: 1376, Top: 1376})
	if w.run(time.Minute, 1000); len(w.sent) > 0 || !w.out.Wake.IsZero() || w.out.Exact {
		t.Errorf("got %+v", w.out)
	}
}
