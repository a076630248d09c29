package courier

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/signal"
	"warren/nat/natkind"
	"warren/nat/path"
)

func TestKeyIsInPlaceBeforeItIsNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := pair(t)
		bob.answers = true
		for attempt := uint64(7); attempt < 9; attempt++ {
			alice.say(bob.id, offer(attempt))
			bob.want(fmt.Sprintf("0s offer %d of alice", attempt), "0s key of alice", "0s sends to alice")
			alice.want("0s sends to bob", "0s key of bob", fmt.Sprintf("0s answer %d of bob", attempt), "0s agreed with bob 07")
			if a, b := alice.key(bob), bob.key(alice); a != b || a == [32]byte{} {
				t.Errorf("attempt %d: got keys %x and %x, want the same", attempt, a, b)
			}
		}
		if len(alice.courier.Dropped())+len(bob.courier.Dropped()) > 0 {
			t.Errorf("got drops %v and %v, want none", alice.courier.Dropped(), bob.courier.Dropped())
		}
	})
}

// A tunnel that takes long has the answer wait, on both sides: the key comes first.
func TestSlowTunnelHoldsUpItsPeerAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob, carol := w.add("alice"), w.add("bob"), w.add("carol")
		alice.run()
		bob.run()
		carol.run()
		bob.answers, carol.answers = true, true
		bob.slow[alice.id], alice.slow[bob.id] = 2*time.Second, 3*time.Second
		alice.say(bob.id, offer(1))
		alice.say(bob.id, candidates(1))
		alice.say(carol.id, offer(1))
		synctest.Wait()
		carol.want("0s offer 1 of alice", "0s key of alice", "0s sends to alice")
		time.Sleep(time.Minute)
		bob.want("0s offer 1 of alice", "2s key of alice", "2s sends to alice", "2s candidates 1 of alice")
		got := alice.took()
		for _, want := range []string{"0s key of carol", "0s answer 1 of carol", "0s agreed with carol 07", "5s key of bob", "5s answer 1 of bob", "5s agreed with bob 07"} {
			if !contains(got, want) {
				t.Errorf("got %q, want among it %q", got, want)
			}
		}
	})
}

func contains(lines []string, want string) bool {
	for _, line := range lines {
		if line == want {
			return true
		}
	}
	return false
}

// What one peer says is heard in its order, and what is said to it leaves in its order.
func TestOrderOfOnePeerIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := pair(t)
		var want []string
		for attempt := uint64(1); attempt <= queuedPerPeer; attempt++ {
			alice.say(bob.id, candidates(attempt))
			want = append(want, fmt.Sprintf("0s candidates %d of alice", attempt))
		}
		bob.want(want...)
	})
}

func TestKeyThatIsNotTakenStopsTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := pair(t)
		bob.answers, bob.failing = true, true
		alice.say(bob.id, offer(1))
		bob.want("0s offer 1 of alice")
		bob.wantDropped(map[string]uint64{"signal: preshared key not set": 1})

		bob.failing, alice.failing = false, true
		alice.say(bob.id, offer(2))
		bob.want("0s offer 2 of alice", "0s key of alice", "0s sends to alice")
		alice.want("0s sends to bob", "0s sends to bob")
		alice.wantDropped(map[string]uint64{"signal: preshared key not set": 1})
	})
}

func TestRefusedSignalsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := pair(t)
		alice.say(bob.id, candidates(1))
		sealed := alice.last()
		bob.want("0s candidates 1 of alice")

		bob.courier.Take(alice.id, alice.id, sealed)
		bob.wantDropped(map[string]uint64{"signal: replayed": 1})

		alice.say(bob.id, answer(1)) // to no offer
		alice.wantDropped(map[string]uint64{"signal: not sealed": 1})

		bob.courier.Take(alice.id, alice.id, []byte("noise"))
		bob.courier.Take(identity.NodeID{9}, identity.NodeID{9}, sealed)
		bob.courier.Take(alice.id, alice.id, make([]byte, signal.MaxSealed+1))
		time.Sleep(earlyFor)
		bob.wantDropped(map[string]uint64{
			"signal: replayed": 1, "signal: not sealed to this node": 1, "signal: from a stranger": 1, "signal: malformed signal": 1,
		})

		// What a member seals itself must still be a message, in its role, of the attempt.
		for _, m := range []signal.Message{
			{Role: signal.Plain, Payload: []byte("noise")}, {Role: signal.Offer, Attempt: 5, Payload: encoded(t, candidates(5))},
			{Role: signal.Offer, Attempt: 6, Payload: encoded(t, offer(5))},
		} {
			raw, _, err := alice.courier.sealer.Seal(time.Now(), bob.id, m)
			if err != nil {
				t.Fatal(err)
			}
			bob.courier.Take(alice.id, alice.id, raw)
		}
		bob.want()
		if got := bob.courier.Dropped()["signal: malformed"]; got != 3 {
			t.Errorf("got %d malformed, want 3", got)
		}

		alice.say(bob.id, path.Message{Kind: 99})
		alice.wantDropped(map[string]uint64{"signal: not sealed": 1, "signal: not encoded": 1})
	})
}

