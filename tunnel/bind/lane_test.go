package bind

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"warren/tunnel/bind/bindtest"
)

// prefixed makes connection IDs as mesh/session does.
type prefixed struct{}

func (prefixed) ConnectionIDLen() int { return 12 }

func (prefixed) GenerateConnectionID() (quic.ConnectionID, error) {
	id := []byte{11: 0}
	rand.Read(id)
	copy(id, []byte{0xff, 0xff, 0xff})
	return quic.ConnectionIDFromBytes(id), nil
}

// tapConn keeps a copy of what is written.
type tapConn struct {
	net.PacketConn
	mu   sync.Mutex
	sent [][]byte
}

func (c *tapConn) WriteTo(p []byte, to net.Addr) (int, error) {
	c.mu.Lock()
	c.sent = append(c.sent, append([]byte(nil), p...))
	c.mu.Unlock()
	return c.PacketConn.WriteTo(p, to)
}

func (c *tapConn) packets() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([][]byte(nil), c.sent...)
}

func (c *tapConn) SetReadBuffer(int) error  { return nil }
func (c *tapConn) SetWriteBuffer(int) error { return nil }

func testTLS(t testing.TB) *tls.Config {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		Certificates:       []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
		NextProtos:         []string{"test"},
		InsecureSkipVerify: true, // the test is about packets
	}
}

// realQUIC opens a connection between the QUIC lanes of two binds, sends a stream and datagrams over it, closes it and
// returns every packet that went either way.
func realQUIC(t testing.TB) [][]byte {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var taps [2]*tapConn
	var transports [2]*quic.Transport
	var addrs [2]netip.AddrPort
	for i := range taps {
		b := New(Options{Logger: quiet})
		addrs[i] = pump(t, b, nil)
		taps[i] = &tapConn{PacketConn: b.QUIC()}
		transports[i] = &quic.Transport{Conn: taps[i], ConnectionIDGenerator: prefixed{}}
		defer transports[i].Close()
	}
	config := &quic.Config{EnableDatagrams: true}
	server, err := transports[1].Listen(testTLS(t), config)
	if err != nil {
		t.Fatal(err)
	}
	echoed := make(chan error, 1)
	go func() {
		c, err := server.Accept(ctx)
		if err != nil {
			echoed <- err
			return
		}
		s, err := c.AcceptStream(ctx)
		if err == nil {
			_, err = io.Copy(s, s)
			s.Close()
		}
		echoed <- err
	}()
	c, err := transports[0].Dial(ctx, net.UDPAddrFromAddrPort(addrs[1]), testTLS(t), config)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("warren", 10_000)
	go func() {
		io.WriteString(s, text)
		s.Close()
	}()
	if got, err := io.ReadAll(s); err != nil || string(got) != text {
		t.Fatalf("echo: got %d bytes, %v, want %d", len(got), err, len(text))
	}
	if err := <-echoed; err != nil {
		t.Fatal(err)
	}
	if err := c.SendDatagram([]byte("datagram")); err != nil {
		t.Fatal(err)
	}
	c.CloseWithError(0, "")
	return append(taps[0].packets(), taps[1].packets()...)
}

func TestLaneDropsOldest(t *testing.T) {
	b, _, feed := scripted(t)
	for i := range stunQueue + 3 {
		feed(sent{addr("192.0.2.1:1000"), withAttribute(0x8022, byte(i>>8), byte(i))})
	}
	p, from := read(t, b.STUN())
	if got := int(p[24])<<8 | int(p[25]); got != 3 || from != addr("192.0.2.1:1000") {
		t.Errorf("got packet %d from %v, want 3 from 192.0.2.1:1000", got, from)
	}
	if got := b.Counters()[DropSTUNQueue]; got != 3 {
		t.Errorf("got %d dropped, want 3", got)
	}
}

func TestLaneDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Options{Inner: bindtest.NewNetwork().Host(netip.MustParseAddr("192.0.2.1")), Logger: quiet})
		l := b.STUN()
		p := make([]byte, 100)
		start := time.Now()
		l.SetReadDeadline(start.Add(3 * time.Second))
		if _, _, err := l.ReadFrom(p); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("got %v after %v, want a timeout after 3s", err, time.Since(start))
		}
		var timeout net.Error
		if _, _, err := l.ReadFrom(p); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("deadline in the past: got %v, want a timeout", err)
		}

		// A deadline that is moved while somebody reads, nearer, then cleared.
		l.SetReadDeadline(time.Now().Add(time.Hour))
		result := make(chan error)
		go func() {
			_, _, err := l.ReadFrom(p)
			result <- err
		}()
		synctest.Wait()
		l.SetReadDeadline(time.Now())
		if err := <-result; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("moved deadline: got %v, want a timeout", err)
		}
		l.SetReadDeadline(time.Time{})
		go func() {
			_, _, err := l.ReadFrom(p)
			result <- err
		}()
		time.Sleep(2 * time.Hour)
		select {
		case err := <-result:
			t.Errorf("cleared deadline: got %v, want to wait", err)
		default:
		}
		l.Close()
		if err := <-result; !errors.Is(err, net.ErrClosed) {
			t.Errorf("close: got %v, want net.ErrClosed", err)
		}
		if _, err := l.WriteTo(p, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 1}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after close: got %v, want net.ErrClosed", err)
		}
		q := b.QUIC()
		q.SetDeadline(time.Now().Add(-time.Second))
		if _, err := q.WriteTo(p, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 1}); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write after deadline: got %v, want a timeout", err)
		}
	})
}

// Lanes outlive the sockets: while they are closed, writing is like losing, and afterwards all is as before, on a new
// port that everyone is told.
func TestLanesSurviveReopen(t *testing.T) {
	network := bindtest.NewNetwork()
	a := New(Options{Inner: network.Host(netip.MustParseAddr("192.0.2.1")), Logger: quiet})
	b := New(Options{Inner: network.Host(netip.MustParseAddr("192.0.2.2")), Logger: quiet})
	pump(t, a, nil)
	port := pump(t, b, nil).Port()
	if got := <-b.PortChanges(); got != port || b.Port() != port {
		t.Errorf("got port %d and change to %d, want %d", b.Port(), got, port)
	}
	request := realSTUN(t)["empty request"]
	send := func() {
		t.Helper()
		to := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: int(b.Port())}
		if n, err := a.STUN().WriteTo(request, to); err != nil || n != len(request) {
			t.Errorf("write: got %d, %v", n, err)
		}
	}
	send()
	if _, from := read(t, b.STUN()); from.Addr() != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("got source %v, want 192.0.2.1", from)
	}
	a.Close()
	send()
	if got := a.Counters()[DropSendFailed]; got != 1 {
		t.Errorf("closed: got %d sends failed, want 1", got)
	}
	b.Close()
	pump(t, a, nil)
	if next := pump(t, b, nil).Port(); next == port || <-b.PortChanges() != next {
		t.Errorf("got port %d again, or no news of it", next)
	}
	send()
	read(t, b.STUN())
	if got := b.STUN().LocalAddr().(*net.UDPAddr).Port; got != int(b.Port()) {
		t.Errorf("got local port %d, want %d", got, b.Port())
	}
}

func TestLaneWriteErrors(t *testing.T) {
	b, s, _ := scripted(t)
	to := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 1}
	tests := []struct {
		refuse error
		want   error
		failed uint64
	}{
		{nil, nil, 0},
		{syscall.ENETUNREACH, nil, 1},
		{&net.OpError{Err: os.NewSyscallError("sendmmsg", syscall.EMSGSIZE)}, syscall.EMSGSIZE, 1},
		{fmt.Errorf("closed: %w", net.ErrClosed), nil, 2},
	}
	for _, test := range tests {
		s.refuse = test.refuse
		if _, err := b.QUIC().WriteTo([]byte("x"), to); !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%v: got %v, want %v", test.refuse, err, test.want)
		}
		if got := b.Counters()[DropSendFailed]; got != test.failed {
			t.Errorf("%v: got %d counted, want %d", test.refuse, got, test.failed)
		}
	}
	s.taken()
	s.refuse = nil
	mapped := &net.UDPAddr{IP: net.ParseIP("::ffff:192.0.2.9"), Port: 5}
	b.STUN().WriteTo([]byte("x"), mapped)
	if out := s.taken(); len(out) != 1 || out[0].addr != addr("192.0.2.9:5") {
		t.Errorf("mapped address: got %v, want 192.0.2.9:5", out)
	}
}
