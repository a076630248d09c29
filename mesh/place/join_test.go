package place

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/mesh/join"
	"warren/mesh/record"
	"warren/mesh/roster"
	"warren/mesh/session"
	"warren/mesh/store"
)

func TestJoinExplainsTheFailureThatMatters(t *testing.T) {
	unreachable := fmt.Errorf("[2001:db8::1]:9277: %w", syscall.ENETUNREACH)
	silent := errors.New("203.0.113.1:9277: no answer")
	said := fmt.Errorf("203.0.113.2:9277: %w", join.Refuse(join.CodeClock, "the clock of this machine is 7 minutes behind"))
	for _, tt := range []struct {
		failures  []error
		want, not string
	}{
		{[]error{unreachable}, "unreachable", "none of"},
		{[]error{unreachable, silent}, "203.0.113.1:9277: no answer", "2001:db8"},
		{[]error{unreachable, silent, said}, "7 minutes behind", "no answer"},
	} {
		if got := explainJoin(tt.failures).Error(); !strings.Contains(got, tt.want) || strings.Contains(got, tt.not) || strings.Contains(got, "\n") {
			t.Errorf("got %q, want one line with %q and without %q", got, tt.want, tt.not)
		}
	}
}

func TestFailedJoinLeavesNothing(t *testing.T) {
	root := t.TempDir()
	closed := netip.MustParseAddrPort("127.0.0.1:9") // nothing listens on the discard port
	token := identity.Token{Mesh: identity.MeshID{1}, Seed: [32]byte{2}, Anchors: []identity.TokenAnchor{{Addr: closed}}}
	err := within(t, 2*joinTimeout, func() error {
		_, err := Join(t.Context(), JoinOptions{Token: token.Encode(), StateRoot: root, Name: "beta"}, nil)
		return err
	})
	if err == nil {
		t.Error("joined through a closed port")
	}
	for _, o := range []JoinOptions{{Token: "nonsense", Name: "beta"}, {Token: token.Encode(), Name: "not a name"}} {
		o.StateRoot = root
		if _, err := Join(t.Context(), o, nil); err == nil {
			t.Errorf("join %+v: got no error", o.Name)
		}
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 0 {
		t.Errorf("got %v (%v), want an empty directory", entries, err)
	}
}

// member is a founder whose agent runs, as far as a joiner sees it.
type member struct {
	*State
	mu    sync.Mutex
	known *roster.Roster
	first int // records taken from joiners
}

// door lets joiners in, and nobody else.
type door struct{ *member }

func (d door) Credential() tls.Certificate {
	c := tls.Certificate{PrivateKey: d.Key, Leaf: d.Chain[0]}
	for _, cert := range d.Chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}

func (door) Verify([]*x509.Certificate) (identity.NodeID, error) {
	return identity.NodeID{}, errors.New("only joiners come")
}

func (door) Message(_, _ identity.NodeID, _ session.Proto, _ []byte) {}
func (door) Stream(_ identity.NodeID, _ session.Proto, c net.Conn)   { c.Close() }
func (door) Proof(identity.NodeID, [][]byte)                         {}
func (d door) Join(c session.JoinConn)                               { join.Serve(context.Background(), c, d.member) }

// serve makes a mesh and has its founder admit joiners on the loopback, until the test ends.
func serve(t *testing.T) (*member, netip.AddrPort) {
	t.Helper()
	_, made := created(t)
	s, err := Load(made.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	m := &member{State: s, known: roster.New(s.Root())}
	own, err := s.OwnRecord(s.MeshID(), s.WireGuard, "1")
	if err != nil {
		t.Fatal(err)
	}
	own.Seq = 1
	m.sign(t, own)
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	sessions, err := session.New(session.Options{
		Conn: socket, Self: s.NodeID(), Members: door{m}, Inbound: door{m}, Joins: true, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- sessions.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return m, socket.LocalAddr().(*net.UDPAddr).AddrPort()
}

func (m *member) sign(t *testing.T, own record.Node) {
	t.Helper()
	signed, err := record.SignNode(m.MeshID(), own, m.Key)
	if err == nil {
		err = m.add(signed)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (m *member) add(r record.Signed) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.known.Add(r, time.Now())
	return err
}

// token invites once, over this address.
func (m *member) token(t *testing.T, addr netip.AddrPort) string {
	t.Helper()
	return m.tokenFor(t, addr, 1)
}

// tokenFor invites so many.
func (m *member) tokenFor(t *testing.T, addr netip.AddrPort, uses int) string {
	t.Helper()
	now := time.Now()
	seed, cert, err := identity.NewInvite(identity.Authority{Cert: m.Chain[0], Key: m.Key}, identity.InviteTerms{Uses: uses, Expires: now.Add(time.Hour)}, now)
	if err == nil {
		err = m.add(record.NewCertificate(cert))
	}
	if err != nil {
		t.Fatal(err)
	}
	id := m.NodeID()
	return identity.Token{Mesh: m.MeshID(), Seed: seed, Anchors: []identity.TokenAnchor{{Addr: addr, ID: [8]byte(id[:8])}}}.Encode()
}

func (m *member) InviteChain(id identity.KeyID) ([]*x509.Certificate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known.Chain(id), nil
}

func (m *member) Admit(cert *x509.Certificate) (record.Admission, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	admission, err := m.known.Admit(cert, m.Key, time.Now())
	if err != nil {
		return admission, join.Refuse(join.CodeUsed, "%v", err)
	}
	return admission, nil
}

func (m *member) Bundle(identity.KeyID, int) (records []record.Signed, total int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.known.All() {
		records = append(records, r)
	}
	return records, len(records)
}

func (m *member) AddNode(first record.Signed) error {
	if err := m.add(first); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.first++
	return nil
}

// TestManyJoinAtOnceFromOneSource has more machines join at once behind one address than a member has places for joiners of one source: those for
// whom there is none ask again by themselves, and all get in.
func TestManyJoinAtOnceFromOneSource(t *testing.T) {
	const machines = 10
	founder, addr := serve(t)
	token := founder.tokenFor(t, addr, machines)
	var all sync.WaitGroup
	for i := range machines {
		root := t.TempDir()
		all.Go(func() {
			_, err := Join(t.Context(), JoinOptions{Token: token, StateRoot: root, Name: fmt.Sprintf("m%d", i), Port: 4243, Version: "1"}, nil)
			if err != nil {
				t.Errorf("machine %d: %v", i, err)
			}
		})
	}
	all.Wait()
}

// A whole join over the loopback: what lies on disk afterwards is a member of the mesh, and the token is used up.
func TestJoinedStateIsReadBack(t *testing.T) {
	founder, addr := serve(t)
	token := founder.token(t, addr)
	root := t.TempDir()
	var stages []JoinProgress
	options := JoinOptions{Token: token, StateRoot: root, Name: "beta", Port: 4243, Endpoints: []string{"beta.example.org:4243"}, Version: "1"}
	made, err := Join(t.Context(), options, func(p JoinProgress) { stages = append(stages, p) })
	if err != nil {
		t.Fatal(err)
	}
	want := []JoinProgress{{Stage: StageContacting, Anchor: addr}, {Stage: StageAdmitted, Mesh: "home", By: "alpha"}, {Stage: StageSynced, Mesh: "home", Records: 3}}
	if !slices.Equal(stages, want) {
		t.Errorf("got steps %+v, want %+v", stages, want)
	}
	if made.Mesh != "home" || made.AdmittedBy != "alpha" || made.Members != 2 || made.StateDir != filepath.Join(root, "home") || !made.Prefix4.Contains(made.Addr4) {
		t.Errorf("got %+v, want the second member of home", made)
	}
	s, err := Load(made.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	if s.NodeID() != made.ID || s.MeshID() != founder.MeshID() || RootKeyOf(s.Dir).Here || s.Expendable() != nil || s.Settings.Port != 4243 || s.Settings.Admission == nil {
		t.Errorf("got state %+v of %s, want that of a member", s.Settings, s.NodeID().Short())
	}
	founder.mu.Lock()
	_, err = founder.known.JudgeChain(s.Chain, time.Now())
	if other, ok := founder.known.Member(made.ID); err != nil || !ok || other.Name != "beta" || founder.first != 1 {
		t.Errorf("got member %+v (%t, %v), want beta", other, ok, err)
	}
	founder.mu.Unlock()
	records, aside, err := store.Open(s.RecordsPath())
	if err != nil || aside != nil {
		t.Fatalf("got %v and %v, want the store of the records", err, aside)
	}
	defer records.Close()
	contacts, warning := OpenContacts(s, nil)
	if got, want := contacts.Snapshot(), []Contact{{ID: founder.NodeID(), Addr: addr}}; warning != "" || !slices.Equal(got, want) {
		t.Errorf("got contacts %v (%q), want %v", got, warning, want)
	}

	// The same token once more, and in another place: refused with the reason, and nothing is left.
	options.StateRoot = t.TempDir()
	_, err = Join(t.Context(), options, nil)
	if refusal := new(join.Refusal); !errors.As(err, &refusal) {
		t.Errorf("second use of the token: got %v, want a refusal", err)
	}
	if entries, err := os.ReadDir(options.StateRoot); err != nil || len(entries) != 0 {
		t.Errorf("got %v (%v), want an empty directory", entries, err)
	}
}

// within runs f and fails the test when it takes longer than limit.
func within(t *testing.T, limit time.Duration, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		t.Fatalf("not done after %s", limit)
		return nil
	}
}
