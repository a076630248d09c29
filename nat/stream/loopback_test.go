package stream

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"warren/mesh/identity"
	"warren/mesh/session"
	"warren/mesh/session/sessiontest"
	"warren/tunnel/bind"
	"warren/tunnel/bind/bindtest"
)

// host is a node with a shared socket whose UDP reaches nobody, and sessions.
type host struct {
	sessiontest.Node
	socket   *bind.Bind
	sessions *session.Sessions
	heard    chan string
	joined   chan string
}

func newHost(t *testing.T, mesh *sessiontest.Mesh, addr string) *host {
	t.Helper()
	n, err := mesh.NewNode()
	if err != nil {
		t.Fatal(err)
	}
	h := &host{
		Node: n, heard: make(chan string, 10), joined: make(chan string, 1),
		socket: bind.New(bind.Options{Inner: bindtest.NewNetwork().Host(netip.MustParseAddr(addr))}),
	}
	var running sync.WaitGroup
	fns, _, err := h.socket.Open(9277)
	if err != nil {
		t.Fatal(err)
	}
	for _, fn := range fns {
		running.Go(func() {
			bufs, sizes, eps := make([][]byte, 128), make([]int, 128), make([]conn.Endpoint, 128)
			for i := range bufs {
				bufs[i] = make([]byte, 65535)
			}
			for {
				if _, err := fn(bufs, sizes, eps); err != nil {
					return
				}
			}
		})
	}
	h.sessions, err = session.New(session.Options{
		Conn: h.socket.QUIC(), Self: h.ID, Members: members{h.Node, mesh.Verify}, Inbound: h, Joins: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	running.Go(func() { h.sessions.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		h.socket.Close()
		running.Wait()
	})
	return h
}

// Message, Stream and Join take what comes in.
func (h *host) Message(_, _ identity.NodeID, _ session.Proto, payload []byte) {
	h.heard <- string(payload)
}

func (h *host) Stream(_ identity.NodeID, _ session.Proto, c net.Conn) { c.Close() }

// Proof is not looked at here.
func (h *host) Proof(identity.NodeID, [][]byte) {}

func (h *host) Join(c session.JoinConn) {
	text := make([]byte, 5)
	io.ReadFull(c, text)
	h.joined <- string(text)
	c.Write(make([]byte, 100_000))
	c.Close()
}

// attaching takes streams over into a socket, and tells their virtual addresses.
type attaching struct {
	socket   *bind.Bind
	attached chan netip.AddrPort
}

// Accept implements Taker.
func (a *attaching) Accept(from identity.NodeID, c net.Conn) (<-chan struct{}, error) {
	virtual, done, err := a.socket.Streams().Attach(c, bind.StreamOptions{QUICOnly: from.IsZero()})
	if err == nil {
		a.attached <- virtual
	}
	return done, err
}

// PortsChanged implements Taker.
func (a *attaching) PortsChanged() {}

// serve runs a server of the host on a free port of the loopback.
func (h *host) serve(t *testing.T, mesh *sessiontest.Mesh) (*Server, netip.AddrPort, <-chan netip.AddrPort) {
	t.Helper()
	attached := make(chan netip.AddrPort, 10)
	s, err := New(Options{Members: members{h.Node, mesh.Verify}, Joins: true})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.listen = func(uint16) (net.Listener, error) { return l, nil }
	s.SetPorts(1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, &attaching{h.socket, attached}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run: got %v", err)
		}
	})
	return s, netip.MustParseAddrPort(l.Addr().String()), attached
}