func encoded(t *testing.T, m path.Message) []byte {
	t.Helper()
	raw, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestEveryRefusalHasAName(t *testing.T) {
	seen := make(map[string]bool)
	for r, name := range names {
		if name == "" || seen[name] {
			t.Errorf("reason %d: got name %q, want one of its own", r, name)
		}
		seen[name] = true
	}
	for _, r := range refusals {
		if got := reasonOf(fmt.Errorf("wrapped: %w", r.err)); got != r.reason {
			t.Errorf("%v: got %q, want %q", r.err, names[got], names[r.reason])
		}
	}
	if got := reasonOf(errors.New("new")); got != other {
		t.Errorf("got %q for an error of no class, want %q", names[got], names[other])
	}
}

func TestToldByAPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := pair(t)
		alice.stands = natkind.Self{Mapping: natkind.MappedByAddress, UDPBlocked: true}
		first := time.Now()
		alice.say(bob.id, message(path.KindAsk, 0))
		bob.took()
		if got, want := bob.courier.Told(alice.id), (Told{NAT: alice.stands, At: first, Heard: first}); got != want {
			t.Errorf("got %+v after an ask, want %+v", got, want)
		}

		time.Sleep(time.Minute)
		alice.say(bob.id, candidates(1)) // which do not tell
		bob.took()
		want := Told{NAT: alice.stands, At: first, Heard: first.Add(time.Minute)}
		if got := bob.courier.Told(alice.id); got != want {
			t.Errorf("got %+v after candidates, want %+v", got, want)
		}

		// A signal that was under way for longer than the window looks like a wrong clock.
		alice.held = true
		alice.say(bob.id, candidates(1))
		late := alice.last()
		time.Sleep(signal.Window + time.Second)
		bob.courier.Take(alice.id, alice.id, late)
		bob.wantDropped(map[string]uint64{"signal: outside the time window": 1})
		want.Skewed = time.Now()
		if got := bob.courier.Told(alice.id); got != want {
			t.Errorf("got %+v after a signal from the past, want %+v", got, want)
		}

		alice.held = false
		alice.say(bob.id, candidates(2))
		bob.took()
		want.Heard, want.Skewed = time.Now(), time.Time{}
		if got := bob.courier.Told(alice.id); got != want {
			t.Errorf("got %+v after a good one, want %+v", got, want)
		}
		if got := bob.courier.Told(bob.id); got != (Told{}) {
			t.Errorf("got %+v of one never heard, want nothing", got)
		}
	})
}

// Without a session nothing is queued: nat shall know at once.
func TestSendWithoutASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := pair(t)
		alice.alone = true
		if err := alice.courier.Send(bob.id, offer(1)); !errors.Is(err, ErrNoSession) {
			t.Errorf("got error %v, want %v", err, ErrNoSession)
		}
		alice.want()
		// That it leads nowhere is noticed when it is too late to tell.
		alice.alone, alice.lost = false, true
		alice.say(bob.id, offer(1))
		alice.want("0s sends to bob")
		alice.wantDropped(map[string]uint64{"signal: no route": 1})
	})
}

func TestFullQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := pair(t)
		bob.answers, alice.slow[bob.id] = true, time.Second
		alice.say(bob.id, offer(1))
		synctest.Wait() // alice's tunnel is busy with bob's key
		alice.took()
		const more = 3
		for attempt := uint64(1); attempt <= queuedPerPeer+more; attempt++ {
			bob.say(alice.id, candidates(attempt))
			alice.say(bob.id, candidates(attempt))
			bob.took()
		}
		alice.wantDropped(map[string]uint64{"signal: queue full": 2 * more})
		time.Sleep(time.Minute)
		want := []string{"1s key of bob", "1s answer 1 of bob", "1s agreed with bob 07"}
		for attempt := 1 + more; attempt <= queuedPerPeer+more; attempt++ { // the oldest went, and the ways take turns
			want = append(want, "1s sends to bob", fmt.Sprintf("1s candidates %d of bob", attempt))
		}
		alice.want(want...)
	})
}

// named makes members of which nothing but the name is used.
func (w *world) named(n int) (ids []identity.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range n {
		id := identity.NodeID{9, byte(i), byte(i >> 8)}
		w.keys[id] = signal.Keys{}
		ids = append(ids, id)
	}
	return ids
}

