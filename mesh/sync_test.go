package mesh

import (
	"crypto/ed25519"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/meshtest"
	"warren/mesh/record"
	"warren/mesh/roster"
	"warren/mesh/store"
)

// crowd makes the records of n nodes that the root itself has certified and that never run.
func (w *world) crowd(n int) []record.Signed {
	w.t.Helper()
	var records []record.Signed
	mesh := identity.MeshIDOf(w.root.Cert.PublicKey.(ed25519.PublicKey))
	for i := range n {
		key := identity.GenerateKey()
		cert, err := identity.NewNode(w.root, key.Public().(ed25519.PublicKey), identity.NodeTerms{NotBefore: time.Now()})
		if err != nil {
			w.t.Fatal(err)
		}
		name := fmt.Sprintf("crowd%d", i)
		public, proof := meshtest.WireGuard(mesh, identity.NodeIDOfCert(cert), name)
		signed, err := record.SignNode(mesh, record.Node{
			Seq: 1, Certificate: cert.Raw, Name: name, WireGuardKey: public, WireGuardProof: proof, SealingKey: fill32("seal" + name), Version: "test",
		}, key)
		if err != nil {
			w.t.Fatal(err)
		}
		records = append(records, signed)
	}
	return records
}

// newSlot is the place of a sync that a test begins.
func newSlot() *slot { return &slot{began: time.Now(), end: func() {}} }

// keep puts records into the store of a node that is not running.
func (p *peer) keep(records []record.Signed) {
	p.w.t.Helper()
	p.openStore()
	var batch store.Batch
	for _, signed := range records {
		key, err := signed.Key()
		if err != nil {
			p.w.t.Fatal(err)
		}
		encoded, err := signed.Marshal()
		if err != nil {
			p.w.t.Fatal(err)
		}
		batch.Put = append(batch.Put, store.Item{Key: key, Value: encoded})
	}
	if err := p.store.Apply(batch); err != nil {
		p.w.t.Fatal(err)
	}
}

// pairWith makes a founder and a second node that both hold the records.
func (w *world) pairWith(records []record.Signed) (a, b *peer) {
	a = w.founder("a")
	a.keep(records)
	a.start()
	seed, _ := a.invite(5)
	b = w.mustJoin("b", a, seed)
	b.keep(records)
	b.start()
	w.net.Link(a.id, b.id)
	return a, b
}

// Two nodes that hold the same 1,000 records: comparing must cost next to nothing, however often it is done.
func TestEqualStoresAreCheapToCompare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5*time.Millisecond)
		a, b := w.pairWith(w.crowd(1000))
		quiet(t, a, b)
		time.Sleep(10 * time.Minute) // a thousand grants are gossiped for a while
		goroutines := runtime.NumGoroutine()
		w.net.ResetTraffic()
		const span = time.Hour
		time.Sleep(span)
		got := w.net.Traffic()
		t.Logf("an hour of two equal nodes: %+v; %d goroutines for both", got, goroutines)
		if got.GossipStreams < 60 {
			t.Errorf("push/pulls in an hour: got %d, want about 120", got.GossipStreams)
		}
		if each := got.GossipBytes / max(1, got.GossipStreams); each >= 4<<10 {
			t.Errorf("a push/pull: got %d bytes, want less than 4 KiB", each)
		}
		if got.SyncBytes > 0 {
			t.Errorf("syncs of equal nodes: got %d bytes, want none", got.SyncBytes)
		}
		if total := got.MessageBytes + got.GossipBytes; total > 1<<20 {
			t.Errorf("an idle hour of two nodes: got %d bytes, want less than 1 MiB", total)
		}

		w.net.ResetTraffic()
		if _, err := a.syncer.with(t.Context(), b.id, newSlot()); err != nil {
			t.Fatal(err)
		}
		if got := w.net.Traffic().SyncBytes; got > 64 {
			t.Errorf("a sync of equal stores: got %d bytes, want less than 64", got)
		}
	})
}

// A node that was away for a day fetches what has changed meanwhile and nothing else.
func TestAwayForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 20*time.Millisecond)
		a, b := w.pairWith(w.crowd(200))
		quiet(t, a, b)
		b.stop()
		seed, _ := a.invite(2)
		for i := range 2 {
			w.mustJoin(fmt.Sprintf("late%d", i), a, seed).stop()
		}
		if err := a.Update(func(own *record.Node) { own.Name = "other" }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)

		if err := b.load(); err != nil {
			t.Fatal(err)
		}
		first, second := a, b
		if first.id.Compare(second.id) > 0 {
			first, second = second, first
		}
		w.net.ResetTraffic()
		b.start()
		took := agree(t, 10*time.Second, a, b)
		got := w.net.Traffic()
		t.Logf("caught up after %s with %+v", took, got)
		// Changed: an invite, two nodes, one node's name, three grants; b's own record of its new start goes the other way.
		if most := 6*1024 + 2048 + 20*2*entrySize; got.SyncBytes > most {
			t.Errorf("bytes to catch up: got %d, want less than %d: the changes, not the store", got.SyncBytes, most)
		}
		stats, err := first.syncer.with(t.Context(), second.id, newSlot())
		if err != nil || !stats.equal {
			t.Errorf("sync afterwards: got %+v, %v, want equal", stats, err)
		}
	})
}

