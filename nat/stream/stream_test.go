package stream

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session/sessiontest"
)

// memory is a TCP network in one process, in real or virtual time. Where nobody listens, a dial hangs.
type memory struct {
	mu        sync.Mutex
	listeners map[string]*memoryListener
	dials     []string
}

type memoryListener struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

type memoryConn struct {
	net.Conn
	remote net.Addr
}

func (c memoryConn) RemoteAddr() net.Addr { return c.remote }

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *memoryListener) Addr() net.Addr { return l.addr }

func (m *memory) listen(addr string) *memoryListener {
	l := &memoryListener{
		addr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr)), conns: make(chan net.Conn), closed: make(chan struct{}),
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listeners[addr] = l
	return l
}

// from returns a dial function of the host with this address.
func (m *memory) from(host string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		m.mu.Lock()
		l := m.listeners[address]
		m.dials = append(m.dials, address)
		m.mu.Unlock()
		if l == nil {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		near, far := net.Pipe()
		select {
		case l.conns <- memoryConn{far, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(host), 40000))}:
			return memoryConn{near, l.addr}, nil
		case <-l.closed:
			return nil, net.ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// world is a mesh with an anchor, which listens at 192.0.2.1:9277, and one more member.
type world struct {
	*memory
	mesh     *sessiontest.Mesh
	anchor   sessiontest.Node
	member   sessiontest.Node
	server   *Server
	attached chan taken
}

// members is what one node knows of its mesh.
type members struct {
	sessiontest.Node
	verify func(chain []*x509.Certificate) (identity.NodeID, error)
}

func (m members) Credential() tls.Certificate { return m.Node.Credential() }

func (m members) Verify(chain []*x509.Certificate) (identity.NodeID, error) { return m.verify(chain) }

// Accept implements Taker.
func (w *world) Accept(from identity.NodeID, c net.Conn) (<-chan struct{}, error) {
	done := make(chan struct{})
	w.attached <- taken{from, c, sync.OnceFunc(func() { c.Close(); close(done) })}
	return done, nil
}

// PortsChanged implements Taker.
func (w *world) PortsChanged() {}

// taken is a stream that the anchor has taken over. The test ends it by end.
type taken struct {
	from identity.NodeID
	conn net.Conn
	end  func()
}

var anchorAddr = netip.MustParseAddrPort("192.0.2.1:9277")

func newWorld(t *testing.T, edit func(*Options)) *world {
	t.Helper()
	mesh, err := sessiontest.NewMesh()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{memory: &memory{listeners: make(map[string]*memoryListener)}, mesh: mesh, attached: make(chan taken, 100)}
	for _, n := range []*sessiontest.Node{&w.anchor, &w.member} {
		if *n, err = mesh.NewNode(); err != nil {
			t.Fatal(err)
		}
	}
	o := Options{Members: members{w.anchor, mesh.Verify}, Joins: true}
	if edit != nil {
		edit(&o)
	}
	if w.server, err = New(o); err != nil {
		t.Fatal(err)
	}
	w.server.listen = func(port uint16) (net.Listener, error) {
		return w.memory.listen(netip.AddrPortFrom(anchorAddr.Addr(), port).String()), nil
	}
	w.server.SetPorts(anchorAddr.Port())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.server.Run(ctx, w) }()
	t.Cleanup(func() { // the bubble's main goroutine would end before the context of the test does
		cancel()
		for {
			select {
			case s := <-w.attached:
				s.end()
				continue
			case <-done:
			}
			return
		}
	})
	synctest.Wait()
	return w
}

func (w *world) client(n sessiontest.Node) *Client {
	return newClient(members{n, w.mesh.Verify}, w.from("198.51.100.7"), noProxy)
}

// newClient returns a client in a network of its own.
func newClient(m Members, dial func(context.Context, string) (net.Conn, error), proxy func(*url.URL) (*url.URL, error)) *Client {
	c := NewClient(ClientOptions{Members: m})
	c.dial, c.proxy = func(ctx context.Context, address string, _ bool) (net.Conn, error) { return dial(ctx, address) }, proxy
	return c
}

func noProxy(*url.URL) (*url.URL, error) { return nil, nil }

func TestStreamInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		near, err := w.client(w.member).Dial(t.Context(), w.anchor.ID, []netip.AddrPort{anchorAddr})
		if err != nil {
			t.Fatal(err)
		}
		s := <-w.attached
		if s.from != w.member.ID {
			t.Errorf("got a stream of %s, want %s", s.from.Short(), w.member.ID.Short())
		}
		for _, way := range [][2]net.Conn{{near, s.conn}, {s.conn, near}} {
			go way[0].Write([]byte("datagram"))
			got := make([]byte, 8)
			if _, err := io.ReadFull(way[1], got); err != nil || string(got) != "datagram" {
				t.Errorf("got %q, %v", got, err)
			}
		}
		// Nothing for idleTimeout ends it, also on the side that only reads.
		start := time.Now()
		if _, err := s.conn.Read(make([]byte, 1)); err == nil || time.Since(start) != idleTimeout {
			t.Errorf("idle: got %v after %v, want an error after %v", err, time.Since(start), idleTimeout)
		}
		s.end()
		near.Close()
		if got := w.server.Counts(); got != (Counts{Accepted: 1}) {
			t.Errorf("got %+v, want one accepted", got)
		}
	})
}

// refused reports whether the anchor has said no.
func refused(err error) bool {
	_, ok := errors.AsType[*Refusal](err)
	return ok
}

func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		dial := func(n sessiontest.Node, id identity.NodeID) error {
			_, err := w.client(n).Dial(t.Context(), id, []netip.AddrPort{anchorAddr})
			return err
		}
		w.mesh.Refuse(w.member.ID, errors.New("revoked\x1b[31m on Monday"))
		if err := dial(w.member, w.anchor.ID); !refused(err) || !strings.Contains(err.Error(), "revoked[31m on Monday") {
			t.Errorf("revoked: got %v, want the reason", err)
		}
		w.mesh.Refuse(w.member.ID, fmt.Errorf("verify: %w", &Refusal{Code: 0x100, Reason: "expelled"}))
		if no, ok := errors.AsType[*Refusal](dial(w.member, w.anchor.ID)); !ok || no.Code != 0x100 || no.Reason != "expelled" {
			t.Errorf("with a code: got %+v, want it and its reason", no)
		}
		w.mesh.Refuse(w.member.ID, nil)
		if err := dial(w.member, w.member.ID); !errors.Is(err, ErrWrongMember) {
			t.Errorf("another member: got %v, want ErrWrongMember", err)
		}
		w.mesh.Refuse(w.anchor.ID, errors.New("revoked"))
		if err := dial(w.member, w.anchor.ID); err == nil || refused(err) {
			t.Errorf("revoked anchor: got %v, want our own refusal", err)
		}
		w.mesh.Refuse(w.anchor.ID, &Refusal{Code: 0x100, Reason: "revoked"})
		if err := dial(w.member, w.anchor.ID); err == nil || refused(err) || !strings.Contains(err.Error(), "revoked") {
			t.Errorf("revoked anchor, with a code: got %v, want our own refusal", err)
		}
		if len(w.attached) > 0 {
			t.Error("got a stream attached")
		}
	})
}

// Revoked between the handshake and now, and later.
func TestDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w *world
		calls := 0
		w = newWorld(t, func(o *Options) {
			before := o.Members.(members)
			o.Members = members{before.Node, func(chain []*x509.Certificate) (identity.NodeID, error) {
				if calls++; calls == 2 {
					return identity.NodeID{}, errors.New("revoked just now")
				}
				return before.verify(chain)
			}}
		})
		c := w.client(w.member)
		if _, err := c.Dial(t.Context(), w.anchor.ID, []netip.AddrPort{anchorAddr}); !refused(err) {
			t.Errorf("got %v, want ErrRefused", err)
		}
		near, err := c.Dial(t.Context(), w.anchor.ID, []netip.AddrPort{anchorAddr})
		if err != nil {
			t.Fatal(err)
		}
		s := <-w.attached
		w.server.Drop(w.anchor.ID)
		w.server.Drop(w.member.ID)
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want EOF", err)
		}
		s.end()
		near.Close()
	})
}

// Of too many streams of one member the oldest gives way.
func TestOldestGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		var streams []net.Conn
		var ends []func()
		for range maxPerMember + 1 {
			near, err := w.client(w.member).Dial(t.Context(), w.anchor.ID, []netip.AddrPort{anchorAddr})
			if err != nil {
				t.Fatal(err)
			}
			streams = append(streams, near)
			ends = append(ends, (<-w.attached).end)
			time.Sleep(time.Second)
		}
		for i, near := range streams {
			near.(timed).Conn.SetReadDeadline(time.Now().Add(time.Second))
			_, err := near.(timed).Conn.Read(make([]byte, 1))
			if gone := errors.Is(err, io.EOF); gone != (i == 0) {
				t.Errorf("stream %d: got %v", i, err)
			}
			ends[i]()
			near.Close()
		}
	})
}

