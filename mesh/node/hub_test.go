package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/mesh/place"
	"warren/mesh/roster"
	"warren/mesh/session"
	"warren/nat"
	"warren/nat/streams"
	"warren/tunnel"
)

// lines compares what a node's owners were told, one line each, in order.
func lines(t *testing.T, who string, got []string, want ...string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	t.Errorf("%s: got\n\t%s\nwant\n\t%s", who, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
}

func newNetwork() *network { return &network{nodes: make(map[identity.NodeID]*twins)} }

// met returns two nodes that have met and are at rest.
func met(t *testing.T) (a, b *twins) {
	net := newNetwork()
	a, b = newTwins(t, net, 1, testMember(1), testMember(2)), newTwins(t, net, 2, testMember(1), testMember(2))
	a.run(t)
	b.run(t)
	time.Sleep(time.Second)
	synctest.Wait()
	a.take()
	b.take()
	return a, b
}

func TestTwoNodesMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		a, b := newTwins(t, net, 1, testMember(1)), newTwins(t, net, 2, testMember(2))
		a.run(t)
		b.run(t)
		a.take()
		b.take()
		a.connect(2, "192.0.2.2:9277")
		lines(t, "a, a session", a.take(),
			"0s moved 2 to 192.0.2.2:9277",
			"0s gossip with 2",
			"0s targets 2[192.0.2.2:9277]",
			"0s follow [2]",
			"0s local network 1 anchors [2]",
			"0s standing [] 1 helpers",
			"0s ready []",
			"0s announce [] by [2] routes []",
		)
		a.learn(testMember(1), testMember(2))
		b.learn(testMember(1), testMember(2))
		time.Sleep(time.Second)
		synctest.Wait()
		lines(t, "a", a.take(),
			"0s peers 2 key 2 [100.70.0.2/32 fd00::2/128]",
			"0s contact 2 at 192.0.2.2:9277",
			"0s reach [2]",
			"0s offer to 2",
			"20ms key for 2",
			"30ms keep 2 at 192.0.2.2:9277",
			"30ms way 2 192.0.2.2:9277",
			"30ms handshake 2",
		)
		lines(t, "b", b.take(),
			"0s peers 1 key 1 [100.70.0.1/32 fd00::1/128]",
			"0s reach [1]",
			"10ms key for 1",
			"10ms answer to 1",
			"30ms keep 1 at 192.0.2.1:9277",
			"30ms way 1 192.0.2.1:9277",
		)
		if got := a.hub.Board().Warnings; got != nil {
			t.Errorf("got warnings %q, want none", got)
		}
	})
}

func TestAnotherKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := met(t)
		changed := testMember(2)
		changed.Record.WireGuardKey = [32]byte{22}
		a.learn(testMember(1), changed)
		lines(t, "a", a.take(),
			"0s peers 2 key 22 [100.70.0.2/32 fd00::2/128]",
			"0s introduce 2",
		)
	})
}

func TestAnotherAddressAndName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := met(t)
		changed := testMember(2)
		changed.Addr4 = netip.MustParseAddr("100.70.0.99")
		a.learn(testMember(1), changed)
		lines(t, "address", a.take(),
			"0s peers 2 key 2 [100.70.0.99/32 fd00::2/128]",
		)
		changed.Name = "other"
		a.learn(testMember(1), changed)
		lines(t, "name", a.take())
		changed.Record.Endpoints = []netip.AddrPort{netip.MustParseAddrPort("203.0.113.2:9277")}
		a.learn(testMember(1), changed)
		lines(t, "endpoint", a.take(),
			"0s targets 2[203.0.113.2:9277 192.0.2.2:9277]",
			"0s changed 2",
			"0s streams anchors [2] listen []",
		)
		changed.Record.Instance = [8]byte{22}
		a.learn(testMember(1), changed)
		lines(t, "instance", a.take(),
			"0s changed 2",
		)
	})
}

