package join

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/meshtest"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// conn is one end of a pipe that exports like TLS: both ends alike.
type conn struct {
	net.Conn
	secret string
}

func (c conn) Export(label string) ([]byte, error) {
	sum := sha256.Sum256([]byte(c.secret + label))
	return sum[:], nil
}

func pipe(secret string) (near, far conn) {
	a, b := net.Pipe()
	return conn{a, secret}, conn{b, secret}
}

// member is a whole member as far as joining goes: a founder with its roster.
type member struct {
	mu    sync.Mutex
	root  identity.Authority
	cert  *x509.Certificate
	key   ed25519.PrivateKey
	known *roster.Roster
	clock time.Duration // how much it is ahead
}

func newMember(t testing.TB) *member {
	t.Helper()
	m := &member{root: identity.Authority{Key: identity.GenerateKey()}, key: identity.GenerateKey()}
	var err error
	if m.root.Cert, err = identity.NewRoot(m.root.Key, identity.RootTerms{Name: "test"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if m.cert, err = identity.NewNode(m.root, m.key.Public().(ed25519.PublicKey), identity.NodeTerms{Admin: true, NotBefore: time.Now()}); err != nil {
		t.Fatal(err)
	}
	m.known = roster.New(m.root.Cert)
	public, proof := meshtest.WireGuard(m.known.Mesh(), identity.NodeIDOfCert(m.cert), "founder")
	signed, err := record.SignNode(m.known.Mesh(), record.Node{
		Seq: 1, Certificate: m.cert.Raw, Name: "founder", WireGuardKey: public, WireGuardProof: proof, SealingKey: [32]byte{2},
	}, m.key)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.AddNode(signed); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *member) now() time.Time { return time.Now().Add(m.clock) }

func (m *member) invite(t testing.TB, uses int, life time.Duration) (seed [32]byte, id identity.KeyID) {
	t.Helper()
	seed, cert, err := identity.NewInvite(identity.Authority{Cert: m.cert, Key: m.key},
		identity.InviteTerms{Uses: uses, Expires: time.Now().Add(life)}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.AddNode(record.NewCertificate(cert)); err != nil {
		t.Fatal(err)
	}
	return seed, identity.KeyIDOfCert(cert)
}

func (m *member) InviteChain(id identity.KeyID) ([]*x509.Certificate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if chain := m.known.Chain(id); chain != nil {
		return chain, nil
	}
	return nil, Refuse(CodeUnknownInvite, "no such invite")
}

func (m *member) Admit(cert *x509.Certificate) (record.Admission, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	admission, err := m.known.Admit(cert, m.key, m.now())
	codes := map[roster.Reason]Code{
		roster.ReasonInviteUsed: CodeUsed, roster.ReasonInviteExpired: CodeExpired, roster.ReasonInviteRevoked: CodeRevoked,
		roster.ReasonClock: CodeClock,
	}
	if code, ok := codes[roster.ReasonOf(err)]; ok {
		return admission, Refuse(code, "%v", err)
	}
	return admission, err
}

func (m *member) Bundle(identity.KeyID, int) ([]record.Signed, int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var records []record.Signed
	for _, signed := range m.known.All() {
		records = append(records, signed)
	}
	return records, m.known.Len()
}

func (m *member) AddNode(signed record.Signed) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.known.Add(signed, m.now())
	return err
}

func joiner(m *member, seed [32]byte, name string) *Joiner {
	key := identity.GenerateKey()
	public, proof := meshtest.WireGuard(m.known.Mesh(), identity.NodeIDOf(key.Public().(ed25519.PublicKey)), name)
	return NewJoiner(Options{Seed: seed, Key: key, Own: record.Node{
		Name: name, WireGuardKey: public, WireGuardProof: proof, SealingKey: [32]byte{4}, Version: "test",
	}})
}

// ask has a joiner ask a member, over a connection that may be tampered with.
func ask(j *Joiner, m *member, tamper func(net.Conn) net.Conn) (*Result, error) {
	near, far := pipe("one")
	if tamper != nil {
		near.Conn = tamper(near.Conn)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = Serve(context.Background(), far, m)
	}()
	result, err := j.Join(context.Background(), near, m.root.Cert)
	<-done
	return result, err
}

func TestJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMember(t)
		seed, _ := m.invite(t, 1, time.Hour)
		result, err := ask(joiner(m, seed, "laptop"), m, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(result.Chain) != 4 || result.ByName != "founder" || result.Members != 2 || !result.Spread || len(result.Records) != 3 {
			t.Errorf("result: got %d certificates, by %q, %d members, spread %v, %d records, want 4, founder, 2, true, 3",
				len(result.Chain), result.ByName, result.Members, result.Spread, len(result.Records))
		}
		id := identity.NodeIDOfCert(result.Chain[0])
		if got, ok := m.known.Member(id); !ok || got.Name != "laptop" {
			t.Errorf("the member's roster: got %q, %v, want laptop", got.Name, ok)
		}
	})
}

func TestRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(t *testing.T, m *member) (seed [32]byte)
		code    Code
		text    string
	}{
		"expired": {func(t *testing.T, m *member) [32]byte {
			seed, _ := m.invite(t, 1, time.Hour)
			time.Sleep(2 * time.Hour)
			return seed
		}, CodeExpired, "expired on"},
		"used": {func(t *testing.T, m *member) [32]byte {
			seed, _ := m.invite(t, 1, time.Hour)
			if _, err := ask(joiner(m, seed, "first"), m, nil); err != nil {
				t.Fatal(err)
			}
			return seed
		}, CodeUsed, "used by first"},
		"revoked": {func(t *testing.T, m *member) [32]byte {
			seed, id := m.invite(t, 1, time.Hour)
			signed, err := record.SignRevocation(m.known.Mesh(), record.Revocation{Target: id, Time: time.Now().Unix(), Reason: "posted in a forum"}, m.key)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.AddNode(signed); err != nil {
				t.Fatal(err)
			}
			return seed
		}, CodeRevoked, "posted in a forum"},
		"unknown": {func(t *testing.T, m *member) [32]byte {
			return [32]byte{1, 2, 3}
		}, CodeUnknownInvite, "no such invite"},
		"clock behind": {func(t *testing.T, m *member) [32]byte {
			seed, _ := m.invite(t, 1, time.Hour)
			m.clock = 12 * time.Minute
			return seed
		}, CodeClock, "12m0s behind"},
		"clock ahead": {func(t *testing.T, m *member) [32]byte {
			seed, _ := m.invite(t, 1, time.Hour)
			m.clock = -7 * time.Minute
			return seed
		}, CodeClock, "7m0s ahead"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMember(t)
				seed := tc.prepare(t, m)
				_, err := ask(joiner(m, seed, "laptop"), m, nil)
				var no *Refusal
				if !errors.As(err, &no) || no.Code != tc.code || !strings.Contains(no.Text, tc.text) {
					t.Errorf("got %v, want code %d with %q", err, tc.code, tc.text)
				}
			})
		})
	}
}

// cut breaks the connection after so many bytes have come in.
type cut struct {
	net.Conn
	left int
}

