package beacon_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/nat/beacon"
	"warren/nat/beacon/beacontest"
)

var meshID = identity.MeshID{7}

func id(n int) identity.NodeID { return identity.NodeID{byte(n >> 8), byte(n), 1} }

// host is a program on the LAN.
type host struct {
	t      *testing.T
	beacon *beacon.Beacon
	state  beacon.State
	stop   func()
}

func linkOf(n int) beacon.Link {
	return beacon.Link{Index: 1, Name: "eth0", Prefixes: []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 16), netip.MustParsePrefix(fmt.Sprintf("fe80::%x/64", n+1)),
		netip.MustParsePrefix(fmt.Sprintf("fd00::%x/64", n+1)),
	}}
}

// start runs a member, or a joiner when who is zero.
func start(t *testing.T, lan *beacontest.LAN, n int, who identity.NodeID, s beacon.State) *host {
	t.Helper()
	b := beacon.New(beacon.Options{Self: who, Network: lan.Network(1)})
	s.Port = 9277
	if s.Links == nil {
		s.Links = []beacon.Link{linkOf(n)}
	}
	h := &host{t: t, beacon: b, state: s}
	b.Set(s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	h.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return h
}

func (h *host) set(need beacon.Need) {
	h.state.Need = need
	h.beacon.Set(h.state)
}

// found waits and returns who was heard so far, each with all its addresses.
func (h *host) found(wait time.Duration) map[identity.NodeID][]netip.AddrPort {
	time.Sleep(wait)
	synctest.Wait()
	out := make(map[identity.NodeID][]netip.AddrPort)
	for {
		select {
		case f := <-h.beacon.Found():
			out[f.ID] = f.Addrs
		default:
			return out
		}
	}
}

func member(secret byte, need beacon.Need) beacon.State {
	return beacon.State{Members: []beacon.Key{beacon.MemberKey(meshID, [16]byte{secret})}, Need: need}
}

func TestMembersFindEachOtherAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := beacontest.New()
		a := start(t, lan, 1, id(1), member(1, beacon.Alone))
		defer a.stop()
		time.Sleep(time.Hour) // of silence around
		b := start(t, lan, 2, id(2), member(1, beacon.Alone))
		defer b.stop()
		stranger := start(t, lan, 3, id(3), member(2, beacon.Alone))
		defer stranger.stop()
		want := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:9277"), netip.MustParseAddrPort("[fd00::2]:9277")}
		if got := b.found(200 * time.Millisecond); len(got) != 1 || !slices.Equal(got[id(1)], want) {
			t.Errorf("got %v, want node 1 at %v: the addresses that need no zone", got, want)
		}
		if got := a.found(0); len(got) != 1 || len(got[id(2)]) != 2 {
			t.Errorf("got %v, want node 2", got)
		}
		if got := stranger.found(0); len(got) != 0 || stranger.beacon.Dropped()["not readable"] == 0 {
			t.Errorf("got %v in another mesh, want nobody", got)
		}
	})
}

// What is sent in an hour, in beacons of each family. Forty members that are apart speak about four times a minute together.
func TestBudget(t *testing.T) {
	for _, tt := range []struct {
		name        string
		hosts       int
		need        beacon.Need
		first, hour int // at most, of all hosts together
	}{
		{"quiet", 1, beacon.Quiet, 3, 0},
		{"alone", 1, beacon.Alone, 3, 170}, // one in 4 s, 8 s, 16 s, then 30 s, a quarter less at the least
		{"apart", 1, beacon.Apart, 3, 82},
		{"quiet together", 20, beacon.Quiet, 20*3*9 + 20*20, 0},
		{"apart together", 40, beacon.Apart, 40*3*9 + 40*40, 6 * 60},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lan := beacontest.New()
				for n := range tt.hosts {
					s := member(1, tt.need)
					s.Links = []beacon.Link{linkOf(n)}
					s.Links[0].Prefixes = s.Links[0].Prefixes[:1]
					defer start(t, lan, n, id(n), s).stop()
				}
				time.Sleep(4 * time.Minute) // until all have heard all, if any speak
				first := len(lan.Sent())
				time.Sleep(time.Hour)
				if got := len(lan.Sent()) - first; got > tt.hour || tt.hour > 0 && got == 0 {
					t.Errorf("got %d beacons in an hour, want at most %d, and some", got, tt.hour)
				}
				if spare := tt.hour / 10; first > tt.first+spare {
					t.Errorf("got %d beacons at the start, want at most %d", first, tt.first+spare)
				}
			})
		})
	}
}

