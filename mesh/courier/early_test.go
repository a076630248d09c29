package courier

import (
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/signal"
)

// An offer that comes before the record of its sender is opened when that is there, in its order, and once.
func TestSignalBeforeItsRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := pair(t)
		keys, _ := bob.world.Keys(alice.id)
		bob.world.expel(alice)
		alice.say(bob.id, offer(1))
		synctest.Wait()
		alice.say(bob.id, candidates(1))
		time.Sleep(earlyFor / 2)
		bob.want()
		bob.world.admit(alice, keys)
		bob.courier.Met(alice.id)
		bob.courier.Met(alice.id)
		bob.want("1s offer 1 of alice", "1s candidates 1 of alice")
		time.Sleep(earlyFor)
		bob.wantDropped(map[string]uint64{})
	})
}

// What nobody vouches for in time is dropped, what another member brings has its own place, and a flood leaves no more than its share.
func TestSignalsOfNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob, mallory := w.add("alice"), w.add("bob"), w.add("mallory")
		keys, _ := w.Keys(alice.id)
		bob.run()
		w.expel(alice)
		alice.run()
		for i := range 100 {
			bob.courier.Take(identity.NodeID{1, byte(i)}, mallory.id, make([]byte, signal.MinWithKey))
		}
		alice.say(bob.id, offer(1))
		bob.want()
		bob.wantDropped(map[string]uint64{"signal: from a stranger": 100 - maxEarly/8})
		w.admit(alice, keys)
		bob.courier.Met(alice.id)
		bob.want("0s offer 1 of alice")
		time.Sleep(earlyFor)
		bob.wantDropped(map[string]uint64{"signal: from a stranger": 100})
		w.expel(alice)
		alice.say(bob.id, offer(2))
		synctest.Wait()
		time.Sleep(earlyFor)
		w.admit(alice, keys)
		bob.courier.Met(alice.id)
		bob.want()
		bob.wantDropped(map[string]uint64{"signal: from a stranger": 101})
	})
}
