package dns64

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"warren/nat/nat64"
)

// dns answers what it was last told.
type dns struct {
	asked  atomic.Int32
	answer atomic.Pointer[[]netip.Addr] // nil: no answer at all
}

func (d *dns) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	d.asked.Add(1)
	if network != "ip6" || host != nat64.Name {
		return nil, errors.New("another question: " + network + " " + host)
	}
	switch answer := d.answer.Load(); {
	case answer == nil:
		<-ctx.Done()
		return nil, ctx.Err()
	case len(*answer) == 0:
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	default:
		return *answer, nil
	}
}

// nobody advertises anything.
func nobody(context.Context, func(int, []byte)) error { return nil }

func (d *dns) says(addrs ...string) {
	list := []netip.Addr{}
	for _, a := range addrs {
		list = append(list, netip.MustParseAddr(a))
	}
	d.answer.Store(&list)
}

func TestFollowsTheNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		d, way, four := new(dns), new(nat64.Way), new(atomic.Bool)
		f := New(Options{Way: way, DNS: d})
		f.has4 = four.Load
		four.Store(true)
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		is := func(when, want string) {
			t.Helper()
			synctest.Wait()
			got := ""
			if p := way.Prefix(); p.IsValid() {
				got = p.String()
			}
			if got != want {
				t.Errorf("%s: got prefix %q, want %q", when, got, want)
			}
		}
		told := func(when string, want bool) {
			t.Helper()
			select {
			case <-f.Events():
				if !want {
					t.Errorf("%s: got an event, want none", when)
				}
			default:
				if want {
					t.Errorf("%s: got no event", when)
				}
			}
		}
		is("IPv4 of its own", "")
		if d.asked.Load() != 0 {
			t.Error("IPv4 of its own: got DNS asked")
		}

		four.Store(false)
		f.Changed()
		time.Sleep(timeout + firstRetry - 1)
		is("no IPv4, and a resolver that is silent", "")
		d.says("64:ff9b::c000:aa", "64:ff9b::c000:ab")
		time.Sleep(time.Second)
		is("it answers", "64:ff9b::/96")
		told("it answers", true)

		d.answer.Store(nil)
		time.Sleep(2 * lookEvery)
		is("silent again", "64:ff9b::/96")
		told("silent again", false)

		d.says()
		time.Sleep(3 * lookEvery)
		is("a network without", "")
		told("a network without", true)
		d.says("2001:db8::1")
		f.Changed()
		is("a resolver that lies", "")
		d.says("2001:db8:64::c000:aa")
		f.Changed()
		is("another prefix", "2001:db8:64::/96")
		told("another prefix", true)

		four.Store(true)
		f.Changed()
		is("IPv4 is back, or a translator has come up", "")
		told("IPv4 is back", true)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: got %v", err)
		}
	})
}

// packets has no route to IPv4.
type packets struct {
	net.PacketConn
	to   []netip.AddrPort
	from netip.AddrPort
}

func (p *packets) WriteTo(b []byte, to net.Addr) (int, error) {
	at := to.(*net.UDPAddr).AddrPort()
	if at.Addr().Is4() && at.Addr() != netip.MustParseAddr("192.168.1.5") {
		return 0, &net.OpError{Op: "write", Err: syscall.ENETUNREACH}
	}
	p.to = append(p.to, at)
	return len(b), nil
}

func (p *packets) ReadFrom([]byte) (int, net.Addr, error) {
	return 1, net.UDPAddrFromAddrPort(p.from), nil
}

