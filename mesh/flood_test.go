package mesh

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/join"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// lots is all that the opener of a sync may say in its first turns, without the end.
func lots() []byte {
	hello := appendFrame(nil, frameHello, append([]byte{syncVersion}, bytes.Repeat([]byte{9}, 16)...))
	said := appendFrame(hello, frameCompare, bytes.Repeat([]byte{0xff}, 32))
	per := maxFrame / entrySize
	for i := range maxEntries / per {
		entries := make([]byte, per*entrySize)
		for k := range per {
			entries[k*entrySize], entries[k*entrySize+1], entries[k*entrySize+2] = byte(k), byte(k>>8), byte(i)
		}
		said = appendFrame(said, frameEntries, entries)
	}
	return said
}

// direct is a stream that is proven to be its sender's.
type direct struct{ net.Conn }

func (direct) Direct() bool { return true }

// hog opens syncs with a node in somebody's name as fast as that one takes them, says as many entries and wants as it can, and lets each go on
// as slowly as is possible, until ctx ends.
func hog(ctx context.Context, a *peer, as identity.NodeID, proven bool, said []byte) {
	for ctx.Err() == nil {
		near, far := net.Pipe()
		var conn net.Conn = far
		if proven {
			conn = direct{far}
		}
		go a.HandleSync(as, conn)
		go func() { _, _ = io.Copy(io.Discard, near) }()
		go func() {
			defer near.Close()
			if _, err := near.Write(said); err != nil {
				return
			}
			for ctx.Err() == nil { // a frame now and then is a sign of life
				if _, err := near.Write(appendFrame(nil, frameEntries, make([]byte, entrySize))); err != nil {
					return
				}
				time.Sleep(10 * time.Second)
			}
		}()
		time.Sleep(500 * time.Millisecond)
	}
}

// With members and strangers opening syncs as fast as they can and letting them hang, a node holds a few megabytes for that, and a sync with an
// honest member takes no more than a second longer.
func TestSyncsAreBounded(t *testing.T) {
	var quiet time.Duration
	for _, hostile := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 10*time.Millisecond)
			a, b := w.pairWith(w.crowd(300))
			var members []*peer
			seed, _ := a.invite(5)
			for i := range 3 {
				members = append(members, w.mustJoin(fmt.Sprintf("m%d", i), a, seed))
			}
			agree(t, 10*time.Second, a, b)
			time.Sleep(time.Minute)
			w.net.Cut(a.id, b.id)
			if err := a.Update(func(own *record.Node) { own.Name = "later" }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			said := lots()
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			ctx, stop := context.WithCancel(t.Context())
			if hostile {
				for _, m := range members {
					go hog(ctx, a, m.id, true, said)
					go hog(ctx, a, m.id, false, said)
				}
				for i := range byte(3) {
					go hog(ctx, a, identity.NodeID{9, i}, true, said)
				}
				time.Sleep(22 * time.Second)
				synctest.Wait()
				runtime.GC()
				runtime.ReadMemStats(&after)
				held := a.syncer.slots.count()
				t.Logf("%d conversations hold %.1f MB; dropped %v", held, float64(after.HeapAlloc-before.HeapAlloc)/1e6, a.Dropped())
				if held > maxServed {
					t.Errorf("got %d conversations, want at most %d", held, maxServed)
				}
				// Keys of 4 × 305 + 1,024 records, a view of the buckets, buffers; and as much again for what is being ended.
				if got := float64(after.HeapAlloc) - float64(before.HeapAlloc); got > 6e6 {
					t.Errorf("got %.1f MB held, want at most 6", got/1e6)
				}
			}
			// b opens: whatever a does, it is the side that has to serve.
			first := b
			if a.id.Compare(b.id) < 0 {
				first = a
			}
			w.net.Link(a.id, b.id)
			took := eventually(t, 20*time.Second, "the honest sync", func() bool {
				m, _ := b.View().Member(a.id)
				return m.Name == "later"
			})
			stats, err := b.syncer.with(t.Context(), a.id, newSlot())
			if err != nil {
				t.Errorf("an honest sync: got %+v, %v", stats, err)
			}
			t.Logf("the honest sync took %s, %v opens", took, first == b)
			stop()
			time.Sleep(time.Minute)
			if got := a.syncer.slots.count(); got > 0 {
				t.Errorf("got %d conversations a minute later, want none", got)
			}
			if !hostile {
				quiet = took
			} else if took > quiet+time.Second {
				t.Errorf("an honest sync took %s, want at most a second more than the %s of a quiet mesh", took, quiet)
			}
		})
	}
}