// Two groups that were formed apart hear of each other although nobody is alone.
func TestThoseApartAreHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := beacontest.New()
		lan.Drop(func(beacon.Send) bool { return true })
		a := start(t, lan, 1, id(1), member(1, beacon.Apart))
		defer a.stop()
		b := start(t, lan, 2, id(2), member(1, beacon.Apart))
		defer b.stop()
		if got := a.found(time.Minute); len(got) != 0 {
			t.Fatalf("got %v through a cut line", got)
		}
		lan.Drop(nil)
		if got := a.found(80 * time.Second); len(got) != 1 {
			t.Errorf("got %v, want node 2 within 75 s", got)
		}
	})
}

// An anchor that is lost, and a network that is another one, make a node ask at once.
func TestChangesAreFollowedByABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := beacontest.New()
		a := start(t, lan, 1, id(1), member(1, beacon.Quiet))
		defer a.stop()
		b := start(t, lan, 2, id(2), member(1, beacon.Quiet))
		defer b.stop()
		b.found(time.Hour)
		b.set(beacon.Apart)
		if got := b.found(200 * time.Millisecond); len(got) != 1 {
			t.Errorf("got %v after the anchor was lost, want node 1", got)
		}
		b.found(10 * time.Second) // the burst ends
		before := lan.Sent()
		b.state.Links = []beacon.Link{linkOf(3)}
		b.set(beacon.Quiet)
		if got := b.found(200 * time.Millisecond); len(got) != 1 {
			t.Errorf("got %v after a change of address, want node 1", got)
		}
		last := lan.Sent()[len(lan.Sent())-1]
		if slices.ContainsFunc(before, func(s beacontest.Seen) bool { return s.From.Port() == last.From.Port() && last.To == netip.AddrPort{} }) {
			t.Error("the source port went along to the new network")
		}
		// An interface that flaps ten times leads to three bursts.
		first := len(lan.Sent())
		for n := range 10 {
			b.state.Links = []beacon.Link{linkOf(10 + n)}
			b.set(beacon.Quiet)
			time.Sleep(time.Second)
		}
		if got := len(lan.Sent()) - first; got > 60 {
			t.Errorf("got %d beacons in ten seconds of flapping, want at most 60", got)
		}
	})
}

func TestJoinerFindsAMemberByItsInvite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := beacontest.New()
		invite := []beacon.Key{beacon.InviteKey(meshID, identity.KeyID{1})}
		open := member(1, beacon.Quiet)
		open.Invites = invite
		a := start(t, lan, 1, id(1), open)
		defer a.stop()
		closed := member(1, beacon.Quiet)
		closed.Invites = []beacon.Key{beacon.InviteKey(meshID, identity.KeyID{2})}
		b := start(t, lan, 2, id(2), closed)
		defer b.stop()
		time.Sleep(time.Minute)
		joiner := start(t, lan, 3, identity.NodeID{}, beacon.State{Invites: invite, Need: beacon.Alone})
		defer joiner.stop()
		want := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:9277"), netip.MustParseAddrPort("[fd00::2]:9277")}
		got := joiner.found(200 * time.Millisecond)
		if len(got) != 1 || !slices.Equal(got[identity.NodeID{}], want) {
			t.Errorf("got %v, want one member, without its ID, at %v", got, want)
		}
		if got := a.found(0); len(got) != 1 {
			t.Errorf("got %v, want node 2 only: a joiner is nobody yet", got)
		}
	})
}

// An answer to a joiner counts for what it asked, and only once.
func TestAnswersToOthersAreNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := beacontest.New()
		invite := []beacon.Key{beacon.InviteKey(meshID, identity.KeyID{1})}
		open := member(1, beacon.Quiet)
		open.Invites = invite
		a := start(t, lan, 1, id(1), open)
		first := start(t, lan, 3, identity.NodeID{}, beacon.State{Invites: invite, Need: beacon.Alone})
		if got := first.found(time.Second); len(got) != 1 {
			t.Fatalf("got %v, want one member", got)
		}
		first.stop()
		a.stop()
		second := start(t, lan, 3, identity.NodeID{}, beacon.State{Invites: invite, Need: beacon.Alone})
		defer second.stop()
		time.Sleep(time.Second)
		for _, s := range lan.Sent() {
			lan.Inject(s.From, s.Raw)
		}
		if got := second.found(time.Second); len(got) != 0 {
			t.Errorf("got %v from answers to another asker, want none", got)
		}
	})
}

func TestReplayedAndForgedBeaconsMoveNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := beacontest.New()
		a := start(t, lan, 1, id(1), member(1, beacon.Quiet))
		b := start(t, lan, 2, id(2), member(1, beacon.Quiet))
		defer b.stop()
		if got := b.found(time.Minute); len(got) != 1 {
			t.Fatalf("got %v, want node 1", got)
		}
		a.stop()
		heard := lan.Sent()
		replay := func() {
			for _, s := range heard {
				lan.Inject(netip.MustParseAddrPort("10.0.0.66:6666"), s.Raw)
				time.Sleep(time.Second)
			}
		}
		replay()
		if got := b.found(time.Second); len(got) != 0 || b.beacon.Dropped()["repeated"] == 0 {
			t.Errorf("got %v (%v), want nobody from what was heard before", got, b.beacon.Dropped())
		}
		// Elsewhere, to a member that has not heard them: only within the window.
		c := start(t, lan, 4, id(4), member(1, beacon.Quiet))
		defer c.stop()
		time.Sleep(6 * time.Minute)
		c.found(0)
		sent := len(lan.Sent())
		replay()
		if got := c.found(time.Second); len(got) != 0 || c.beacon.Dropped()[beacon.ClocksDiffer] == 0 {
			t.Errorf("got %v (%v), want nobody from old beacons", got, c.beacon.Dropped())
		}
		if got := len(lan.Sent()) - sent; got != 0 {
			t.Errorf("got %d answers to old beacons, want none", got)
		}
		forged := bytes.Repeat([]byte{7}, beacon.Size)
		lan.Inject(netip.MustParseAddrPort("10.0.0.66:6666"), forged)
		lan.Inject(netip.MustParseAddrPort("10.0.0.66:6666"), forged[1:])
		time.Sleep(time.Second)
		if d := c.beacon.Dropped(); d["not readable"] == 0 || d["no beacon"] == 0 {
			t.Errorf("got drops %v, want forged ones counted", d)
		}
	})
}

// A member cannot have others dial what is not on the link.
func TestAddressesElsewhereAreLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := beacontest.New()
		a := start(t, lan, 1, id(1), member(1, beacon.Quiet))
		defer a.stop()
		liar := member(1, beacon.Alone)
		liar.Links = []beacon.Link{{Index: 1, Name: "eth0", Prefixes: []netip.Prefix{
			netip.MustParsePrefix("10.0.0.9/16"), netip.MustParsePrefix("fe80::9/64"), netip.MustParsePrefix("203.0.113.5/24"), netip.MustParsePrefix("2001:db8::5/64"),
		}}}
		b := start(t, lan, 2, id(2), liar)
		defer b.stop()
		if got := a.found(time.Second)[id(2)]; !slices.Equal(got, []netip.AddrPort{netip.MustParseAddrPort("10.0.0.9:9277")}) {
			t.Errorf("got %v, want the address on the link alone", got)
		}
	})
}

// One who floods has a share, and others are heard beside it; what many who flood together cost is bounded.
func TestFloodsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := beacontest.New()
		a := start(t, lan, 1, id(1), member(1, beacon.Quiet))
		defer a.stop()
		time.Sleep(time.Minute)
		junk := bytes.Repeat([]byte{7}, beacon.Size)
		flood := func(from func(i int) netip.Addr) {
			for i := range 2000 {
				lan.Inject(netip.AddrPortFrom(from(i), 6666), junk)
				time.Sleep(500 * time.Microsecond)
			}
		}
		flood(func(int) netip.Addr { return netip.MustParseAddr("10.0.0.66") })
		if d := a.beacon.Dropped(); d["not readable"] > 60 || d["too many"] < 1900 {
			t.Errorf("got drops %v, want 50 of 2,000 beacons of one source looked at", d)
		}
		b := start(t, lan, 2, id(2), member(1, beacon.Alone))
		defer b.stop()
		if got := b.found(200 * time.Millisecond); len(got) != 1 {
			t.Errorf("got %v beside a flood, want node 1", got)
		}
		before := a.beacon.Dropped()["not readable"]
		flood(func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) })
		if got := a.beacon.Dropped()["not readable"] - before; got > 620 {
			t.Errorf("got %d of 2,000 beacons of 2,000 sources looked at in a second, want at most 600", got)
		}
	})
}

// Of sixty members few answer one who asks.
func TestAnswersAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := beacontest.New()
		for n := range 60 {
			defer start(t, lan, n, id(n), member(1, beacon.Quiet)).stop()
		}
		time.Sleep(time.Minute)
		before := len(lan.Sent())
		b := start(t, lan, 200, id(200), member(1, beacon.Quiet))
		defer b.stop()
		got := b.found(time.Minute)
		sent := len(lan.Sent()) - before
		if len(got) < 3 || sent > 100 {
			t.Errorf("got %d members by %d beacons, want three at least by 100 at most", len(got), sent)
		}
	})
}
