package session

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session/sessiontest"
)

// tally counts what comes in, by protocol, source and bringer.
type tally struct {
	Inbound
	mu    sync.Mutex
	count map[brought]int
}

type brought struct {
	from, by int
	p        Proto
}

func (t *tally) of(w *world) func(from, by identity.NodeID, p Proto, _ []byte) {
	return func(from, by identity.NodeID, p Proto, _ []byte) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.count[brought{w.index(from), w.index(by), p}]++
	}
}

func (t *tally) take() map[brought]int {
	synctest.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	count := t.count
	t.count = make(map[brought]int)
	return count
}

// meeting is n nodes of which the first has a session with each other one.
func meeting(t *testing.T, n int) (*world, *tally) {
	w := newWorld(t, n, sessiontest.Options{Latency: 5 * time.Millisecond})
	told := &tally{count: make(map[brought]int)}
	w.nodes[0].start(nil, func(o *Options) { o.Inbound = onMessage{o.Inbound, told.of(w)} })
	for _, other := range w.nodes[1:] {
		other.start(nil)
		other.target(w.nodes[0])
	}
	w.until(time.Second, "sessions", func() bool {
		return !slices.ContainsFunc(w.nodes[1:], func(o *testNode) bool { return !o.up(w.nodes[0]) })
	})
	return w, told
}

// A member says more than it may, in its own name and in that of others, for a minute. It is heard within its own share; another member
// and an anchor that carries for a third are heard as if it were not there.
func TestMessagesAreMeteredBySession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, told := meeting(t, 5)
		defer w.stop()
		victim, evil, honest, anchor, third := w.nodes[0], w.nodes[1], w.nodes[2], w.nodes[3], w.nodes[4]
		third.target(anchor)
		w.until(time.Second, "session of the third with the anchor", func() bool { return third.up(anchor) && !third.up(victim) })
		victim.takeEvents()
		const seconds, perSecond = 60, 400
		protos := []Proto{ProtoSignal, ProtoAsk, 99}
		conn := evil.table.link(victim.ID).conn
		go func() {
			for range seconds * perSecond {
				for _, p := range protos {
					_ = conn.SendDatagram(append(header{kind: frameDirect, proto: p}.appendTo(nil), "garbage"...))
					_ = conn.SendDatagram(append(header{kind: frameEnvelope, hops: 1, to: victim.ID, from: honest.ID, proto: p}.appendTo(nil), "garbage"...))
				}
				time.Sleep(time.Second / perSecond)
			}
		}()
		said := 0
		for range seconds {
			for _, p := range protos {
				if err := honest.Send(victim.ID, p, []byte("hello")); err != nil {
					t.Fatal(err)
				}
				if err := third.Send(victim.ID, p, []byte("hello")); err != nil {
					t.Fatal(err)
				}
			}
			said++
			time.Sleep(time.Second)
		}
		time.Sleep(time.Second)
		got := told.take()
		for _, p := range protos {
			for what, c := range map[string]struct {
				from, by *testNode
				want     int
			}{
				"an honest member": {honest, honest, said}, "a third by its anchor": {third, anchor, said},
			} {
				if n := got[brought{w.index(c.from.ID), w.index(c.by.ID), p}]; n != c.want {
					t.Errorf("protocol %d, %s: got %d messages, want all %d", p, what, n, c.want)
				}
			}
			own, forged := got[brought{w.index(evil.ID), w.index(evil.ID), p}], got[brought{w.index(honest.ID), w.index(evil.ID), p}]
			direct, forwarded := otherRate, otherRate
			if r, ok := directRates[p]; ok {
				direct, forwarded = r, forwardedRates[p]
			}
			if most := direct.Burst + int(direct.PerSecond)*(seconds+3); own > most || own < direct.Burst && p != 99 {
				t.Errorf("protocol %d in its own name: got %d, want %d at most", p, own, most)
			}
			if most := forwarded.Burst + int(forwarded.PerSecond)*(seconds+3); forged > most || forged < forwarded.Burst && p != 99 {
				t.Errorf("protocol %d in another's name: got %d, want %d at most", p, forged, most)
			}
		}
		if victim.Counters()["rate"] < seconds*perSecond {
			t.Errorf("got counters %v, want what was too much among them", victim.Counters())
		}
		for _, e := range victim.takeEvents() {
			if e.Kind != Up {
				t.Errorf("got %+v, want all sessions as they were", e)
			}
		}
	})
}