// count returns how many there are.
func (s *slots) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.held)
}

func TestSlots(t *testing.T) {
	start := time.Unix(1000, 0)
	ended := make(map[*slot]bool)
	s := newSlots()
	take := func(from source, at time.Duration, moved int64) *slot {
		var one *slot
		one = s.take(from, start.Add(at), func() { ended[one] = true })
		if one != nil {
			one.moved.Store(moved)
		}
		return one
	}
	member := func(n byte) source { return source{id: identity.NodeID{n}} }
	forwarded := source{forwarded: true}
	const well = 1 << 30
	first, second := take(member(1), 0, 0), take(member(1), 0, well)
	if take(member(1), 900*time.Millisecond, 0) != nil {
		t.Error("a third one of a member, at once: got a place")
	}
	third := take(member(1), 2*time.Second, well)
	if third == nil || !ended[first] || ended[second] {
		t.Errorf("a third one, of which the first has come to a stop: got %v, ended %v and %v, want its place", third, ended[first], ended[second])
	}
	if take(member(1), time.Minute, 0) != nil || ended[second] || ended[third] {
		t.Error("a third one, where the others go well: got a place")
	}
	if take(stranger, time.Minute, 0) == nil || take(stranger, time.Minute+900*time.Millisecond, 0) != nil {
		t.Error("strangers: want one of them all")
	}
	for i, from := range []source{member(2), member(3), member(3), forwarded, forwarded} {
		if take(from, time.Minute, int64(i)*well) == nil {
			t.Errorf("%v: got no place", from)
		}
	}
	if take(forwarded, time.Hour, 0) != nil {
		t.Error("a third one of those that are forwarded, where the others go well: got a place")
	}
	if s.count() != maxServed {
		t.Fatalf("got %d, want %d", s.count(), maxServed)
	}
	for i := range byte(2) { // the stranger's and member 2's have moved nothing
		if take(member(4+i), time.Hour+time.Duration(i)*yieldAfter/2, well) == nil || len(ended) != 2+int(i) || s.count() != maxServed {
			t.Errorf("all places taken: got %d ended and %d there, want the slowest to give way", len(ended), s.count())
		}
	}
	one := &slot{began: start}
	if got := one.until(); got != start.Add(slowGrace) {
		t.Errorf("nothing moved: got %v, want the end after %v", got, slowGrace)
	}
	one.moved.Store(10 * slowRate)
	if got := one.until(); got != start.Add(slowGrace+10*time.Second) {
		t.Errorf("some moved: got %v, want ten seconds more", got)
	}
}

// A member signs new versions of its record as fast as it can. All take in a few, the last one comes to all, and another member's record that
// comes by the same hop is not held up.
func TestVersionsComeAtTheirPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5*time.Millisecond)
		peers := w.grow(4)
		agree(t, 10*time.Second, peers...)
		hop, b, m, c := peers[0], peers[1], peers[2], peers[3]
		if err := hop.Update(func(own *record.Node) { own.Endpoints = endpoints("192.0.2.1:9277") }); err != nil {
			t.Fatal(err)
		}
		for _, pair := range [][2]*peer{{b, m}, {b, c}, {m, c}} { // a star
			w.net.Cut(pair[0].id, pair[1].id)
		}
		time.Sleep(time.Minute)
		seen, last := 0, uint64(0)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range 1000 { // 50 a second
				if err := m.Update(func(own *record.Node) { own.Name = fmt.Sprintf("m%d", i) }); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		}()
		var slowest time.Duration
		for i := range 20 {
			if i%5 == 2 {
				name := fmt.Sprintf("c%d", i)
				if err := c.Update(func(own *record.Node) { own.Name = name }); err != nil {
					t.Fatal(err)
				}
				took := eventually(t, 10*time.Second, "the honest record", func() bool {
					member, _ := b.View().Member(c.id)
					return member.Record.Name == name
				})
				slowest = max(slowest, took)
			}
			for range 100 {
				if member, _ := b.View().Member(m.id); member.Record.Seq != last {
					seen, last = seen+1, member.Record.Seq
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
		<-done
		t.Logf("b took in %d of 1,000 versions; the slowest honest record took %s; dropped %v", seen, slowest, b.Dropped())
		if most := versionBurst + 11; seen > most {
			t.Errorf("versions taken in within 20 s: got %d, want at most %d", seen, most)
		}
		if slowest > 100*time.Millisecond {
			t.Errorf("an honest record by the same hop: got it after %s, want two latencies", slowest)
		}
		took := eventually(t, 2*versionEvery+time.Second, "the last version", func() bool {
			member, _ := b.View().Member(m.id)
			return member.Record.Name == "m999"
		})
		t.Logf("the last version came after %s", took)
	})
}