func TestPackets(t *testing.T) {
	way := new(nat64.Way)
	own, _ := nat64.NewPrefix(netip.MustParsePrefix("2001:db8:64::/96"))
	inner := new(packets)
	c := Packets{inner, way}
	send := func(to string) error {
		_, err := c.WriteTo([]byte{1}, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
		return err
	}
	if send("198.51.100.7:1") == nil {
		t.Error("no way: got no error")
	}
	way.Set(own)
	for _, to := range []string{"198.51.100.7:1", "10.1.2.3:2", "192.168.1.5:3", "[2001:db8::7]:4"} {
		if err := send(to); err != nil {
			t.Errorf("to %s: got %v", to, err)
		}
	}
	for i, want := range []string{"[2001:db8:64::c633:6407]:1", "[2001:db8:64::a01:203]:2", "192.168.1.5:3", "[2001:db8::7]:4"} {
		if got := inner.to[i]; got != netip.MustParseAddrPort(want) {
			t.Errorf("packet %d: got %s, want %s", i, got, want)
		}
	}
	for from, want := range map[string]string{"[2001:db8:64::c633:6407]:1": "198.51.100.7:1", "[2001:db8::7]:4": "[2001:db8::7]:4"} {
		inner.from = netip.MustParseAddrPort(from)
		if _, got, _ := c.ReadFrom(nil); got.String() != want {
			t.Errorf("from %s: got %s, want %s", from, got, want)
		}
	}
}

// pref64 is the option of an advertisement: 64:ff9b::/96 or another prefix of 96 bits, for so many seconds.
func pref64(seconds uint16, prefix string) []byte {
	addr := netip.MustParseAddr(prefix).As16()
	return append([]byte{38, 2, byte(seconds >> 8), byte(seconds &^ 7)}, addr[:12]...)
}

// What a router advertises goes before what the resolver says, for as long as it is good for, until the router takes it back, or until the
// network is another one. Once waits for it where the resolver knows nothing.
func TestAdvertised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		d, way := new(dns), new(nat64.Way)
		d.says()
		var each func(int, []byte)
		asked := 0
		f := New(Options{Way: way, DNS: d})
		f.has4 = func() bool { return false }
		f.adverts = func(_ context.Context, hand func(int, []byte)) error { each = hand; return nil }
		f.solicit = func() { asked++ }
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		is := func(when, want string) {
			t.Helper()
			synctest.Wait()
			got := ""
			if p := way.Prefix(); p.IsValid() {
				got = p.String()
			}
			if got != want {
				t.Errorf("%s: got %q, want %q", when, got, want)
			}
		}
		is("nobody knows", "")
		if asked != 1 {
			t.Errorf("routers were asked %d times, want once", asked)
		}
		each(2, []byte{25, 3, 0, 0, 0, 0, 0, 0}) // RDNSS, and cut short
		each(2, pref64(1800, "2001:db8:64::"))
		is("advertised", "2001:db8:64::/96")
		d.says("64:ff9b::c000:aa")
		time.Sleep(10 * time.Minute)
		is("the resolver says another one", "2001:db8:64::/96")
		time.Sleep(21 * time.Minute)
		is("after its life", "64:ff9b::/96")
		each(2, pref64(1800, "2001:db8:64::"))
		is("again", "2001:db8:64::/96")
		each(3, pref64(0, "2001:db8:64::"))
		is("another link takes it back", "2001:db8:64::/96")
		each(2, pref64(0, "2001:db8:64::"))
		is("taken back", "64:ff9b::/96")
		each(2, pref64(1800, "2001:db8:65::"))
		f.Changed()
		is("it came with the network", "2001:db8:65::/96")
		time.Sleep(time.Minute)
		f.Changed()
		is("another network", "64:ff9b::/96")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}

		way = new(nat64.Way)
		d.says()
		f = New(Options{Way: way, DNS: d})
		f.has4 = func() bool { return false }
		f.adverts = func(_ context.Context, hand func(int, []byte)) error {
			go func() { time.Sleep(500 * time.Millisecond); hand(2, pref64(1800, "2001:db8:66::")) }()
			return nil
		}
		f.solicit = func() {}
		f.Once(t.Context())
		is("once", "2001:db8:66::/96")
		f.adverts = nobody
		way.Set(nat64.Prefix{})
		f = New(Options{Way: way, DNS: d})
		f.has4, f.adverts, f.solicit = func() bool { return false }, nobody, func() {}
		begin := time.Now()
		f.Once(t.Context())
		if took := time.Since(begin); took > advertTime {
			t.Errorf("nobody knows: waited %v, want %v", took, advertTime)
		}
	})
}
