package bind

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

// message returns a WireGuard message of a type; only type and length are right.
func message(kind byte) []byte {
	size := map[byte]int{1: 148, 2: 92, 3: 64, 4: 80}[kind]
	p := make([]byte, size)
	p[0] = kind
	return p
}

func transmit(t *testing.T, b *Bind, ep conn.Endpoint, packets ...[]byte) {
	t.Helper()
	if err := b.Send(packets, ep); err != nil {
		t.Fatalf("send: %v", err)
	}
}

func destinations(out []sent) (to []string) {
	for _, s := range out {
		to = append(to, s.addr.String())
	}
	return to
}

func TestHandle(t *testing.T) {
	b, _, _ := scripted(t)
	e := b.NewEndpoint([32]byte{1})
	if !IsVirtual(e.Handle().Addr()) || e.DstToString() != e.Handle().String() {
		t.Errorf("got %v and %v, want the handle twice", e.Handle(), e.DstToString())
	}
	if got, err := b.ParseEndpoint(e.Handle().String()); err != nil || got != conn.Endpoint(e) {
		t.Errorf("parse handle: got %v, %v, want the very object", got, err)
	}
	e.SetPath(addr("[::ffff:192.0.2.1]:9277"))
	if got := e.DstToString(); got != "192.0.2.1:9277" {
		t.Errorf("got %v, want 192.0.2.1:9277", got)
	}
	plain, err := b.ParseEndpoint("[fe80::1%eth0]:5")
	if err != nil || plain.DstToString() != "[fe80::1]:5" {
		t.Errorf("parse plain: got %v, %v, want no zone", plain, err)
	}
	b.RemoveEndpoint(e)
	if _, err := b.ParseEndpoint(e.Handle().String()); !errors.Is(err, ErrUnknownHandle) {
		t.Errorf("removed: got %v, want ErrUnknownHandle", err)
	}
	if _, err := b.ParseEndpoint("nonsense"); err == nil {
		t.Error("nonsense: got no error")
	}
	if next := b.NewEndpoint([32]byte{1}); next == e || next.Handle() == e.Handle() {
		t.Error("got the removed object or its handle again")
	}
	e.SetPath(addr("192.0.2.7:1"))
	if e.Path().IsValid() {
		t.Error("a removed endpoint took a path")
	}
}

func TestInitiationIsHeldForThePath(t *testing.T) {
	b, s, _ := scripted(t)
	e := b.NewEndpoint([32]byte{1})
	e.SetControlling(true)
	older, newest := message(1), message(1)
	newest[10] = 1
	transmit(t, b, e, older)
	transmit(t, b, e, newest)
	transmit(t, b, e, message(4), message(4))
	if out := s.taken(); len(out) != 0 {
		t.Fatalf("no path: got %v sent", destinations(out))
	}
	if got := b.Counters()[DropNoPath]; got != 2 {
		t.Errorf("got %d dropped for want of a path, want 2", got)
	}
	e.SetPath(addr("192.0.2.1:9277"))
	out := s.taken()
	if len(out) != 1 || !slices.Equal(out[0].p, newest) {
		t.Fatalf("path came: got %d packets, want the newest initiation", len(out))
	}
	e.SetPath(netip.AddrPort{})
	e.SetPath(addr("192.0.2.1:9277"))
	if out := s.taken(); len(out) != 0 {
		t.Errorf("second path: got %d packets, want the initiation only once", len(out))
	}
}

func TestInitiationIsLeftToThePeer(t *testing.T) {
	b, s, _ := scripted(t)
	e := b.NewEndpoint([32]byte{1})
	transmit(t, b, e, message(1))
	e.SetControlling(true)
	transmit(t, b, e, message(1))
	e.SetControlling(false)
	e.SetPath(addr("192.0.2.1:9277"))
	if out := s.taken(); len(out) != 0 {
		t.Errorf("got %v sent, want none", destinations(out))
	}
	if got := b.Counters()[DropNotOurTurn]; got != 1 {
		t.Errorf("got %d counted, want 1", got)
	}
	transmit(t, b, e, message(1)) // with a path, either side may rekey
	if out := s.taken(); len(out) != 1 {
		t.Errorf("with path: got %d sent, want 1", len(out))
	}
}

