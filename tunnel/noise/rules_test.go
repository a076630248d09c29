package noise

import (
	"net/netip"
	"testing"
	"time"
)

// want compares counts of actions.
func (n *node) want(kinds map[Kind]int) {
	n.sim.t.Helper()
	for kind, want := range kinds {
		if n.counts[kind] != want {
			n.sim.t.Errorf("%v: node %d: got %d actions of kind %d, want %d", time.Duration(n.sim.now-second), n.id, n.counts[kind], kind, want)
		}
	}
}

func (s *sim) wantSame() {
	s.t.Helper()
	a, b := s.nodes[0].session(), s.nodes[1].session()
	if a == "" || a != b {
		s.t.Errorf("%v: got sessions %q and %q, want the same", time.Duration(s.now-second), a, b)
	}
}

// TestFirstPacket: a packet without a key begins a handshake, and goes when that is done, after 30 ms of a network of 10 ms
// (section 5.1: one round trip).
func TestFirstPacket(t *testing.T) {
	s := newSim(t, 1)
	a, b := s.nodes[0], s.nodes[1]
	n := a.send()
	s.run(29 * time.Millisecond)
	if b.got[n] != 0 {
		t.Error("the packet came before the handshake can have been done")
	}
	s.run(time.Millisecond)
	if b.got[n] != 1 {
		t.Errorf("got it %d times, want once", b.got[n])
	}
	a.want(map[Kind]int{SendInitiation: 1, Ready: 1, SendKeepalive: 1})
	b.want(map[Kind]int{SendResponse: 1, Ready: 1, SendInitiation: 0})
	s.wantSame()
	if !a.p.LastHandshake().Equal(calendar.Add(time.Duration(second) + 20*time.Millisecond)) {
		t.Errorf("got a handshake at %v", a.p.LastHandshake())
	}
}

// TestResponderWaits: the responder does not use the session before something came under it (section 5.4.6).
func TestResponderWaits(t *testing.T) {
	s := newSim(t, 1)
	a, b := s.nodes[0], s.nodes[1]
	s.link = func(from int, msg []byte) []time.Duration {
		if from == 0 && TypeOf(msg) == Transport {
			return nil
		}
		return []time.Duration{10 * time.Millisecond}
	}
	a.send()
	s.run(time.Second)
	n := b.send()
	if len(b.staged) != 1 {
		t.Fatal("the responder used a session that nobody has confirmed")
	}
	s.run(3 * time.Second)
	if a.got[n] != 0 {
		t.Error("its packet came")
	}
	s.link = func(int, []byte) []time.Duration { return []time.Duration{10 * time.Millisecond} }
	a.send()
	s.run(20 * time.Millisecond)
	if a.got[n] != 1 {
		t.Error("its packet did not go when the session was confirmed")
	}
}

// TestRetry: an initiation that nobody answers is repeated 5 s to 5.333 s later, and given up 90 s after the first (6.1, 6.4).
func TestRetry(t *testing.T) {
	s := newSim(t, 1)
	a := s.nodes[0]
	var at []Instant
	s.link = func(from int, msg []byte) []time.Duration {
		at = append(at, s.now)
		return nil
	}
	a.keep = true
	a.send()
	s.run(90*time.Second - 1)
	a.want(map[Kind]int{GaveUp: 0})
	s.run(1)
	a.want(map[Kind]int{GaveUp: 1})
	if len(a.staged) != 0 {
		t.Error("what was kept was not dropped")
	}
	if len(at) < 17 || len(at) > 18 {
		t.Errorf("got %d initiations, want 17 or 18", len(at))
	}
	different := false
	for i := range at[1:] {
		d := at[i+1].Sub(at[i])
		if d < RekeyTimeout || d > RekeyTimeout+RekeyJitter {
			t.Errorf("got %v between two initiations", d)
		}
		different = different || i > 0 && d != at[i].Sub(at[i-1])
	}
	if !different {
		t.Error("there is no jitter")
	}
	for i, act := range a.acts[:len(at)] {
		if act.Attempt != i+1 {
			t.Errorf("got attempt %d, want %d", act.Attempt, i+1)
		}
	}
	was := len(at)
	s.run(600 * time.Second)
	if len(at) != was {
		t.Errorf("got %d more initiations after giving up", len(at)-was)
	}
	a.want(map[Kind]int{Zeroed: 1})
	if s.run(0); a.p.Next() != Never {
		t.Errorf("a peer at rest wants to be stepped at %v", a.p.Next())
	}
	a.send() // a packet begins anew
	if len(at) != was+1 {
		t.Error("a packet did not begin a handshake anew")
	}
}