// What waits for its turn is the newest of each sender; forged ones use no turn up.
func TestPace(t *testing.T) {
	p, key, now := newPace(), record.Key{1}, time.Unix(1000, 0)
	version := func(n uint64) record.Version { return record.Version{Low: n} }
	for i := range 3 * versionBurst { // forged: nothing was taken in
		if p.begin(); !p.claim(key, now) {
			t.Fatalf("claim %d of what is never taken in: got no, want yes", i)
		}
	}
	p.begin()
	claimed := 0
	for p.claim(key, now) {
		claimed++
	}
	if claimed != versionBurst {
		t.Errorf("of one batch: got %d, want %d", claimed, versionBurst)
	}
	for range versionBurst {
		p.took(key, now)
	}
	if p.begin(); p.claim(key, now.Add(versionEvery-time.Millisecond)) {
		t.Error("after a burst: got another one before its time")
	}
	from := func(n byte, v uint64) waiting {
		return waiting{arrival: arrival{from: identity.NodeID{n}, encoded: []byte{byte(v)}}, version: version(v)}
	}
	for _, one := range []waiting{from(1, 7), from(2, 9), from(1, 8), from(1, 6), from(3, 1), from(4, 5)} {
		if !p.wait(key, one) {
			t.Errorf("version %d of sender %d: got no room", one.version.Low, one.from[0])
		}
	}
	if p.wait(key, from(5, 99)) {
		t.Error("a fifth sender: got room")
	}
	ready, next := p.due(now)
	if wait := next.Sub(now); len(ready) > 0 || wait < versionEvery || wait > versionEvery+10*time.Millisecond {
		t.Errorf("at once: got %d ready and the next after %s, want none and %s", len(ready), wait, versionEvery)
	}
	ready, next = p.due(next)
	var order []byte
	for _, a := range ready {
		order = append(order, a.encoded[0])
	}
	if !bytes.Equal(order, []byte{9, 8, 5, 1}) || !next.IsZero() {
		t.Errorf("in its turn: got %v and %v, want the newest of each, newest first", order, next)
	}
	for i := range 3 * maxWaiting {
		p.wait(record.Key{2, byte(i), byte(i >> 8)}, from(1, 1))
	}
	if len(p.waiting) != maxWaiting {
		t.Errorf("got %d records that wait, want %d", len(p.waiting), maxWaiting)
	}
}

// Forged records cost a bounded number of signature checks a second, whether they come by themselves or in packets of gossip.
func TestForgedRecordsCostLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Millisecond)
		a, b := w.pairWith(nil)
		agree(t, 10*time.Second, a, b)
		time.Sleep(time.Minute)
		own, copies := b.writer.ownNode(), 0
		own.Seq++
		forged, err := record.SignNode(a.meshID, own, b.key)
		if err != nil {
			t.Fatal(err)
		}
		before := a.Dropped()
		const seconds = 20
		for range seconds * 20 {
			for range 50 {
				copies++
				forged.Signature = bytes.Repeat([]byte{byte(copies), byte(copies >> 8), byte(copies >> 16), 1}, 16)
				encoded, _ := forged.Marshal()
				a.HandleMessage(b.id, b.id, straightMessage(encoded, 1))
			}
			time.Sleep(50 * time.Millisecond)
		}
		after := a.Dropped()
		checked := after["record: signature"] - before["record: signature"]
		t.Logf("of %d forged records %d were looked at in %d s", copies, checked, seconds)
		if most := uint64(500 + 50*seconds + 50); checked > most {
			t.Errorf("signatures checked: got %d, want at most %d", checked, most)
		}
		if checked == 0 {
			t.Error("none was looked at: this test tests nothing")
		}
	})
}

