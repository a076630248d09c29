package courier

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/letter"
	"warren/mesh/signal"
	"warren/nat/path"
)

// With no session at all an offer goes straight, and its answer the same way; both keys are in place in time.
func TestStraight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := pair(t)
		alice.alone, bob.alone = true, true
		first := offer(7)
		first.Straight = bob.addr
		alice.say(bob.id, first)
		bob.want("0s offer 7 of alice from " + alice.addr.String())
		back := answer(7)
		back.Straight = alice.addr
		bob.say(alice.id, back)
		bob.want("0s key of alice", "0s writes to "+alice.addr.String())
		alice.want("0s writes to "+bob.addr.String(), "0s key of bob", "0s answer 7 of bob from "+bob.addr.String(), "0s agreed with bob 07")
		if alice.key(bob) != bob.key(alice) || bob.key(alice) == ([32]byte{}) {
			t.Error("got two keys, want one")
		}
	})
}

// A letter that comes again, one for somebody else, one of no member, and rubbish do nothing, and nothing is said to any of them.
func TestStraightLettersOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob, mallory := w.add("alice"), w.add("bob"), w.add("mallory")
		for _, h := range []*host{alice, bob, mallory} {
			h.run()
		}
		from := netip.MustParseAddrPort("203.0.113.66:9277")
		m := offer(7)
		m.Straight = bob.addr
		alice.say(bob.id, m)
		letter := alice.last()
		bob.took()
		bob.courier.TakeStraight(letter, from)
		mallory.courier.TakeStraight(letter, from)
		w.expel(mallory)
		mallory.say(bob.id, m)
		bob.courier.TakeStraight(mallory.last(), from)
		bob.courier.TakeStraight(make([]byte, 1500), from)
		bob.courier.TakeStraight(make([]byte, signal.MaxSealed+1), from)
		bob.want()
		bob.wantDropped(map[string]uint64{
			"signal: replayed": 1, "signal: from a stranger": 2, "signal: not sealed to this node": 1, "signal: malformed signal": 1,
		})
		mallory.wantDropped(map[string]uint64{"signal: not sealed to this node": 1})
	})
}

// Whoever floods this node with letters has those of others dropped, and nothing that sessions bring.
func TestStraightFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob := w.add("alice"), w.add("bob")
		for range 100 {
			bob.courier.TakeStraight(make([]byte, 1500), netip.MustParseAddrPort("203.0.113.66:9277"))
		}
		alice.run()
		alice.say(bob.id, offer(7))
		time.Sleep(time.Second)
		bob.run()
		bob.want("1s offer 7 of alice")
		bob.wantDropped(map[string]uint64{"signal: queue full": 84, "signal: not sealed to this node": 16})
	})
}

// The largest that the machine sends straight fits into a letter, with a message of WireGuard's beside it.
func TestStraightFitsIntoALetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := pair(t)
		m := offer(1 << 60)
		m.Ufrag, m.Pwd, m.NAT, m.Straight = strings.Repeat("u", 8), strings.Repeat("p", 24), 0xffff, bob.addr
		for i := range 5 {
			addr := netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, byte(i) | 0xf0}), 65535)
			m.Candidates = append(m.Candidates, path.NewCandidate(path.ServerReflexive, addr, 0).String())
		}
		for i := range 2 {
			m.Relays = append(m.Relays, path.RelayOffer{Anchor: identity.NodeID{byte(i), 2}, RTTms: 1000, Load: 255})
		}
		alice.say(bob.id, m)
		const handshake = 148 + 4
		if got := len(alice.last()) + handshake; got > letter.Max {
			t.Errorf("got %d bytes with a handshake, want %d at most", got, letter.Max)
		} else {
			t.Logf("%d of %d bytes", got, letter.Max)
		}
	})
}
