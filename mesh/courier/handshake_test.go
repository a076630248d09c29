package courier

import (
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/signal"
)

// shaking is two nodes a way of 50 ms apart, whose tunnels have handshakes to be carried. Alice is the one who offers.
func shaking(t *testing.T) (alice, bob *host) {
	alice, bob = pair(t)
	for _, h := range []*host{alice, bob} {
		h.delay, h.shakes, h.answers = 50*time.Millisecond, true, true
	}
	return alice, bob
}

// The handshake is done with the answer: two ways after the offer, when the keys could only be agreed on before. The first packet goes by
// the first path there is, instead of two ways later.
func TestHandshakeTravelsWithTheIntroduction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := shaking(t)
		alice.say(bob.id, offer(7))
		time.Sleep(time.Second)
		bob.want("50ms offer 7 of alice", "50ms key of alice", "50ms handshake of alice", "50ms sends to alice")
		// Nothing begins one by a path: bob is not agreed with.
		alice.want("0s handshake for bob", "0s sends to bob", "100ms key of bob", "100ms handshake with bob 07: true", "100ms answer 7 of bob")

		// A repetition of the offer is answered with all that the first one was.
		alice.say(bob.id, offer(7))
		time.Sleep(time.Second)
		bob.want("1.05s offer 7 of alice", "1.05s key of alice", "1.05s handshake of alice", "1.05s sends to alice")
		alice.want("1s handshake for bob", "1s sends to bob", "1.1s key of bob", "1.1s handshake with bob 07: true", "1.1s answer 7 of bob")
		if len(alice.courier.Dropped())+len(bob.courier.Dropped()) > 0 {
			t.Errorf("got drops %v and %v, want none", alice.courier.Dropped(), bob.courier.Dropped())
		}
	})
}

// An introduction is as good without a handshake, whoever has none.
func TestIntroductionsWithoutHandshake(t *testing.T) {
	for _, c := range []struct {
		name       string
		alice, bob bool
		begins     string
	}{
		{"offerer", false, true, ""}, {"answerer", true, false, "0s handshake for bob"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				alice, bob := shaking(t)
				alice.shakes, bob.shakes = c.alice, c.bob
				alice.say(bob.id, offer(7))
				time.Sleep(time.Second)
				want := []string{"0s sends to bob", "100ms key of bob", "100ms answer 7 of bob", "100ms agreed with bob 07"}
				if c.begins != "" {
					want = append([]string{c.begins}, want...)
				}
				alice.want(want...)
			})
		})
	}
}

// A handshake that the sender has not made is refused and counted; the answer goes without.
func TestForeignHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := shaking(t)
		alice.spoils = true
		alice.say(bob.id, offer(7))
		time.Sleep(time.Second)
		bob.want("50ms offer 7 of alice", "50ms key of alice", "50ms sends to alice")
		alice.want("0s handshake for bob", "0s sends to bob", "100ms key of bob", "100ms answer 7 of bob", "100ms agreed with bob 07")
		bob.wantDropped(map[string]uint64{"signal: handshake not made by its sender": 1})
	})
}

// A tunnel that takes its time for a response holds up its peer alone, and no place where others are computed.
func TestSlowResponseHoldsUpItsPeerAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob, carol := w.add("alice"), w.add("bob"), w.add("carol")
		bob.courier.queue.slots = 1
		for _, h := range []*host{alice, bob, carol} {
			h.delay, h.shakes, h.answers = 50*time.Millisecond, true, true
			h.run()
		}
		bob.responds = 20 * time.Millisecond
		alice.say(bob.id, offer(1))
		carol.say(bob.id, offer(1))
		time.Sleep(time.Second)
		for _, h := range []*host{alice, carol} {
			if got := h.took(); !contains(got, "120ms handshake with bob 07: true") {
				t.Errorf("%s: got %q, want the handshake done after 120 ms", h.name, got)
			}
		}
		bob.courier.queue.mu.Lock()
		defer bob.courier.queue.mu.Unlock()
		if n := bob.courier.queue.computing; n != 0 {
			t.Errorf("got %d slots taken, want none", n)
		}
	})
}

// A restarted peer says so with its first ask: the session with the process before is forgotten before the offer goes, which carries a new handshake.
func TestAskOfAnotherProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := shaking(t)
		bob.say(alice.id, ask())
		time.Sleep(time.Second)
		alice.want("50ms ask 0 of bob")
		again := ask()
		again.Instance = [8]byte{8}
		bob.say(alice.id, again)
		time.Sleep(time.Second)
		alice.want("1.05s bob begins anew", "1.05s ask 0 of bob")
	})
}

// What nobody answers is begun once: WireGuard repeats it for 90 s by itself. A sign of the peer has it begun again.
func TestHandshakesWithThoseThatAreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := shaking(t)
		alice.held = true
		offers := func() (n int) {
			alice.say(bob.id, offer(7))
			for _, line := range alice.took() {
				if line[len(line)-len("for bob"):] == "for bob" {
					n++
				}
			}
			return n
		}
		var got []int
		for range 4 {
			got = append(got, offers())
			time.Sleep(40 * time.Second)
		}
		bob.say(alice.id, ask())
		time.Sleep(time.Second)
		got = append(got, offers())
		for i, want := range []int{1, 1, 1, 0, 1} {
			if got[i] != want {
				t.Fatalf("got handshakes in offers %v, want them for 90 s, and again after a sign of the peer", got)
			}
		}
	})
}

// A handshake has its size and its place, whoever seals it.
func TestHandshakesOfWrongSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := pair(t)
		for _, m := range []signal.Message{
			{Role: signal.Offer, Attempt: 1, Handshake: make([]byte, 92)}, {Role: signal.Answer, Attempt: 1, Handshake: make([]byte, 148)},
			{Role: signal.Plain, Handshake: make([]byte, 148)}, {Role: signal.Offer, Attempt: 1, Handshake: make([]byte, 1)},
		} {
			if _, _, err := alice.courier.sealer.Seal(time.Now(), bob.id, m); err == nil {
				t.Errorf("role %d with a handshake of %d bytes: sealed", m.Role, len(m.Handshake))
			}
		}
	})
}
