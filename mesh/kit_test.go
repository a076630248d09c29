package mesh

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"warren/mesh/disk"
	"warren/mesh/identity"
	"warren/mesh/join"
	"warren/mesh/meshtest"
	"warren/mesh/record"
	"warren/mesh/roster"
	"warren/mesh/store"
)

// world is a mesh under test: its root, its network, and its nodes.
type world struct {
	t    testing.TB
	net  *meshtest.Net
	root identity.Authority
	dir  string
}

// peer is one node of a world, running or not.
type peer struct {
	*Mesh
	w      *world
	id     identity.NodeID
	place  identity.NodeID // in the network; differs from id in a clone
	name   string
	key    ed25519.PrivateKey
	chain  []*x509.Certificate
	own    record.Node
	dir    string
	store  *store.Store
	disk   disk.Disk // that the store is on
	aside  *store.SetAside
	cancel context.CancelFunc
	done   chan error
	tidied bool // stop is called at the end of the test
}

// newWorld makes a world in a bubble of virtual time.
func newWorld(t *testing.T, latency time.Duration) *world {
	t.Helper()
	// A probe of memberlist that is under way ends after Shutdown, and virtual time stops with the test.
	t.Cleanup(func() { time.Sleep(time.Minute) })
	return realWorld(t, latency)
}

