package mesh

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// loaded returns a node that does not run, and its delegate.
func loaded(t testing.TB, keep int) (*peer, *swim) {
	t.Helper()
	w := realWorld(t, 0)
	a := w.founder("a")
	a.keep(w.crowd(keep))
	if err := a.load(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.stop)
	return a, newSwim(a.self, a.intake, a.alive)
}

// promptly fails when f waits for something: there is nothing in these tests that ends the wait.
func promptly(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: got no return within 10 s, want one at once", what)
	}
}

// told does all that memberlist does under its locks, as member and stranger would have it.
func told(s *swim, member, stranger identity.NodeID) (known, unknown error) {
	node := func(id identity.NodeID) *memberlist.Node {
		return &memberlist.Node{Name: id.String(), Addr: syntheticIP(id), Port: syntheticPort}
	}
	s.NotifyJoin(node(member))
	s.NotifyUpdate(node(member))
	s.NotifyLeave(node(member))
	s.NotifyMsg(append([]byte{gossipKey}, make([]byte, entrySize)...))
	s.MergeRemoteState(append(member[:], make([]byte, 16)...), false)
	s.NotifyPingComplete(node(member), time.Second, make([]byte, 16))
	_, _, _ = s.LocalState(true), s.NodeMeta(512), s.GetBroadcasts(2, 1000)
	_, _ = lineWriter(s.lines).Write([]byte("a line"))
	return s.NotifyAlive(node(member)), s.NotifyAlive(node(stranger))
}

// memberlist calls delegates under its locks, and View is asked by everybody: neither takes the book's lock.
func TestDelegatesAndViewTakeNoLock(t *testing.T) {
	a, s := loaded(t, 3)
	a.book.mu.Lock()
	defer a.book.mu.Unlock()
	promptly(t, "view", func() {
		if got := len(a.View().Members); got != 4 {
			t.Errorf("members: got %d, want 4", got)
		}
	})
	if !a.alive.lastAnswer(a.id).IsZero() || !s.alive.lastAnswer(a.id).IsZero() {
		t.Error("got an answer to a probe before there was one")
	}
	promptly(t, "delegates", func() {
		for range 2 * inboxSize { // full queues make nobody wait either
			a.intake.arrived(arrival{encoded: []byte{1}})
			if known, unknown := told(s, a.id, identity.NodeID{9}); known != nil || unknown == nil {
				t.Errorf("alive: got %v of a member and %v of a stranger, want nil and an error", known, unknown)
			}
			if since := time.Since(s.alive.lastAnswer(a.id)); since < 0 || since > time.Minute {
				t.Errorf("got the last answer to a probe %v ago, want just now", since)
			}
		}
	})
	if got := a.Dropped()["record: queue full"]; got == 0 {
		t.Error("dropped as queue full: got none")
	}
}