// TestRetryGoesOn: somebody who goes on sending moves the end of the attempts (6.4).
func TestRetryGoesOn(t *testing.T) {
	s := newSim(t, 1)
	a := s.nodes[0]
	s.link = func(int, []byte) []time.Duration { return nil }
	a.send()
	s.run(60 * time.Second)
	a.send()
	s.run(89 * time.Second)
	a.want(map[Kind]int{GaveUp: 0})
	s.run(time.Second)
	a.want(map[Kind]int{GaveUp: 1})
}

// established returns two nodes with a session that node 0 began, at rest.
func established(t *testing.T) (s *sim, a, b *node) {
	s = newSim(t, 1)
	a, b = s.nodes[0], s.nodes[1]
	a.send()
	s.run(time.Second)
	s.wantSame()
	clear(a.counts)
	clear(b.counts)
	return s, a, b
}

// TestRekeyAfterTime: the initiator begins anew with the first packet after 120 s, the responder does not (6.2).
func TestRekeyAfterTime(t *testing.T) {
	for _, sender := range []int{0, 1} {
		s, a, b := established(t)
		n := s.nodes[sender]
		for s.now < a.p.keys.Load().current.created+Instant(RekeyAfterTime)-second {
			a.send()
			b.send()
			s.run(time.Second)
		}
		s.until(a.p.keys.Load().current.created + Instant(RekeyAfterTime) - 1)
		n.send()
		a.want(map[Kind]int{SendInitiation: 0})
		s.run(1)
		n.send()
		a.want(map[Kind]int{SendInitiation: 1 - sender})
		s.run(time.Second)
		b.want(map[Kind]int{SendInitiation: 0, SendResponse: 1 - sender})
		s.wantSame()
	}
}

// TestLastMinute: an initiator that only receives begins anew after 165 s, once.
func TestLastMinute(t *testing.T) {
	s, a, b := established(t)
	created := a.p.keys.Load().current.created
	s.until(created + 164*second)
	b.send() // before, its keepalives would begin one after 120 s
	a.want(map[Kind]int{SendInitiation: 0})
	s.until(created + 165*second)
	b.send()
	s.run(time.Second)
	a.want(map[Kind]int{SendInitiation: 1})
	b.want(map[Kind]int{SendInitiation: 0})
	s.wantSame()
}

// TestRejectAfterTime: nothing is sealed with a session of 180 s, and nothing opened that is older.
func TestRejectAfterTime(t *testing.T) {
	s, a, b := established(t)
	k := a.p.keys.Load().current
	msg, _ := a.p.Seal(nil, make([]byte, 16), k.created+180*second-1)
	late, _ := a.p.Seal(nil, make([]byte, 16), k.created+180*second-1)
	created := b.p.keys.Load().current.created
	if o := b.m.Open(nil, msg, created+180*second); o.Drop != Kept {
		t.Errorf("got %v after 180 s, want the packet", o.Drop)
	}
	if o := b.m.Open(nil, late, created+180*second+1); o.Drop != DropExpired {
		t.Errorf("got %v after more than 180 s, want it expired", o.Drop)
	}
	if msg, signal := a.p.Seal(nil, make([]byte, 16), k.created+180*second); msg != nil || signal&NoKey == 0 {
		t.Errorf("sealed with a session of 180 s: %v", signal)
	}
	if a.p.Ready(k.created + 180*second) {
		t.Error("a session of 180 s is said to be ready")
	}
	_ = s
}