// A connection that dawdles has five seconds, and all those of one source are not all there is.
func TestSlowLoris(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		loris := w.from("203.0.113.9")
		var open []net.Conn
		for range 3 * maxHalfOpenSource {
			c, err := loris(t.Context(), anchorAddr.String())
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, c)
		}
		near, err := w.client(w.member).Dial(t.Context(), w.anchor.ID, []netip.AddrPort{anchorAddr})
		if err != nil {
			t.Fatal(err)
		}
		(<-w.attached).end()
		near.Close()
		start := time.Now()
		for i, c := range open {
			go func() {
				for _, b := range []byte{22, 3, 1, 2, 0, 1, 0, 1, 252} { // a byte a second does not help
					c.Write([]byte{b})
					time.Sleep(time.Second)
				}
			}()
			io.Copy(io.Discard, c)
			if got := time.Since(start); got > handshakeTimeout {
				t.Fatalf("connection %d: got closed after %v, want %v", i, got, handshakeTimeout)
			}
		}
		time.Sleep(time.Minute)
		got := w.server.Counts()
		if want := uint64(2 * maxHalfOpenSource); got.Limited != want || got.Failed != maxHalfOpenSource {
			t.Errorf("got %+v, want %d limited, %d failed", got, want, maxHalfOpenSource)
		}
	})
}

func TestJoiner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		c := newClient(nil, w.from("198.51.100.7"), noProxy)
		meshID := identity.MeshIDOf(w.mesh.Root.Cert.PublicKey.(ed25519.PublicKey))
		pin := [8]byte(w.anchor.ID[:8])
		addrs := []netip.AddrPort{anchorAddr}
		if _, err := c.DialJoin(t.Context(), identity.MeshID{1}, pin, addrs); !errors.Is(err, ErrWrongMember) {
			t.Errorf("another mesh: got %v, want ErrWrongMember", err)
		}
		if _, err := c.DialJoin(t.Context(), meshID, [8]byte{1}, addrs); !errors.Is(err, ErrWrongMember) {
			t.Errorf("another pin: got %v, want ErrWrongMember", err)
		}
		if _, err := c.Dial(t.Context(), w.anchor.ID, addrs); err == nil {
			t.Error("dial without credential: got no error")
		}
		near, err := c.DialJoin(t.Context(), meshID, pin, addrs)
		if err != nil {
			t.Fatal(err)
		}
		s := <-w.attached
		if !s.from.IsZero() {
			t.Errorf("got a stream of %s, want a joiner's", s.from.Short())
		}
		start := time.Now()
		go func() {
			for {
				if _, err := near.Write(make([]byte, 8192)); err != nil {
					return
				}
			}
		}()
		n, _ := io.Copy(io.Discard, s.conn)
		if got, want := time.Since(start), joinLife; got < want-time.Second || got > want+time.Second {
			t.Errorf("got a life of %v, want %v", got, want)
		}
		if want := int64(joinInBurst + 30*joinInRate); n > want+2*16384 || n < want/2 {
			t.Errorf("got %d bytes, want at most about %d", n, want)
		}
		s.end()
		near.Close()
	})
}

func TestJoinsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		c := newClient(nil, w.from("198.51.100.7"), noProxy)
		meshID := identity.MeshIDOf(w.mesh.Root.Cert.PublicKey.(ed25519.PublicKey))
		var open []net.Conn
		for i := range maxJoinsSource + 1 {
			near, err := c.DialJoin(t.Context(), meshID, [8]byte{}, []netip.AddrPort{anchorAddr})
			if (err == nil) != (i < maxJoinsSource) || err != nil && !refused(err) {
				t.Errorf("join %d: got %v", i, err)
			}
			if err == nil {
				open = append(open, near)
			}
		}
		for _, near := range open {
			(<-w.attached).end()
			near.Close()
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Joins = false })
		c := newClient(nil, w.from("198.51.100.7"), noProxy)
		meshID := identity.MeshIDOf(w.mesh.Root.Cert.PublicKey.(ed25519.PublicKey))
		if _, err := c.DialJoin(t.Context(), meshID, [8]byte{}, []netip.AddrPort{anchorAddr}); err == nil {
			t.Error("joins off: got no error")
		}
	})
}

// Dead addresses, and ports that the network drops, cost the dial 50 ms each.
func TestRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.server.SetPorts(AlternatePort)
		synctest.Wait()
		dead := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.8:9277"), netip.MustParseAddrPort("192.0.2.9:443"), anchorAddr}
		delete(w.listeners, anchorAddr.String())
		start := time.Now()
		near, err := w.client(w.member).Dial(t.Context(), w.anchor.ID, Guess(dead))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := time.Since(start), 4*stagger; got != want {
			t.Errorf("got a stream after %v, want %v", got, want)
		}
		if got, want := strings.Join(w.dials, " "), "192.0.2.8:9277 192.0.2.8:443 192.0.2.9:443 192.0.2.1:9277 192.0.2.1:443"; got != want {
			t.Errorf("got dials %s, want %s", got, want)
		}
		(<-w.attached).end()
		near.Close()

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		if _, err := w.client(w.member).Dial(ctx, w.anchor.ID, Guess(dead[:2])); err == nil || time.Since(start) != time.Second {
			t.Errorf("all dead: got %v after %v, want an error after 1s", err, time.Since(start))
		}
		start = time.Now()
		if _, err := w.client(w.member).Dial(t.Context(), w.anchor.ID, Guess(dead[:2])); err == nil || time.Since(start) > handshakeTimeout+time.Second {
			t.Errorf("all dead: got %v after %v, want an error after %v", err, time.Since(start), handshakeTimeout)
		}
	})
}

