package noise

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// TestSizes seals and opens packets of every size up to that of an MTU and some large ones, in place and apart.
func TestSizes(t *testing.T) {
	s, a, b := established(t)
	for n := 0; n <= 65000; n++ {
		if n > 1500 {
			n += 977
		}
		plain := make([]byte, n)
		for i := range plain {
			plain[i] = byte(i + n)
		}
		apart, signal := a.p.Seal([]byte("before"), plain, s.now)
		if signal&NoKey != 0 || len(apart) != 6+n+Overhead || string(apart[:6]) != "before" {
			t.Fatalf("size %d: got %d bytes, signal %v", n, len(apart), signal)
		}
		buf := make([]byte, HeaderSize+n+TagSize)
		copy(buf[HeaderSize:], plain)
		in, _ := a.p.Seal(buf[:0], buf[HeaderSize:HeaderSize+n], s.now)
		if &in[0] != &buf[0] {
			t.Fatalf("size %d: a packet that was sealed in place was moved", n)
		}
		o := b.m.Open(make([]byte, 3, 3+n), apart[6:], s.now)
		if o.Drop != Kept || !bytes.Equal(o.Plain, plain) || o.Peer != b.p {
			t.Fatalf("size %d: apart: %v", n, o.Drop)
		}
		o = b.m.Open(in[HeaderSize:HeaderSize], in, s.now)
		if o.Drop != Kept || !bytes.Equal(o.Plain, plain) {
			t.Fatalf("size %d: in place: %v", n, o.Drop)
		}
		if n > 0 && &o.Plain[0] != &buf[HeaderSize] {
			t.Fatalf("size %d: a packet that was opened in place was moved", n)
		}
	}
}

// TestReplayWindow: no counter is taken twice, and none that is older than the window (5.4.6).
func TestReplayWindow(t *testing.T) {
	s, a, b := established(t)
	var all [][]byte
	for range 9000 {
		msg, _ := a.p.Seal(nil, []byte{1}, s.now)
		all = append(all, msg)
	}
	open := func(i int) Drop { return b.m.Open(nil, bytes.Clone(all[i]), s.now).Drop }
	for _, tt := range []struct {
		i    int
		want Drop
	}{{0, Kept}, {0, DropReplay}, {5, Kept}, {3, Kept}, {3, DropReplay}, {8500, Kept}, {4, DropReplay}, {8500, DropReplay}, {8499, Kept}, {500, Kept}, {100, DropReplay}} {
		if got := open(tt.i); got != tt.want {
			t.Errorf("packet %d: got %v, want %v", tt.i, got, tt.want)
		}
	}
	damaged := bytes.Clone(all[8600])
	damaged[20] ^= 1
	if got := b.m.Open(nil, damaged, s.now).Drop; got != DropForged {
		t.Errorf("got %v for a damaged packet", got)
	}
	if got := open(8600); got != Kept {
		t.Errorf("got %v for the packet itself: a forged one has used up its counter", got)
	}
	wrong := bytes.Clone(all[8700])
	wrong[4]++
	if got := b.m.Open(nil, wrong, s.now).Drop; got != DropIndex {
		t.Errorf("got %v for an unknown index", got)
	}
	if got := b.m.Open(nil, all[8700][:31], s.now).Drop; got != DropMalformed {
		t.Errorf("got %v for a short packet", got)
	}
	if got := a.m.Open(nil, bytes.Clone(all[8701]), s.now).Drop; got == Kept {
		t.Error("a packet was taken by the one that sealed it")
	}
}

// TestReorderedWithinWindow: any order within the window is taken, each once.
func TestReorderedWithinWindow(t *testing.T) {
	s, a, b := established(t)
	var all [][]byte
	for range 8000 {
		msg, _ := a.p.Seal(nil, []byte{1}, s.now)
		all = append(all, msg)
	}
	for round, want := range []Drop{Kept, DropReplay} {
		for _, i := range rand.New(rand.NewPCG(1, uint64(round))).Perm(len(all)) {
			if got := b.m.Open(nil, bytes.Clone(all[i]), s.now).Drop; got != want {
				t.Fatalf("round %d, packet %d: got %v, want %v", round, i, got, want)
			}
		}
	}
}