// TestMessageCounts: 2^60 messages begin a handshake on either side, 2^64-2^13-1 end the session (6.2).
func TestMessageCounts(t *testing.T) {
	for _, id := range []int{0, 1} {
		s, _, _ := established(t)
		n, other := s.nodes[id], s.nodes[1-id]
		s.run(5 * time.Second) // an initiation is 5 s away from the response
		k := n.p.keys.Load().current
		k.counter.Store(RekeyAfterMessages - 1)
		n.send()
		n.want(map[Kind]int{SendInitiation: 0})
		number := n.send()
		n.want(map[Kind]int{SendInitiation: 1})
		s.run(time.Second)
		if other.got[number] != 1 {
			t.Error("the packet that began it was lost")
		}
		s.wantSame()

		k = n.p.keys.Load().sending()
		k.counter.Store(RejectAfterMessages - 1)
		msg, signal := n.p.Seal(nil, nil, s.now)
		if signal&NoKey != 0 {
			t.Fatal("the last message was not sealed")
		}
		if o := other.m.Open(nil, msg, s.now); o.Drop != Kept {
			t.Errorf("got %v for the last message", o.Drop)
		}
		for range 10 {
			if _, signal := n.p.Seal(nil, nil, s.now); signal&NoKey == 0 {
				t.Fatal("a message beyond the last was sealed")
			}
		}
		if got := k.counter.Load(); got != RejectAfterMessages {
			t.Errorf("the counter is at %d, and may wrap", got)
		}
	}
}

// TestPassiveKeepalive: who receives data and has nothing to say says so after 10 s, once more if there was more of it, and
// never in answer to a keepalive (6.5).
func TestPassiveKeepalive(t *testing.T) {
	s, a, b := established(t)
	s.run(30 * time.Second)
	clear(a.counts)
	clear(b.counts)
	a.send()
	s.run(10*time.Second + 10*time.Millisecond - 1)
	b.want(map[Kind]int{SendKeepalive: 0})
	s.run(1)
	b.want(map[Kind]int{SendKeepalive: 1})
	s.run(60 * time.Second)
	b.want(map[Kind]int{SendKeepalive: 1})
	a.want(map[Kind]int{SendKeepalive: 0, SendInitiation: 0})

	a.send()
	s.run(time.Second)
	a.send()
	s.run(30 * time.Second)
	b.want(map[Kind]int{SendKeepalive: 3})

	a.send()
	s.run(time.Second)
	b.send() // is an answer by itself
	s.run(5 * time.Second)
	b.want(map[Kind]int{SendKeepalive: 3})
}

// TestSilence: data without any answer for 15 s begin a handshake (6.5).
func TestSilence(t *testing.T) {
	s, a, _ := established(t)
	s.run(10 * time.Second)
	s.link = func(int, []byte) []time.Duration { return nil }
	begun := s.now
	a.send()
	s.run(5 * time.Second)
	a.send() // the first one counts
	s.until(begun + 15*second - 1)
	a.want(map[Kind]int{SendInitiation: 0})
	s.until(begun + 15*second + Instant(RekeyJitter))
	a.want(map[Kind]int{SendInitiation: 1})
}

// TestNoSilence: an answer, be it a keepalive, ends the wait.
func TestNoSilence(t *testing.T) {
	s, a, b := established(t)
	for range 5 {
		a.send()
		s.run(20 * time.Second)
	}
	a.want(map[Kind]int{SendInitiation: 0})
	b.want(map[Kind]int{SendInitiation: 0, SendKeepalive: 6})
}

// TestPersistent: the keepalive that is asked for goes at once, then whenever nothing was sent or received for its interval; it
// makes a session where there is none, and takes up after giving up.
func TestPersistent(t *testing.T) {
	s := newSim(t, 1)
	a, b := s.nodes[0], s.nodes[1]
	a.p.SetPersistent(25*time.Second, s.now)
	a.step()
	a.want(map[Kind]int{SendInitiation: 1})
	s.run(time.Second)
	s.wantSame()
	clear(a.counts)
	s.run(50 * time.Second)
	a.want(map[Kind]int{SendKeepalive: 2})
	b.want(map[Kind]int{SendKeepalive: 0})
	s.run(10 * time.Second)
	b.send()
	s.run(10*time.Second + 10*time.Millisecond) // it is answered after 10 s
	a.want(map[Kind]int{SendKeepalive: 3})
	s.run(25*time.Second - 1)
	a.want(map[Kind]int{SendKeepalive: 3})
	s.run(1)
	a.want(map[Kind]int{SendKeepalive: 4})
	a.p.SetPersistent(0, s.now)
	s.run(100 * time.Second)
	a.want(map[Kind]int{SendKeepalive: 4})

	s.link = func(int, []byte) []time.Duration { return nil }
	a.p.SetPersistent(25*time.Second, s.now)
	a.step()
	s.run(1000 * time.Second)
	if a.counts[GaveUp] < 5 {
		t.Errorf("got %d times given up, want it taken up each time", a.counts[GaveUp])
	}
}

