package relay

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
)

// carry counts traffic of a member that its relay forwards from now on.
func (w *world) carry(h Half, packets, bytes, dropped uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.sent[h]
	w.sent[h] = Traffic{Packets: t.Packets + packets, Bytes: t.Bytes + bytes, Dropped: t.Dropped + dropped, Last: time.Now()}
}

func TestLoadIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cancel := newWorld(t)
		w.server.Set(Terms{Enabled: true, Limit: 1_000_000})
		ca, _ := w.client(a)
		cb, _ := w.client(b)
		stop := run(t, ca, cb)
		va := open(t, ca, b)
		open(t, cb, a)
		ca.Follow([]identity.NodeID{anchor})
		synctest.Wait()
		if got := ca.Load(anchor); got != 0 {
			t.Fatalf("got load %d of an idle relay, want 0", got)
		}
		for len(ca.News()) > 0 {
			<-ca.News()
		}
		half := Half{w.remote[a], va.Port()}
		time.Sleep(loadEvery / 2) // not at the moments of the samples
		for range 20 {
			w.carry(half, 1000, 1_000_000, 0)
			time.Sleep(time.Second)
		}
		if got := ca.Load(anchor); got < 224 {
			t.Errorf("got load %d at the limit, want 224 at least", got)
		}
		if len(ca.News()) != 1 {
			t.Error("got no news of the load")
		}
		time.Sleep(time.Minute)
		if got := ca.Load(anchor); got != 0 {
			t.Errorf("got load %d a minute after the last packet, want 0", got)
		}
		// No limit, but packets are lost.
		w.server.Set(Terms{Enabled: true})
		for range 10 {
			w.carry(half, 1000, 1_000_000, 50)
			time.Sleep(time.Second)
		}
		if got := ca.Load(anchor); got < 224 {
			t.Errorf("got load %d of a relay that loses packets, want 224 at least", got)
		}
		w.breakStreams()
		synctest.Wait()
		if got := ca.Load(anchor); got != 0 {
			t.Errorf("got load %d of a relay whose session has ended, want none known", got)
		}
		time.Sleep(2 * followAgain)
		if got := ca.Load(anchor); got == 0 && w.server.Load() != 0 {
			t.Error("got no load from a relay whose session came back")
		}
		ca.Follow(nil)
		synctest.Wait()
		if got := w.server.table.accounts[a].watches; got != 0 {
			t.Errorf("got %d streams that tell the load to nobody", got)
		}
		stop()
		cancel()
	})
}

// One that does not relay is asked once, and tells it when it does.
func TestWhoDoesNotRelayIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cancel := newWorld(t)
		defer cancel()
		w.server.Set(Terms{})
		ca, _ := w.client(a)
		defer run(t, ca)()
		ca.Follow([]identity.NodeID{anchor})
		time.Sleep(time.Hour)
		if got, asked := ca.Load(anchor), w.dialled; got != full || asked != 1 {
			t.Errorf("got load %d of what does not relay, asked %d times, want %d, once", got, asked, full)
		}
		if got := w.server.Load(); got != 0 {
			t.Errorf("it has a load of %d itself, want none", got)
		}
		w.server.Set(Terms{Enabled: true})
		synctest.Wait()
		if got := ca.Load(anchor); got != 0 {
			t.Errorf("got load %d of one that relays now, want 0", got)
		}
		w.server.Set(Terms{})
		synctest.Wait()
		if got := ca.Load(anchor); got != full {
			t.Errorf("got load %d of one that relays no more, want %d", got, full)
		}
	})
}

