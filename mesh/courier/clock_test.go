package courier

import (
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/signal"
)

// A peer that introduces itself from another process is told to the tunnel, before the key: offers and answers, once for each process.
func TestOtherProcessIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := pair(t)
		bob.answers = true
		alice.say(bob.id, offer(7))
		alice.took()
		bob.want("0s offer 7 of alice", "0s key of alice", "0s sends to alice")
		again := offer(8)
		again.Instance = [8]byte{9}
		alice.say(bob.id, again)
		bob.want("0s alice begins anew", "0s offer 8 of alice", "0s key of alice", "0s sends to alice")
		alice.took()
		again.Attempt = 9
		alice.say(bob.id, again)
		bob.want("0s offer 9 of alice", "0s key of alice", "0s sends to alice")
		alice.took()

		bob.answers = false
		reply := answer(10)
		reply.Instance = [8]byte{5}
		again.Attempt = 10
		alice.say(bob.id, again)
		bob.took()
		alice.took()
		bob.say(alice.id, reply)
		alice.want("0s bob begins anew", "0s key of bob", "0s answer 10 of bob", "0s agreed with bob 05")

		// One that is a member no more is forgotten.
		bob.took()
		bob.courier.Forget(alice.id)
		again.Instance, again.Attempt = [8]byte{11}, 11
		alice.say(bob.id, again)
		bob.want("0s offer 11 of alice")
	})
}

// What signals tell of clocks, those that are refused as well.
func TestClocksOfPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := pair(t)
		for _, late := range []time.Duration{0, time.Minute, signal.Window + time.Hour} {
			alice.held = true
			alice.say(bob.id, candidates(1))
			sent := alice.last()
			time.Sleep(late)
			bob.courier.Take(alice.id, alice.id, sent)
			bob.took()
			if got := bob.courier.Clocks(time.Now())[alice.id]; got != -late {
				t.Errorf("got a clock %s, want %s behind", got, late)
			}
		}
		time.Sleep(clockLasts)
		if got := bob.courier.Clocks(time.Now()); len(got) != 0 {
			t.Errorf("after a while: got %v, want nothing", got)
		}
	})
}

func TestClocksThatDifferAreNewsOnce(t *testing.T) {
	var p peers
	now := time.Now()
	for i, tt := range []struct {
		ahead time.Duration
		news  bool
	}{{time.Second, false}, {-time.Hour, true}, {-time.Hour, false}, {0, false}, {time.Minute, true}} {
		if got := p.heard([32]byte{1}, tt.ahead, now); got != tt.news {
			t.Errorf("step %d: got news %t, want %t", i, got, tt.news)
		}
	}
	if got := Ahead(-time.Hour) + ", " + Ahead(90*time.Second); got != "1h0m0s behind this machine's, 1m30s ahead of this machine's" {
		t.Errorf("got %q", got)
	}
}
