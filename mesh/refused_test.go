package mesh

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// forger repeats forged copies of records to one node as fast as that one hears them.
type forger struct {
	to     *peer
	as     identity.NodeID // in whose name, with a session or without
	copies int
}

// forge returns a record with another signature, and for the first of many with bytes of its body changed.
func (f *forger) forge(of record.Signed) []byte {
	f.copies++
	forged := of
	switch f.copies % 3 {
	case 0: // the very content, which has the key and the version of the true one
		forged.Signature = bytes.Repeat([]byte{byte(f.copies), byte(f.copies >> 8), 7, 9}, 16)
	case 1: // and signed, by another key
		other := identity.GenerateKey()
		forged.Signature = ed25519.Sign(other, of.Body)
	case 2: // no record at all
		forged.Body = append(bytes.Clone(of.Body), byte(f.copies), byte(f.copies>>8))
	}
	encoded, _ := forged.Marshal()
	return encoded
}

// all sends copies of the records by themselves and by a sync that it opens; and takes part in what the other opens.
func (f *forger) all(records []record.Signed) {
	for _, signed := range records {
		f.to.HandleMessage(f.as, f.as, straightMessage(f.forge(signed), 1))
	}
	near, far := net.Pipe()
	f.give(near, records)
	f.to.HandleSync(f.as, far)
}

// give plays the opener of a sync which has forged copies.
func (f *forger) give(conn net.Conn, records []record.Signed) {
	said := appendFrame(nil, frameHello, append([]byte{syncVersion}, bytes.Repeat([]byte{9}, 16)...))
	said = appendFrame(said, frameCompare, bytes.Repeat([]byte{0xff}, 32))
	for _, signed := range records {
		key, _ := signed.Key()
		version, _ := signed.Version()
		said = appendEntries(said, entriesOf(key, version))
	}
	said = appendFrame(said, frameEnd, nil)
	for _, signed := range records {
		said = appendFrame(said, frameRecord, f.forge(signed))
	}
	said = appendFrame(said, frameEnd, nil)
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	go func() {
		_, _ = conn.Write(said)
		_ = conn.Close()
	}()
}

// Forged copies of a record, by whatever way and however long, do not keep the true one out: it is there after the next exchange with an honest
// member. So for revocations (by an admin who is known, and by one of whom nothing is known yet), a node's record and an invite.
func TestForgedCopiesDelayNothing(t *testing.T) {
	for name, forges := range map[string]bool{"nobody forges": false, "a member forges": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 5*time.Millisecond)
				peers := w.grow(6)
				a, b, x, c, friend, y := peers[0], peers[1], peers[2], peers[3], peers[4], peers[5]
				agree(t, 10*time.Second, peers...)
				time.Sleep(time.Minute)
				w.net.Partition(b.id) // b is away
				key, err := a.Revoke(identity.KeyID(x.id), "stolen", false)
				if err != nil {
					t.Fatal(err)
				}
				_, invite := a.invite(3)
				seed := a.inviteAdmin()
				second := w.mustJoin("second", a, seed).start()
				w.net.Link(second.id, a.id)
				key2, err := second.Revoke(identity.KeyID(y.id), "stolen too", false)
				if err != nil {
					t.Fatal(err)
				}
				if err := c.Update(func(own *record.Node) { own.Name = "renamed" }); err != nil {
					t.Fatal(err)
				}
				agree(t, 10*time.Second, a, c, second)
				for _, p := range []*peer{x, y, friend, second} {
					p.stop()
				}
				time.Sleep(3 * time.Minute)
				missing := append(a.book.get([]record.Key{key, key2}), c.writer.ownSigned(), record.NewCertificate(a.book.chain(invite)[0]))
				there := func() bool {
					m, _ := b.View().Member(c.id)
					_, still := b.View().Member(x.id)
					_, stillY := b.View().Member(y.id)
					return !still && !stillY && m.Name == "renamed" && b.book.chain(invite) != nil
				}
				attack := func() {
					if forges {
						(&forger{to: b, as: friend.id}).all(missing)
						(&forger{to: b, as: x.id}).all(missing)
						(&forger{to: b, as: identity.NodeID{7}}).all(missing)
					}
				}
				// For twenty seconds as fast as can be, then for six hours often enough, and at full speed when it counts.
				for range 400 {
					attack()
					time.Sleep(50 * time.Millisecond)
				}
				for range 6 * 60 {
					attack()
					time.Sleep(time.Minute)
				}
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				go func() {
					for ctx.Err() == nil {
						attack()
						time.Sleep(50 * time.Millisecond)
					}
				}()
				time.Sleep(10 * time.Second)
				if there() {
					t.Fatal("got it without an honest member, or this test tests nothing")
				}
				// One exchange, while it goes on.
				w.net.Link(b.id, a.id)
				took := eventually(t, 20*time.Second, "the true records", there)
				t.Logf("there after %s; dropped %v", took, b.Dropped())
				if most := secondDelay + time.Second; took > most {
					t.Errorf("got it %s after the session, want within %s: one exchange", took, most)
				}
			})
		})
	}
}