// The whole of it: without UDP a member's session with an anchor comes up over a stream, a joiner's too, and both end
// with the stream.
func TestSessionOverStream(t *testing.T) {
	mesh, err := sessiontest.NewMesh()
	if err != nil {
		t.Fatal(err)
	}
	anchor, member := newHost(t, mesh, "192.0.2.1"), newHost(t, mesh, "198.51.100.2")
	_, at, attached := anchor.serve(t, mesh)
	proxy := newProxy(t, "")
	client := newClient(members{member.Node, mesh.Verify}, dialTCP, always(proxy.url))
	c, err := client.Dial(t.Context(), anchor.ID, []netip.AddrPort{at})
	if err != nil {
		t.Fatal(err)
	}
	virtual, done, err := member.socket.Streams().Attach(c, bind.StreamOptions{})
	if err != nil {
		t.Fatal(err)
	}
	member.sessions.SetTargets([]session.Target{{ID: anchor.ID, Addrs: []netip.AddrPort{virtual, netip.MustParseAddrPort("192.0.2.1:9277")}}})
	for _, want := range []struct {
		at     *host
		remote netip.AddrPort
	}{{member, virtual}, {anchor, <-attached}} {
		e := session.Event{Kind: session.Greeted}
		for e.Kind == session.Greeted { // who dials hears of its hello first
			select {
			case e = <-want.at.sessions.Events():
			case <-time.After(30 * time.Second):
				t.Fatal("no session within 30 s")
			}
		}
		if e.Kind != session.Up || e.Remote != want.remote {
			t.Fatalf("got %+v, want a session from %v", e, want.remote)
		}
	}
	if err := anchor.sessions.Send(member.ID, session.ProtoSignal, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if got := <-member.heard; got != "hello" {
		t.Errorf("got %q", got)
	}
	if proxy.count() != 1 {
		t.Errorf("got %d tunnels through the proxy, want 1", proxy.count())
	}

	joiner := newClient(nil, dialTCP, noProxy)
	meshID := identity.MeshIDOf(mesh.Root.Cert.PublicKey.(ed25519.PublicKey))
	pin := [8]byte(anchor.ID[:8])
	stream, err := joiner.DialJoin(t.Context(), meshID, pin, []netip.AddrPort{at})
	if err != nil {
		t.Fatal(err)
	}
	packets := Packets(stream, at)
	join, _, _, err := session.DialJoin(t.Context(), packets, at, meshID, pin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(join, "admit"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(join); err != nil || len(got) != 100_000 {
		t.Errorf("join: got %d bytes, %v", len(got), err)
	}
	if got := <-anchor.joined; got != "admit" {
		t.Errorf("join: got %q", got)
	}
	join.Close()
	packets.Close()

	member.socket.Streams().Detach(virtual)
	<-done
}

// A port that another process has is said to be missing, and had as soon as it can be.
func TestPortsAreRetried(t *testing.T) {
	mesh, err := sessiontest.NewMesh()
	if err != nil {
		t.Fatal(err)
	}
	n, err := mesh.NewNode()
	if err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(taken.Addr().(*net.TCPAddr).Port)
	s, err := New(Options{Members: members{n, mesh.Verify}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, &attaching{}) }()
	wait := func(what string, ok func([]Port) bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !ok(s.Ports()); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: got %v", what, s.Ports())
			}
		}
	}
	s.SetPorts(port)
	wait("taken", func(p []Port) bool { return len(p) == 1 && p[0].Err != nil && p[0].Err.Error() != "not yet" })
	taken.Close()
	wait("free", func(p []Port) bool { return len(p) == 1 && p[0].Err == nil })
	s.SetPorts()
	wait("none", func(p []Port) bool {
		c, err := net.Dial("tcp", taken.Addr().String())
		if err == nil {
			c.Close()
		}
		return len(p) == 0 && err != nil
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("run: got %v", err)
	}
}

// proxy is an HTTP proxy that makes tunnels, for users that know auth if it is not empty.
type proxy struct {
	url *url.URL

	mu      sync.Mutex
	tunnels int
}

func (p *proxy) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tunnels
}

func newProxy(t *testing.T, auth string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{url: &url.URL{Scheme: "http", Host: l.Addr().String()}}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodConnect:
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		case auth != "" && r.Header.Get("Proxy-Authorization") != auth:
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		far, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer far.Close()
		p.mu.Lock()
		p.tunnels++
		p.mu.Unlock()
		w.WriteHeader(http.StatusOK)
		near, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer near.Close()
		buffered.Flush()
		go func() { io.Copy(far, buffered); far.Close() }()
		io.Copy(near, far)
	})}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	return p
}

func TestTunnel(t *testing.T) {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	go func() {
		for {
			c, err := target.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "hello from the target\n")
			c.Close()
		}
	}()
	open, closed := newProxy(t, ""), newProxy(t, "Basic dXNlcjpwYXNz")
	withUser := *closed.url
	withUser.User = url.UserPassword("user", "pass")
	tests := []struct {
		name  string
		proxy *url.URL
		fails string
	}{
		{"open", open.url, ""},
		{"with a password", &withUser, ""},
		{"without the password", closed.url, "user name and password"},
		{"target is not there", open.url, "502"},
		{"proxy is not there", &url.URL{Scheme: "http", Host: "127.0.0.1:1"}, "refused"},
		{"socks", &url.URL{Scheme: "socks5", Host: "127.0.0.1:1"}, "want http or https"},
	}
	for _, test := range tests {
		to := target.Addr().String()
		if test.fails == "502" {
			to = "127.0.0.1:1"
		}
		c, err := newClient(nil, dialTCP, always(test.proxy)).connect(t.Context(), to, false)
		if err != nil {
			if test.fails == "" || !strings.Contains(err.Error(), test.fails) {
				t.Errorf("%s: got %v, want %q", test.name, err, test.fails)
			}
			if strings.Contains(err.Error(), "pass@") || strings.Contains(err.Error(), ":pass") {
				t.Errorf("%s: got a password in %v", test.name, err)
			}
			continue
		}
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "hello from the target\n" || test.fails != "" {
			t.Errorf("%s: got %q, %v", test.name, line, err)
		}
		c.Close()
	}
}

