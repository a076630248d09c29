package noise

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/tai64n"
	"golang.zx2c4.com/wireguard/tun/tuntest"
)

/* The model once more, with the module's device for one of the two: our machine and the device on a network that loses, delays,
 * doubles and reorders, while both restart and our calendar is set. Then it heals, and both have to use the same session, and
 * every packet has to pass.
 */

// twins are the two ends of one schedule.
type twins struct {
	*pairing
	rng   *rand.Rand
	inbox chan []byte

	mu     sync.Mutex
	chaos  chaos
	got    map[uint64]int // packets that the device handed on, by number
	number uint64

	heard   map[uint64]int // packets that we opened
	under   map[uint32]int // and the sessions under which
	staged  [][]byte
	ending  chan struct{}
	calends time.Duration
}

// moment is our time; the calendar may be off.
func (w *twins) moment() Moment {
	return Moment{Instant(time.Since(w.start)) + second, time.Now().Add(w.calends)}
}

// attach follows what the device sends and hands on, until it is closed.
func (w *twins) attach() {
	tun, wire, ending := w.tun, w.wire, w.ending
	go func() {
		for {
			select {
			case <-ending:
				return
			case b := <-tun.Inbound:
				w.mu.Lock()
				w.got[binary.BigEndian.Uint64(b[20:])]++
				w.mu.Unlock()
			case msg := <-wire.sent:
				w.mu.Lock()
				copies := w.chaos.link(w.rng)
				w.mu.Unlock()
				for _, d := range copies {
					time.AfterFunc(d, func() { w.inbox <- append([]byte(nil), msg...) })
				}
			}
		}
	}()
}

// restart ends the device and makes another one.
func (w *twins) restart() {
	close(w.ending)
	w.dev.Close()
	w.mu.Lock()
	w.tun, w.wire = tuntest.NewChannelTUN(), &memory{sent: make(chan []byte, 4096), take: make(chan []byte, 8192)}
	w.mu.Unlock()
	w.ending = make(chan struct{})
	w.dev = deviceOn(w.t, w.tun, w.wire, w.m.Public(), PresharedKey{1}, "")
	w.attach()
}

// renew ends our machine and makes another one.
func (w *twins) renew(after tai64n.Timestamp) {
	var err error
	if w.m, err = New(Options{Private: testKey(1), After: after}); err != nil {
		w.t.Fatal(err)
	}
	if w.p, err = w.m.Add(testKey(101).Public()); err != nil {
		w.t.Fatal(err)
	}
	w.p.SetPresharedKey(PresharedKey{1})
	w.staged = nil
}

func (w *twins) do(acts []Action) {
	w.acts = append(w.acts, acts...)
	for _, a := range acts {
		switch {
		case a.Packet != nil:
			w.transmit(a.Packet)
		case a.Kind == Ready:
			staged := w.staged
			w.staged = nil
			for _, b := range staged {
				w.seal(b)
			}
		default:
			w.staged = nil
		}
	}
}

func (w *twins) transmit(msg []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.chaos.link(w.rng) {
		time.AfterFunc(d, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			select {
			case w.wire.take <- append([]byte(nil), msg...):
			default:
			}
		})
	}
}

func (w *twins) seal(b []byte) {
	msg, signal := w.p.Seal(nil, b, w.moment().At)
	if signal&NoKey != 0 {
		w.staged = append(w.staged, b)
	} else {
		w.transmit(msg)
	}
	if signal&Wake != 0 {
		w.do(w.p.Step(w.moment(), nil))
	}
}

// send sends one packet of ours, ask one of the device's. Both have the number of the packet in them.
func (w *twins) send() {
	w.number++
	b := packet(ours, theirs, 48)
	binary.BigEndian.PutUint64(b[20:], w.number)
	w.seal(b)
}

func (w *twins) askFor() {
	w.number++
	b := packet(theirs, ours, 48)
	binary.BigEndian.PutUint64(b[20:], w.number)
	w.tun.Outbound <- b
}