// TestPersistentIsSeldom: 24 h of nothing but persistent keepalives of one side keep one session, renewed when it has to be.
func TestPersistentIsSeldom(t *testing.T) {
	s := newSim(t, 1)
	s.nodes[0].p.SetPersistent(25*time.Second, s.now)
	s.nodes[0].step()
	s.run(24 * time.Hour)
	got := s.nodes[0].counts
	if n := got[SendInitiation]; n < 24*3600/150 || n > 24*3600/120 {
		t.Errorf("got %d handshakes in 24 h, want one each 120 to 145 s", n)
	}
	if n := got[SendKeepalive]; n < 24*3600/26 || n > 24*3600/20 {
		t.Errorf("got %d keepalives in 24 h", n)
	}
}

// TestZeroing: all keys go 540 s after the last handshake (6.4).
func TestZeroing(t *testing.T) {
	s, a, b := established(t)
	created := a.p.keys.Load().current.created
	s.until(created + 540*second - 1)
	if a.p.keys.Load().current == nil {
		t.Error("keys went too early")
	}
	s.run(1)
	for _, n := range []*node{a, b} {
		if *n.p.keys.Load() != (keys{}) {
			t.Error("keys are left")
		}
		if n.m.table.used != 0 {
			t.Errorf("got %d indices in use, want none", n.m.table.used)
		}
		n.want(map[Kind]int{Zeroed: 1})
		if n.p.Next() != Never {
			t.Error("a peer without keys has a timer")
		}
	}
}

// TestPresharedKey: both have it, or nothing comes about; the initiator needs it with the response only, the responder with the
// initiation only.
func TestPresharedKey(t *testing.T) {
	s := newSim(t, 1)
	a, b := s.nodes[0], s.nodes[1]
	b.p.SetPresharedKey(PresharedKey{1})
	n := a.send()
	s.run(time.Second)
	if a.drops[DropForged] != 1 || b.got[n] != 0 {
		t.Errorf("got a session between different preshared keys: %v", a.drops)
	}
	a.p.SetPresharedKey(PresharedKey{1})
	s.run(10 * time.Second)
	if b.got[n] != 1 {
		t.Error("no session with the same preshared key")
	}

	// An initiation from before the key is known; a response that cannot be read leaves it waiting.
	s = newSim(t, 2)
	a, b = s.nodes[0], s.nodes[1]
	initiation := a.p.Carry(a.moment())
	b.p.SetPresharedKey(PresharedKey{2})
	r, acts := b.m.Receive(initiation, source, false, b.moment(), nil)
	if r.Peer != b.p || len(acts) != 1 {
		t.Fatalf("got %+v and %d actions", r, len(acts))
	}
	if r, _ := a.m.Receive(acts[0].Packet, source, false, a.moment(), nil); r.Drop != DropForged {
		t.Fatalf("got %v for a response with another key", r.Drop)
	}
	a.p.SetPresharedKey(PresharedKey{2})
	r, done := a.m.Receive(acts[0].Packet, source, false, a.moment(), nil)
	if r.Peer != a.p {
		t.Fatalf("got %v for the response once the key is there", r.Drop)
	}
	a.act(done)
	s.run(time.Second)
	s.wantSame()
	a.want(map[Kind]int{SendInitiation: 0})
}