// The peer may know of the path first: its initiation comes from a proved source before our side is told.
func TestAnswerWithoutPathGoesWhereThePeerSpoke(t *testing.T) {
	b, s, feed := scripted(t)
	e := b.NewEndpoint([32]byte{1})
	e.SetSources([]netip.AddrPort{addr("192.0.2.1:1"), addr("192.0.2.2:2"), {}})
	feed(sent{addr("192.0.2.2:2"), message(1)})
	transmit(t, b, e, message(2))
	if got := destinations(s.taken()); !slices.Equal(got, []string{"192.0.2.2:2"}) {
		t.Errorf("got %v, want 192.0.2.2:2", got)
	}
	e.SetPath(addr("192.0.2.1:1"))
	e.SetPath(netip.AddrPort{})
	transmit(t, b, e, message(4))
	if got := s.taken(); len(got) != 0 {
		t.Errorf("path taken away: got %v, want none", destinations(got))
	}
}

func TestCrossedInitiation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, feed := scripted(t)
		defer b.Close()
		path := addr("192.0.2.1:1")
		e := b.NewEndpoint([32]byte{1})
		e.SetPath(path)
		tests := []struct {
			name        string
			controlling bool
			send        byte
			wait        time.Duration
			receive     byte
			want        int
		}{
			{"nothing under way", true, 4, 0, 1, 1},
			{"crossed", true, 1, time.Millisecond, 1, 0},
			{"an answer ends it", true, 1, time.Millisecond, 2, 1},
			{"after the answer", true, 4, 0, 1, 1},
			{"ours was lost", true, 1, crossing, 1, 1},
			{"the other side gives way", false, 1, time.Millisecond, 1, 1},
			{"data", true, 1, time.Millisecond, 4, 1},
		}
		for _, test := range tests {
			e.SetControlling(test.controlling)
			transmit(t, b, e, message(test.send))
			time.Sleep(test.wait)
			if got := feed(sent{path, message(test.receive)}); len(got) != test.want {
				t.Errorf("%s: got %d packets, want %d", test.name, len(got), test.want)
			}
		}
		if got := b.Counters()[DropCrossed]; got != 1 {
			t.Errorf("got %d counted, want 1", got)
		}
	})
}

func TestSourceToEndpoint(t *testing.T) {
	b, _, feed := scripted(t)
	e := b.NewEndpoint([32]byte{1})
	direct, late, other := addr("192.0.2.1:1"), addr("192.0.2.1:2"), addr("198.51.100.1:3")
	owner := func(from netip.AddrPort) conn.Endpoint {
		t.Helper()
		got := feed(sent{from, message(4)})
		if len(got) != 1 {
			t.Fatalf("got %d packets, want 1", len(got))
		}
		return got[0].ep
	}
	is := func(what string, from netip.AddrPort, want *Endpoint) {
		t.Helper()
		got := owner(from)
		if want == nil {
			if std, ok := got.(*conn.StdNetEndpoint); !ok || std.AddrPort != normal(from) {
				t.Errorf("%s: got %v, want a plain endpoint", what, got.DstToString())
			}
		} else if got != conn.Endpoint(want) {
			t.Errorf("%s: got %v, want the peer's object", what, got.DstToString())
		}
	}
	is("stranger", direct, nil)
	e.SetPath(late)
	e.SetPath(direct)
	is("path", direct, e)
	is("path as mapped address", addr("[::ffff:192.0.2.1]:1"), e)
	is("late packet by the path before", late, e)
	is("stranger", other, nil)
	e.SetSources([]netip.AddrPort{other})
	is("source", other, e)

	// Two peers claim one address: the one who is spoken to there has it, whoever came first; then the other gets it back.
	e2 := b.NewEndpoint([32]byte{2})
	e2.SetSources([]netip.AddrPort{direct, other})
	is("path against source", direct, e)
	is("source against source", other, e2)
	e2.SetPath(direct)
	is("path against path", direct, e2)
	e2.SetPath(netip.AddrPort{})
	is("path against past", direct, e)
	b.SetStatic([]netip.AddrPort{direct})
	is("static", direct, nil)
	b.SetStatic(nil)
	is("no longer static", direct, e)
	b.RemoveEndpoint(e)
	is("owner removed", direct, e2)
	b.RemoveEndpoint(e2)
	is("all removed", direct, nil)
	if n := len(b.sources.claims) + len(b.sources.held); n != 0 {
		t.Errorf("got %d claims left behind, want none", n)
	}
}

