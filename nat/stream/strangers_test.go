package stream

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session/sessiontest"
)

// book is a roster that a test writes in.
type book struct {
	mu      sync.Mutex
	members map[identity.NodeID]bool
	spent   map[identity.KeyID]bool
}

func (b *book) Member(id identity.NodeID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.members[id]
}

func (b *book) Spent(invite identity.KeyID) bool { return b.spent[invite] }

func (b *book) admit(id identity.NodeID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.members[id] = true
}

func newBook(members ...sessiontest.Node) *book {
	b := &book{members: make(map[identity.NodeID]bool), spent: make(map[identity.KeyID]bool)}
	for _, m := range members {
		b.members[m.ID] = true
	}
	return b
}

// drain reads what comes on all streams that are taken over, until stop is called and they have ended.
func (w *world) drain() (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case s := <-w.attached:
				go func() { _, _ = io.Copy(io.Discard, s.conn); s.end() }()
			case <-end:
				return
			}
		}
	}()
	return func() { close(end); <-done }
}

// Strangers have a small share of the streams, by invite and by source, and not for long. Members have all of theirs.
func TestStrangersHaveAShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		w := newWorld(t, func(o *Options) { o.Roster = b })
		b.admit(w.member.ID)
		stop := w.drain()
		invites := make([]identity.Authority, 40)
		for i := range invites {
			var err error
			if invites[i], err = w.mesh.NewInvite(); err != nil {
				t.Fatal(err)
			}
		}
		spent := invites[39]
		b.spent[identity.KeyIDOfCert(spent.Cert)] = true
		var open []net.Conn
		dial := func(by identity.Authority, source string) (id identity.NodeID, c net.Conn) {
			t.Helper()
			n, err := w.mesh.NewNodeBy(by)
			if err != nil {
				t.Fatal(err)
			}
			c, err = newClient(members{n, w.mesh.Verify}, w.from(source), noProxy).Dial(t.Context(), w.anchor.ID, []netip.AddrPort{anchorAddr})
			if err != nil && !refused(err) {
				t.Fatal(err)
			}
			if err == nil {
				open = append(open, c)
			}
			time.Sleep(10 * time.Millisecond)
			return n.ID, c
		}
		in := 0
		for i := range 10 { // one invite, many sources
			if _, c := dial(invites[0], fmt.Sprintf("198.51.100.%d", i)); c != nil {
				in++
			}
		}
		for i := range 10 { // many invites, one source
			if _, c := dial(invites[1+i], "203.0.113.1"); c != nil {
				in++
			}
		}
		if want := maxStrangersInvite + maxStrangersSource; in != want {
			t.Errorf("got %d strangers in of one invite and one source, want %d", in, want)
		}
		for i := range 26 { // fills the rest
			dial(invites[11+i], fmt.Sprintf("192.0.2.%d", 100+i/2))
		}
		if got := w.server.gate.strangers.Taken(nil); got != maxStrangers {
			t.Errorf("got %d places of strangers taken, want %d", got, maxStrangers)
		}
		newcomer, fresh := dial(invites[38], "100.64.0.1") // from elsewhere: somebody who crowds gives way
		if fresh == nil {
			t.Fatal("got a newcomer from elsewhere refused, want a place")
		}
		time.Sleep(time.Second)
		b.admit(newcomer)
		for i := range 3 {
			near, err := w.client(w.member).Dial(t.Context(), w.anchor.ID, []netip.AddrPort{anchorAddr})
			if err != nil {
				t.Fatalf("stream %d of a member beside them: %v", i, err)
			}
			open = append(open, near)
		}
		time.Sleep(strangerTime + 2*strangersLook)
		if got := w.server.gate.strangers.Taken(nil); got != 0 {
			t.Errorf("got %d places of strangers taken after their time, want none", got)
		}
		w.server.mu.Lock()
		left := len(w.server.streams)
		w.server.mu.Unlock()
		if left != 3+1 {
			t.Errorf("got %d streams left, want the member's three and that of the newcomer that became one", left)
		}
		_, late := dial(spent, "198.51.100.77")
		if late == nil {
			t.Fatal("got a stranger by a spent invite refused at once, want it to have a moment")
		}
		began := time.Now()
		_, err := late.Read(make([]byte, 1))
		if took := time.Since(began); !errors.Is(err, io.EOF) || took > strangerSpentTime+strangersLook {
			t.Errorf("by a spent invite: got %v after %v, want the end after %v", err, took, strangerSpentTime)
		}
		for _, c := range open {
			c.Close()
		}
		synctest.Wait()
		stop()
	})
}

// Hosts that hold all places of joiners keep nobody out: one from elsewhere gets in at its first try.
func TestJoinersGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		stop := w.drain()
		meshID := identity.MeshIDOf(w.mesh.Root.Cert.PublicKey.(ed25519.PublicKey))
		var open []net.Conn
		for i := range maxJoins {
			near, err := newClient(nil, w.from(fmt.Sprintf("198.51.100.%d", i/maxJoinsSource)), noProxy).DialJoin(t.Context(), meshID, [8]byte{}, []netip.AddrPort{anchorAddr})
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, near)
		}
		near, err := newClient(nil, w.from("203.0.113.1"), noProxy).DialJoin(t.Context(), meshID, [8]byte{}, []netip.AddrPort{anchorAddr})
		if err != nil {
			t.Fatalf("got %v, want a place at the first try", err)
		}
		if got := w.server.gate.joins.Taken(nil); got != maxJoins {
			t.Errorf("got %d places taken, want %d", got, maxJoins)
		}
		for _, c := range append(open, near) {
			c.Close()
		}
		synctest.Wait()
		stop()
	})
}
