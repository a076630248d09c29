package mesh

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

func TestTwentyNodesConverge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10*time.Millisecond)
		peers := w.grow(20)
		took := agree(t, 30*time.Second, peers...)
		t.Logf("20 new nodes agree after %s", took)
		for _, p := range peers {
			if got := activeMembers(p.Mesh); got != 20 {
				t.Errorf("%s: got %d members, want 20", p.name, got)
			}
		}
		quiet(t, peers...)
		time.Sleep(2 * time.Minute)

		w.net.ResetTraffic()
		if err := peers[7].Update(func(own *record.Node) { own.Name = "renamed" }); err != nil {
			t.Fatal(err)
		}
		took = eventually(t, 5*time.Second, "the new name everywhere", func() bool {
			for _, p := range peers {
				if m, _ := p.View().Member(peers[7].id); m.Record.Name != "renamed" {
					return false
				}
			}
			return true
		})
		if took > 100*time.Millisecond {
			t.Errorf("a record among neighbours: got %s, want one latency", took)
		}
		t.Logf("a fresh record reached all after %s, %+v", took, w.net.Traffic())
	})
}

// line grows n nodes of which each has links to its two neighbours only.
func (w *world) line(n int) []*peer {
	w.t.Helper()
	peers := w.grow(n)
	agree(w.t, 30*time.Second, peers...)
	for i, a := range peers {
		for j, b := range peers[:i] {
			if i-j > 1 {
				w.net.Cut(a.id, b.id)
			}
		}
	}
	time.Sleep(time.Minute)
	return peers
}

// Records too large for a gossip packet travel as notices and are fetched: along the sessions, whatever gossip does.
func TestLargeRecordsTravelToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const latency = 10 * time.Millisecond
		w := newWorld(t, latency)
		peers := w.line(8)
		var routes []netip.Prefix
		for i := range record.MaxRoutes {
			routes = append(routes, netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 13: byte(i), 15: 0}), 112))
		}
		if err := peers[0].Update(func(own *record.Node) { own.Routes = routes }); err != nil {
			t.Fatal(err)
		}
		took := eventually(t, 60*time.Second, "the large record everywhere", func() bool {
			for _, p := range peers {
				if m, _ := p.View().Member(peers[0].id); len(m.Record.Routes) != len(routes) {
					return false
				}
			}
			return true
		})
		t.Logf("a large record along a line of 8 took %s", took)
		// The first one gets it straight. To each of the six behind it a notice waits until others have gathered, the sync until the record might
		// have come by itself, and the sync takes its turns: a stream, five messages, and a stream that ends.
		each := 2*noticeAfter + noticeDelay + 8*latency
		if most := latency + 6*each; took > most {
			t.Errorf("large record: got %s, want at most %s", took, most)
		}
	})
}

func TestLossyNetworkConverges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 50*time.Millisecond)
		peers := w.line(8)
		w.net.SetLoss(0.2)
		for i, p := range peers {
			if err := p.Update(func(own *record.Node) { own.Name = "new-" + string(rune('a'+i)) }); err != nil {
				t.Fatal(err)
			}
		}
		took := agree(t, 60*time.Second, peers...)
		t.Logf("8 changes along a line of 8 with a fifth lost took %s", took)
		// Liveness is a hint: it may be wrong for a while, above all of those that no forwarding reaches. It must come right.
		w.net.Link(peers[0].id, peers[7].id)
		w.net.Link(peers[2].id, peers[5].id)
		eventually(t, 15*time.Minute, "everyone to seem alive", func() bool {
			for _, p := range peers {
				for _, other := range peers {
					if state, _ := p.Alive(other.id); state != Alive {
						return false
					}
				}
			}
			return true
		})
	})
}

func TestDeadMemberIsNoticedAndKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 20*time.Millisecond)
		peers := w.grow(6)
		agree(t, 30*time.Second, peers...)
		time.Sleep(time.Minute)
		peers[5].stop()
		took := eventually(t, 5*time.Minute, "all to take it for dead", func() bool {
			for _, p := range peers[:5] {
				if state, _ := p.Alive(peers[5].id); state != Dead {
					return false
				}
			}
			return true
		})
		t.Logf("dead everywhere after %s", took)
		time.Sleep(time.Hour)
		if got := activeMembers(peers[0].Mesh); got != 6 {
			t.Errorf("members: got %d, want the dead one kept among 6", got)
		}
		peers[5].start()
		eventually(t, 2*time.Minute, "it to be alive again", func() bool {
			for _, p := range peers[:5] {
				if state, _ := p.Alive(peers[5].id); state != Alive {
					return false
				}
			}
			return true
		})
	})
}