func TestEnvironment(t *testing.T) {
	tests := []struct {
		proxy, except, target string
		want                  string // "": none; "!": an error
	}{
		{"", "", "192.0.2.1:443", ""},
		{"http://proxy:3128", "", "192.0.2.1:443", "http://proxy:3128"},
		{"proxy:3128", "", "192.0.2.1:443", "http://proxy:3128"},
		{"http://u:p@proxy", "", "[2001:db8::1]:9277", "http://u:p@proxy"},
		{"http://proxy", "", "127.0.0.1:443", ""},
		{"http://proxy", "*", "192.0.2.1:443", ""},
		{"http://proxy", "example.org, 192.0.2.1", "192.0.2.1:443", ""},
		{"http://proxy", "192.0.2.0/24", "192.0.2.1:443", ""},
		{"http://proxy", "192.0.2.0/24", "192.0.3.1:443", "http://proxy"},
		{"http://proxy", "192.0.2.1:80,.local", "192.0.2.1:443", "http://proxy"},
		{"http://proxy", "192.0.2.1:443", "192.0.2.1:443", ""},
		{"http://proxy", "2001:db8::1", "[2001:db8::1]:443", ""},
		{"http://secret@%zz", "", "192.0.2.1:443", "!"},
	}
	for _, test := range tests {
		got, err := parseProxies(test.proxy, test.except).find(&url.URL{Host: test.target})
		text := ""
		switch {
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("%+v: got a secret in %v", test, err)
		case err != nil:
			text = "!"
		case got != nil:
			text = got.String()
		}
		if text != test.want {
			t.Errorf("%+v: got %q, %v", test, text, err)
		}
	}
	t.Setenv("HTTPS_PROXY", "")
	t.Setenv("https_proxy", "")
	t.Setenv("ALL_PROXY", "http://all:1")
	if got, err := environmentProxy()(&url.URL{Host: "192.0.2.1:443"}); err != nil || got.String() != "http://all:1" {
		t.Errorf("ALL_PROXY: got %v, %v", got, err)
	}
	t.Setenv("https_proxy", "http://https:1")
	if got, err := environmentProxy()(&url.URL{Host: "192.0.2.1:443"}); err != nil || got.String() != "http://https:1" {
		t.Errorf("https_proxy: got %v, %v", got, err)
	}
}

func FuzzPackets(f *testing.F) {
	f.Add([]byte{0, 1, 'a', 0, 0, 0, 2, 'b', 'c'}, byte(1))
	f.Add([]byte{0xff, 0xff}, byte(9))
	f.Add(append([]byte{8, 0}, make([]byte, 3000)...), byte(200))
	f.Fuzz(func(t *testing.T, in []byte, piece byte) {
		var want []string
		ok := true
		for rest := in; len(rest) >= 2; {
			n := int(rest[0])<<8 | int(rest[1])
			if n > maxPacket {
				ok = false
				break
			}
			if len(rest) < 2+n {
				break
			}
			if n > 0 {
				want = append(want, string(rest[2:2+n]))
			}
			rest = rest[2+n:]
		}
		c := Packets(&slow{rest: in, piece: int(piece) + 1}, anchorAddr)
		buf := make([]byte, maxPacket)
		for _, frame := range want {
			n, from, err := c.ReadFrom(buf)
			if err != nil || string(buf[:n]) != frame || from.String() != anchorAddr.String() {
				t.Fatalf("got %q, %v, want %q", buf[:n], err, frame)
			}
		}
		_, _, err := c.ReadFrom(buf)
		if err == nil || errors.Is(err, io.EOF) != ok {
			t.Fatalf("at the end: got %v, want EOF %v", err, ok)
		}
	})
}

// slow is a connection that yields a few bytes at a time.
type slow struct {
	net.Conn
	rest  []byte
	piece int
}

func (s *slow) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.rest[:min(s.piece, len(s.rest))])
	s.rest = s.rest[n:]
	return n, nil
}

func always(proxy *url.URL) func(*url.URL) (*url.URL, error) {
	return func(*url.URL) (*url.URL, error) { return proxy, nil }
}