// What a member says in another's name does nothing to that one: its session stays, it is heard in full, it is answered, and its streams
// are its own.
func TestForgedSourceHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, told := meeting(t, 3)
		defer w.stop()
		victim, evil, named := w.nodes[0], w.nodes[1], w.nodes[2]
		victim.know(book{others: true})
		conn := evil.table.link(victim.ID).conn
		forge := func(h header) { _ = conn.SendDatagram(append(h.appendTo(nil), "forged"...)) }
		ctx, cancel := context.WithCancel(t.Context())
		var forging sync.WaitGroup
		forging.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				for _, p := range []Proto{ProtoGossip, ProtoSignal, ProtoAsk} {
					forge(header{kind: frameEnvelope, hops: 1, to: victim.ID, from: named.ID, proto: p})
					forge(header{kind: frameEnvelope, hops: 1, to: victim.ID, from: identity.NodeID{1, byte(i), byte(i >> 8)}, proto: p}) // nobody
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
		time.Sleep(2 * time.Second)
		told.take()
		victim.takeEvents()
		for range directRates[ProtoSignal].Burst {
			if err := named.Send(victim.ID, ProtoSignal, []byte("true")); err != nil {
				t.Fatal(err)
			}
			if err := victim.Send(named.ID, ProtoSignal, []byte("answer")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(time.Second)
		got := told.take()
		i := w.index(named.ID)
		if n := got[brought{i, i, ProtoSignal}]; n < directRates[ProtoSignal].Burst {
			t.Errorf("got %d signals of the one that was named, want all %d", n, directRates[ProtoSignal].Burst)
		}
		answers := 0
		for _, m := range named.takeMessages() {
			if m == "0 3 answer" {
				answers++
			}
		}
		if answers < directRates[ProtoSignal].Burst {
			t.Errorf("got %d answers, want all %d", answers, directRates[ProtoSignal].Burst)
		}
		victim.router.ways.mu.Lock()
		ways := len(victim.router.ways.came)
		victim.router.ways.mu.Unlock()
		if ways > len(w.nodes) {
			t.Errorf("got ways to %d nodes remembered, want those of members alone", ways)
		}
		for key, n := range got {
			if key.by == i && key.from != i {
				t.Errorf("got %d messages of %+v on the account of the one that was named", n, key)
			}
		}
		cancel()
		forging.Wait()
		for _, e := range victim.takeEvents() {
			t.Errorf("got %+v, want all sessions as they were", e)
		}
		c, err := named.OpenDirect(t.Context(), victim.ID, ProtoSync)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
}

// Pings are answered up to a rate, and more streams than a member may open are refused; neither ends anything.
func TestPingsAndStreamsAreMetered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := meeting(t, 2)
		defer w.stop()
		victim, evil := w.nodes[0], w.nodes[1]
		conn := evil.table.link(victim.ID).conn
		for range 5000 {
			_ = conn.SendDatagram(header{kind: framePing, nonce: 1}.appendTo(nil))
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(time.Second)
		if got := int(victim.Counters()["rate"]); got < 5000-pingRate.Burst-2*int(pingRate.PerSecond) {
			t.Errorf("got %d pings not answered, want all but %d a second and %d", got, int(pingRate.PerSecond), pingRate.Burst)
		}
		refused := 0
		for range 2 * streamRate.Burst {
			c, err := evil.OpenDirect(t.Context(), victim.ID, ProtoSync)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write([]byte("x"))
			if _, err := c.Read(make([]byte, 1)); err != nil {
				refused++
			}
			c.Close()
		}
		if refused == 0 || refused > streamRate.Burst {
			t.Errorf("got %d of %d streams refused, want those above the rate", refused, 2*streamRate.Burst)
		}
		expect(t, "session", victim.up(evil), true)
	})
}
