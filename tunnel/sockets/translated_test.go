package sockets

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"warren/nat/nat64"
	"warren/tunnel/osnet/osnettest"
)

// A host without IPv4 sends to IPv4 by the prefix of a NAT64, and sees what comes from there as IPv4.
func TestTranslatedInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	// The far side of the NAT64 is this host too.
	osnettest.Own(t, "64:ff9b::c633:6407", "64:ff9b:1::a01:203", "fd00::7")
	way := new(nat64.Way)
	b := Translated{New(), way}
	functions, port, err := b.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	came := make(chan netip.AddrPort, 8)
	for _, receive := range functions {
		go func() { // ends with the socket
			bufs, sizes, eps := make([][]byte, b.BatchSize()), make([]int, b.BatchSize()), make([]conn.Endpoint, b.BatchSize())
			for i := range bufs {
				bufs[i] = make([]byte, 2048)
			}
			for {
				n, err := receive(bufs, sizes, eps)
				if err != nil {
					return
				}
				for i := range n {
					came <- eps[i].(*conn.StdNetEndpoint).AddrPort
				}
			}
		}()
	}
	send := func(to string) error {
		return b.Send([][]byte{{1}}, &conn.StdNetEndpoint{AddrPort: netip.MustParseAddrPort(to)})
	}
	if err := send("198.51.100.7:9"); !nat64.NoRoute(err) {
		t.Errorf("without a NAT64: got %v, want no route", err)
	}
	for _, test := range []struct{ prefix, at, to string }{
		{"64:ff9b::/96", "64:ff9b::c633:6407", "198.51.100.7"}, // of the Internet
		{"64:ff9b:1::/96", "64:ff9b:1::a01:203", "10.1.2.3"},   // of a network of its own
		{"64:ff9b::/96", "fd00::7", "fd00::7"},
	} {
		p, ok := nat64.NewPrefix(netip.MustParsePrefix(test.prefix))
		if !ok {
			t.Fatal(test.prefix)
		}
		way.Set(p)
		far, err := net.ListenPacket("udp", net.JoinHostPort(test.at, "0"))
		if err != nil {
			t.Fatal(err)
		}
		at := netip.AddrPortFrom(netip.MustParseAddr(test.to), uint16(far.LocalAddr().(*net.UDPAddr).Port))
		arrived, answered := false, false
		for range 50 { // a packet may be lost while the kernel is at work on the addresses
			if err := send(at.String()); err != nil {
				t.Fatalf("to %s: got %v", at, err)
			}
			far.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			if _, _, err := far.ReadFrom(make([]byte, 16)); err != nil {
				continue
			}
			arrived = true
			if _, err := far.WriteTo([]byte{1}, &net.UDPAddr{IP: net.ParseIP("fd00::7"), Port: int(port)}); err != nil {
				t.Fatal(err)
			}
			select {
			case from := <-came:
				if answered = true; from != at {
					t.Errorf("from %s: got source %s", at, from)
				}
			case <-time.After(100 * time.Millisecond):
				continue
			}
			break
		}
		if !arrived || !answered {
			t.Errorf("%s: arrived %v, answered %v, want both", at, arrived, answered)
		}
		far.Close()
		for len(came) > 0 { // what was late
			<-came
		}
	}
}