func TestRevokedInTheMiddleOfAnIntroduction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		a, b := newTwins(t, net, 1, testMember(1), testMember(2)), newTwins(t, net, 2, testMember(1), testMember(2))
		b.run(t)
		a.run(t)
		a.take()
		time.Sleep(signalTime + signalTime/2) // the answer is on its way
		synctest.Wait()
		a.take()
		a.learn(testMember(1))
		time.Sleep(time.Second)
		synctest.Wait()
		lines(t, "a", a.take(),
			"0s peers",
			"0s drop channels of 2",
			"0s forget 2",
			"0s forget path 2",
			"0s reach []",
			"5ms key for 2 refused: no such peer",
			"200ms drop session with 2: 256 2 was revoked",
			"400ms drop stream of 2",
		)
	})
}

func TestSessionLostAndFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newTwins(t, newNetwork(), 1, testMember(1), testMember(2, "203.0.113.2:9277"))
		a.run(t)
		a.connect(2, "203.0.113.2:9277")
		a.take()
		a.disconnect(2, session.CodeLost, false, "timed out")
		lines(t, "lost", a.take(),
			"0s lost session with 2 at 203.0.113.2:9277",
			"0s follow []",
			"0s local network 1 anchors []",
			"0s standing [] 0 helpers",
		)
		a.connect(2, "203.0.113.2:9277")
		lines(t, "found", a.take(),
			"0s moved 2 to 203.0.113.2:9277",
			"0s gossip with 2",
			"0s contact 2 at 203.0.113.2:9277",
			"0s follow [2]",
			"0s local network 1 anchors [2]",
			"0s standing [] 1 helpers",
			"0s ready []",
		)
		a.disconnect(2, CodeNotMember, true, "revoked by x")
		lines(t, "refused", a.take(),
			"0s follow []",
			"0s local network 1 anchors []",
			"0s standing [] 0 helpers",
		)
	})
}

// A stranger that dials is asked for its records, and costs no round, however often it comes. As soon as these make it a member its
// session counts.
func TestStrangersCostNoRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newTwins(t, newNetwork(), 1, testMember(1), testMember(2, "203.0.113.2:9277"))
		a.run(t)
		a.connect(2, "203.0.113.2:9277")
		a.take()
		before := a.hub.Board()
		remote := netip.MustParseAddrPort("198.51.100.66:9277")
		var want []string
		for i := range 100 {
			who := byte(100 + i)
			a.sessions <- session.Event{Kind: session.Up, ID: id(who), Remote: remote, Stranger: true}
			a.sessions <- session.Event{Kind: session.Moved, ID: id(who), Remote: remote, Stranger: true}
			a.sessions <- session.Event{Kind: session.Down, ID: id(who), Code: CodeNotMember, ByPeer: true, Reason: "anything", Stranger: true}
			want = append(want, fmt.Sprintf("0s gossip with %d", who))
		}
		time.Sleep(time.Second)
		lines(t, "strangers", a.take(), want...)
		if a.hub.Board() != before {
			t.Error("got a round because of strangers, want none")
		}
		if got := len(a.hub.said.refusals); got != 0 {
			t.Errorf("got %d refusals of strangers kept, want none", got)
		}
		a.sessions <- session.Event{Kind: session.Up, ID: id(3), Remote: remote, Stranger: true}
		a.learn(testMember(1), testMember(2, "203.0.113.2:9277"), testMember(3))
		a.take()
		a.sessions <- session.Event{Kind: session.Up, ID: id(3), Remote: remote}
		synctest.Wait()
		if got := a.take(); !slices.Contains(got, "0s moved 3 to 198.51.100.66:9277") || !slices.Contains(got, "0s gossip with 3") {
			t.Errorf("got %q, want the session of a member", got)
		}
		if a.hub.Board() == before {
			t.Error("got no round for a new member")
		}
	})
}

func TestReloadOfOneStaticPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newTwins(t, newNetwork(), 1, testMember(1), testMember(2))
		one := StaticPeer{Name: "one", PublicKey: wgtypes.Key{101}, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("100.70.200.1/32")}, Endpoint: "203.0.113.101:51820"}
		two := StaticPeer{Name: "two", PublicKey: wgtypes.Key{102}, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("100.70.200.2/32")}}
		a.setting = Settings{Static: []StaticPeer{one, two}}
		a.run(t)
		a.take()
		two.Endpoint, two.Share = "203.0.113.102:51820", true
		a.setting.Static = []StaticPeer{one, two}
		if _, err := a.hub.Reload(t.Context()); err != nil {
			t.Fatalf("got %v, want a reload", err)
		}
		synctest.Wait()
		lines(t, "one peer", a.take(),
			"0s peers static 101 [100.70.200.1/32] 203.0.113.101:51820, static 102 [100.70.200.2/32] 203.0.113.102:51820, 2 key 2 [100.70.0.2/32 fd00::2/128]",
			"0s announce [] by [] routes [100.70.200.2/32]",
		)

		a.loadErr = errTwin
		if _, err := a.hub.Reload(t.Context()); !errors.Is(err, errTwin) {
			t.Errorf("got %v, want the error of Load", err)
		}
		synctest.Wait()
		lines(t, "bad settings", a.take())
		if got, want := a.hub.Board().Warnings, []string{"settings not reloaded: " + errTwin.Error()}; !slices.Equal(got, want) {
			t.Errorf("got warnings %q, want %q", got, want)
		}
		a.loadErr = nil
		a.reload <- struct{}{} // as SIGHUP does
		synctest.Wait()
		if got := a.hub.Board().Warnings; got != nil {
			t.Errorf("got warnings %q, want none", got)
		}
	})
}

func TestATunnelThatFailsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newTwins(t, newNetwork(), 1, testMember(1), testMember(2))
		a.failLink = errTwin
		a.run(t)
		a.take()
		if got, want := a.hub.Board().Warnings, []string{"not everything is in place: " + errTwin.Error()}; !slices.Equal(got, want) {
			t.Errorf("got warnings %q, want %q", got, want)
		}
		delete(a.last, "link")
		time.Sleep(retryAfter - 1)
		synctest.Wait()
		lines(t, "before a second", a.take())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		lines(t, "after a second", a.take(), "1ns link [100.70.0.1/32 fd00::1/128] routes [100.70.0.0/16 fd00::/48]")
		if got := a.hub.Board().Warnings; got != nil {
			t.Errorf("got warnings %q, want none", got)
		}
	})
}

func TestEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*twins)
		want error
		not  error
	}{
		{"an owner that ends takes the context along", func(w *twins) { w.stop() }, context.Canceled, ErrFinal},
		{"left", func(w *twins) { w.hub.Leave(); w.hub.Leave() }, ErrLeft, ErrFinal},
		{"revoked", func(w *twins) { w.fatal <- &mesh.FatalError{Text: "revoked"} }, ErrFinal, context.Canceled},
		{"expired", func(w *twins) { w.fatal <- &mesh.FatalError{Reason: roster.ReasonExpired, Text: "the clock is wrong"} }, nil, ErrFinal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newTwins(t, newNetwork(), 1, testMember(1), testMember(2))
				a.run(t)
				a.take()
				tt.end(a)
				err := <-a.done
				if tt.want != nil && !errors.Is(err, tt.want) || errors.Is(err, tt.not) || err == nil {
					t.Errorf("got %v, want %v and not %v", err, tt.want, tt.not)
				}
				lines(t, "afterwards", a.take())
			})
		})
	}
}

func TestAHundredPeersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 100
		net := newNetwork()
		var all []mesh.Member
		for i := range n + 1 {
			all = append(all, testMember(byte(i+1)))
		}
		a := newTwins(t, net, 1, all[0])
		a.run(t)
		for i := range n {
			other := newTwins(t, net, byte(i+2), all[0], all[i+1])
			other.run(t)
		}
		a.take()
		a.learn(all...)
		time.Sleep(time.Second)
		synctest.Wait()
		counts := make(map[string]int)
		for _, line := range a.take() {
			at, rest, _ := strings.Cut(line, " ")
			subject, _, _ := strings.Cut(rest, " ")
			if subject != "targets" { // each path may bring one: with no anchor, direct peers are neighbours
				counts[subject+" at "+at]++
			}
		}
		want := map[string]int{"peers at 0s": 1, "reach at 0s": 1, "offer at 0s": n, "key at 20ms": n, "keep at 30ms": n, "way at 30ms": n, "handshake at 30ms": n}
		if fmt.Sprint(counts) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", counts, want)
		}
	})
}

// Whoever waits for the tunnel waits for all preshared keys that are being set: what is as it was is told once a minute only.
func TestPeersAreToldWhenTheyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := met(t)
		count := func(what string, want int) {
			t.Helper()
			synctest.Wait()
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.peerSets != want {
				t.Errorf("%s: the tunnel and nat were told %d times, want %d", what, a.peerSets, want)
			}
			a.peerSets = 0
		}
		count("at first", 2)
		a.paths <- nat.Event{Peer: id(2), Path: nat.Path{Kind: nat.Relayed, Addr: netip.MustParseAddrPort("[100::200:0:0:7]:9"), Via: id(3)}}
		a.connect(2, "192.0.2.2:9277")
		a.set(func(w *twins) { w.stands.Network = 2 }, a.standing)
		count("a path, a session, a network", 0)
		a.learn(testMember(1), testMember(2), testMember(3))
		count("another member", 2)
		time.Sleep(tickEvery)
		count("a minute", 2)
	})
}

func TestUDPBlockedAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		anchor := testMember(2, "203.0.113.2:9277")
		a := newTwins(t, newNetwork(), 1, testMember(1), anchor, testMember(3))
		a.run(t)
		a.connect(2, "203.0.113.2:9277")
		a.paths <- nat.Event{Peer: id(2), Path: nat.Path{Kind: nat.Direct, Addr: netip.MustParseAddrPort("203.0.113.2:9277")}}
		a.paths <- nat.Event{Peer: id(3), Path: nat.Path{Kind: nat.Relayed, Addr: netip.MustParseAddrPort("[100::200:0:0:7]:9"), Via: id(2)}}
		synctest.Wait()
		a.take()
		stream := netip.MustParseAddrPort("[100::300:0:0:1]:9")
		a.set(func(w *twins) {
			w.udp = streams.Snapshot{State: streams.Blocked, Blocks: 1, Forlorn: true, Blocked: "no answer",
				Ends: map[identity.NodeID]streams.End{id(2): {Virtual: stream}}, Targets: map[identity.NodeID]netip.AddrPort{id(2): stream}}
		}, a.streams)
		lines(t, "blocked", a.take(),
			"0s targets 2[[100::300:0:0:1]:9 203.0.113.2:9277]",
			"0s follow []",
			"0s local network 1 anchors []",
			"0s way 2 [100::300:0:0:1]:9 restarted",
			"0s check []",
		)
		a.set(func(w *twins) { w.udp = streams.Snapshot{State: streams.Open, Blocks: 1, Returned: 1} }, a.streams)
		lines(t, "back", a.take(),
			"0s targets 2[203.0.113.2:9277]",
			"0s follow [2]",
			"0s local network 1 anchors [2]",
			"0s way 2 203.0.113.2:9277",
			"0s check [2]",
			"0s introduce 3",
		)
	})
}