// TestCarriedAndDirect: an initiation that is carried and one that goes straight do not disturb each other, whichever is answered
// first.
func TestCarriedAndDirect(t *testing.T) {
	for _, carriedFirst := range []bool{true, false} {
		for _, lateResponse := range []bool{true, false} {
			s := newSim(t, 1)
			a, b := s.nodes[0], s.nodes[1]
			initiation := a.p.Carry(a.moment())
			carry := func() {
				_, acts := b.m.Receive(initiation, source, false, b.moment(), nil)
				for _, act := range acts {
					back := 10 * time.Millisecond
					if lateResponse {
						back = 2 * time.Second
					}
					s.at(s.now.Add(back), func() {
						_, acts := a.m.Receive(act.Packet, source, false, a.moment(), nil)
						a.act(acts)
					})
				}
				b.arm()
			}
			if carriedFirst {
				s.at(s.now.Add(5*time.Second-time.Millisecond), carry) // just before the direct one leaves
			} else {
				s.at(s.now.Add(5*time.Second+100*time.Millisecond), carry)
			}
			n := a.send()
			s.run(4 * time.Second)
			a.want(map[Kind]int{SendInitiation: 0}) // held back
			s.run(20 * time.Second)
			if b.got[n] != 1 {
				t.Errorf("carried first %v, late %v: the packet did not come", carriedFirst, lateResponse)
			}
			s.wantSame()
			if got := a.counts[SendInitiation]; got > 1 {
				t.Errorf("carried first %v, late %v: got %d initiations", carriedFirst, lateResponse, got)
			}
		}
	}
}

// TestCrossing: both begin at once, with all orders of what arrives when; neither waits for a retry, and they agree.
func TestCrossing(t *testing.T) {
	delays := []time.Duration{5 * time.Millisecond, 12 * time.Millisecond, 40 * time.Millisecond, 90 * time.Millisecond}
	for _, apart := range []time.Duration{0, 3 * time.Millisecond, 20 * time.Millisecond} {
		for order := range 256 {
			s := newSimWith(t, uint64(order), toy)
			a, b := s.nodes[0], s.nodes[1]
			s.link = func(from int, msg []byte) []time.Duration {
				which := 2 * from
				if TypeOf(msg) == Response {
					which++
				}
				if TypeOf(msg) == Transport {
					return []time.Duration{10 * time.Millisecond}
				}
				return []time.Duration{delays[order>>(2*which)&3]}
			}
			var of [2]uint64
			s.at(s.now, func() { of[0] = a.send() })
			s.at(s.now.Add(apart), func() { of[1] = b.send() })
			s.run(time.Second)
			if b.got[of[0]] != 1 || a.got[of[1]] != 1 {
				t.Errorf("order %d, %v apart: packets did not come within a second", order, apart)
			}
			a.send()
			b.send()
			s.run(time.Second)
			if s.wantSame(); t.Failed() {
				t.Fatalf("order %d, %v apart", order, apart)
			}
			if a.counts[SendInitiation] > 1 || b.counts[SendInitiation] > 1 {
				t.Errorf("order %d: got %d and %d initiations", order, a.counts[SendInitiation], b.counts[SendInitiation])
			}
		}
	}
}

// TestReplayedInitiation: the stamp of an initiation has to be later than that of the last (5.1), and they may not follow each
// other too closely.
func TestReplayedInitiation(t *testing.T) {
	s := newSim(t, 1)
	a, b := s.nodes[0], s.nodes[1]
	receive := func(msg []byte) Drop {
		r, _ := b.m.Receive(msg, source, false, b.moment(), nil)
		return r.Drop
	}
	first, second, third := a.p.Carry(a.moment()), a.p.Carry(a.moment()), a.p.Carry(a.moment())
	if got := receive(second); got != Kept {
		t.Fatalf("got %v", got)
	}
	s.run(time.Second)
	for _, old := range [][]byte{first, second} {
		if got := receive(old); got != DropStale {
			t.Errorf("got %v for an old initiation", got)
		}
	}
	if got := receive(third); got != Kept {
		t.Errorf("got %v for one of the same tick", got)
	}
	s.run(InitiationRate)
	if got := receive(a.p.Carry(a.moment())); got != DropFlood {
		t.Errorf("got %v for one that comes too soon", got)
	}
	s.run(1)
	if got := receive(a.p.Carry(a.moment())); got != Kept {
		t.Errorf("got %v for one that comes 20 ms later", got)
	}
}

