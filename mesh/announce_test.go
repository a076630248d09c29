package mesh

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// What a node says of itself reaches the others; saying it again costs them nothing.
func TestAnnounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Millisecond)
		peers := w.grow(2)
		a, b := peers[0], peers[1]
		own := Own{
			Endpoints: endpoints("203.0.113.1:9277"), Streams: endpoints("203.0.113.1:443"), Anchors: []identity.NodeID{b.id},
			Routes: []netip.Prefix{netip.MustParsePrefix("100.70.200.9/32")}, Addr4: a.Own().Addr4,
		}
		if err := a.Announce(own); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "the other one knows", func() bool {
			m, _ := b.View().Member(a.id)
			r := m.Record
			return slices.Equal(r.Endpoints, own.Endpoints) && slices.Equal(r.Streams, own.Streams) && slices.Equal(r.Anchors, own.Anchors) && slices.Equal(r.Routes, own.Routes)
		})
		before := a.Own().Seq
		if err := a.Announce(own); err != nil || a.Own().Seq != before {
			t.Errorf("the same again: got sequence %d and error %v, want %d and none", a.Own().Seq, err, before)
		}
	})
}

// The first record of a process says where the node was reached before: until it knows better nobody else does either, and a second one right
// after it would say the same to everybody.
func TestFirstRecordSaysWhatWasTrue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Millisecond)
		peers := w.grow(2)
		a, b := peers[0], peers[1]
		own := Own{Endpoints: endpoints("203.0.113.1:9277"), Streams: endpoints("203.0.113.1:443"), Anchors: []identity.NodeID{b.id}, Addr4: a.Own().Addr4}
		if err := a.Announce(own); err != nil {
			t.Fatal(err)
		}
		before := a.Own()
		a.stop()
		a.start()
		now := a.Own()
		if !slices.Equal(now.Endpoints, own.Endpoints) || !slices.Equal(now.Streams, own.Streams) || !slices.Equal(now.Anchors, own.Anchors) || now.Addr4 != own.Addr4 {
			t.Errorf("got %v, %v, %v and %v after a restart, want what was said before it", now.Endpoints, now.Streams, now.Anchors, now.Addr4)
		}
		if err := a.Announce(own); err != nil || a.Own().Seq != now.Seq || now.Seq <= before.Seq {
			t.Errorf("got sequence %d, %d after the start and %d after the same was announced (%v), want one more, once", before.Seq, now.Seq, a.Own().Seq, err)
		}
	})
}

func TestFatalErrorThatTimeMayCure(t *testing.T) {
	if !(&FatalError{Reason: roster.ReasonExpired}).Curable() || (&FatalError{Text: "revoked"}).Curable() {
		t.Error("got the wrong one curable, want the expired certificate alone")
	}
}

// What changes the own record is called without a lock, and again when the record has changed meanwhile.
func TestUpdatesMayOvertake(t *testing.T) {
	w := realWorld(t, 0)
	a := w.founder("a").start()
	calls := 0
	err := a.Update(func(own *record.Node) {
		if calls++; calls == 1 {
			if err := a.Update(func(own *record.Node) { own.Name = "first" }); err != nil {
				t.Error(err)
			}
		}
		own.Endpoints = endpoints("203.0.113.1:9277")
	})
	if own := a.Own(); err != nil || calls != 2 || own.Name != "first" || len(own.Endpoints) != 1 {
		t.Errorf("got name %q, endpoints %v, %d calls and error %v, want both changes, by two calls", own.Name, own.Endpoints, calls, err)
	}
}