// The count of the records themselves, without gossip beside it.
func TestSyncMovesOnlyWhatDiffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Millisecond)
		crowd := w.crowd(300)
		a, b := w.pairWith(crowd[:290])
		agree(t, 10*time.Second, a, b)
		w.net.Cut(a.id, b.id)
		a.writer.addAll(crowd[290:297], time.Now())
		b.writer.addAll(crowd[295:], time.Now())
		w.net.Link(a.id, b.id)
		first, second := a, b
		if first.id.Compare(second.id) > 0 {
			first, second = second, first
		}
		stats, err := second.syncer.with(t.Context(), first.id, newSlot()) // the other one's own sync starts at the same time
		if err != nil {
			t.Fatal(err)
		}
		agree(t, 5*time.Second, a, b)
		if moved := stats.got + stats.sent; moved > 8 {
			t.Errorf("records moved: got %+v, want at most the 8 that differ", stats)
		}
		if got := a.View().Records; got != 300+3 {
			t.Errorf("records: got %d, want 300, two nodes and an invite", got)
		}
	})
}

// What a node has missed is there after two and a half round trips if there are few records in all, whoever of the two opens; else after one more.
func TestFewRecordsCostNoRoundTripMore(t *testing.T) {
	const way = 100 * time.Millisecond
	for _, crowd := range []int{0, 40, 400} {
		for round := range 4 { // IDs, and with them who opens, are random
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, way)
				a, b := w.pairWith(w.crowd(crowd))
				quiet(t, a, b)
				b.stop()
				seed, _ := a.invite(1)
				late := w.mustJoin("late", a, seed)
				late.stop()
				time.Sleep(time.Hour)
				if err := b.load(); err != nil {
					t.Fatal(err)
				}
				b.start()
				took := eventually(t, 10*time.Second, "the record of who came meanwhile", func() bool {
					_, ok := b.View().Member(late.id)
					return ok
				})
				trips := float64(took) / float64(2*way)
				t.Logf("round %d, %d records: known after %.2f round trips", round, a.View().Records, trips)
				if most := 2.6; crowd < fewRecords && trips > most {
					t.Errorf("among %d records: known after %.2f round trips, want at most %.1f", a.View().Records, trips, most)
				}
			})
		}
	}
}

// A session that comes up while a sync still fails over what was there before is reason for one at once.
func TestSessionUpDuringAFailingSync(t *testing.T) {
	w := realWorld(t, 0)
	a, b := w.founder("a"), w.founder("b")
	if a.id.Compare(b.id) > 0 { // a is to be the one that goes first
		a, b = b, a
	}
	for _, p := range []*peer{a, b} {
		if err := p.load(); err != nil {
			t.Fatal(err)
		}
		defer p.stop()
		w.net.Port(p.id).Serve(p.Mesh)
	}
	w.net.Link(a.id, b.id)
	now := time.Now()
	table := &timetable{
		self: a.id, sessions: w.net.Port(a.id), public: a.book.public, book: a.book, alive: a.alive, asks: a.asks, log: a.log,
		jobs: map[identity.NodeID]*job{b.id: {run: &slot{}, direct: true}}, active: 1,
	}
	table.plan(map[identity.NodeID]ask{b.id: {up: true, must: true}}, now)
	planned := table.jobs[b.id].at
	table.finished(result{id: b.id, err: errSync}, now)
	if got := table.jobs[b.id].at; !got.Equal(planned) {
		t.Errorf("next sync: got %v after the failure, want %v as planned when the session came up", got.Sub(now), planned.Sub(now))
	}
	table.jobs[b.id] = &job{run: &slot{}}
	table.finished(result{id: b.id, err: errSync}, now)
	if got := table.jobs[b.id].at.Sub(now); got < time.Second || got > 3*time.Second {
		t.Errorf("next sync after a failure alone: got %v, want 1 to 3 s", got)
	}
}

func TestNewNodeFetchesAllRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 20*time.Millisecond)
		a := w.founder("a")
		a.keep(w.crowd(400))
		a.start()
		seed, _ := a.invite(1)
		b := w.mustJoin("b", a, seed).start()
		w.net.Link(a.id, b.id)
		took := agree(t, 10*time.Second, a, b)
		t.Logf("agreed after %s, %+v", took, w.net.Traffic())
		if got := b.Missing(); got != 0 {
			t.Errorf("missing afterwards: got %d, want 0", got)
		}
	})
}

// entriesOf is a list of one entry.
func entriesOf(key record.Key, version record.Version) []roster.Entry {
	return []roster.Entry{{Key: key, Version: version}}
}