// TestCalendarBack: initiations are taken although the initiator's calendar has gone back, also over a restart that kept the
// stamp; over one that did not, the responder says what is wrong.
func TestCalendarBack(t *testing.T) {
	s, a, b := established(t)
	a.wall = -time.Hour
	s.run(10 * time.Second)
	a.act(a.p.Handshake(a.moment(), nil))
	s.run(time.Second)
	a.want(map[Kind]int{SendInitiation: 1})
	b.want(map[Kind]int{SendResponse: 1})

	a.start(a.m.Stamp())
	a.send()
	s.run(time.Second)
	b.want(map[Kind]int{SendResponse: 2})
	s.wantSame()

	a.start([12]byte{})
	a.send()
	s.run(time.Second)
	b.want(map[Kind]int{SendResponse: 2})
	if b.drops[DropStale] != 1 {
		t.Errorf("got %v, want one stale initiation", b.drops)
	}
	b.send() // and it is understood by the one with the calendar that is right
	s.run(20 * time.Second)
	s.wantSame()
}

// TestCookies: under load only those are served who show a cookie; they get one, and are served with their next message (5.3).
// The cookie and its secret last 120 s.
func TestCookies(t *testing.T) {
	s := newSim(t, 1)
	a, b := s.nodes[0], s.nodes[1]
	b.load = true
	n := a.send()
	s.run(time.Second)
	b.want(map[Kind]int{SendCookie: 1, SendResponse: 0})
	s.run(5 * time.Second)
	b.want(map[Kind]int{SendCookie: 1, SendResponse: 1})
	if b.got[n] != 1 {
		t.Error("the packet did not come once the cookie was shown")
	}

	// load on the other side: the response needs one, too
	s = newSim(t, 1)
	a, b = s.nodes[0], s.nodes[1]
	a.load = true
	n = a.send()
	s.run(time.Second)
	a.want(map[Kind]int{SendCookie: 1})
	s.run(5 * time.Second)
	a.want(map[Kind]int{SendCookie: 1})
	if b.got[n] != 1 {
		t.Error("the packet did not come")
	}

	// 120 s
	b.load, a.load = true, false
	a.m.Receive(nil, source, false, a.moment(), nil)
	try := func() int {
		b.counts[SendCookie] = 0
		s.run(6 * time.Second)
		a.act(a.p.Handshake(a.moment(), nil))
		s.run(time.Second)
		return b.counts[SendCookie]
	}
	if try() != 1 || try() != 0 {
		t.Error("want one cookie, then none")
	}
	s.run(100 * time.Second)
	if got := try(); got != 0 {
		t.Errorf("got %d cookies after %v, want none", got, 107*time.Second)
	}
	s.run(20 * time.Second)
	if try() == 0 {
		t.Error("a cookie was taken that is older than 120 s")
	}

	// the cookie is of no use at another address, and what an introduction carries needs none
	s.run(6 * time.Second)
	msg := a.p.Carry(a.moment())
	other := netip.AddrPortFrom(source.Addr(), 9)
	if r, _ := b.m.Receive(msg, other, true, b.moment(), nil); r.Drop != DropLoad {
		t.Errorf("got %v for a cookie of another address", r.Drop)
	}
	if r, _ := b.m.Receive(msg, noSource, true, b.moment(), nil); r.Drop != Kept {
		t.Errorf("got %v for what an introduction carried", r.Drop)
	}
}

type none struct{}

func (none) Allow(netip.Addr) bool { return false }

// TestLoadEnds: load is believed for a second.
func TestLoadEnds(t *testing.T) {
	s := newSim(t, 1)
	a, b := s.nodes[0], s.nodes[1]
	b.m.Receive(make([]byte, 7), source, true, b.moment(), nil)
	s.run(time.Second - 1)
	msg := a.p.Carry(a.moment())
	if r, _ := b.m.Receive(msg, source, false, b.moment(), nil); r.Drop != DropLoad {
		t.Errorf("got %v, want load", r.Drop)
	}
	s.run(1)
	if r, _ := b.m.Receive(msg, source, false, b.moment(), nil); r.Drop != Kept {
		t.Errorf("got %v, want no load", r.Drop)
	}
}