// Two nodes that name one key have nothing in common: neither moves the other's path, nor ends it.
func TestEndpointsOfOneKeyAreApart(t *testing.T) {
	first, second, third := addr("192.0.2.1:9277"), addr("203.0.113.66:6666"), addr("192.0.2.1:9278")
	for _, firstGoes := range []bool{false, true} {
		b, _, _ := scripted(t)
		one, two := b.NewEndpoint([32]byte{1}), b.NewEndpoint([32]byte{1})
		if one == two || one.Handle() == two.Handle() {
			t.Fatal("got the same object or handle twice")
		}
		one.SetPath(first)
		two.SetPath(second)
		two.SetSources([]netip.AddrPort{third})
		if one.Path() != first || two.Path() != second {
			t.Errorf("got paths %v and %v, want %v and %v", one.Path(), two.Path(), first, second)
		}
		stays, goes := one, two
		if firstGoes {
			stays, goes = two, one
		}
		before := stays.Path()
		b.RemoveEndpoint(goes)
		b.RemoveEndpoint(goes) // twice is once
		if stays.Path() != before || goes.Path().IsValid() {
			t.Errorf("one is removed: got paths %v and %v, want %v and none", stays.Path(), goes.Path(), before)
		}
		stays.SetPath(third)
		if e, _ := b.sources.lookup(third); stays.Path() != third || e != stays {
			t.Errorf("moved afterwards: got path %v, want %v", stays.Path(), third)
		}
		if got, err := b.ParseEndpoint(stays.Handle().String()); err != nil || got != conn.Endpoint(stays) {
			t.Errorf("got %v, %v by the handle, want the one that stays", got, err)
		}
	}
}

// A handshake with a static peer is told of, by where it goes; that of a member, and what is none, is not.
func TestCalls(t *testing.T) {
	b, _, _ := scripted(t)
	phone, e := addr("192.0.2.7:51820"), b.NewEndpoint([32]byte{1})
	b.SetStatic([]netip.AddrPort{phone})
	e.SetPath(addr("192.0.2.1:1"))
	transmit(t, b, e, message(1))
	for _, batch := range [][][]byte{{message(4)}, {message(2)}, {message(1), message(4)}} {
		_ = b.Send(batch, &conn.StdNetEndpoint{AddrPort: phone})
	}
	if got := len(b.Calls()); got != 0 {
		t.Errorf("got %d calls, want none", got)
	}
	for range 2 * callBuffer { // what nobody takes is lost, and nothing waits for it
		_ = b.Send([][]byte{message(1)}, &conn.StdNetEndpoint{AddrPort: phone})
	}
	if got := <-b.Calls(); got != phone || len(b.Calls()) != callBuffer-1 {
		t.Errorf("got a call at %v, and %d more, want it at %v, and %d", got, len(b.Calls()), phone, callBuffer-1)
	}
}

// busyPort is sockets whose port another process has for a while.
type busyPort struct {
	*script
	tries int
}

func (s *busyPort) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	if s.tries--; s.tries >= 0 {
		return nil, 0, syscall.EADDRINUSE
	}
	return s.script.Open(port)
}

// The first opening waits a little for a port that is taken, most likely by the process before this one; a change of port does not.
func TestTakenPort(t *testing.T) {
	for _, tt := range []struct {
		tries int
		open  bool
		took  time.Duration
	}{{0, true, 0}, {3, true, 700 * time.Millisecond}, {100, false, 3 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			s := &busyPort{new(script), tt.tries}
			b := New(Options{Inner: s, Logger: quiet})
			began := time.Now()
			_, _, err := b.Open(9277)
			if took := time.Since(began); (err == nil) != tt.open || took != tt.took {
				t.Errorf("taken %d times: got %v after %v, want open %t after %v", tt.tries, err, took, tt.open, tt.took)
			}
			if err != nil {
				return
			}
			b.Close()
			s.tries, began = 1, time.Now()
			defer b.Close()
			if _, _, err := b.Open(9278); !errors.Is(err, syscall.EADDRINUSE) || time.Since(began) != 0 {
				t.Errorf("a change of port: got %v after %v, want it refused at once", err, time.Since(began))
			}
		})
	}
}