// TestPadded: up to a multiple of 16, and never above the MTU.
func TestPadded(t *testing.T) {
	for _, tt := range []struct{ n, mtu, want int }{
		{0, 1420, 0}, {1, 1420, 16}, {16, 1420, 16}, {17, 1420, 32}, {1409, 1420, 1420}, {1420, 1420, 1420}, {1500, 1420, 1500}, {1409, 0, 1424},
	} {
		if got := Padded(tt.n, tt.mtu); got != tt.want {
			t.Errorf("Padded(%d, %d): got %d, want %d", tt.n, tt.mtu, got, tt.want)
		}
	}
}

// TestNoAllocations: nothing is allocated for a packet, sealed or opened, in place or apart.
func TestNoAllocations(t *testing.T) {
	s, a, b := established(t)
	buf := make([]byte, 2048)
	apart := make([]byte, 2048)
	now := s.now
	n := testing.AllocsPerRun(1000, func() {
		now++
		msg, signal := a.p.Seal(buf[:0], buf[HeaderSize:HeaderSize+1420], now)
		if signal&NoKey != 0 {
			t.Fatal("no key")
		}
		if o := b.m.Open(apart[:0], msg, now); o.Drop != Kept || len(o.Plain) != 1420 {
			t.Fatal(o.Drop)
		}
		back, _ := b.p.Seal(buf[:0], apart[:64], now)
		if o := a.m.Open(back[HeaderSize:HeaderSize], back, now); o.Drop != Kept {
			t.Fatal(o.Drop)
		}
	})
	if n != 0 {
		t.Errorf("got %v allocations for two packets, want none", n)
	}
	// what is refused costs nothing either
	old := now.Add(time.Hour)
	if n := testing.AllocsPerRun(100, func() { a.p.Seal(buf[:0], buf[100:200], old) }); n != 0 {
		t.Errorf("got %v allocations for a packet without a key", n)
	}
}

// TestWakes: the loops wake the control goroutine when something becomes due earlier, and not for each packet.
func TestWakes(t *testing.T) {
	s, a, b := established(t)
	a.p.Next()
	b.p.Next()
	wakes := [2]int{}
	buf := make([]byte, 0, 2048)
	plain := make([]byte, 64)
	now := s.now
	for i := range 100_000 {
		now += Instant(50 * time.Microsecond)
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		msg, signal := from.p.Seal(buf, plain, now)
		if signal&Wake != 0 {
			wakes[from.id]++
			from.p.Step(Moment{now, calendar}, nil)
			from.p.Next()
		}
		if o := to.m.Open(msg[HeaderSize:HeaderSize], msg, now); o.Signal&Wake != 0 {
			wakes[to.id]++
			to.p.Step(Moment{now, calendar}, nil)
			to.p.Next()
		}
	}
	if wakes[0] > 3 || wakes[1] > 3 {
		t.Errorf("got %v wakes for 100,000 packets in 5 s, want one or two each", wakes)
	}
}

// TestNoWakeIsLost has a loop send or receive the first data in a long while just as the control goroutine makes its plan: either the
// plan has it, or the loop says Wake.
func TestNoWakeIsLost(t *testing.T) {
	s, a, _ := established(t)
	traffic := &a.p.traffic
	for _, receives := range []bool{true, false} {
		for step := range 3 {
			traffic.rest()
			traffic.planned.Store(int64(s.now)) // something was planned, and is not due any more
			var signal Signal
			within := KeepaliveTimeout + RekeyTimeout + RekeyJitter
			happens := func() { signal = traffic.sentSome(s.now, true) }
			if receives {
				within = KeepaliveTimeout
				happens = func() { signal = traffic.heardSome(s.now, true, true) }
			}
			if step == 0 {
				happens()
			}
			at := a.p.next()
			if step == 1 {
				happens()
			}
			at = a.p.plan(at)
			if step == 2 {
				happens()
			}
			if signal&Wake == 0 && at > s.now.Add(within+time.Microsecond) {
				t.Errorf("receives %v, step %d: the plan is %v later, and nobody was woken", receives, step, at.Sub(s.now))
			}
			if planned := Instant(traffic.planned.Load()); planned > s.now.Add(within+time.Microsecond) {
				t.Errorf("receives %v, step %d: the loops believe in a plan %v later", receives, step, planned.Sub(s.now))
			}
		}
	}
}