// A member that forwards can name anybody as the sender, and does so as fast as it can: it fills its own share and no other.
func TestQueuesAreThoseOfWhoBrings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob := w.add("alice"), w.add("bob")
		alice.run()
		names := w.named(queued)
		mallory := []identity.NodeID{{8, 1}, {8, 2}, {8, 3}}
		for i := range 4 * queued { // before Run: nobody serves
			bob.courier.Take(names[i%queued], mallory[0], []byte("noise"))
		}
		bob.wantDropped(map[string]uint64{"signal: queue full": 4*queued - queuedBrought})
		for i := range queued {
			bob.courier.Take(names[i], mallory[1], []byte("noise"))
		}
		bob.wantDropped(map[string]uint64{"signal: queue full": 5*queued - 2*queuedBrought}) // and the whole is full
		for i := range queued {
			bob.courier.Take(names[i], mallory[2], []byte("noise"))
		}
		shares := [3]int{}
		for i, m := range mallory {
			shares[i] = bob.courier.queue.brought[m]
		}
		if want := [3]int{queued / 3, queued/3 + 1, queued / 3}; shares != want && shares != [3]int{want[1], want[0], want[0]} && shares != [3]int{want[0], want[0], want[1]} {
			t.Errorf("got shares %v, want thirds of %d", shares, queued)
		}
		if got := bob.courier.queue.waiting[in]; got != queued {
			t.Errorf("got %d that wait, want %d", got, queued)
		}
		alice.say(bob.id, candidates(1)) // has a place all the same
		alice.took()
		bob.say(alice.id, candidates(1)) // and the other way is not held up
		bob.run()
		if got := bob.took(); !contains(got, "0s sends to alice") || !contains(got, "0s candidates 1 of alice") || len(got) != 2 {
			t.Errorf("got %q, want what is said to alice and by her", got)
		}
		alice.want("0s candidates 1 of bob")
		all := uint64(0)
		for _, n := range bob.courier.Dropped() {
			all += n
		}
		if want := uint64(6 * queued); all != want {
			t.Errorf("got %d dropped in all, want each of %d counted once: %v", all, want, bob.courier.Dropped())
		}
		if got := len(bob.courier.queue.lanes) + len(bob.courier.queue.brought); got != 0 {
			t.Errorf("got %d lanes and accounts with nothing to do, want none", got)
		}
	})
}

// What is brought in a peer's name takes none of the places of what it says itself, and each session has a turn in its lane.
func TestForgedNamesLeaveTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob := w.add("alice"), w.add("bob")
		alice.run()
		bob.courier.queue.slots = 1
		liars := []identity.NodeID{{8, 1}, {8, 2}, {8, 3}}
		names := append(w.named(30), alice.id)
		flood := func() {
			for _, liar := range liars {
				for range queuedPerPeer {
					for _, name := range names {
						bob.courier.Take(name, liar, make([]byte, signal.MinWithKey))
					}
				}
			}
		}
		flood()
		alice.say(bob.id, offer(1)) // by her own session
		alice.took()
		flood()
		for turn := 1; ; turn++ {
			l, j, ok := bob.courier.queue.pick()
			if !ok {
				t.Fatal("got nothing to do, want alice's offer")
			}
			bob.courier.serve(l, j, bob)
			if contains(bob.took(), "0s offer 1 of alice") {
				if most := (len(liars) + 1) * len(names); turn > most {
					t.Errorf("got alice's offer at turn %d, want it by %d: each session in each lane once", turn, most)
				}
				break
			}
		}
	})
}

// For a minute a member brings as much as its session lets through, in everybody's name: each introduction beside it goes through at
// once, what is garbage is opened and no more, and nothing of it is heard by anybody.
func TestIntroductionsBesideAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob := w.add("alice"), w.add("bob")
		bob.answers = true
		alice.run()
		bob.run()
		names := append(w.named(20), alice.id)
		const seconds, perSecond = 60, 200
		go func() {
			time.Sleep(time.Millisecond) // never together with an offer, which drops what it overtakes and does not count it
			for i := range seconds * perSecond {
				bob.courier.Take(names[i%len(names)], identity.NodeID{8}, []byte("garbage that looks like nothing at all, but has to be opened"))
				time.Sleep(time.Second / perSecond)
			}
		}()
		for second := range uint64(seconds) {
			alice.say(bob.id, offer(second+1))
			at := time.Duration(second) * time.Second
			alice.want(fmt.Sprint(at, " sends to bob"), fmt.Sprint(at, " key of bob"), fmt.Sprintf("%v answer %d of bob", at, second+1), fmt.Sprint(at, " agreed with bob 07"))
			bob.want(fmt.Sprintf("%v offer %d of alice", at, second+1), fmt.Sprint(at, " key of alice"), fmt.Sprint(at, " sends to alice"))
			time.Sleep(time.Second)
		}
		time.Sleep(time.Second)
		bob.want()
		bob.wantDropped(map[string]uint64{"signal: not sealed to this node": seconds * perSecond})
	})
}