// While 64 records are being verified nobody waits: neither for what is published nor for what needs the lock.
func TestNobodyWaitsForVerification(t *testing.T) {
	a, s := loaded(t, 0)
	crowd := a.w.crowd(syncBatch)
	newcomer, _ := crowd[0].Node()
	begun, goOn := make(chan int), make(chan struct{})
	a.book.verify = func(b *roster.Batch) {
		begun <- 1
		<-goOn
		b.Verify()
	}
	var adding sync.WaitGroup
	adding.Go(func() {
		if n := a.writer.addAll(crowd, time.Now()); len(n.fresh) != syncBatch || len(n.refused) != 0 {
			t.Errorf("got %d fresh and %d refused records, want all %d fresh", len(n.fresh), len(n.refused), syncBatch)
		}
	})
	for range 2 { // what the nodes say of themselves first, then their certificates
		<-begun
		promptly(t, "view", func() {
			if got := len(a.View().Members); got != 1 {
				t.Errorf("members meanwhile: got %d, want 1", got)
			}
		})
		promptly(t, "delegates", func() {
			if known, unknown := told(s, a.id, newcomer.ID); known != nil || unknown == nil {
				t.Errorf("alive: got %v of a member and %v of the newcomer, want nil and an error", known, unknown)
			}
		})
		promptly(t, "handshakes", func() {
			if id, err := a.VerifyChain(a.chain); id != a.id || err != nil {
				t.Errorf("verify chain: got %s, %v", id.Short(), err)
			}
			if err := a.Standing(newcomer.ID); roster.ReasonOf(err) != roster.ReasonUnknownNode {
				t.Errorf("standing: got %v, want it unknown", err)
			}
		})
		promptly(t, "syncs", func() {
			entries := a.book.entries(make([]byte, 32))
			_, _ = a.book.wanted(entries)
			_ = a.book.buckets()
		})
		promptly(t, "a change of the own record", func() {
			name := fmt.Sprintf("a%d", a.Own().Seq)
			if err := a.Update(func(own *record.Node) { own.Name = name }); err != nil {
				t.Error(err)
			}
			if m, _ := a.View().Member(a.id); m.Name != name {
				t.Errorf("own name: got %q, want %q", m.Name, name)
			}
		})
		goOn <- struct{}{}
	}
	adding.Wait()
	if got := len(a.View().Members); got != 1+syncBatch {
		t.Errorf("members: got %d, want %d", got, 1+syncBatch)
	}
	if _, unknown := told(s, a.id, newcomer.ID); unknown != nil {
		t.Errorf("alive: got %v of the newcomer, want nil", unknown)
	}
}

// Readers and writers at once, for the race detector; each view is a whole one.
func TestViewsAreWhole(t *testing.T) {
	a, s := loaded(t, 0)
	crowd := a.w.crowd(2 * syncBatch)
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for before := 0; ; {
				v := a.View()
				if len(v.Members) != len(v.members) || v.Records != len(v.Members) || len(v.Members) < before {
					t.Errorf("got %d members, %d of them found, %d records, after %d members", len(v.Members), len(v.members), v.Records, before)
				}
				before = len(v.Members)
				_ = s.NotifyAlive(&memberlist.Node{Name: a.id.String(), Addr: syntheticIP(a.id), Port: syntheticPort})
				_, _ = a.VerifyChain(a.chain)
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for half := range 2 {
		writers.Go(func() {
			for i := half * syncBatch; i < (half+1)*syncBatch; i += 8 {
				if half == 0 {
					a.writer.addAll(crowd[i:i+8], time.Now())
				} else {
					a.writer.add(crowd[i:i+8], time.Now())
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	if got := len(a.View().Members); got != 1+len(crowd) {
		t.Errorf("members: got %d, want %d", got, 1+len(crowd))
	}
}

func TestViewCostsNothing(t *testing.T) {
	a, _ := loaded(t, 10)
	if got := testing.AllocsPerRun(100, func() { _, _ = a.View().Member(a.id) }); got != 0 {
		t.Errorf("view and a member: got %v allocations, want none", got)
	}
}

// A thousand members; first alone, then while another goroutine verifies batch after batch.
func BenchmarkView(b *testing.B) {
	a, s := loaded(b, 1000)
	node := &memberlist.Node{Name: a.id.String(), Addr: syntheticIP(a.id), Port: syntheticPort}
	b.Run("view", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = a.View()
		}
	})
	b.Run("NotifyAlive", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = s.NotifyAlive(node)
		}
	})
	b.Run("view while verifying", func(b *testing.B) {
		crowd := a.w.crowd(syncBatch)
		for i := range crowd {
			crowd[i].Signature[0] ^= 1
		}
		stop := make(chan struct{})
		var verifying sync.WaitGroup
		verifying.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					a.writer.addAll(crowd, time.Now())
				}
			}
		})
		b.ReportAllocs()
		for b.Loop() {
			_ = a.View()
		}
		close(stop)
		verifying.Wait()
	})
	b.Run("change and publish", func(b *testing.B) { // two signatures of one's own included
		b.ReportAllocs()
		for b.Loop() {
			_, _, err := a.writer.update(func(own *record.Node) { own.Left = !own.Left }, time.Now())
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}