func TestNewsGoWhereTheyBelong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := met(t)
		a.news <- nat.News{Doubts: []nat.Doubt{{Peer: id(2), Via: id(3)}}, Moved: true, Answered: []netip.AddrPort{netip.MustParseAddrPort("203.0.113.9:9277")}, Arrived: [][12]byte{{7}}}
		a.tunnels <- tunnel.Event{Kind: tunnel.Roamed, ID: id(2), Addr: netip.MustParseAddrPort("203.0.113.2:1")}
		a.tunnels <- tunnel.Event{Kind: tunnel.Stirred, ID: id(2)}
		a.tunnels <- tunnel.Event{Kind: tunnel.Stale, ID: id(2)}
		synctest.Wait()
		lines(t, "a", a.take(),
			"0s doubt sessions with [2 3]",
			"0s silent 2",
			"0s redial",
			"0s answered 203.0.113.9:9277",
			"0s arrived 7",
			"0s check [2]",
			"0s stirred 2",
			"0s introduce 2",
		)
	})
}

func TestAnotherNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := met(t)
		a.set(func(w *twins) { w.stands.Network = 2 }, a.standing)
		lines(t, "a", a.take(),
			"0s local network 2 anchors []",
			"0s redial",
		)
	})
}

func TestWithoutAMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newTwins(t, newNetwork(), 1)
		peer := StaticPeer{Name: "one", PublicKey: wgtypes.Key{101}, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/32")}, Endpoint: "203.0.113.101:51820"}
		h, err := New(Options{Settings: Settings{Static: []StaticPeer{peer}}, Load: a.load, Tunnel: twinTunnel{a}, Names: twinNames{a}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- h.Run(ctx) }()
		time.Sleep(time.Second)
		synctest.Wait()
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the end of the context", err)
		}
		lines(t, "static", a.take(),
			"0s link [] routes [10.9.0.1/32]",
			"0s peers static 101 [10.9.0.1/32] 203.0.113.101:51820",
		)
	})
}

// An invite that is made as soon as the agent is ready has to lead somewhere.
func TestReadyOnceItIsKnownWhereThisNodeIsReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newTwins(t, newNetwork(), 1, testMember(1))
		a.stands.Settled = false
		a.ready = make(chan struct{})
		a.run(t)
		select {
		case <-a.ready:
			t.Error("got ready at first, want it not to be")
		default:
		}
		if a.hub.Board().Ready {
			t.Error("got a board that says ready at first, want it not to")
		}
		a.take()
		a.set(func(w *twins) {
			w.stands.Settled, w.stands.Usable = true, []netip.AddrPort{netip.MustParseAddrPort("203.0.113.1:9277")}
		}, a.standing)
		lines(t, "settled", a.take(), "0s announce [203.0.113.1:9277] by [] routes []")
		<-a.ready // the record says it by now
		if !a.hub.Board().Ready {
			t.Error("got a board that does not say ready, want it to")
		}
	})
}

