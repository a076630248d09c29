package mesh

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// copyStore copies the records of a node, which may be running, to another directory, as a clone of its disk has them.
func (p *peer) copyStore(dir string) {
	p.w.t.Helper()
	from, err := os.Open(filepath.Join(p.dir, "records.db"))
	if err != nil {
		p.w.t.Fatal(err)
	}
	defer from.Close()
	to, err := os.Create(filepath.Join(dir, "records.db"))
	if err != nil {
		p.w.t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		p.w.t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		p.w.t.Fatal(err)
	}
}

// cloneOf makes a second node out of the disk of the first.
func (w *world) cloneOf(p *peer, name string) *peer {
	w.t.Helper()
	c := *p
	c.name, c.dir, c.Mesh, c.store, c.cancel, c.tidied = name, filepath.Join(w.dir, name), nil, nil, nil, false
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	p.copyStore(c.dir)
	c.place = identity.NodeID(fill32(name))
	return &c
}

// One key on two machines: both say so, neither stops whatever the other claims, and the mesh is not flooded. When one has gone the other
// has the word again, and after a while says no more of it.
func TestClonedDiskIsNoticed(t *testing.T) {
	for name, started := range map[string]time.Duration{"a clone that started later": 0, "a thief that says it started long before": -1000 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 20*time.Millisecond)
				peers := w.grow(5)
				agree(t, 30*time.Second, peers...)
				time.Sleep(time.Minute)
				original := peers[2]
				clone := w.cloneOf(original, "clone")
				// The two never see each other, only other members.
				w.net.Cut(original.id, peers[4].id)
				if err := clone.load(); err != nil {
					t.Fatal(err)
				}
				clone.writer.own.node.Started += int64(started.Seconds())
				clone.start()
				w.net.Link(clone.place, peers[4].id)
				took := eventually(t, time.Minute, "both to know", func() bool {
					return original.View().Conflict != "" && clone.View().Conflict != ""
				})
				t.Logf("both knew after %s: %s", took, original.View().Conflict)
				seq := func() uint64 {
					m, _ := peers[4].View().Member(original.id)
					return m.Record.Seq
				}
				if got := seq(); got > 40 {
					t.Errorf("records by then: got %d, want the start's and some 20 more", got)
				}
				before := seq()
				time.Sleep(4 * time.Hour)
				if got := seq() - before; got < 10 || got > 32 {
					t.Errorf("records in four hours: got %d, want both to answer ever more rarely, once an hour in the end", got)
				}
				for _, p := range []*peer{original, clone} {
					if fatal := fatalOf(p); fatal != nil {
						t.Errorf("%s: got %v, want it to go on", p.name, fatal)
					}
					if text := p.View().Conflict; !strings.Contains(text, "warren revoke") || !strings.Contains(text, "join anew") {
						t.Errorf("%s: got %q, want the way out", p.name, text)
					}
				}
				clone.stop()
				eventually(t, slowestOf+2*tickEvery, "the original's record to stand", func() bool {
					m, _ := peers[4].View().Member(original.id)
					return m.Record.Instance == original.Own().Instance
				})
				time.Sleep(conflictFor)
				if got := original.View().Conflict; got != "" {
					t.Errorf("long after the end of the clone: got %q, want nothing", got)
				}
			})
		})
	}
}

// A disk that was restored from an old copy, or lost its records, meets its own record of later runs, several even. That is no clone.
func TestRestoredDiskIsNoClone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 20*time.Millisecond)
		peers := w.grow(4)
		agree(t, 30*time.Second, peers...)
		p := peers[2]
		old := t.TempDir()
		p.copyStore(old)
		for i := range 4 { // each member keeps another of its records
			w.net.Cut(p.id, peers[0].id)
			if i == 2 {
				w.net.Cut(p.id, peers[1].id)
				w.net.Cut(peers[0].id, peers[1].id)
				w.net.Cut(peers[3].id, peers[0].id)
				w.net.Cut(peers[3].id, peers[1].id)
			}
			if err := p.Update(func(own *record.Node) { own.Name = fmt.Sprintf("name%d", i) }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
		}
		p.stop()
		data, err := os.ReadFile(filepath.Join(old, "records.db"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p.dir, "records.db"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		p.start()
		w.net.LinkAll(ids(peers)...)
		agree(t, 30*time.Second, peers...)
		time.Sleep(5 * time.Minute)
		if fatal := fatalOf(p); fatal != nil || p.View().Conflict != "" {
			t.Errorf("restored node: got %v, %q, want it to go on", fatal, p.View().Conflict)
		}
		if m, _ := peers[0].View().Member(p.id); m.Record.Instance != p.Own().Instance {
			t.Error("the record of the new run has not won")
		}
	})
}

func TestCorruptStoreIsRebuiltFromPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 20*time.Millisecond)
		peers := w.grow(4)
		agree(t, 30*time.Second, peers...)
		p := peers[2]
		p.stop()
		path := filepath.Join(p.dir, "records.db")
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := 8192; i < len(data); i += 7 {
			data[i] ^= 0x55
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		p.start()
		if p.aside == nil {
			t.Fatal("damaged store: got nil, want it set aside and said")
		}
		if got := p.View().Records; got > 2 {
			t.Errorf("records at first: got %d, want hardly any", got)
		}
		took := agree(t, 30*time.Second, peers...)
		t.Logf("rebuilt after %s", took)
		eventually(t, 10*time.Second, "the record of the new run at the others", func() bool {
			m, ok := peers[0].View().Member(p.id)
			return ok && m.Record.Instance == p.Own().Instance
		})
		p.stop()
		p.start()
		if got := activeMembers(p.Mesh); got != 4 || p.aside != nil {
			t.Errorf("after a restart: got %d members, set aside %v, want 4 and nothing", got, p.aside)
		}
	})
}

// Whatever Update, Revoke and Admit have acknowledged is in a copy of the file taken at any moment after.
func TestNothingAcknowledgedIsLostInAKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Millisecond)
		a := w.founder("a").start()
		seed, invite := a.invite(100)
		for i := range 10 {
			name := fmt.Sprintf("name%d", i)
			if err := a.Update(func(own *record.Node) { own.Name = name }); err != nil {
				t.Fatal(err)
			}
			b := w.mustJoin(fmt.Sprintf("b%d", i), a, seed)
			if _, err := a.Revoke(identity.KeyID(b.id), "test", false); err != nil {
				t.Fatal(err)
			}
			b.stop()

			after := w.cloneOf(a, fmt.Sprintf("after%d", i))
			if err := after.load(); err != nil {
				t.Fatal(err)
			}
			if after.aside != nil {
				t.Fatalf("copy %d: %v", i, after.aside)
			}
			if got := after.Own(); got.Name != "a" && got.Name != name || got.Seq <= a.Own().Seq {
				t.Errorf("copy %d: got name %q and sequence %d, want a sequence above %d", i, got.Name, got.Seq, a.Own().Seq)
			}
			if got, ok := after.View().RevokedNode(b.id); !ok || got.Name != fmt.Sprintf("b%d", i) {
				t.Errorf("copy %d: got revocation %+v (%t), want the one of b%d, by name", i, got, ok, i)
			}
			for _, status := range after.View().Invites {
				if status.ID == invite && len(status.Used) != i+1 {
					t.Errorf("copy %d: invite used %d times, want %d", i, len(status.Used), i+1)
				}
			}
			after.stop()
		}
	})
}

// An admission whose node never showed up takes its use also after a restart, and the same joiner gets the same answer again.
func TestPendingAdmissionSurvivesRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Millisecond)
		a := w.founder("a").start()
		seed, invite := a.invite(1)
		first, second := w.newPeer("first"), w.newPeer("second")
		cert, other := first.certify(seed, a, invite), second.certify(seed, a, invite)
		given, err := a.Admission().Admit(cert)
		if err != nil {
			t.Fatal(err)
		}
		a.stop()
		time.Sleep(time.Minute)
		a.start()
		if _, err := a.Admission().Admit(other); err == nil {
			t.Error("second joiner after a restart: got admitted, want the use taken")
		} else {
			t.Logf("second joiner: %v", err)
		}
		again, err := a.Admission().Admit(cert)
		if err != nil || again.Time != given.Time || string(again.Signature) != string(given.Signature) {
			t.Errorf("first joiner again: got %+v, %v, want the same admission", again, err)
		}
	})
}

func TestOwnRecordWhenTheDiskIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Millisecond)
		a := w.founder("a").start()
		if err := a.store.Close(); err != nil {
			t.Fatal(err)
		}
		a.store = nil
		if err := a.Update(func(own *record.Node) { own.Name = "b" }); err != nil || a.Own().Name != "b" || a.View().Members[0].Name != "b" {
			t.Errorf("update without a disk: got %v and name %q, want it to count", err, a.Own().Name)
		}
		if !a.book.saver.pending() {
			t.Error("after a failed write: got nothing pending, want it tried again")
		}
	})
}