// TestManyLoops seals and opens by several goroutines at once, while the control goroutine renews the session under them, again and
// again: no packet is lost, none comes twice. The race detector looks on.
func TestManyLoops(t *testing.T) {
	s, a, b := established(t)
	const loops, renewals = 4, 12
	var now atomic.Int64
	now.Store(int64(s.now))
	var rounds [loops]atomic.Int64
	var wrong atomic.Int64
	stop := make(chan struct{})
	var running sync.WaitGroup
	for l := range loops {
		running.Go(func() {
			from, to := a, b
			if l%2 == 1 {
				from, to = b, a
			}
			plain, buf := make([]byte, 100), make([]byte, 0, 200)
			for i := uint64(0); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				binary.LittleEndian.PutUint64(plain, i)
				at := Instant(now.Load())
				msg, signal := from.p.Seal(buf, plain, at)
				if signal&NoKey != 0 {
					wrong.Add(1)
					rounds[l].Add(1)
					continue
				}
				again := bytes.Clone(msg)
				o := to.m.Open(msg[HeaderSize:HeaderSize], msg, at)
				late := o.Drop == DropReplay && behind(from.p, again) > 8000 // the others were quicker by a whole window
				if !late && (o.Drop != Kept || !bytes.Equal(o.Plain, plain)) {
					t.Errorf("round %d: got %v", i, o.Drop)
				}
				if o := to.m.Open(nil, again, at); o.Drop == Kept {
					t.Errorf("round %d: a packet came twice", i)
				}
				rounds[l].Add(1)
			}
		})
	}
	for range renewals {
		now.Add(int64(time.Second)) // the control goroutines of both are this one
		at := Moment{Instant(now.Load()), calendar.Add(time.Duration(now.Load()))}
		x, y := a, b
		if s.rng.IntN(2) == 0 {
			x, y = b, a
		}
		_, acts := y.m.Receive(x.p.Carry(at), noSource, false, at, nil)
		_, acts = x.m.Receive(acts[len(acts)-1].Packet, noSource, false, at, nil)
		if len(acts) == 0 {
			t.Error("a handshake failed")
		}
		y.m.Open(nil, acts[len(acts)-1].Packet, at.At)
		for _, n := range []*node{a, b} {
			n.p.Step(at, nil)
			n.p.Next()
		}
		for l := range rounds { // what was sealed before the renewal is opened before the next one
			for was := rounds[l].Load(); rounds[l].Load() < was+2; {
				runtime.Gosched()
			}
		}
	}
	close(stop)
	running.Wait()
	if wrong.Load() != 0 {
		t.Errorf("got no key %d times", wrong.Load())
	}
}

// behind returns how many messages were sealed after one, with the same session.
func behind(p *Peer, msg []byte) uint64 {
	all := p.keys.Load()
	for _, k := range []*pair{all.previous, all.current, all.next} {
		if k != nil && k.remote == binary.LittleEndian.Uint32(msg[4:]) {
			return k.counter.Load() - binary.LittleEndian.Uint64(msg[8:])
		}
	}
	return 0
}

// TestTable: indices are random, found while they are used and unknown afterwards, however the table grows.
func TestTable(t *testing.T) {
	var table table
	table.init()
	rng := rand.New(rand.NewPCG(1, 2))
	entries := map[uint32]*entry{}
	for range 20_000 {
		e := &entry{}
		table.add(e, rng.Uint32)
		if entries[e.index] != nil {
			t.Fatalf("index %08x is used twice", e.index)
		}
		entries[e.index] = e
		if rng.IntN(3) == 0 {
			for index := range entries {
				table.remove(index)
				table.remove(index)
				delete(entries, index)
				break
			}
		}
	}
	if table.used != len(entries) {
		t.Errorf("got %d in use, want %d", table.used, len(entries))
	}
	for index, e := range entries {
		if table.get(index) != e {
			t.Fatalf("index %08x is lost", index)
		}
	}
	wrong := 0
	for range 100_000 {
		if index := rng.Uint32(); table.get(index) != entries[index] {
			wrong++
		}
	}
	if wrong > 0 {
		t.Errorf("got %d wrong entries", wrong)
	}
}