// TestLimiter: under load each address has its rate.
func TestLimiter(t *testing.T) {
	s := newSim(t, 1)
	a, b := s.nodes[0], s.nodes[1]
	b.m.limiter = none{}
	b.load = true
	a.send()
	s.run(10 * time.Second)
	b.want(map[Kind]int{SendResponse: 0, SendCookie: 1})
	if b.drops[DropLoad] < 2 {
		t.Errorf("got %v", b.drops)
	}
}

// TestOneWayHeals: that the peer has lost the session we send with is found out within 15 s even if something comes from it, under
// an older one, all the while.
func TestOneWayHeals(t *testing.T) {
	s, a, b := established(t)
	s.run(10 * time.Second)
	a.act(a.p.Handshake(a.moment(), nil))
	s.run(time.Second)
	k := b.p.keys.Load() // b loses the new session
	b.p.keys.Store(&keys{current: k.previous})
	b.p.keys.drop(k.current)
	b.p.SetPersistent(3*time.Second, s.now) // and asks for no answer
	b.step()
	clear(b.got)
	for range 22 {
		a.send()
		s.run(time.Second)
	}
	s.wantSame()
	if n := a.number; b.got[n] != 1 {
		t.Error("it did not heal")
	}
}

// TestRestart: after the restart of one side packets of either pass again, of the other within 15 s and a retry.
func TestRestart(t *testing.T) {
	s, a, b := established(t)
	b.start([12]byte{})
	n := b.send()
	s.run(time.Second)
	if a.got[n] != 1 {
		t.Error("a packet of the one that restarted did not come")
	}
	s.wantSame()
	b.start([12]byte{})
	for range 22 {
		n = a.send()
		s.run(time.Second)
	}
	if b.got[n] != 1 {
		t.Error("a packet to the one that restarted did not come")
	}
}

// TestRemove: a peer that is removed does nothing any more, whatever a loop still does with it, and leaves nothing behind.
func TestRemove(t *testing.T) {
	s, a, b := established(t)
	a.p.SetPersistent(time.Second, s.now)
	a.p.Carry(a.moment())
	a.m.Remove(a.p)
	if _, signal := a.p.Seal(nil, []byte{1}, s.now); signal&NoKey == 0 {
		t.Error("a packet was sealed for a peer that is removed")
	}
	if acts := a.p.Step(a.moment(), nil); len(acts) != 0 || a.p.Next() != Never {
		t.Errorf("got %d actions, and the next at %v", len(acts), a.p.Next())
	}
	if a.m.table.used != 0 || a.m.Peer(a.other) != nil || a.p.psk != (PresharedKey{}) {
		t.Error("something is left")
	}
	msg, _ := b.p.Seal(nil, []byte{1}, s.now)
	if o := a.m.Open(nil, msg, s.now); o.Drop != DropIndex {
		t.Errorf("got %v for a packet of it", o.Drop)
	}
	if r, _ := a.m.Receive(b.p.Carry(b.moment()), source, false, a.moment(), nil); r.Drop != DropStranger {
		t.Errorf("got %v for an initiation of it", r.Drop)
	}
	if _, err := a.m.Add(a.other); err != nil {
		t.Errorf("add it again: %v", err)
	}
	a.m.Close()
	if a.m.private != (PrivateKey{}) || len(a.m.peers) != 0 {
		t.Error("closing left something")
	}
}

// TestAdd: own keys, keys of low order and peers that are there are refused.
func TestAdd(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("a machine without a key was made")
	}
	m, err := New(Options{Private: testKey(1)})
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]PublicKey{"its own": m.Public(), "zero": {}, "low order": {1}} {
		if _, err := m.Add(key); err == nil {
			t.Errorf("a peer was added with %s key", name)
		}
	}
	if _, err := m.Add(testKey(2).Public()); err != nil {
		t.Error(err)
	}
	if _, err := m.Add(testKey(2).Public()); err == nil {
		t.Error("a peer was added twice")
	}
}