func (c *cut) Read(p []byte) (int, error) {
	if c.left <= 0 {
		_ = c.Close()
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// Wherever the conversation breaks off, the same joiner asks again and is in, with one use of the invite.
func TestRetryAfterLostAnswer(t *testing.T) {
	for lost := 0; lost < 2400; lost += 83 {
		synctest.Test(t, func(t *testing.T) {
			m := newMember(t)
			seed, id := m.invite(t, 1, time.Hour)
			j := joiner(m, seed, "laptop")
			first, err := ask(j, m, func(c net.Conn) net.Conn { return &cut{Conn: c, left: lost} })
			second, err2 := ask(j, m, nil)
			if err2 != nil {
				t.Fatalf("after %d bytes (%v): again: %v", lost, err, err2)
			}
			if err == nil && !bytes.Equal(first.Chain[0].Raw, second.Chain[0].Raw) {
				t.Errorf("after %d bytes: got two certificates", lost)
			}
			for _, invite := range m.known.Invites() {
				if invite.KeyID == id && len(invite.Used) != 1 {
					t.Errorf("after %d bytes: invite used %d times, want once", lost, len(invite.Used))
				}
			}
		})
	}
}

// A process that was killed takes its attempt up: with the certificate that it kept it is admitted again by whoever admitted it, however late; where
// nobody has, it makes another one.
func TestAttemptIsTakenUp(t *testing.T) {
	for _, taken := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m := newMember(t)
			seed, id := m.invite(t, 1, time.Hour)
			j := joiner(m, seed, "laptop")
			var kept []*x509.Certificate
			j.options.Keep = func(cert *x509.Certificate) error { kept = append(kept, cert); return nil }
			left := 1
			if taken {
				left = 1 << 20
			}
			_, err := ask(j, m, func(c net.Conn) net.Conn { return &cut{Conn: c, left: left} })
			if taken != (err == nil) {
				t.Fatalf("got %v", err)
			}
			if !taken { // the certificate is made, and went nowhere
				invites, _ := m.InviteChain(id)
				if _, err := j.certificate(invites[0], time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(30 * time.Minute)
			o := j.options
			o.Cert = kept[0]
			again := NewJoiner(o)
			result, err := ask(again, m, nil)
			if !taken {
				if no := new(Refusal); !errors.As(err, &no) || no.Code != CodeClock || !again.Renew(err) || again.Unsure() {
					t.Fatalf("got %v, want a certificate that is too old, to be made anew", err)
				}
				result, err = ask(again, m, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			if taken != (len(kept) == 1) || !bytes.Equal(result.Chain[0].Raw, kept[len(kept)-1].Raw) {
				t.Errorf("taken %t: got %d certificates, want one, and another only where nobody took the first", taken, len(kept))
			}
			if used := m.known.Invites()[0].Used; len(used) != 1 {
				t.Errorf("got %d uses, want one", len(used))
			}
			if again.Renew(err) || again.Renew(Refuse(CodeUsed, "")) {
				t.Error("renewed without a reason")
			}
		})
	}
}

// An invite that has ended by this machine's clock alone: it is the clock that is wrong, and by how much is said.
func TestInviteThatEndedByAWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMember(t)
		seed, id := m.invite(t, 1, time.Hour)
		invites, _ := m.InviteChain(id)
		j := joiner(m, seed, "laptop")
		time.Sleep(3 * time.Hour)
		for clock, want := range map[time.Time]Code{time.Now(): CodeExpired, time.Now().Add(-150 * time.Minute): CodeClock} {
			_, err := j.certificate(invites[0], clock)
			if no := new(Refusal); !errors.As(err, &no) || no.Code != want || want == CodeClock && !strings.Contains(no.Text, "2h30m0s ahead") {
				t.Errorf("member's clock %s: got %v, want code %d", clock, err, want)
			}
		}
	})
}

// What cannot be kept is shown to nobody.
func TestCertificateIsKeptFirst(t *testing.T) {
	m := newMember(t)
	seed, _ := m.invite(t, 1, time.Hour)
	j := joiner(m, seed, "laptop")
	full := errors.New("disk full")
	j.options.Keep = func(*x509.Certificate) error { return full }
	if _, err := ask(j, m, nil); !errors.Is(err, full) || j.Unsure() || len(m.known.Invites()[0].Used) != 0 {
		t.Errorf("got %v, want that of the disk, and nobody asked", err)
	}
}

func TestForgedProofs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMember(t)
		seed, _ := m.invite(t, 1, time.Hour)
		// A proof made for another connection: somebody sits in the middle.
		near, far := net.Pipe()
		go func() { _, _ = Serve(context.Background(), conn{far, "theirs"}, m) }()
		_, err := joiner(m, seed, "laptop").Join(context.Background(), conn{near, "ours"}, m.root.Cert)
		var no *Refusal
		if !errors.As(err, &no) || no.Code != CodeForged {
			t.Errorf("proof of another connection: got %v, want forged", err)
		}
		// A member of another mesh, with a root of its own.
		other := newMember(t)
		a, b := pipe("one")
		go func() { _, _ = Serve(context.Background(), b, m) }()
		if _, err := joiner(m, seed, "laptop").Join(context.Background(), a, other.root.Cert); err == nil {
			t.Error("member of another mesh: got admitted, want an error")
		}
	})
}

func TestSilenceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMember(t)
		near, far := pipe("one")
		defer near.Close()
		start := time.Now()
		if _, err := Serve(context.Background(), far, m); err == nil || time.Since(start) != opening {
			t.Errorf("silent joiner: got %v after %s, want an error after %s", err, time.Since(start), opening)
		}
		// One that dribbles its hello has no more time, and one that has said it has its time in all, not after each message.
		slow, far := pipe("three")
		go func() {
			defer slow.Close()
			for _, b := range []byte{0, 0, 1, 0, 9, 9, 9} {
				_, _ = slow.Write([]byte{b})
				time.Sleep(opening / 5)
			}
		}()
		start = time.Now()
		if _, err := Serve(context.Background(), far, m); err == nil || time.Since(start) != opening {
			t.Errorf("dribbling joiner: got %v after %s, want an error after %s", err, time.Since(start), opening)
		}
		seed, _ := m.invite(t, 1, time.Hour)
		begun, far := pipe("four")
		defer begun.Close()
		key := ed25519.NewKeyFromSeed(seed[:])
		signed, err := proof(begun, labelInvite, key)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(opening - time.Second)
			_ = write(begun, message{Hello: &hello{Version: protocolVersion, Invite: key.Public().(ed25519.PublicKey), Proof: signed}})
			_, _ = io.Copy(io.Discard, begun)
		}()
		start = time.Now()
		if _, err := Serve(context.Background(), far, m); err == nil || time.Since(start) != patience {
			t.Errorf("joiner that stops after its hello: got %v after %s, want an error after %s", err, time.Since(start), patience)
		}
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		near, far = pipe("two")
		defer far.Close()
		go func() { _, _ = io.Copy(io.Discard, far) }()
		start = time.Now()
		if _, err := joiner(m, [32]byte{1}, "a").Join(ctx, near, m.root.Cert); !errors.Is(err, context.Canceled) || time.Since(start) > 2*time.Second {
			t.Errorf("cancelled join: got %v after %s, want context.Canceled after 1s", err, time.Since(start))
		}
	})
}