// TestIdleCost: a peer with all its sessions costs at most 16 KiB and no goroutine, and one at rest has nothing to do.
func TestIdleCost(t *testing.T) {
	const peers = 1000
	goroutines := runtime.NumGoroutine()
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	private := testKey(1)
	before := heap()
	m, err := newMachine(Options{Private: private}, toy)
	if err != nil {
		t.Fatal(err)
	}
	now := Moment{second, calendar}
	all := make([]*Peer, peers)
	for i := range all {
		var key PrivateKey
		binary.LittleEndian.PutUint32(key[:], uint32(2*i+1)*7919)
		if all[i], err = m.Add(key.public(toy)); err != nil {
			t.Fatal(err)
		}
	}
	fresh := heap()
	for _, p := range all {
		if p.Next() != Never {
			t.Fatal("an idle peer wants to be stepped")
		}
	}
	other := func() *pair {
		_, s := newSuite(m)
		_ = s
		var key [32]byte
		c1, _ := chacha20poly1305.New(key[:])
		c2, _ := chacha20poly1305.New(key[:])
		return &pair{send: c1, receive: c2, created: now.At}
	}
	for _, p := range all {
		k := &keys{previous: other(), current: other(), next: other()}
		for _, one := range []*pair{k.previous, k.current, k.next} {
			e := &entry{peer: p, pair: one}
			m.table.add(e, m.uint32)
			one.local = e.index
		}
		p.keys.Store(k)
		p.Carry(now)
		p.Handshake(now, nil)
	}
	busy := heap()
	for _, p := range all {
		p.Step(Moment{second.Add(100 * time.Second), calendar}, nil)
		p.keys.settle()
	}
	t.Logf("bytes a peer: %d without a session, %d with three and two handshakes under way", (fresh-before)/peers, (busy-before)/peers)
	if got := (busy - before) / peers; got > 16<<10 {
		t.Errorf("got %d bytes a peer, want at most 16 KiB", got)
	}
	// The runtime's count is not exact while another goroutine ends: one that is kept is kept longer.
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > goroutines; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("got %d goroutines, want %d", runtime.NumGoroutine(), goroutines)
		}
	}
	runtime.KeepAlive(m)
	runtime.KeepAlive(all)
}

// BenchmarkSeal is what a packet costs to seal in place, beside the cipher alone.
func BenchmarkSeal(b *testing.B) {
	for _, size := range []int{64, 1420} {
		s := newSim(b, 1)
		s.nodes[0].send()
		s.run(time.Second)
		p := s.nodes[0].p
		buf := make([]byte, 2048)
		b.Run(fmt.Sprintf("%d/noise", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				p.Seal(buf[:0], buf[HeaderSize:HeaderSize+size], s.now)
			}
		})
		b.Run(fmt.Sprintf("%d/cipher", size), func(b *testing.B) {
			aead, _ := chacha20poly1305.New(make([]byte, 32))
			nonce := make([]byte, 12)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				aead.Seal(buf[HeaderSize:HeaderSize], nonce, buf[HeaderSize:HeaderSize+size], nil)
			}
		})
	}
}

// BenchmarkOpen is what a packet costs to open, beside the cipher alone. Both copy it first, for a packet opens once.
func BenchmarkOpen(b *testing.B) {
	for _, size := range []int{64, 1420} {
		s := newSim(b, 1)
		s.nodes[0].send()
		s.run(time.Second)
		from, to := s.nodes[0].p, s.nodes[1].m
		out := make([]byte, 2048)
		const batch = 4096
		wire := make([][]byte, batch)
		for i := range wire {
			wire[i] = make([]byte, 0, size+Overhead)
		}
		b.Run(fmt.Sprintf("%d/noise", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			i := batch
			for b.Loop() {
				if i == batch {
					b.StopTimer()
					for j := range wire {
						wire[j], _ = from.Seal(wire[j][:0], out[:size], s.now)
					}
					i = 0
					b.StartTimer()
				}
				if o := to.Open(out[:0], wire[i], s.now); o.Drop != Kept {
					b.Fatal(o.Drop)
				}
				i++
			}
		})
		b.Run(fmt.Sprintf("%d/cipher", size), func(b *testing.B) {
			aead, _ := chacha20poly1305.New(make([]byte, 32))
			nonce := make([]byte, 12)
			for j := range wire {
				wire[j] = aead.Seal(wire[j][:HeaderSize], nonce, out[:size], nil)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := aead.Open(out[:0], nonce, wire[i%batch][HeaderSize:], nil); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

// BenchmarkHandshake is what a whole handshake costs both sides together.
func BenchmarkHandshake(b *testing.B) {
	s := newSim(b, 1)
	x, y := s.nodes[0], s.nodes[1]
	b.ReportAllocs()
	for b.Loop() {
		s.now += second
		_, acts := y.m.Receive(x.p.Carry(x.moment()), source, false, y.moment(), nil)
		x.m.Receive(acts[0].Packet, source, false, x.moment(), nil)
	}
}
