package session

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session/sessiontest"
)

// What the dialling side sends when it has said hello comes with that: one round trip before the answer to the hello is back, to the far side and
// to those behind it.
func TestMessagesGoWithTheHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const way = 50 * time.Millisecond
		w := newWorld(t, 3, sessiontest.Options{Latency: way})
		defer w.stop()
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		b.start(nil)
		c.start(nil)
		c.target(b)
		w.until(time.Second, "session of c", func() bool { return c.up(b) })
		a.start(nil)
		if a.Leads() {
			t.Error("got a way before anything was dialled, want none")
		}
		begin := time.Now()
		a.target(b)
		w.until(time.Second, "hello", a.Leads)
		if err := errors.Join(a.Send(b.ID, ProtoGossip, []byte("record")), a.Send(c.ID, ProtoSignal, []byte("offer"))); err != nil {
			t.Fatal(err)
		}
		if err := a.Send(c.ID, ProtoGossip, []byte("gossip")); !errors.Is(err, ErrNoRoute) {
			t.Errorf("gossip to who is not dialled: got %v, want no route", err)
		}
		synctest.Wait()
		a.mu.Lock()
		if !slices.Equal(a.greeted, []identity.NodeID{b.ID}) || len(a.events) > 0 || a.up(b) {
			t.Errorf("got greetings of %v and events %v, want one and no session yet", a.greeted, a.events)
		}
		a.mu.Unlock()
		w.until(time.Second, "the offer at c", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.messages) > 0 })
		if took := time.Since(begin); took > 4*way+10*time.Millisecond {
			t.Errorf("got the offer at c after %v, want it after four ways", took)
		}
		expectList(t, "messages of b", b.takeMessages(), "0 1 record")
		expectList(t, "messages of c", c.takeMessages(), "0 3 offer")
		w.until(time.Second, "session", func() bool { return a.up(b) })
		expectList(t, "events of a", w.kinds(a.takeEvents()), "up 1")
	})
}

// A far side that refuses this node reads nothing of it, and nothing goes with the next hello to it; nor to one that is not known as a member.
func TestNothingGoesWithAHelloInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, sessiontest.Options{Latency: 50 * time.Millisecond})
		defer w.stop()
		a, b := w.nodes[0], w.nodes[1]
		w.mesh.Refuse(a.ID, &Refusal{Code: 0x101, Reason: "revoked"})
		b.start(nil)
		a.start(nil)
		a.target(b)
		w.until(time.Second, "hello", a.Leads)
		if err := a.Send(b.ID, ProtoGossip, []byte("record")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if a.Leads() || len(b.takeMessages()) > 0 {
			t.Error("got a way, or a message read by who refuses its sender, want neither")
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.greeted) != 1 {
			t.Errorf("got %d greetings, want the first one only", len(a.greeted))
		}
	})
}
