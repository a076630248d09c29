package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/mesh/meshtest"
	"warren/mesh/node"
	"warren/mesh/place"
	"warren/mesh/record"
	"warren/mesh/roster"
	"warren/mesh/session"
	"warren/mesh/session/sessiontest"
	"warren/mesh/store"
)

// town is a mesh of nodes with real records and real sessions over a network in memory: what tells a node that it is out.
type town struct {
	t    *testing.T
	net  *sessiontest.Network
	root identity.Authority
	all  []*citizen
}

// citizen is one node.
type citizen struct {
	town     *town
	name     string
	dir      string
	addr     netip.AddrPort
	state    *place.State
	mesh     *mesh.Mesh
	sessions *session.Sessions
	verify   func([]*x509.Certificate) (identity.NodeID, error) // instead of its own; nil: its own
	stop     func()
	refusals []session.Event // owned by its loop
}

// Verify lets a test have a citizen say what it likes.
func (c *citizen) Verify(chain []*x509.Certificate) (identity.NodeID, error) {
	if c.verify != nil {
		return c.verify(chain)
	}
	return (&members{state: c.state, book: c.mesh}).Verify(chain)
}

func newTown(t *testing.T) *town {
	key := identity.GenerateKey()
	root, err := identity.NewRoot(key, identity.RootTerms{Name: "town"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { time.Sleep(time.Minute) }) // for probes of memberlist
	return &town{t: t, net: sessiontest.New(sessiontest.Options{Latency: 10 * time.Millisecond}), root: identity.Authority{Cert: root, Key: key}}
}

// settle makes a node that the root has certified.
func (w *town) settle(name string, admin bool) *citizen {
	w.t.Helper()
	key := identity.GenerateKey()
	cert, err := identity.NewNode(w.root, key.Public().(ed25519.PublicKey), identity.NodeTerms{Admin: admin, NotBefore: time.Now()})
	if err != nil {
		w.t.Fatal(err)
	}
	c := &citizen{
		town: w, name: name, dir: filepath.Join(w.t.TempDir(), name), addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(len(w.all) + 1)}), 9277),
		state: &place.State{Key: key, Chain: []*x509.Certificate{cert, w.root.Cert}},
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	w.all = append(w.all, c)
	return c
}

// start runs a node, which dials these.
func (c *citizen) start(dials ...*citizen) {
	t := c.town.t
	t.Helper()
	records, _, err := store.Open(filepath.Join(c.dir, "records.db"))
	if err != nil {
		t.Fatal(err)
	}
	public, proof := meshtest.WireGuard(c.state.MeshID(), c.state.NodeID(), c.name)
	own := record.Node{Name: c.name, WireGuardKey: public, WireGuardProof: proof, SealingKey: sha256.Sum256([]byte("s" + c.name)), Version: "test"}
	line := &gossip{}
	c.mesh, err = mesh.New(mesh.Options{Root: c.town.root.Cert, Key: c.state.Key, Chain: c.state.Chain, Store: records, Sessions: line, Own: own})
	if err != nil {
		t.Fatal(err)
	}
	conn := c.town.net.Listen(c.addr)
	shows := members{state: c.state, book: c.mesh}
	c.sessions, err = session.New(session.Options{
		Conn: conn, Self: c.state.NodeID(), Members: teller{&shows, c}, Roster: &shows, Inbound: &inbound{log: slog.New(slog.DiscardHandler), mesh: c.mesh},
	})
	if err != nil {
		t.Fatal(err)
	}
	line.sessions = c.sessions
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- c.mesh.Run(ctx) }()
	go func() { done <- c.sessions.Run(ctx) }()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.loop(ctx)
	}()
	var targets []session.Target
	for _, other := range dials {
		targets = append(targets, session.Target{ID: other.state.NodeID(), Addrs: []netip.AddrPort{other.addr}})
	}
	c.sessions.SetTargets(targets)
	c.stop = func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Errorf("run %s: %v", c.name, err)
			}
		}
		<-ended
		conn.Close()
		if err := records.Close(); err != nil {
			t.Error(err)
		}
		c.stop = func() {}
	}
	t.Cleanup(func() { c.stop() })
}

// loop does what the hub does with sessions.
func (c *citizen) loop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-c.sessions.Events():
			switch e.Kind {
			case session.Up:
				c.mesh.SessionUp(e.ID, e.Dialled)
			case session.Refused:
				c.refusals = append(c.refusals, e)
			}
		}
	}
}

// teller shows a citizen's chain, and verifies as the citizen does.
type teller struct {
	*members
	c *citizen
}

func (t teller) Verify(chain []*x509.Certificate) (identity.NodeID, error) { return t.c.Verify(chain) }

// fatal returns the end of a node and when it came, within a while.
func (c *citizen) fatal(within time.Duration) (*mesh.FatalError, time.Duration) {
	start := time.Now()
	select {
	case err := <-c.mesh.Fatal():
		out, _ := errors.AsType[*mesh.FatalError](err)
		return out, time.Since(start)
	case <-time.After(within):
		return nil, within
	}
}

