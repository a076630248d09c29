package mesh

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/disk"
	"warren/mesh/join"
	"warren/mesh/record"
)

// sick is a disk that can be made to fail.
type sick struct{ fails atomic.Bool }

func (s *sick) disk() disk.Disk {
	return disk.Disk{Step: func(string, string) error {
		if s.fails.Load() {
			return syscall.EROFS
		}
		return nil
	}}
}

// A node whose disk cannot be written goes on from memory: what it says of itself reaches the others, what they say reaches it, it admits nobody, and
// when the disk can be written again all of that is on it.
func TestNodeRunsFromMemory(t *testing.T) {
	for name, atStart := range map[string]bool{"while it runs": false, "at the start": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 20*time.Millisecond)
				peers := w.grow(4)
				agree(t, 30*time.Second, peers...)
				p, d := peers[2], &sick{}
				p.stop()
				p.disk = d.disk()
				d.fails.Store(atStart)
				p.start()
				agree(t, 30*time.Second, peers...)
				d.fails.Store(true)
				if err := p.Update(func(own *record.Node) { own.Version = "1.from-memory" }); err != nil {
					t.Errorf("got %v, want its record changed all the same", err)
				}
				seed, invite := peers[0].invite(1)
				eventually(t, 30*time.Second, "both to have the other's news", func() bool {
					m, _ := peers[0].View().Member(p.id)
					return m.Record.Version == "1.from-memory" && len(p.View().Invites) == len(peers[0].View().Invites)
				})
				if now := p.store.Trouble(); now == nil || !errors.Is(now.Err, syscall.EROFS) {
					t.Errorf("got trouble %v, want %v", now, syscall.EROFS)
				}
				var no *join.Refusal
				if _, err := w.join("late", p, seed); !errors.As(err, &no) || no.Code != join.CodeBusy || no.Final() || !strings.Contains(no.Text, "disk") {
					t.Errorf("joins through it: got %v, want a refusal for now that names the disk", err)
				}
				if _, err := w.join("late", peers[0], seed); err != nil {
					t.Errorf("joins through another: got %v", err)
				}

				d.fails.Store(false)
				eventually(t, 2*saveAgain, "the disk to be written again", func() bool { return p.store.Trouble() == nil })
				seq := p.Own().Seq
				p.cancel()
				<-p.done
				p.cancel = nil
				items, err := p.store.Load()
				if err != nil || len(items) != p.View().Records {
					t.Errorf("got %d records on disk, %v, want all %d", len(items), err, p.View().Records)
				}
				p.Mesh = nil
				p.start()
				if got := p.Own().Seq; got <= seq {
					t.Errorf("after a restart: got sequence %d, want one above %d", got, seq)
				}
				known := false
				for _, i := range p.View().Invites {
					known = known || i.ID == invite
				}
				if !known {
					t.Error("after a restart: the invite that came meanwhile is gone")
				}
			})
		})
	}
}

// A node that ran from memory and was killed begins with what is on its disk: an older sequence than the others know of it. Its new record counts, and
// it is taken for no clone.
func TestRestartAfterMemoryIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 20*time.Millisecond)
		peers := w.grow(4)
		agree(t, 30*time.Second, peers...)
		p, d := peers[2], &sick{}
		p.stop()
		p.disk = d.disk()
		p.start()
		agree(t, 30*time.Second, peers...)
		d.fails.Store(true)
		for i := range 20 {
			if err := p.Update(func(own *record.Node) { own.Version = strings.Repeat("x", i+1) }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		lost := p.Own().Seq
		eventually(t, 30*time.Second, "others to know", func() bool {
			m, _ := peers[0].View().Member(p.id)
			return m.Record.Seq == lost
		})
		p.stop() // nothing of it was written
		d.fails.Store(false)
		p.start()
		if got := p.Own().Seq; got >= lost {
			t.Fatalf("got sequence %d, want one that was used before", got)
		}
		eventually(t, 30*time.Second, "its new record to count", func() bool {
			m, _ := peers[0].View().Member(p.id)
			return m.Record.Instance == p.Own().Instance && m.Record.Seq > lost
		})
		if text := p.View().Conflict; text != "" {
			t.Errorf("got %q, want no word of a clone", text)
		}
	})
}

// What an admin does on a machine that cannot keep it holds where others do, and is called lost where nobody does.
func TestPowerWithoutADisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 20*time.Millisecond)
		d := &sick{}
		founder := w.founder("alone")
		founder.disk = d.disk()
		founder.start()
		d.fails.Store(true)
		own := founder.Own().Seq
		_, err := founder.Revoke(fillKey("nobody"), "test", false)
		if err == nil || !strings.Contains(err.Error(), "no other member is connected") || !errors.Is(err, syscall.EROFS) {
			t.Errorf("alone: got %v (own %d), want that it is lost at a restart", err, own)
		}
		d.fails.Store(false)
		if _, err := founder.Revoke(fillKey("nobody else"), "test", false); err != nil {
			t.Errorf("with a disk: got %v", err)
		}
	})
}

func fillKey(s string) (out [32]byte) { return fill32(s) }
