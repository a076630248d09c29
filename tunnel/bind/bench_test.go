package bind

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// course is one way of carrying batches over a loopback: a sending side and a count of what arrived.
type course struct {
	name    string
	send    func(bufs [][]byte) error
	arrived *atomic.Int64
	spent   time.Duration
	lost    int64
}

// round sends one batch and waits until it is there.
func (c *course) round(b *testing.B, bufs [][]byte) {
	start := time.Now()
	want := c.arrived.Load() + int64(len(bufs))
	if err := c.send(bufs); err != nil {
		b.Fatal(err)
	}
	for c.arrived.Load() < want {
		if time.Since(start) > 200*time.Millisecond { // the socket's buffer was too small
			c.lost += want - c.arrived.Load()
			c.arrived.Store(want)
		}
	}
	c.spent += time.Since(start)
}

// BenchmarkBind carries batches of full WireGuard packets over real sockets, in turns: through WireGuard's own bind,
// through this one directly, as ChannelData to another of these, as ChannelData that a third one forwards, by a stream
// over TCP without TLS, and as ChannelData that goes by a stream over TLS to a third one and by UDP from there. The metrics that
// matter are the ratios; each is of the same run, so that what else the machine does cancels out.
func BenchmarkBind(b *testing.B) {
	courses := []*course{
		plainCourse(b), wrappedCourse(b, "direct"), wrappedCourse(b, "relayed"), wrappedCourse(b, "forwarded"),
		wrappedCourse(b, "stream"), wrappedCourse(b, "stream-forwarded"),
	}
	bufs := make([][]byte, conn.IdealBatchSize)
	bytes := 0
	for i := range bufs {
		// As large as the device's, so that coalescing for GSO has the room it has there.
		bufs[i] = make([]byte, 1452, 1<<16-1)
		bufs[i][0] = 4
		bytes += len(bufs[i])
	}
	b.SetBytes(int64(bytes * len(courses)))
	b.ReportAllocs()
	for b.Loop() {
		for _, c := range courses {
			c.round(b, bufs)
		}
	}
	for _, c := range courses {
		b.ReportMetric(float64(c.spent.Microseconds())/float64(b.N), c.name+"-µs/batch")
		if c.lost > 0 {
			b.Logf("%s: %d packets lost", c.name, c.lost)
		}
		if c != courses[0] {
			b.ReportMetric(float64(c.spent)/float64(courses[0].spent), c.name+"/plain")
		}
	}
}

func plainCourse(b *testing.B) *course {
	from, to := conn.NewStdNetBind(), conn.NewStdNetBind()
	c := &course{name: "plain", arrived: new(atomic.Int64)}
	for _, bind := range []conn.Bind{from, to} {
		fns, port, err := bind.Open(0)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { bind.Close() })
		for _, fn := range fns {
			go drain(fn, c.arrived)
		}
		ep := &conn.StdNetEndpoint{AddrPort: loopback(port)}
		c.send = func(bufs [][]byte) error { return from.Send(bufs, ep) }
	}
	return c
}

// wrappedCourse is direct, by a stream, unwrapped from ChannelData by the receiver, or also forwarded by a third bind
// in between.
func wrappedCourse(b *testing.B, name string) *course {
	c := &course{name: name, arrived: new(atomic.Int64)}
	open := func() (*Bind, netip.AddrPort) {
		bind := New(Options{Logger: quiet})
		fns, port, err := bind.Open(0)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { bind.Close() })
		for _, fn := range fns {
			go drain(fn, c.arrived)
		}
		return bind, loopback(port)
	}
	from, fromAddr := open()
	to, toAddr := open()
	e, reverse := from.NewEndpoint([32]byte{1}), to.NewEndpoint([32]byte{2})
	e.SetPath(toAddr)
	reverse.SetPath(fromAddr)
	if name == "stream" {
		near, far := tcpPair(b)
		there, _, err := from.Streams().Attach(near, StreamOptions{})
		if err != nil {
			b.Fatal(err)
		}
		back, _, err := to.Streams().Attach(far, StreamOptions{})
		if err != nil {
			b.Fatal(err)
		}
		e.SetPath(there)
		reverse.SetPath(back)
		name = "direct"
	}
	if name == "direct" {
		c.send = func(bufs [][]byte) error { return from.Send(bufs, e) }
		return c
	}
	first, last := toAddr, fromAddr // where each end sees the other end of the channel
	if name != "relayed" {
		relay, relayAddr := open()
		first, last = relayAddr, relayAddr
		source := fromAddr
		if name == "stream-forwarded" {
			near, far := tlsPair(b)
			var err error
			if first, _, err = from.Streams().Attach(near, StreamOptions{}); err != nil {
				b.Fatal(err)
			}
			if source, _, err = relay.Streams().Attach(far, StreamOptions{}); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := relay.Forwards().Set(Half{source, 0x4001}, Half{toAddr, 0x4001}); err != nil {
			b.Fatal(err)
		}
	}
	there, err := from.Channels().Open(first, 0x4001)
	if err != nil {
		b.Fatal(err)
	}
	back, err := to.Channels().Open(last, 0x4001)
	if err != nil {
		b.Fatal(err)
	}
	e.SetPath(there)
	reverse.SetPath(back)
	c.send = func(bufs [][]byte) error { return from.Send(bufs, e) }
	return c
}

// tlsPair is tcpPair under TLS as streams have it.
func tlsPair(b *testing.B) (near, far net.Conn) {
	b.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		b.Fatal(err)
	}
	own := []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: private}}
	rawNear, rawFar := tcpPair(b)
	client := tls.Client(rawNear, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, DynamicRecordSizingDisabled: true})
	server := tls.Server(rawFar, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: own, DynamicRecordSizingDisabled: true})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := errors.Join(client.Handshake(), <-done); err != nil {
		b.Fatal(err)
	}
	return client, server
}

// drain counts what a receive function yields until its socket closes.
func drain(fn conn.ReceiveFunc, arrived *atomic.Int64) {
	bufs, sizes, eps := buffers()
	for {
		n, err := fn(bufs, sizes, eps)
		if err != nil {
			return
		}
		for _, size := range sizes[:n] {
			if size > 0 {
				arrived.Add(1)
			}
		}
	}
}

// BenchmarkClassify is the cost of telling a WireGuard packet.
func BenchmarkClassify(b *testing.B) {
	p := make([]byte, 1452)
	p[0] = 4
	for b.Loop() {
		if Classify(p) != WireGuard {
			b.Fatal("not WireGuard")
		}
	}
}