// pass lets time pass.
func (w *twins) pass(d time.Duration) {
	end := time.NewTimer(d)
	for {
		step := time.NewTimer(max(0, min(time.Hour, w.p.Next().Sub(w.moment().At))))
		select {
		case <-end.C:
			return
		case <-step.C:
			w.do(w.p.Step(w.moment(), nil))
		case msg := <-w.inbox:
			if TypeOf(msg) != Transport {
				r, acts := w.m.Receive(msg, source, w.load, w.moment(), nil)
				w.drops[r.Drop]++
				w.do(acts)
				continue
			}
			index := binary.LittleEndian.Uint32(msg[4:])
			o := w.m.Open(msg[HeaderSize:HeaderSize], msg, w.moment().At)
			w.drops[o.Drop]++
			if len(o.Plain) > 0 {
				w.heard[binary.BigEndian.Uint64(o.Plain[20:])]++
				w.under[index]++
			}
			if o.Signal&Wake != 0 {
				w.do(w.p.Step(w.moment(), nil))
			}
		}
	}
}

// differ runs one schedule and returns how long it took to heal, and what was wrong.
func differ(t *testing.T, seed uint64) (took time.Duration, wrong string) {
	w := &twins{
		pairing: pairUp(t, PresharedKey{1}, ""), rng: rand.New(rand.NewPCG(seed, 2)), inbox: make(chan []byte, 4096),
		got: map[uint64]int{}, heard: map[uint64]int{}, under: map[uint32]int{}, ending: make(chan struct{}),
	}
	defer func() { close(w.ending) }()
	w.attach()
	script := rand.New(rand.NewPCG(seed, 3))
	c := chaos{loss: pick(script, 0, 0.05, 0.3, 0.6), double: pick(script, 0, 0.1, 0.4), least: pick(script, 0, time.Millisecond, 50*time.Millisecond)}
	c.most = c.least + pick(script, 0, 20*time.Millisecond, 400*time.Millisecond, 4*time.Second)
	w.chaos = c
	for range 5 + script.IntN(40) {
		switch script.IntN(11) {
		case 0, 1, 2:
			w.send()
		case 3, 4, 5:
			w.askFor()
		case 6:
			w.restart()
		case 7:
			w.renew(w.m.Stamp())
		case 8:
			w.calends += pick(script, time.Second, -time.Second, time.Hour, -time.Hour)
		case 9:
			w.do(w.p.Handshake(w.moment(), nil))
		case 10:
			w.load = !w.load
		}
		w.pass(time.Duration(script.Int64N(int64(pick(script, 50*time.Millisecond, time.Second, 20*time.Second)))))
	}
	w.mu.Lock()
	w.chaos = chaos{least: 10 * time.Millisecond, most: 12 * time.Millisecond}
	w.mu.Unlock()
	w.load = false
	healed := time.Now()
	for time.Since(healed) < 80*time.Second {
		first := w.number + 1
		clear(w.under)
		for range 5 {
			w.send()
			w.askFor()
			w.pass(400 * time.Millisecond)
		}
		k := w.p.keys.Load().sending()
		same, pass := k != nil && w.under[k.local] == 5 && len(w.under) == 1, true
		w.mu.Lock()
		for number := first; number <= w.number; number++ {
			pass = pass && w.got[number]+w.heard[number] == 1
		}
		w.mu.Unlock()
		if same && pass {
			for number, times := range w.heard {
				if times != 1 {
					return 0, fmt.Sprintf("packet %d came %d times", number, times)
				}
			}
			return time.Since(healed) - 2*time.Second, ""
		}
	}
	return 0, fmt.Sprintf("no agreement; dropped %v", w.drops)
}

// TestDifferential runs seeded schedules against the device. WARREN_SCHEDULES asks for a hundredth as many as of the model.
func TestDifferential(t *testing.T) {
	t.Parallel()
	count := max(20, schedules(t)/20)
	if os.Getenv("WARREN_SCHEDULES") != "" {
		count = max(20, schedules(t)/100)
	}
	first := uint64(1)
	if env := os.Getenv("WARREN_SEED"); env != "" {
		seed, err := strconv.ParseUint(env, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, count = seed, 1
	}
	var took [9]int
	var wrong []string
	for seed := first; seed < first+uint64(count); seed++ {
		synctest.Test(t, func(t *testing.T) {
			d, w := differ(t, seed)
			if w != "" {
				wrong = append(wrong, fmt.Sprintf("seed %d: %s", seed, w))
			} else {
				took[d/(10*time.Second)]++
			}
			time.Sleep(time.Minute) // what is on its way still arrives
		})
	}
	t.Logf("%d schedules against the device: agreement after 0, 10, 20 … s: %v", count, took)
	if len(wrong) > 0 {
		t.Errorf("%d of %d went wrong:\n%s", len(wrong), count, strings.Join(wrong[:min(len(wrong), 20)], "\n"))
	}
}
