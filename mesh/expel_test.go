package mesh

import (
	"bytes"
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/roster"
)

// fatalWithin waits for the end of a node and returns when it came, or the zero duration.
func fatalWithin(p *peer, most time.Duration) (*FatalError, time.Duration) {
	start := time.Now()
	for time.Since(start) < most {
		synctest.Wait()
		if fatal := fatalOf(p); fatal != nil {
			return fatal, time.Since(start)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil, 0
}

// revoke revokes a key, with all below it or not.
func (p *peer) revoke(target identity.KeyID, cascade bool) {
	p.w.t.Helper()
	if _, err := p.Revoke(target, "stolen", cascade); err != nil {
		p.w.t.Fatal(err)
	}
}

// forget takes a node's records away, which does not run.
func (p *peer) forget() {
	p.w.t.Helper()
	p.dir = p.w.t.TempDir()
}

// Whatever puts a node out, any member can show it to that node, and what it shows is enough: for one that has its records, and for one that
// has lost them.
func TestProofSaysWhy(t *testing.T) {
	for name, tt := range map[string]struct {
		put     func(t *testing.T, a, second, out *peer, invite identity.KeyID)
		reasons []roster.Reason
	}{
		"itself is revoked": {func(_ *testing.T, a, _, out *peer, _ identity.KeyID) {
			a.revoke(identity.KeyID(out.id), false)
		}, []roster.Reason{roster.ReasonRevoked}},
		"by another admin than its own": {func(_ *testing.T, _, second, out *peer, _ identity.KeyID) {
			second.revoke(identity.KeyID(out.id), false)
		}, []roster.Reason{roster.ReasonRevoked}},
		"its invite is, with all below": {func(_ *testing.T, a, _, _ *peer, invite identity.KeyID) {
			a.revoke(invite, true)
		}, []roster.Reason{roster.ReasonIssuerRevoked, roster.ReasonInviteRevoked}},
		"the admin above is, with all below": {func(_ *testing.T, a, second, _ *peer, _ identity.KeyID) {
			a.revoke(identity.KeyID(second.id), true)
		}, []roster.Reason{roster.ReasonIssuerRevoked}},
	} {
		for _, lost := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, 5*time.Millisecond)
					a := w.founder("a")
					a.own.LANSecret = [16]byte{1}
					a.start()
					second := w.mustJoin("second", a, a.inviteAdmin())
					second.own.LANSecret = [16]byte{2}
					second.start()
					w.net.Link(a.id, second.id)
					agree(t, 10*time.Second, a, second)
					seed, invite := second.invite(2)
					c, out := w.mustJoin("c", second, seed), w.mustJoin("out", second, seed)
					c.start()
					w.net.LinkAll(a.id, second.id, c.id)
					agree(t, 10*time.Second, a, second, c)
					tt.put(t, a, second, out, invite)
					agree(t, 10*time.Second, a, second, c)
					time.Sleep(time.Hour)
					if _, err := c.VerifyChain(out.chain); err == nil {
						t.Fatal("it is not out, or this test tests nothing")
					}
					if lost {
						if err := out.store.Close(); err != nil {
							t.Fatal(err)
						}
						out.store = nil
						out.forget()
					}
					out.start()
					if fatal, _ := fatalWithin(out, time.Minute); fatal != nil {
						t.Fatalf("got %v without proof", fatal)
					}
					proof := c.Proof(out.chain)
					size := 0
					for _, one := range proof {
						size += len(one)
					}
					if size == 0 || size > MaxProof {
						t.Errorf("proof: got %d records of %d bytes, want some, of %d at most", len(proof), size, MaxProof)
					}
					out.HandleProof(c.id, proof)
					fatal, after := fatalWithin(out, time.Second)
					if fatal == nil {
						t.Fatalf("got nothing of %d records, %v, want its end: %v", len(proof), out.Dropped(), c.Standing(out.id))
					}
					ok := false
					for _, reason := range tt.reasons {
						ok = ok || fatal.Reason == reason
					}
					if !ok || after > 0 {
						t.Errorf("got %v (%q) after %s, want one of %v at once", fatal.Reason, fatal.Text, after, tt.reasons)
					}
				})
			})
		}
	}
}

// Proof is bounded, and shows those that were never members no LAN secret: whoever has the key of a revoked invite can make any number of IDs.
func TestProofForStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5*time.Millisecond)
		a := w.founder("a")
		a.own.LANSecret = [16]byte{0xaa, 0xbb, 0xcc, 0xdd, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
		a.start()
		seed, invite := a.invite(5)
		a.revoke(invite, true)
		made, shown := 0, 0
		for range 200 {
			stranger := w.newPeer("stranger")
			chain := append([]*x509.Certificate{stranger.certify(seed, a, invite)}, a.book.chain(invite)...)
			if _, err := a.VerifyChain(chain); err == nil {
				t.Fatal("got no refusal, or this test tests nothing")
			}
			made++
			proof := a.Proof(chain)
			if len(proof) > 0 {
				shown++
			}
			if bytes.Contains(bytes.Join(proof, nil), a.own.LANSecret[:]) {
				t.Fatal("got the LAN secret")
			}
		}
		if shown != proofsBurst {
			t.Errorf("of %d at once %d were shown something, want %d", made, shown, proofsBurst)
		}
		if a.Proof(nil) != nil {
			t.Error("of no chain: got something")
		}
		// And on the side that is given it.
		for range 100 {
			a.HandleProof(identity.NodeID{9}, [][]byte{make([]byte, MaxProof/2), make([]byte, MaxProof/2+1)})
		}
		if got := a.Dropped(); got["proof: too large"] != 8 || got["proof: too many"] != 92 {
			t.Errorf("dropped: got %v, want the too large and the too many", got)
		}
	})
}