func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 20*time.Millisecond)
		peers := w.grow(4)
		agree(t, 30*time.Second, peers...)
		time.Sleep(time.Minute)
		if err := peers[3].Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		peers[3].stop()
		agree(t, 5*time.Second, peers[:3]...)
		for _, p := range peers[:3] {
			if m, ok := p.View().Member(peers[3].id); !ok || m.State != roster.Left {
				t.Errorf("%s: got %v, want it on record as left", p.name, m.State)
			}
		}
		// Alone, there is nobody to tell.
		for _, p := range peers[1:3] {
			p.stop()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := peers[0].Leave(ctx); !errors.Is(err, ErrAlone) {
			t.Errorf("leave with nobody there: got %v, want ErrAlone", err)
		}
	})
}

func TestUpdateKeepsWhatIdentifiesTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Millisecond)
		a := w.founder("a").start()
		before := a.Own()
		if err := a.Update(func(own *record.Node) {
			*own = record.Node{Name: "b", WireGuardKey: own.WireGuardKey, WireGuardProof: own.WireGuardProof, SealingKey: own.SealingKey, Seq: 999, Epoch: 77}
		}); err != nil {
			t.Fatal(err)
		}
		after := a.Own()
		if after.Name != "b" || after.Seq != before.Seq+1 || after.Epoch != before.Epoch || after.Instance != before.Instance ||
			!bytes.Equal(after.Certificate, before.Certificate) || after.Started != before.Started {
			t.Errorf("own record: got %+v, want only the name changed in %+v", after, before)
		}
		<-a.Changes()
		if err := a.Update(func(own *record.Node) { own.Name = "b" }); err != nil {
			t.Fatal(err)
		}
		if got := a.Own().Seq; got != after.Seq {
			t.Errorf("update of nothing: got sequence %d, want %d", got, after.Seq)
		}
		select {
		case <-a.Changes():
			t.Error("update of nothing: got a change")
		default:
		}
		if err := a.Update(func(own *record.Node) { own.Name = "Not A Label" }); err == nil || a.Own().Name != "b" {
			t.Errorf("bad update: got %v and name %q, want a refusal", err, a.Own().Name)
		}
	})
}

// Of anchors that keep sessions as the rings have it, each gets a node's record from its maker, or from one or two that stand between them, however
// many could pass it on: within two ways all have it.
func TestRecordOfAnAnchorIsPassedOnByFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, latency = 12, 10 * time.Millisecond
		w := newWorld(t, latency)
		peers := w.grow(n)
		agree(t, 30*time.Second, peers...)
		for i, p := range peers {
			at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}), 9277)
			if err := p.Update(func(own *record.Node) { own.Endpoints = []netip.AddrPort{at} }); err != nil {
				t.Fatal(err)
			}
		}
		agree(t, 30*time.Second, peers...)
		all, sessions := peers[0].View().Rings(), 0
		for i, a := range peers {
			for _, b := range peers[:i] {
				if slices.Contains(all.Neighbours(a.id), b.id) {
					sessions++
				} else {
					w.net.Cut(a.id, b.id)
				}
			}
		}
		time.Sleep(5 * time.Minute)
		w.net.ResetTraffic()
		const version = "other"
		if err := peers[0].Update(func(own *record.Node) { own.Version = version }); err != nil {
			t.Fatal(err)
		}
		took := eventually(t, 5*time.Second, "the record everywhere", func() bool {
			return !slices.ContainsFunc(peers, func(p *peer) bool {
				m, _ := p.View().Member(peers[0].id)
				return m.Record.Version != version
			})
		})
		got := w.net.Traffic()
		signed, _ := peers[0].writer.ownSigned().Marshal()
		copies := float64(got.MessageBytes) / float64(len(signed)) / (n - 1)
		t.Logf("%d anchors with %d sessions: after %v, %d messages, %.1f copies for each", n, sessions, took, got.Messages, copies)
		if took > 500*time.Millisecond || copies > 2.2 {
			t.Errorf("got %v and %.1f copies for each, want half a second and 2.2 at most", took, copies)
		}
		// Invites and grants go the same way, revocations by all.
		var messages []int
		for _, do := range []func(){
			func() { peers[0].invite(1) },
			func() { _, _ = peers[0].Revoke(identity.KeyID(peers[1].id), "stolen", false) },
		} {
			time.Sleep(time.Minute)
			w.net.ResetTraffic()
			do()
			time.Sleep(2*latency + latency/2)
			messages = append(messages, w.net.Traffic().Messages)
		}
		if messages[0] > 2*n+n/4 || messages[1] <= messages[0] {
			t.Errorf("got %d messages for an invite and %d for a revocation, want %d at most, and more", messages[0], messages[1], 2*n+n/4)
		}
	})
}

// A record is in four packets of gossip of each of twenty members, not eight: it comes along the sessions.
func TestRecordsAreGossipedFewTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10*time.Millisecond)
		p := w.founder("n0").start()
		s := p.intake.spread
		s.queue.NumNodes = func() int { return 20 }
		s.queue.Reset()
		s.pass(p.writer.ownSigned(), arrival{from: p.id, hops: 1})
		times := 0
		for len(s.queue.GetBroadcasts(0, packetSize)) > 0 {
			times++
		}
		if times != 4 {
			t.Errorf("got %d times, want 4", times)
		}
	})
}
