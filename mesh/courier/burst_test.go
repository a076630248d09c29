package courier

import (
	"fmt"
	"testing"
	"testing/synctest"

	"warren/mesh/signal"
	"warren/nat/path"
)

func ask() path.Message { return message(path.KindAsk, 0) }

// What nat repeats while it waits is sealed once, as it was said last, in its first place.
func TestRepetitionsAreSealedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob := w.add("alice"), w.add("bob")
		bob.run()
		for _, m := range []path.Message{offer(1), candidates(1), offer(1), candidates(1), offer(2), ask(), ask()} {
			alice.say(bob.id, m)
		}
		alice.run()
		bob.want("0s offer 2 of alice", "0s candidates 1 of alice", "0s candidates 1 of alice", "0s ask 0 of alice")
		alice.wantDropped(map[string]uint64{})
	})
}

// An answer goes in the place of the ask for the offer that it answers.
func TestAnswerReplacesTheAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob := w.add("alice"), w.add("bob")
		bob.answers = true
		alice.run()
		alice.say(bob.id, offer(7))
		alice.took()
		bob.say(alice.id, ask())
		bob.run() // opens the offer first, for whoever waits for the answer repeats it
		bob.want("0s offer 7 of alice", "0s key of alice", "0s sends to alice")
		alice.want("0s key of bob", "0s answer 7 of bob", "0s agreed with bob 07")
	})
}

// An ask that the peer's answer has overtaken asked for the offer that is answered; one that came later is another matter.
func TestOvertakenAskIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob := w.add("alice"), w.add("bob")
		alice.run()
		bob.run()
		bob.held, bob.answers = true, true
		alice.say(bob.id, offer(1))
		bob.took()
		answer := bob.last()
		bob.say(alice.id, ask())
		early := bob.last()
		bob.say(alice.id, ask())
		late := bob.last()
		alice.took()
		compute := func(slots int) {
			alice.courier.queue.mu.Lock()
			alice.courier.queue.slots = slots
			alice.courier.queue.mu.Unlock()
			alice.courier.queue.stir()
			synctest.Wait()
		}
		compute(0)
		alice.say(bob.id, offer(1)) // again, since there is no answer yet
		for _, sealed := range [][]byte{early, answer, late} {
			alice.courier.Take(bob.id, bob.id, sealed)
		}
		compute(1)
		alice.want("0s key of bob", "0s answer 1 of bob", "0s agreed with bob 07", "0s ask 0 of bob")
		alice.wantDropped(map[string]uint64{})
	})
}

// What has begun is gone on with before more is begun.
func TestWhatHasBegunGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice := w.add("alice")
		alice.say(w.add("asked").id, ask())
		alice.say(w.add("new").id, offer(1))
		peer := w.add("peer")
		peer.run()
		peer.say(alice.id, offer(9))
		peer.took()
		alice.courier.queue.slots = 3
		for _, want := range []string{"peer", "new", "asked"} {
			if l, _, ok := alice.courier.queue.pick(); !ok || alice.nameOf(l.id) != want {
				t.Errorf("got %v, want the lane of %s", l, want)
			}
		}
		if _, _, ok := alice.courier.queue.pick(); ok {
			t.Error("got a fourth job, want no more than there are slots")
		}
	})
}

// Whoever floods this node with what looks like offers takes three turns of four at most.
func TestFloodLeavesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, mallory := w.add("alice"), w.add("mallory")
		alice.courier.queue.slots = 1
		const n = 12
		for range n {
			alice.courier.Take(mallory.id, mallory.id, make([]byte, signal.MinWithKey))
		}
		for i := range n / (fairShare - 1) {
			peer := w.add(fmt.Sprint("peer", i))
			peer.run()
			alice.say(peer.id, ask())
		}
		sent := 0
		for turn := range n + n/(fairShare-1) {
			l, j, ok := alice.courier.queue.pick()
			if !ok {
				t.Fatalf("turn %d: got nothing to do", turn)
			}
			if j.sealed == nil {
				sent++
			}
			alice.courier.serve(l, j, alice)
			if want := (turn + 1) / fairShare; sent < want {
				t.Fatalf("turn %d: got %d asks sent, want %d", turn, sent, want)
			}
		}
	})
}
