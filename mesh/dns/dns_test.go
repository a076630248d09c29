package dns

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"warren/mesh/zone"
)

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// free is a port of 127.0.0.1 that nobody has.
func free(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

func at(port uint16) string {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String()
}

// run runs a server on a port of 127.0.0.1 that nobody had.
func run(t *testing.T, d Desired) (*Server, string) {
	t.Helper()
	s := New()
	s.port = free(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	s.Set(d)
	until(t, "the server listens", func() bool { return len(s.Snapshot().Addrs) == len(d.Addrs) })
	return s, at(s.port)
}

func question(name string) *dns.Msg {
	var q dns.Msg
	return q.SetQuestion(dns.Fqdn(name), dns.TypeA)
}

// TestServed asks by UDP and TCP, while what is served changes.
func TestServed(t *testing.T) {
	d := Desired{Zone: sample(), Addrs: addrs("127.0.0.1")}
	s, to := run(t, d)
	for _, network := range []string{"udp", "tcp"} {
		c := dns.Client{Net: network, Timeout: 10 * time.Second}
		reply, _, err := c.Exchange(question("nas.home.internal"), to)
		if err != nil || len(reply.Answer) != 1 || reply.Answer[0].(*dns.A).A.String() != "100.125.0.7" {
			t.Errorf("by %s: got %v, %v", network, reply, err)
		}
	}
	d.Zone = sample(zone.Host{Name: "new", Addrs: addrs("100.125.0.9")})
	s.Set(d)
	c := dns.Client{Timeout: 10 * time.Second}
	if reply, _, err := c.Exchange(question("new.home.internal"), to); err != nil || len(reply.Answer) != 1 {
		t.Errorf("a new name: got %v, %v", reply, err)
	}
	s.Set(Desired{Zone: d.Zone})
	until(t, "the sockets are closed", func() bool { return len(s.Snapshot().Addrs) == 0 })
	if l, err := net.Listen("tcp", to); err != nil {
		t.Errorf("the port is still taken: %v", err)
	} else {
		l.Close()
	}
}

// TestStrangers asks from an address that nobody has allowed.
func TestStrangers(t *testing.T) {
	d := Desired{Zone: sample(), Addrs: addrs("127.0.0.1")}
	s, to := run(t, d)
	c := dns.Client{Timeout: 300 * time.Millisecond, Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP("127.0.0.2")}}}
	if reply, _, err := c.Exchange(question("nas.home.internal"), to); err == nil {
		t.Errorf("a stranger got %v", reply)
	}
	if n := s.Dropped()["question of a stranger"]; n == 0 {
		t.Errorf("got %v, want it counted", s.Dropped())
	}
	d.From = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/31")}
	s.Set(d)
	c.Timeout = 10 * time.Second
	if reply, _, err := c.Exchange(question("nas.home.internal"), to); err != nil || len(reply.Answer) != 1 {
		t.Errorf("a member got %v, %v", reply, err)
	}
}

// TestFlood has one address ask far too much: another one is answered.
func TestFlood(t *testing.T) {
	d := Desired{Zone: sample(), Addrs: addrs("127.0.0.1"), From: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/24")}}
	s, to := run(t, d)
	flood, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP("127.0.0.9")}}).Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer flood.Close()
	raw, _ := question("nas.home.internal").Pack()
	until(t, "questions are over the limit", func() bool {
		for range 500 {
			flood.Write(raw)
		}
		return s.Dropped()["question over the limit"] > 1000
	})
	c := dns.Client{Timeout: 300 * time.Millisecond} // what the flood has left in the socket's queue may cost a question
	until(t, "another one is answered", func() bool {
		reply, _, err := c.Exchange(question("nas.home.internal"), to)
		return err == nil && len(reply.Answer) == 1
	})
}

// TestManyConnections asserts that connections that say nothing take no more than their number.
func TestManyConnections(t *testing.T) {
	s, to := run(t, Desired{Zone: sample(), Addrs: addrs("127.0.0.1")})
	for range 2 * tcpConns {
		c, err := net.Dial("tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	until(t, "what is too much is closed", func() bool { return s.Dropped()["question over the limit"] >= tcpConns })
	c := dns.Client{Timeout: 10 * time.Second}
	if reply, _, err := c.Exchange(question("nas.home.internal"), to); err != nil || len(reply.Answer) != 1 {
		t.Errorf("by UDP meanwhile: got %v, %v", reply, err)
	}
}

// TestPortTaken asserts that a port that another program has is told of, and taken when it is free.
func TestPortTaken(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New()
	s.port = other.Addr().(*net.TCPAddr).AddrPort().Port()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() { cancel(); <-done }()
	own := netip.MustParseAddr("127.0.0.1")
	s.Set(Desired{Zone: sample(), Addrs: []netip.Addr{own}})
	until(t, "it is told", func() bool { return strings.Contains(s.Snapshot().Trouble[own], "another program has port 53") })
	other.Close()
	until(t, "it listens", func() bool { return len(s.Snapshot().Addrs) == 1 })
}

// TestSources asserts that what one asks is bounded, that others do not suffer, and that not all who ever asked are remembered.
func TestSources(t *testing.T) {
	s, now, taken := newSources(), time.Now(), 0
	for range 3 * perSource {
		if s.allow(netip.MustParseAddr("100.125.0.1"), now) {
			taken++
		}
	}
	if taken != perSource/burstShare {
		t.Errorf("at once: got %d, want %d", taken, perSource/burstShare)
	}
	if !s.allow(netip.MustParseAddr("100.125.0.2"), now) || !s.allow(netip.MustParseAddr("100.125.0.1"), now.Add(time.Second)) {
		t.Error("another one, or the same one later, is refused")
	}
	for i := range 3 * maxSources {
		s.allow(netip.AddrFrom4([4]byte{100, 125, byte(i >> 8), byte(i)}), now)
	}
	if len(s.by) > maxSources {
		t.Errorf("%d sources are remembered, want %d at most", len(s.by), maxSources)
	}
}