// A member that forwards may name another sender: the message is the sender's all the same, and in its lane.
func TestWrongHintHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob, carol := w.add("alice"), w.add("bob"), w.add("carol")
		alice.run()
		bob.run()
		carol.run()
		bob.answers, bob.held = true, true
		alice.say(bob.id, offer(1))
		sealed := bob.last()
		alice.took()
		alice.slow[bob.id] = time.Second
		alice.courier.Take(carol.id, carol.id, sealed)
		synctest.Wait()
		carol.say(alice.id, candidates(3)) // is not to wait for the tunnel to bob
		alice.want("0s signal of bob came by carol", "0s candidates 3 of carol")
		time.Sleep(time.Minute)
		alice.want("1s key of bob", "1s answer 1 of bob", "1s agreed with bob 07")
		if got := alice.courier.Told(carol.id).Heard; !got.Equal(w.start) {
			t.Errorf("carol was heard at %v, want %v: what bob said is not hers", got, w.start)
		}
		alice.wantDropped(map[string]uint64{})
	})
}

func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := pair(t)
		bob.answers, alice.slow[bob.id] = true, time.Second
		alice.say(bob.id, offer(1))
		synctest.Wait() // alice's tunnel is busy with bob's key
		bob.say(alice.id, candidates(1))
		bob.took()
		alice.took()
		alice.world.expel(bob)
		alice.courier.Forget(bob.id)
		time.Sleep(time.Minute)
		// What was under way ends; nothing of it stays.
		alice.want("1s key of bob", "1s answer 1 of bob", "1s agreed with bob 07")
		if got := alice.courier.Told(bob.id); got != (Told{}) {
			t.Errorf("got %+v, want nothing", got)
		}
		if got := len(alice.courier.queue.lanes) + alice.courier.queue.waiting[in] + alice.courier.queue.waiting[out]; got != 0 {
			t.Errorf("got %d lanes and messages that wait, want none", got)
		}
		bob.say(alice.id, candidates(2))
		alice.want()
		time.Sleep(earlyFor)
		alice.wantDropped(map[string]uint64{"signal: from a stranger": 1})
	})
}

// Of a peer for which nothing was to be done nothing stays either: not even the nonces.
func TestForgetIdlePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := pair(t)
		bob.say(alice.id, candidates(1))
		sealed := bob.last()
		alice.want("0s candidates 1 of bob")
		alice.courier.Forget(bob.id)
		alice.courier.Take(bob.id, bob.id, sealed)
		alice.want("0s candidates 1 of bob")
		alice.wantDropped(map[string]uint64{})
	})
}

// Run ends when the tunnel has returned, and leaves what waits.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob := w.add("alice"), w.add("bob")
		alice.run()
		stop := bob.run()
		bob.slow[alice.id] = 5 * time.Second
		bob.answers = true
		alice.say(bob.id, offer(1))
		synctest.Wait()
		bob.say(alice.id, candidates(1))
		stop()
		if got := time.Since(w.start); got != 5*time.Second {
			t.Errorf("ended after %s, want 5s: when the tunnel was done", got)
		}
		bob.want("0s offer 1 of alice", "5s key of alice", "5s sends to alice")
		bob.courier.Take(alice.id, alice.id, alice.last())
		if err := bob.courier.Run(context.Background(), bob); err == nil {
			t.Error("got no error from a second Run")
		}
	})
}

func TestNewChecksItsOptions(t *testing.T) {
	h := newWorld(t).add("alice")
	for name, change := range map[string]func(*Options){
		"Self": func(o *Options) { o.Self = identity.NodeID{} }, "Signing": func(o *Options) { o.Signing = nil },
		"Members": func(o *Options) { o.Members = nil }, "Sessions": func(o *Options) { o.Sessions = nil },
		"Tunnel": func(o *Options) { o.Tunnel = nil }, "Standing": func(o *Options) { o.Standing = nil },
	} {
		o := Options{Self: h.id, Signing: identity.GenerateKey(), Sealing: [32]byte{1}, Members: h.world, Sessions: h, Tunnel: h, Standing: h}
		if _, err := New(o); err != nil {
			t.Fatalf("got %v with everything, want no error", err)
		}
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("got no error without %s", name)
		}
	}
}