func TestHostileTextIsMadeReadable(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                            "plain",
		"\x1b[31mred\x1b[0m":               "[31mred[0m",
		"two\nlines\r":                     "twolines",
		"right\u202eleft":                  "rightleft",
		strings.Repeat("ä", maxText):       strings.Repeat("ä", maxText/2) + "…",
		"a" + strings.Repeat("ä", maxText): "a" + strings.Repeat("ä", (maxText-1)/2) + "…",
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q): got %q, want %q", in, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range []message{
		{Hello: &hello{Version: 1, Invite: make([]byte, 32), Proof: make([]byte, 64)}},
		{Chain: &chain{Certs: [][]byte{{1}, {2}}, Clock: 5}},
		{Request: &request{Cert: []byte{1}, Proof: make([]byte, 64)}},
		{Admitted: &admitted{Time: 1, Signer: make([]byte, 32), Signature: make([]byte, 64), Records: [][]byte{{1}}, Total: 1}},
		{First: []byte{1}}, {Done: true}, {Refusal: &refusal{Code: CodeUsed, Text: "used"}},
	} {
		var b bytes.Buffer
		if err := write(&b, m); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := read(bytes.NewReader(p), maxFromMember)
		if err != nil {
			return
		}
		if m.Hello != nil && len(m.Hello.Invite) != 32 {
			t.Error("hello with a key of a wrong length")
		}
	})
}

// scripted is a connection whose far side says what it was given, whatever it hears.
type scripted struct {
	io.Reader
	conn
}

func (s scripted) Read(p []byte) (int, error)  { return s.Reader.Read(p) }
func (s scripted) Write(p []byte) (int, error) { return len(p), nil }
func (s scripted) SetDeadline(time.Time) error { return nil }
func (s scripted) Close() error                { return nil }

// FuzzConversation plays a hostile far side to both ends.
func FuzzConversation(f *testing.F) {
	m := newMember(f)
	seed, id := m.invite(f, 1000, time.Hour)
	invites, err := m.InviteChain(id)
	if err != nil {
		f.Fatal(err)
	}
	c := conn{secret: "fuzz"}
	key := ed25519.NewKeyFromSeed(seed[:])
	signature, _ := proof(c, labelInvite, key)
	var said bytes.Buffer
	_ = write(&said, message{Hello: &hello{Version: 1, Invite: key.Public().(ed25519.PublicKey), Proof: signature}})
	j := joiner(m, seed, "fuzz")
	cert, err := j.certificate(invites[0], time.Now())
	if err != nil {
		f.Fatal(err)
	}
	signature, _ = proof(c, labelNode, j.options.Key)
	_ = write(&said, message{Request: &request{Cert: cert.Raw, Proof: signature}})
	f.Add(said.Bytes())
	var answered bytes.Buffer
	answer := &chain{Clock: time.Now().Unix()}
	for _, cert := range invites {
		answer.Certs = append(answer.Certs, cert.Raw)
	}
	_ = write(&answered, message{Chain: answer})
	_ = write(&answered, message{Admitted: &admitted{Signer: make([]byte, 32), Signature: make([]byte, 64)}})
	f.Add(answered.Bytes())
	f.Add(binary.BigEndian.AppendUint32(nil, 1<<31))
	f.Fuzz(func(t *testing.T, p []byte) {
		_, _ = Serve(context.Background(), scripted{bytes.NewReader(p), c}, m)
		if _, err := j.Join(context.Background(), scripted{bytes.NewReader(p), c}, m.root.Cert); err == nil {
			t.Error("a scripted member admitted us")
		}
	})
}