// What the device has authenticated from another stream, or from anywhere else, has it roam once and not again.
func TestRememberedSource(t *testing.T) {
	b, _, feed := scripted(t)
	e, other := b.NewEndpoint([32]byte{1}), b.NewEndpoint([32]byte{2})
	e.SetPath(addr("[100::300:0:0:1]:9"))
	for _, from := range []netip.AddrPort{addr("[100::300:0:0:2]:9"), addr("[100::200:0:0:1]:9"), addr("192.0.2.1:1")} {
		if got := feed(sent{from, message(4)}); len(got) != 1 || got[0].ep == conn.Endpoint(e) {
			t.Errorf("from %v: got %v, want the plain endpoint of a source that is not known", from, got)
		}
		e.Remember(from)
		if got := feed(sent{from, message(4)}); len(got) != 1 || got[0].ep != conn.Endpoint(e) {
			t.Errorf("from %v, remembered: got %v, want the peer's endpoint", from, got)
		}
	}
	if e.Path() != addr("[100::300:0:0:1]:9") {
		t.Errorf("got path %v, want the one that was set", e.Path())
	}
	other.SetPath(addr("192.0.2.1:1")) // a path counts for more than what was
	if got := feed(sent{addr("192.0.2.1:1"), message(4)}); got[0].ep != conn.Endpoint(other) {
		t.Errorf("got %v, want the endpoint of the peer whose path it is", got)
	}
	for port := range uint16(100) {
		e.Remember(netip.AddrPortFrom(netip.MustParseAddr("192.0.2.9"), port+1))
	}
	if got := len(b.sources.claims); got > maxPast+2 {
		t.Errorf("got %d addresses, want at most %d", got, maxPast+2)
	}
	b.RemoveEndpoint(e)
	e.Remember(addr("192.0.2.8:1"))
	if _, known := b.sources.lookup(addr("192.0.2.8:1")); known {
		t.Error("a removed endpoint remembers")
	}
}

func TestPastPathsAreFew(t *testing.T) {
	b, _, _ := scripted(t)
	e := b.NewEndpoint([32]byte{1})
	for port := range uint16(100) {
		e.SetPath(netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port+1))
	}
	if got := len(b.sources.claims); got != maxPast+1 {
		t.Errorf("got %d addresses, want %d", got, maxPast+1)
	}
	if _, known := b.sources.lookup(addr("192.0.2.1:97")); !known {
		t.Error("the latest past path is forgotten")
	}
}

func TestActivity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s, feed := scripted(t)
		e := b.NewEndpoint([32]byte{1})
		path, elsewhere := addr("192.0.2.1:1"), addr("192.0.2.1:2")
		e.SetPath(path)
		e.SetSources([]netip.AddrPort{elsewhere})
		t0 := time.Now()
		transmit(t, b, e, message(4), message(4))
		time.Sleep(time.Second)
		feed(sent{path, message(4)}, sent{elsewhere, message(4)}, sent{path, message(3)})
		t1 := time.Now()
		time.Sleep(time.Second)
		feed(sent{elsewhere, message(4)})
		got := e.Activity()
		want := Activity{TxPackets: 2, TxBytes: 160, RxPackets: 4, RxBytes: 304, LastTx: got.LastTx, LastRx: got.LastRx}
		if got != want || !got.LastTx.Equal(t0) || !got.LastRx.Equal(t1) {
			t.Errorf("got %+v, want %+v with times %v and %v", got, want, t0, t1)
		}
		s.refuse = syscall.ENETUNREACH
		transmit(t, b, e, message(4))
		if got := b.Counters()[DropSendFailed]; got != 1 {
			t.Errorf("got %d sends failed, want 1", got)
		}
		s.refuse = conn.ErrUDPGSODisabled{}
		var gso conn.ErrUDPGSODisabled
		if err := b.Send([][]byte{message(4)}, e); !errors.As(err, &gso) {
			t.Errorf("got %v, want ErrUDPGSODisabled passed on", err)
		}
		b.Close() // its goroutine belongs to this bubble
	})
}

func TestStirs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, _ := scripted(t)
		defer b.Close()
		e := b.NewEndpoint([32]byte{1})
		want := func(when string, want int) {
			t.Helper()
			got := 0
			for len(b.Stirs()) > 0 {
				if handle := <-b.Stirs(); handle != e.Handle() {
					t.Errorf("%s: got %v, want the handle %v", when, handle, e.Handle())
				}
				got++
			}
			if got != want {
				t.Errorf("%s: got %d notes, want %d", when, got, want)
			}
		}
		transmit(t, b, e, message(4))
		want("without a path", 0)
		e.SetPath(addr("192.0.2.1:1"))
		for range 100 {
			transmit(t, b, e, message(4))
			time.Sleep(stirAfter / 2)
		}
		want("a flow", 1)
		time.Sleep(stirAfter)
		transmit(t, b, e, message(4))
		want("after a pause", 1)
		time.Sleep(stirAfter)
		for range stirBuffer + 1 {
			transmit(t, b, e, message(4))
			time.Sleep(stirAfter)
		}
		want("nobody listens", stirBuffer)
	})
}