// What members say that refuse this node is shown, since when, until they take it in; nothing else follows from it, however many say so and
// for how long. What others say is not even shown. The records that come along go to those who verify them.
func TestRefusalsAreShownAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := testMember(4)
		gone.State = roster.Left
		a := newTwins(t, newNetwork(), 1, testMember(1), testMember(2), testMember(3), gone)
		a.run(t)
		time.Sleep(time.Second)
		refusals := func() map[identity.NodeID]Refusal {
			time.Sleep(time.Second)
			synctest.Wait()
			return a.hub.Board().Refusals
		}
		a.connect(2, "203.0.113.2:9277")
		a.disconnect(2, CodeNotMember, true, "anything")
		since := time.Now()
		a.sessions <- session.Event{Kind: session.Refused, ID: id(3), Code: CodeNotMember, Reason: "anything, too"}
		for n := range byte(200) {
			a.sessions <- session.Event{Kind: session.Refused, ID: id(n + 4), Code: CodeNotMember, Reason: "by one that has left, or is none"}
		}
		time.Sleep(time.Hour)
		a.sessions <- session.Event{Kind: session.Refused, ID: id(2), Code: session.CodeRefused, Reason: "anything"}
		want := map[identity.NodeID]Refusal{id(2): {"anything", since}, id(3): {"anything, too", since}}
		if got := refusals(); !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		a.connect(3, "203.0.113.3:9277")
		delete(want, id(3))
		if got := refusals(); !reflect.DeepEqual(got, want) {
			t.Errorf("after a session with 3: got %v, want %v", got, want)
		}
		a.take()
		at := time.Now()
		a.mu.Lock()
		a.udp.Refusals = map[identity.NodeID]streams.Refusal{id(3): {Code: uint16(CodeNotMember), Reason: "by TCP", At: at, Proof: [][]byte{{7, 8}}, Proved: at}}
		a.mu.Unlock()
		a.streams <- struct{}{}
		want[id(3)] = Refusal{"by TCP", at}
		if got := refusals(); !reflect.DeepEqual(got, want) {
			t.Errorf("by a stream: got %v, want %v", got, want)
		}
		if got := a.take(); !slices.Contains(got, "0s proof by 3: [\a\b]") {
			t.Errorf("got %q, want the proof handed on", got)
		}
		a.learn(testMember(1), testMember(3))
		delete(want, id(2))
		if got := refusals(); !reflect.DeepEqual(got, want) {
			t.Errorf("2 is no member any more: got %v, want %v", got, want)
		}
		select {
		case err := <-a.done:
			t.Errorf("the node has ended: %v", err)
		default:
		}
	})
}

// A member with which a path came up after it had refused a session has taken this node in: what it said is not held against it, though no
// session with it is needed any more. A path that was there before says nothing, and one that ends takes back what it said.
func TestRefusalIsOverWithAPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newTwins(t, newNetwork(), 1, testMember(1), testMember(2), testMember(3))
		a.run(t)
		time.Sleep(time.Second)
		path := func(n byte, kind nat.PathKind) {
			time.Sleep(time.Second)
			e := nat.Event{Peer: id(n), Path: nat.Path{Kind: kind}}
			if kind != nat.None {
				e.Path.Addr = netip.MustParseAddrPort("203.0.113.2:9277")
			}
			a.paths <- e
		}
		expect := func(what string, refused ...byte) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			got := a.hub.Board().Refusals
			if len(got) != len(refused) {
				t.Errorf("%s: got %v, want those of %v", what, got, refused)
			}
			for _, n := range refused {
				if got[id(n)].Reason == "" {
					t.Errorf("%s: got none of %d", what, n)
				}
			}
		}
		path(3, nat.Direct)
		for _, n := range []byte{2, 3} {
			time.Sleep(time.Second)
			a.sessions <- session.Event{Kind: session.Refused, ID: id(n), Code: session.CodeRefused, Reason: "not known here"}
		}
		expect("refused", 2, 3)
		path(2, nat.Direct)
		expect("a path since", 3)
		path(2, nat.None)
		expect("it has ended", 2, 3)
		path(2, nat.Direct)
		path(3, nat.None)
		path(3, nat.Direct)
		expect("paths since", []byte{}...)
	})
}

// Where a node was reached is kept once it is a member: not of one that only shows a chain.
func TestContactsAreMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newTwins(t, newNetwork(), 1, testMember(1))
		a.run(t)
		time.Sleep(time.Second)
		a.connect(9, "203.0.113.9:9277")
		a.connect(2, "203.0.113.2:9277")
		time.Sleep(time.Hour)
		a.learn(testMember(1), testMember(2))
		time.Sleep(time.Hour)
		synctest.Wait()
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.contacts) != 1 || a.contacts[0] != (place.Contact{ID: id(2), Addr: netip.MustParseAddrPort("203.0.113.2:9277")}) {
			t.Errorf("got contacts %v, want the member's", a.contacts)
		}
	})
}