// realWorld makes one outside a bubble, for nodes that do not run.
func realWorld(t testing.TB, latency time.Duration) *world {
	t.Helper()
	rootKey := identity.GenerateKey()
	root, err := identity.NewRoot(rootKey, identity.RootTerms{Name: "test"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, net: meshtest.New(latency), root: identity.Authority{Cert: root, Key: rootKey}, dir: t.TempDir()}
}

// fill32 gives fields that must not be zero a value.
func fill32(s string) [32]byte { return sha256.Sum256([]byte(s)) }

func (w *world) newPeer(name string) *peer {
	key := identity.GenerateKey()
	p := &peer{w: w, id: identity.NodeIDOf(key.Public().(ed25519.PublicKey)), name: name, key: key}
	p.dir = filepath.Join(w.dir, name+"-"+p.id.Short()) // two may have one name
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	p.place = p.id
	p.own = record.Node{Name: name, SealingKey: fill32("seal" + name), Version: "test"}
	p.own.WireGuardKey, p.own.WireGuardProof = meshtest.WireGuard(identity.MeshIDOf(w.root.Cert.PublicKey.(ed25519.PublicKey)), p.id, name+p.id.String())
	return p
}

// founder makes the first node of the mesh, an admin.
func (w *world) founder(name string) *peer {
	w.t.Helper()
	p := w.newPeer(name)
	cert, err := identity.NewNode(w.root, p.key.Public().(ed25519.PublicKey), identity.NodeTerms{Admin: true, NotBefore: time.Now()})
	if err != nil {
		w.t.Fatal(err)
	}
	p.chain = []*x509.Certificate{cert, w.root.Cert}
	return p
}

// AddCertificate has a peer take in the certificate of an invite that it has made.
func (p *peer) AddCertificate(invite *x509.Certificate) error {
	return p.Add(record.NewCertificate(invite))
}

// Revoke has an admin revoke a key. Those that depend on it stay, or go too with cascade. It returns the key of the record.
func (p *peer) Revoke(target identity.KeyID, reason string, cascade bool) (record.Key, error) {
	r := record.Revocation{Target: target, Time: time.Now().Unix(), Reason: reason}
	if member, ok := p.View().Member(identity.NodeID(target)); ok {
		r.Name = member.Name
	}
	if !cascade {
		r.Keep = prefixes(p.Power().Outlook(false, target, record.ScopeWhole).Below)
	}
	return p.Power().Revoke(r)
}

// invite has an admin make an invite, and returns its seed and key ID.
func (p *peer) invite(uses int) ([32]byte, identity.KeyID) {
	p.w.t.Helper()
	terms := identity.InviteTerms{Uses: uses, Expires: time.Now().Add(48 * time.Hour)}
	seed, cert, err := identity.NewInvite(identity.Authority{Cert: p.chain[0], Key: p.key}, terms, time.Now())
	if err != nil {
		p.w.t.Fatal(err)
	}
	if err := p.AddCertificate(cert); err != nil {
		p.w.t.Fatal(err)
	}
	return seed, identity.KeyIDOfCert(cert)
}

// inviteAdmin has an admin make an invite for another admin, and returns its seed.
func (p *peer) inviteAdmin() [32]byte {
	p.w.t.Helper()
	terms := identity.InviteTerms{Uses: 1, Admin: true, Expires: time.Now().Add(48 * time.Hour)}
	seed, cert, err := identity.NewInvite(identity.Authority{Cert: p.chain[0], Key: p.key}, terms, time.Now())
	if err != nil {
		p.w.t.Fatal(err)
	}
	if err := p.AddCertificate(cert); err != nil {
		p.w.t.Fatal(err)
	}
	return seed
}

// joinConn is one end of a pipe that exports like TLS.
type joinConn struct {
	net.Conn
	secret string
}

func (c joinConn) Export(label string) ([]byte, error) {
	sum := sha256.Sum256([]byte(c.secret + label))
	return sum[:], nil
}

// join makes a node that joins through a member, with its first records in its store.
func (w *world) join(name string, via *peer, seed [32]byte) (*peer, error) {
	w.t.Helper()
	p := w.newPeer(name)
	near, far := net.Pipe()
	served := make(chan error, 1)
	go func() {
		_, err := join.Serve(context.Background(), joinConn{far, name}, via.Admission())
		served <- err
	}()
	own := p.own
	own.Instance = [8]byte{1, 2, 3}
	result, err := join.NewJoiner(join.Options{Seed: seed, Key: p.key, Own: own}).Join(context.Background(), joinConn{near, name}, w.root.Cert)
	<-served
	if err != nil {
		return nil, err
	}
	p.chain, p.own.Admission = result.Chain, result.Admission
	p.openStore()
	var batch store.Batch
	for _, signed := range result.Records {
		key, _ := signed.Key()
		encoded, _ := signed.Marshal()
		batch.Put = append(batch.Put, store.Item{Key: key, Value: encoded})
	}
	if err := p.store.Apply(batch); err != nil {
		w.t.Fatal(err)
	}
	return p, nil
}

func (w *world) mustJoin(name string, via *peer, seed [32]byte) *peer {
	w.t.Helper()
	p, err := w.join(name, via, seed)
	if err != nil {
		w.t.Fatalf("%s joins: %v", name, err)
	}
	return p
}

func (p *peer) openStore() {
	p.w.t.Helper()
	if p.store != nil {
		return
	}
	s, aside, err := store.OpenOn(p.disk, filepath.Join(p.dir, "records.db"))
	if err != nil {
		p.w.t.Fatal(err)
	}
	p.store, p.aside = s, aside
}

// load makes the Mesh of a node without running it.
func (p *peer) load() error {
	p.openStore()
	logger := slog.New(slog.DiscardHandler)
	if os.Getenv("MESH_LOG") != "" {
		logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", p.name)
	}
	m, err := New(Options{
		Root: p.w.root.Cert, Key: p.key, Chain: p.chain, Store: p.store, Sessions: p.w.net.Clone(p.place, p.id), Own: p.own, LANSecret: p.own.LANSecret, Logger: logger,
	})
	p.Mesh = m
	return err
}

// start loads and runs a node.
func (p *peer) start() *peer {
	p.w.t.Helper()
	if p.Mesh == nil {
		if err := p.load(); err != nil {
			p.w.t.Fatalf("start %s: %v", p.name, err)
		}
	}
	if !p.tidied {
		p.tidied = true
		p.w.t.Cleanup(p.stop)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel, p.done = cancel, make(chan error, 1)
	m := p.Mesh
	go func() { p.done <- m.Run(ctx) }()
	p.w.net.Clone(p.place, p.id).Serve(m)
	return p
}

// stop ends a node as an orderly shutdown does.
func (p *peer) stop() {
	p.w.t.Helper()
	p.w.net.Clone(p.place, p.id).Stop()
	if p.cancel != nil {
		p.cancel()
		if err := <-p.done; err != nil {
			p.w.t.Errorf("run %s: %v", p.name, err)
		}
		p.cancel = nil
	}
	if p.store != nil {
		if err := p.store.Close(); err != nil {
			p.w.t.Error(err)
		}
		p.store = nil
	}
	p.Mesh = nil
}

// grow makes a founder and n-1 further nodes, joined through one another and linked each with each.
func (w *world) grow(n int) []*peer {
	w.t.Helper()
	first := w.founder("n0").start()
	seed, _ := first.invite(n)
	peers := []*peer{first}
	for i := 1; i < n; i++ {
		p := w.mustJoin(fmt.Sprintf("n%d", i), first, seed)
		peers = append(peers, p.start())
	}
	w.net.LinkAll(ids(peers)...)
	return peers
}

func ids(peers []*peer) []identity.NodeID {
	var all []identity.NodeID
	for _, p := range peers {
		all = append(all, p.id)
	}
	return all
}

// agree waits until all nodes hold the same records and have the same members, for at most the given time.
func agree(t testing.TB, within time.Duration, peers ...*peer) time.Duration {
	t.Helper()
	return eventually(t, within, "the nodes to agree", func() bool {
		for _, p := range peers[1:] {
			if *p.book.public.digest.Load() != *peers[0].book.public.digest.Load() {
				return false
			}
		}
		return true
	})
}

// eventually waits for a condition in virtual time and returns how long it took.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > within {
			t.Fatalf("waited %s for %s", within, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(start)
}

func activeMembers(m *Mesh) int {
	n := 0
	for _, member := range m.View().Members {
		if member.State == roster.Active {
			n++
		}
	}
	return n
}

func fatalOf(p *peer) *FatalError {
	select {
	case err := <-p.Fatal():
		var fatal *FatalError
		if errors.As(err, &fatal) {
			return fatal
		}
		return &FatalError{Text: err.Error()}
	default:
		return nil
	}
}

func endpoints(list ...string) []netip.AddrPort {
	var all []netip.AddrPort
	for _, text := range list {
		all = append(all, netip.MustParseAddrPort(text))
	}
	return all
}

// certify makes the certificate that a joiner makes.
func (p *peer) certify(seed [32]byte, via *peer, invite identity.KeyID) *x509.Certificate {
	p.w.t.Helper()
	chain, err := via.Admission().InviteChain(invite)
	if err != nil {
		p.w.t.Fatal(err)
	}
	issuer := identity.Authority{Cert: chain[0], Key: ed25519.NewKeyFromSeed(seed[:])}
	cert, err := identity.NewNode(issuer, p.key.Public().(ed25519.PublicKey), identity.NodeTerms{NotBefore: time.Now()})
	if err != nil {
		p.w.t.Fatal(err)
	}
	return cert
}