func TestStrays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, feed := scripted(t)
		defer b.Close()
		stray, static := addr("192.0.2.1:1"), addr("192.0.2.2:2")
		b.SetStatic([]netip.AddrPort{static})
		none := func(when string) {
			t.Helper()
			select {
			case a := <-b.Strays():
				t.Errorf("%s: got stray %v, want none", when, a)
			default:
			}
		}
		got := feed(sent{stray, message(1)}, sent{static, message(1)})
		none("received")
		transmit(t, b, got[0].ep, message(3))
		none("cookie reply to somebody unproved")
		transmit(t, b, got[1].ep, message(4))
		none("static peer")
		for range 100 {
			transmit(t, b, got[0].ep, message(4))
		}
		if a := <-b.Strays(); a != stray {
			t.Errorf("got %v, want %v", a, stray)
		}
		none("again at once")
		time.Sleep(strayInterval)
		transmit(t, b, got[0].ep, message(4))
		if a := <-b.Strays(); a != stray {
			t.Errorf("still there: got %v, want %v", a, stray)
		}
		time.Sleep(strayInterval)
		b.NewEndpoint([32]byte{1}).SetPath(stray)
		transmit(t, b, got[0].ep, message(4))
		none("now a path")
		for port := range uint16(straysKnown + 100) {
			transmit(t, b, &conn.StdNetEndpoint{AddrPort: netip.AddrPortFrom(stray.Addr(), 1000+port)}, message(4))
		}
		if got := len(b.strays.noted); got > straysKnown {
			t.Errorf("got %d noted, want at most %d", got, straysKnown)
		}
	})
}

// Two peers behind one NAT trade mappings: the device takes the first one's object for the second. The second one's
// handshake finds its own path all the same, and the mix-up is told.
func TestHandshakeFindsItsPeer(t *testing.T) {
	initiation := realWireGuard(t)["initiation"]
	b, s, _ := scripted(t)
	wrong := b.NewEndpoint([32]byte{1})
	wrong.SetPath(addr("192.0.2.1:1"))
	for _, key := range [][32]byte{{2}, {3}} {
		b.NewEndpoint(key).SetPath(addr("192.0.2.1:2"))
	}
	transmit(t, b, wrong, initiation)
	if got := destinations(s.taken()); !slices.Equal(got, []string{"192.0.2.1:1"}) {
		t.Errorf("nobody's: got %v, want it sent all the same", got)
	}
	right := b.NewEndpoint([32]byte{})
	right.SetPath(addr("192.0.2.1:9"))
	signed := signFor(right, initiation)
	transmit(t, b, wrong, signed)
	if got := destinations(s.taken()); !slices.Equal(got, []string{"192.0.2.1:9"}) {
		t.Errorf("got %v, want the addressee's path", got)
	}
	if a := <-b.Strays(); a != right.Handle() {
		t.Errorf("got stray %v, want the handle %v", a, right.Handle())
	}
}

// signFor returns the initiation with the MAC1 of another addressee.
func signFor(e *Endpoint, initiation []byte) []byte {
	p := slices.Clone(initiation)
	var g device.CookieGenerator
	g.Init(device.NoisePublicKey{})
	g.AddMacs(p)
	if !e.checker.CheckMAC1(p) {
		panic("internal error: MAC1 does not fit")
	}
	return p
}

func TestOpenWithoutIPv6(t *testing.T) {
	s := &script{noPort: true}
	b := New(Options{Inner: s, Logger: quiet})
	defer b.Close()
	if _, port, err := b.Open(0); err != nil || port == 0 || port != s.port {
		t.Errorf("any port: got %d, %v, want the %d that is open", port, err, s.port)
	}
	b.Close()
	if _, port, err := b.Open(777); err != nil || port != 777 || b.Port() != 777 {
		t.Errorf("got %d, %v, want 777", port, err)
	}
}

// exacting are sockets that can be told of probes.
type exacting struct {
	script
	exact []bool
}

func (e *exacting) Exact(on bool) { e.exact = append(e.exact, on) }

func TestExactReachesTheSockets(t *testing.T) {
	New(Options{Inner: new(script), Logger: quiet}).Exact(true) // cannot be told
	inner := new(exacting)
	b := New(Options{Inner: inner, Logger: quiet})
	b.Exact(true)
	b.Exact(false)
	if want := []bool{true, false}; !slices.Equal(inner.exact, want) {
		t.Errorf("got %v, want %v", inner.exact, want)
	}
}
