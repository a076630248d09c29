package node

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"warren/nat/natprobe"
	"warren/nat/reach"
)

func TestDialBackAskIsReadBack(t *testing.T) {
	for _, addr := range []string{"203.0.113.1:9277", "[2001:db8::1]:1"} {
		ask := reach.Ask{Addr: netip.MustParseAddrPort(addr), ID: [12]byte{1, 2, 3}}
		id, got, err := decodeDialBack(encodeDialBack(ask))
		if err != nil || id != ask.ID || got != ask.Addr {
			t.Errorf("got %v %v %v, want %v", id, got, err, ask)
		}
	}
	for _, addr := range []string{"127.0.0.1:9277", "224.0.0.1:9277", "0.0.0.0:9277", "[::ffff:203.0.113.1]:9277", "[ff02::1]:9277", "203.0.113.1:0", "[fe80::1]:1"} {
		if _, _, err := decodeDialBack(encodeDialBack(reach.Ask{Addr: netip.MustParseAddrPort(addr)})); !errors.Is(err, errDialBack) {
			t.Errorf("%s: got %v, want %v", addr, err, errDialBack)
		}
	}
}

func FuzzDecodeDialBack(f *testing.F) {
	f.Add(encodeDialBack(reach.Ask{Addr: netip.MustParseAddrPort("203.0.113.1:9277")}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if id, addr, err := decodeDialBack(raw); err == nil && string(encodeDialBack(reach.Ask{ID: id, Addr: addr})) != string(raw) {
			t.Fatalf("%x read as %v %v is written otherwise", raw, id, addr)
		}
	})
}

func TestDialBackComesFromAnotherSocketWithTheTransaction(t *testing.T) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	id := [12]byte{9, 8, 7}
	done := make(chan struct{})
	go func() { defer close(done); sendDialBack(id, c.LocalAddr().(*net.UDPAddr).AddrPort()) }()
	sources := make(map[string]int)
	buf := make([]byte, 100)
	for range dialBackTimes {
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		if n != 20 || [12]byte(buf[8:20]) != id || buf[0] != 0 || buf[1] != 1 {
			t.Fatalf("got %x, want a Binding request with transaction %x", buf[:n], id)
		}
		sources[from.String()]++
	}
	if len(sources) != 1 {
		t.Errorf("got sources %v, want one socket", sources)
	}
	<-done
}

func TestDialBacksAreBounded(t *testing.T) {
	d := newDialBack()
	now := time.Now()
	sent := 0
	for range 100 {
		if d.maySend(now) {
			sent++
		}
	}
	if sent != dialBacksPerSecond {
		t.Errorf("sends %d a second for others, want %d", sent, dialBacksPerSecond)
	}
}

func TestWhoCannotSendSaysSo(t *testing.T) {
	id := [12]byte{1, 2, 3}
	if got, err := decodeUnable(encodeUnable(id)); err != nil || got != id {
		t.Errorf("got %v %v, want %v", got, err, id)
	}
	for _, raw := range [][]byte{nil, {unableVersion}, append(encodeUnable(id), 0), encodeTold(natprobe.Told{ID: id})} {
		if _, err := decodeUnable(raw); !errors.Is(err, errDialBack) {
			t.Errorf("%x: got %v, want %v", raw, err, errDialBack)
		}
	}
	// Without a zone nobody can send to a link-local address.
	if err := sendDialBack(id, netip.MustParseAddrPort("[fe80::1]:9")); err == nil {
		t.Error("got no error for an address that this host cannot send to, want one")
	}
}

func FuzzDecodeUnable(f *testing.F) {
	f.Add(encodeUnable([12]byte{1}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if id, err := decodeUnable(raw); err == nil && string(encodeUnable(id)) != string(raw) {
			t.Fatalf("%x read as %v is written otherwise", raw, id)
		}
	})
}