// A stranger with a certificate of his own, and one that speaks another protocol.
func TestStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		other, err := sessiontest.NewMesh()
		if err != nil {
			t.Fatal(err)
		}
		stranger, err := other.NewNode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.client(stranger).Dial(t.Context(), w.anchor.ID, []netip.AddrPort{anchorAddr}); !refused(err) {
			t.Errorf("other mesh: got %v, want ErrRefused", err)
		}
		for _, protos := range [][]string{{"h2"}, nil} {
			raw, err := w.from("203.0.113.1")(t.Context(), anchorAddr.String())
			if err != nil {
				t.Fatal(err)
			}
			err = tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: protos}).Handshake()
			if err == nil {
				t.Errorf("protocols %v: got a handshake", protos)
			}
			raw.Close()
		}
		for name, config := range map[string]*tls.Config{
			"no certificate": {InsecureSkipVerify: true, NextProtos: []string{alpnMember}},
			"TLS 1.2":        {InsecureSkipVerify: true, NextProtos: []string{alpnMember}, MaxVersion: tls.VersionTLS12},
		} {
			raw, err := w.from("203.0.113.1")(t.Context(), anchorAddr.String())
			if err != nil {
				t.Fatal(err)
			}
			c := tls.Client(raw, config)
			if err := c.Handshake(); err == nil {
				err = readGreeting(c)
				if err == nil || refused(err) {
					t.Errorf("%s: got %v, want an alert", name, err)
				}
			}
			raw.Close()
		}
		if len(w.attached) > 0 {
			t.Error("got a stream attached")
		}
	})
}

func TestGreeting(t *testing.T) {
	tests := []struct {
		in      []byte
		ok      bool
		refused bool
	}{
		{[]byte{0, 0, 9}, true, false},
		{[]byte{0, 4, 1, 0, 'n', 'o'}, false, true},
		{[]byte{0, 2, 1, 0}, false, true},
		{[]byte{0, 4, 1, 0, 'n'}, false, false},
		{[]byte{0, 1, 1}, false, false},
		{[]byte{0xff, 0xff}, false, false},
		{nil, false, false},
	}
	for _, test := range tests {
		r := bytes.NewReader(test.in)
		err := readGreeting(r)
		if (err == nil) != test.ok || refused(err) != test.refused {
			t.Errorf("%x: got %v", test.in, err)
		}
		if test.ok && r.Len() != 1 {
			t.Errorf("%x: got %d bytes left, want 1", test.in, r.Len())
		}
	}
	var out bytes.Buffer
	if err := writeGreeting(&out, &Refusal{Reason: strings.Repeat("é", 300) + "\n"}); err != nil || out.Len() > 8+maxReason || !refused(readGreeting(&out)) {
		t.Errorf("got %d bytes, %v", out.Len(), err)
	}
}

// What a refusal rests on comes with it; without it, or with half of it, it is a no all the same.
func TestGreetingProof(t *testing.T) {
	parts := [][]byte{bytes.Repeat([]byte{7}, 32<<10), {}, {1, 2, 3}}
	var out bytes.Buffer
	if err := writeGreeting(&out, &Refusal{Code: 256, Reason: "revoked", Proof: append(slices.Clone(parts), make([]byte, maxProof))}); err != nil {
		t.Fatal(err)
	}
	whole := bytes.Clone(out.Bytes())
	no, ok := errors.AsType[*Refusal](readGreeting(&out))
	if !ok || no.Code != 256 || no.Reason != "revoked" || !slices.EqualFunc(no.Proof, parts, bytes.Equal) || out.Len() > 0 {
		t.Errorf("got %d parts, %d bytes left, want the three that fit", len(no.Proof), out.Len())
	}
	for _, n := range []int{11, 13, 1000, len(whole) - 1} {
		no, ok := errors.AsType[*Refusal](readGreeting(bytes.NewReader(whole[:n])))
		if !ok || no.Code != 256 || no.Reason != "revoked" || len(no.Proof) != 0 {
			t.Errorf("cut after %d bytes: got %+v, want a no without proof", n, no)
		}
	}
}