// Where all have sessions with all, notices of a record grow with the number of members, not with its square.
func TestNoticesInAFullMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10*time.Millisecond)
		const n = 24
		peers := w.grow(n)
		agree(t, 30*time.Second, peers...)
		time.Sleep(5 * time.Minute)
		w.net.ResetTraffic()
		time.Sleep(5 * time.Second)
		idle := w.net.Traffic().Messages
		w.net.ResetTraffic()
		if err := peers[0].Update(func(own *record.Node) { own.Version = "other" }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		got := w.net.Traffic()
		t.Logf("a record in a full mesh of %d: %d messages, %d of an idle one; %d syncs", n, got.Messages, idle, got.SyncStreams)
		if most := n + maxTold*n + 8*n + idle; got.Messages > most { // straight, by notices, by gossip
			t.Errorf("messages: got %d, want at most %d", got.Messages, most)
		}
		if got.SyncStreams > 2 {
			t.Errorf("syncs: got %d, want none: all have it already", got.SyncStreams)
		}
	})
}

// A notice that is true of nothing costs a few syncs with its sender, ever more rarely.
func TestFruitlessNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Millisecond)
		peers := w.grow(3)
		agree(t, 10*time.Second, peers...)
		time.Sleep(time.Minute)
		a, b, c := peers[0], peers[1], peers[2]
		w.net.ResetTraffic()
		for i := range 600 {
			a.HandleMessage(b.id, b.id, appendEntry([]byte{noticed}, roster.Entry{Key: record.Key{1, byte(i), byte(i >> 8)}, Version: record.Version{Low: 1}}))
			time.Sleep(100 * time.Millisecond)
		}
		if got := w.net.Traffic().SyncStreams; got > 15 {
			t.Errorf("syncs in a minute of notices about nothing: got %d, want at most 15", got)
		}
		if err := c.Update(func(own *record.Node) { own.Name = "renamed" }); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Second, "another member's record", func() bool {
			m, _ := a.View().Member(c.id)
			return m.Name == "renamed"
		})
		for _, said := range [][]byte{{noticed}, append([]byte{noticed}, make([]byte, entrySize-1)...), append([]byte{noticed}, make([]byte, (maxNoticed+1)*entrySize)...)} {
			before := a.Dropped()["notice: malformed"] + a.Dropped()["gossip: malformed"]
			a.HandleMessage(b.id, b.id, said)
			if got := a.Dropped()["notice: malformed"] + a.Dropped()["gossip: malformed"]; got != before+1 {
				t.Errorf("notice of %d bytes: want it counted as malformed", len(said))
			}
		}
	})
}

// Whoever holds an invite of many uses and never shows a record keeps nobody with another invite out.
func TestUnfinishedAdmissionsAreCountedByInvite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Millisecond)
		a := w.founder("a").start()
		many, invite := a.invite(1000)
		admitted, busy := 0, 0
		for i := range 100 {
			_, err := a.Admission().Admit(w.newPeer(fmt.Sprintf("idle%d", i)).certify(many, a, invite))
			var no *join.Refusal
			switch {
			case err == nil:
				admitted++
			case asRefusal(err, &no) && no.Code == join.CodeBusy:
				busy++
			default:
				t.Fatal(err)
			}
		}
		if admitted != maxPendingOfOne || busy != 100-maxPendingOfOne {
			t.Errorf("got %d admitted and %d told to come later, want %d and the rest", admitted, busy, maxPendingOfOne)
		}
		seed, _ := a.invite(1)
		if _, err := w.join("honest", a, seed); err != nil {
			t.Errorf("somebody with another invite: got %v, want it admitted", err)
		}
	})
}

func asRefusal(err error, no **join.Refusal) bool {
	r, ok := err.(*join.Refusal)
	*no = r
	return ok
}

// A member that carries streams cannot have a sync with another one put off by playing that one.
func TestForwardedStreamsProveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5*time.Millisecond)
		a, b := w.pairWith(w.crowd(20))
		agree(t, 10*time.Second, a, b)
		time.Sleep(time.Minute)
		before := a.asks.lastDone(b.id)
		same := appendFrame(nil, frameHello, append([]byte{syncVersion}, a.book.public.digest.Load()[:]...))
		if got, _ := a.talk(b.id, same); !bytes.Equal(got, appendFrame(nil, frameSame, nil)) {
			t.Fatalf("got %x, want a sync that has succeeded", got)
		}
		if a.asks.lastDone(b.id) != before {
			t.Error("a sync in b's name by a forwarded stream counts as one with b")
		}
	})
}