func (w *town) agree(some ...*citizen) {
	w.t.Helper()
	for range 1000 {
		counts := make(map[string]bool)
		for _, c := range some {
			var names []string
			for _, m := range c.mesh.View().Members {
				names = append(names, m.Name)
			}
			counts[fmt.Sprint(c.mesh.View().Records, names)] = true
		}
		if len(counts) == 1 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Fatal("the nodes do not agree")
}

// A node that was away when it was revoked is refused by everybody. It gets the revocation from the first that refuses it, and ends for what that
// says: whichever side dials, whether it knows who revoked it or has lost all records, and whatever those that refuse it say beside.
func TestAwayWhileRevoked(t *testing.T) {
	for name, tt := range map[string]struct{ dialled, lost, only bool }{
		"it dials":                         {},
		"it is dialled":                    {dialled: true},
		"its records are lost":             {lost: true},
		"the admin is away now":            {only: true},
		"dialled, by one that is no admin": {only: true, dialled: true},
		"lost, by one that is no admin":    {only: true, lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTown(t)
				admin, other, out := w.settle("admin", true), w.settle("other", false), w.settle("out", false)
				admin.start(other)
				other.start(admin)
				out.start(admin, other)
				time.Sleep(5 * time.Second)
				w.agree(admin, other, out)
				out.stop()
				if _, err := admin.mesh.Power().Revoke(record.Revocation{Target: identity.KeyID(out.state.NodeID()), Time: time.Now().Unix(), Reason: "laptop stolen"}); err != nil {
					t.Fatal(err)
				}
				w.agree(admin, other)
				time.Sleep(time.Hour)
				if tt.only {
					admin.stop()
				}
				if tt.lost {
					if err := os.Remove(filepath.Join(out.dir, "records.db")); err != nil {
						t.Fatal(err)
					}
				}
				if tt.dialled {
					other.stop()
					other.start(admin, out)
					out.start()
				} else {
					out.start(admin, other)
				}
				fatal, after := out.fatal(time.Minute)
				if fatal == nil || fatal.Reason != roster.ReasonRevoked || !strings.Contains(fatal.Text, "revoked by admin") || !strings.Contains(fatal.Text, "laptop stolen") {
					t.Fatalf("got %+v after %s, want that the admin has revoked it", fatal, after)
				}
				if after > 2*time.Second {
					t.Errorf("got it after %s, want within two seconds", after)
				}
			})
		})
	}
}

// No word ends a node, forged proofs included: not what a member says, not what all say, not for hours, not when it has no session at all.
func TestWordsEndNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		admin, evil, victim := w.settle("admin", true), w.settle("evil", false), w.settle("victim", false)
		admin.start(evil)
		evil.start(admin)
		victim.start(admin, evil)
		time.Sleep(5 * time.Second)
		w.agree(admin, evil, victim)
		// A revocation that evil has signed itself, and one with a signature of nobody.
		signed, err := record.SignRevocation(victim.state.MeshID(), record.Revocation{Target: identity.KeyID(victim.state.NodeID()), Time: time.Now().Unix()}, evil.state.Key)
		if err != nil {
			t.Fatal(err)
		}
		self, _ := signed.Marshal()
		signed.Signer = identity.KeyIDOf(admin.state.Key.Public().(ed25519.PublicKey))
		signed.Signature = bytes.Repeat([]byte{7}, 64)
		forged, _ := signed.Marshal()
		no := &session.Refusal{Code: node.CodeNotMember, Reason: "revoked by the root", Proof: [][]byte{self, forged, {1, 2, 3}, nil}}
		says := func(chain []*x509.Certificate) (identity.NodeID, error) {
			if id := identity.NodeIDOfCert(chain[0]); id != victim.state.NodeID() {
				return id, nil
			}
			return victim.state.NodeID(), no
		}
		evil.stop()
		evil.verify = says
		evil.start(admin, victim)
		evil.sessions.Drop(victim.state.NodeID(), node.CodeNotMember, "anything")
		time.Sleep(time.Hour)
		// And all do, with the one session that there was cut.
		admin.stop()
		admin.verify = says
		admin.start(evil, victim)
		time.Sleep(time.Hour)
		evil.stop()
		admin.stop()
		if fatal, _ := victim.fatal(2 * time.Hour); fatal != nil {
			t.Fatalf("got %v, want it to go on", fatal)
		}
		if victim.stop(); len(victim.refusals) == 0 || victim.refusals[0].Code != node.CodeNotMember || victim.refusals[0].Reason != no.Reason {
			t.Errorf("refusals: got %+v, want them heard, or this test tests nothing", victim.refusals)
		}
		admin.verify, evil.verify = nil, nil
		admin.start(evil)
		victim.start(admin)
		time.Sleep(5 * time.Second)
		if _, up := victim.sessions.Remote(admin.state.NodeID()); !up {
			t.Error("taken in again: got no session")
		}
	})
}