func TestTrafficIsCountedByMemberAndPair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cancel := newWorld(t)
		defer cancel()
		ca, _ := w.client(a)
		cb, _ := w.client(b)
		cc, _ := w.client(c)
		defer run(t, ca, cb, cc)()
		vab := open(t, ca, b)
		vac := open(t, ca, c)
		open(t, cb, a)
		open(t, cc, a)
		w.carry(Half{w.remote[a], vab.Port()}, 10, 1000, 1)
		w.carry(Half{w.remote[a], vac.Port()}, 5, 50, 0)
		synctest.Wait()
		pairs, members := w.server.Snapshot()
		if len(pairs) != 2 || pairs[0].A != a || pairs[0].B != b || !pairs[0].Joined || pairs[0].FromA.Bytes != 1000 || pairs[0].FromB.Bytes != 0 {
			t.Errorf("got pairs %+v, want a and b with 1000 bytes from a, and a and c", pairs)
		}
		if len(members) != 3 || members[0].ID != a || members[0].Channels != 2 || members[0].Sent.Packets != 15 || members[0].Sent.Dropped != 1 {
			t.Errorf("got members %+v, want a with 15 packets and one dropped", members)
		}
		ca.Close(vab)
		synctest.Wait()
		if _, members = w.server.Snapshot(); members[0].Channels != 1 || members[0].Sent.Bytes != 1050 {
			t.Errorf("got %+v after a channel was closed, want its 1000 bytes still counted", members[0])
		}
		w.server.Drop(a)
		synctest.Wait()
		if _, members = w.server.Snapshot(); len(members) > 2 {
			t.Errorf("got %+v after a was dropped, want nothing of a", members)
		}
	})
}

func TestGreedyClientsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cancel := newWorld(t)
		defer cancel()
		ca, _ := w.client(a)
		cb, _ := w.client(b)
		defer run(t, ca, cb)()
		peer := func(n int) identity.NodeID { return identity.NodeID{100, byte(n >> 8), byte(n)} }
		for n := range maxOfMember {
			open(t, ca, peer(n))
		}
		time.Sleep(time.Second)
		if _, err := ca.Open(t.Context(), anchor, peer(maxOfMember)); !errors.Is(err, ErrFull) {
			t.Errorf("channel %d: got %v, want %v", maxOfMember+1, err, ErrFull)
		}
		var err error
		for n := 0; n <= asksPerSecond && err == nil; n++ {
			_, err = ca.Open(t.Context(), anchor, peer(0))
		}
		if !errors.Is(err, ErrBusy) {
			t.Errorf("got %v after more requests than the rate allows, want %v", err, ErrBusy)
		}
		open(t, cb, a) // the others are served
	})
}

func TestGauge(t *testing.T) {
	now := time.Unix(1000, 0)
	sample := func(g *gauge, sum *Traffic, bytes, dropped uint64, limit int, fill float64) uint8 {
		now = now.Add(loadEvery)
		sum.Bytes += bytes
		sum.Packets += bytes / 1000
		sum.Dropped += dropped
		return g.sample(now, *sum, limit, fill)
	}
	for _, tt := range []struct {
		name           string
		bytes, dropped uint64
		limit          int
		fill           float64
		least, most    uint8
	}{
		{"idle", 0, 0, 1_000_000, 0, 0, 0},
		{"half of the limit", 500_000, 0, 1_000_000, 0.1, 120, 130},
		{"at the limit", 1_000_000, 0, 1_000_000, 1, 240, 255},
		{"much without a limit", 100_000_000, 0, 0, 0.2, 30, 60},
		{"bursts that fit", 100_000_000, 0, 0, 1, 190, 210},
		{"losses", 100_000_000, 1000, 0, 1, 235, 255},
		{"a loss", 100_000_000, 1, 0, 0.2, 30, 60},
	} {
		g, sum := new(gauge), Traffic{Packets: 5}
		g.sample(now, sum, 0, 0)
		var got uint8
		for range 20 {
			got = sample(g, &sum, tt.bytes, tt.dropped, tt.limit, tt.fill)
		}
		if got < tt.least || got > tt.most {
			t.Errorf("%s: got load %d, want %d to %d", tt.name, got, tt.least, tt.most)
		}
	}
}
