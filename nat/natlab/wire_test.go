//go:build linux

package natlab

import (
	"encoding/binary"
	"math"
	"testing"
	"time"
)

// sentAt runs a wire: frames of a size go in one interval apart, and what comes out is told in order: which, and when after it went in.
func sentAt(l Line, n, size int, interval time.Duration) (order []int, took []time.Duration, w *wire) {
	w = newWire(l.Seed, 1)
	start := time.Unix(1000, 0)
	drain := func(until time.Time) {
		for at := w.next(); !at.IsZero() && !at.After(until); at = w.next() {
			frame := w.pop(at)
			i := int(binary.BigEndian.Uint32(frame))
			order = append(order, i)
			took = append(took, at.Sub(start.Add(time.Duration(i)*interval)))
		}
	}
	for i := range n {
		now := start.Add(time.Duration(i) * interval)
		drain(now)
		frame := make([]byte, size)
		binary.BigEndian.PutUint32(frame, uint32(i))
		w.push(now, l, frame)
	}
	drain(start.Add(time.Hour))
	return order, took, w
}

func TestWireDelays(t *testing.T) {
	t.Parallel()
	order, took, _ := sentAt(Line{Delay: 50 * time.Millisecond}, 1000, 100, time.Millisecond)
	if len(order) != 1000 {
		t.Fatalf("got %d packets, want 1000", len(order))
	}
	for i := range order {
		if order[i] != i || took[i] != 50*time.Millisecond {
			t.Fatalf("packet %d: got number %d after %v, want it after 50 ms", i, order[i], took[i])
		}
	}
}

// TestWireLoses asserts the share within four deviations, and that a seed draws the same again.
func TestWireLoses(t *testing.T) {
	t.Parallel()
	const n = 20_000
	for _, loss := range []float64{0.01, 0.05, 0.2, 1} {
		first, _, w := sentAt(Line{Loss: loss, Seed: 7}, n, 100, time.Millisecond)
		again, _, _ := sentAt(Line{Loss: loss, Seed: 7}, n, 100, time.Millisecond)
		other, _, _ := sentAt(Line{Loss: loss, Seed: 8}, n, 100, time.Millisecond)
		got, deviation := float64(n-len(first))/n, math.Sqrt(loss*(1-loss)/n)
		if math.Abs(got-loss) > 4*deviation || w.carried.Lost != int64(n-len(first)) || w.carried.Packets != int64(len(first)) {
			t.Errorf("loss of %v: got %v, counted %+v", loss, got, w.carried)
		}
		same := func(x, y []int) bool {
			for i := range x {
				if i >= len(y) || x[i] != y[i] {
					return false
				}
			}
			return len(x) == len(y)
		}
		if !same(first, again) || loss < 1 && same(first, other) {
			t.Errorf("loss of %v: what is lost does not follow the seed", loss)
		}
	}
}

func TestWireJittersAndReorders(t *testing.T) {
	t.Parallel()
	order, took, _ := sentAt(Line{Delay: 300 * time.Millisecond, Jitter: time.Second}, 5000, 100, 10*time.Millisecond)
	var sum time.Duration
	overtaken := 0
	for i, d := range took {
		sum += d
		if d < 300*time.Millisecond || d >= 1300*time.Millisecond {
			t.Fatalf("packet %d took %v, want from 300 to 1300 ms", order[i], d)
		}
		if i > 0 && order[i] < order[i-1] {
			overtaken++
		}
	}
	if mean := sum / time.Duration(len(took)); len(took) != 5000 || mean < 770*time.Millisecond || mean > 830*time.Millisecond || overtaken < 1000 {
		t.Errorf("got %d packets, %v on the average, %d overtaken; want 5000, 800 ms, more than 1000", len(took), mean, overtaken)
	}
}

// TestWireKeepsTheRate sends twice what the line takes: half comes out, at the line's rate, none later than the queue allows.
func TestWireKeepsTheRate(t *testing.T) {
	t.Parallel()
	// 1000 bytes take 8 ms; the queue holds twelve of them.
	l := Line{Delay: 20 * time.Millisecond, Rate: 1_000_000, Queue: 100 * time.Millisecond}
	order, took, w := sentAt(l, 1000, 1000, 4*time.Millisecond)
	if len(order) < 500 || len(order) > 515 {
		t.Errorf("got %d of 1000 packets in 4 s, want the 500 of the rate and the 12 of the queue", len(order))
	}
	if w.carried.Overflowed != int64(1000-len(order)) || w.carried.Bytes != int64(1000*len(order)) {
		t.Errorf("counted %+v", w.carried)
	}
	var longest time.Duration
	for i := range order {
		longest = max(longest, took[i])
		if i > 0 && order[i] < order[i-1] {
			t.Errorf("%d arrived after %d", order[i], order[i-1])
		}
	}
	if took[0] != 28*time.Millisecond || longest > 128*time.Millisecond || longest < 120*time.Millisecond {
		t.Errorf("the first took %v, the slowest %v; want 28 ms, and 128 ms at most", took[0], longest)
	}
	// Less than the rate waits for nothing.
	_, took, _ = sentAt(l, 100, 1000, 10*time.Millisecond)
	for _, d := range took {
		if d != 28*time.Millisecond {
			t.Fatalf("below the rate: got %v, want 28 ms", d)
		}
	}
}

// TestWireQueueOfItsOwn: without a bound that is given, a slow line holds eight full packets.
func TestWireQueueOfItsOwn(t *testing.T) {
	t.Parallel()
	order, _, _ := sentAt(Line{Rate: 64_000}, 100, 1514, 0)
	if len(order) != 9 {
		t.Errorf("got %d packets of 100 at once, want the eight of the queue and the one that is sent", len(order))
	}
}

func TestWireShortened(t *testing.T) {
	t.Parallel()
	w, start := newWire(0, 1), time.Unix(1000, 0)
	w.push(start, Line{Delay: time.Second}, []byte{0})
	w.push(start.Add(time.Millisecond), Line{Delay: time.Millisecond}, []byte{1})
	w.push(start.Add(2*time.Second), Line{Delay: time.Millisecond}, []byte{2})
	for i, want := range []time.Duration{time.Second, time.Second, 2001 * time.Millisecond} {
		at := w.next()
		if frame := w.pop(at); frame[0] != byte(i) || at.Sub(start) != want {
			t.Errorf("got packet %d after %v, want %d after %v", frame[0], at.Sub(start), i, want)
		}
	}
	if w.pop(start.Add(time.Hour)) != nil || !w.next().IsZero() {
		t.Error("the wire is not empty")
	}
}

func TestWireIsBounded(t *testing.T) {
	t.Parallel()
	w, now := newWire(0, 1), time.Unix(1000, 0)
	for range maxHeld + 10 {
		w.push(now, Line{Delay: time.Minute}, []byte{0})
	}
	if len(w.held) != maxHeld || w.carried.Overflowed != 10 {
		t.Errorf("got %d held, %+v", len(w.held), w.carried)
	}
}

func BenchmarkWire(b *testing.B) {
	w, now, frame := newWire(0, 1), time.Unix(1000, 0), make([]byte, 1514)
	l := Line{Delay: 50 * time.Millisecond, Loss: 0.05, Jitter: 10 * time.Millisecond}
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(20 * time.Microsecond)
		w.push(now, l, frame)
		for w.pop(now) != nil {
		}
	}
}
