package bind

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"golang.zx2c4.com/wireguard/conn"
)

func TestChannelBothWays(t *testing.T) {
	b, s, feed := scripted(t)
	relay, moved := addr("192.0.2.1:9277"), addr("192.0.2.2:9277")
	virtual, err := b.Channels().Open(relay, 0x4001)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := b.Channels().Open(relay, 0x4001); err != nil || again != virtual {
		t.Errorf("open again: got %v, %v, want %v", again, err, virtual)
	}
	e := b.NewEndpoint([32]byte{1})
	e.SetPath(virtual)
	if e.DstToString() != virtual.String() || !IsVirtual(virtual.Addr()) {
		t.Errorf("got %v, want %v", e.DstToString(), virtual)
	}
	data, request := message(4), realSTUN(t)["ice check"]
	transmit(t, b, e, data, message(3))
	b.STUN().WriteTo(request, net.UDPAddrFromAddrPort(virtual))
	want := []sent{
		{relay, channelData(0x4001, data)}, {relay, channelData(0x4001, message(3))}, {relay, channelData(0x4001, request)},
	}
	if got := s.taken(); !slices.EqualFunc(got, want, equalSent) {
		t.Errorf("sent: got %v, want %v", got, want)
	}

	got := feed(
		sent{relay, channelData(0x4001, data)},
		sent{relay, append(channelData(0x4001, request), 0)},
		sent{relay, channelData(0x4002, data)}, // not open
		sent{moved, channelData(0x4001, data)}, // not the relay
		sent{relay, channelData(0x4001, channelData(0x4001, data))},
		sent{relay, channelData(0x4001, withAttribute(0x0020))},
		sent{relay, nil},
	)
	if len(got) != 1 || got[0].ep != conn.Endpoint(e) || !bytes.Equal(got[0].p, data) {
		t.Errorf("received: got %d packets, want the peer's data", len(got))
	}
	if p, from := read(t, b.STUN()); !bytes.Equal(p, request) || from != virtual {
		t.Errorf("STUN: got %d bytes from %v, want %d from %v", len(p), from, len(request), virtual)
	}
	c := b.Counters()
	if c[DropUnknownChannel] != 2 || c[DropNested] != 1 || c[DropMalformedSTUN] != 1 {
		t.Errorf("got counters %v", c)
	}

	if err := b.Channels().Move(virtual, moved); err != nil {
		t.Fatal(err)
	}
	transmit(t, b, e, data)
	if got := destinations(s.taken()); !slices.Equal(got, []string{moved.String()}) {
		t.Errorf("moved: got %v, want %v", got, moved)
	}
	if got := feed(sent{relay, channelData(0x4001, data)}, sent{moved, channelData(0x4001, data)}); len(got) != 1 {
		t.Errorf("moved: got %d packets, want 1", len(got))
	}
	b.Channels().Close(virtual)
	transmit(t, b, e, data)
	b.STUN().WriteTo(request, net.UDPAddrFromAddrPort(virtual))
	if got := s.taken(); len(got) != 0 {
		t.Errorf("closed: got %v", destinations(got))
	}
	if got := feed(sent{moved, channelData(0x4001, data)}); len(got) != 0 {
		t.Errorf("closed: got %d packets, want none", len(got))
	}
	if got := b.Counters()[DropUnknownChannel]; got != 6 {
		t.Errorf("got %d for unknown channels, want 6", got)
	}
	if next, _ := b.Channels().Open(moved, 0x4001); next == virtual {
		t.Error("got a used virtual address again")
	}
}

func equalSent(a, b sent) bool { return a.addr == b.addr && bytes.Equal(a.p, b.p) }

// A peer that nobody has a path for can speak through an open channel; the device then holds a plain virtual endpoint.
func TestChannelFromUnknownPeer(t *testing.T) {
	b, s, feed := scripted(t)
	relay := addr("192.0.2.1:9277")
	virtual, _ := b.Channels().Open(relay, 0x4000)
	got := feed(sent{relay, channelData(0x4000, message(1))})
	if len(got) != 1 || got[0].ep.DstToString() != virtual.String() {
		t.Fatalf("got %v, want one packet from %v", got, virtual)
	}
	transmit(t, b, got[0].ep, message(2))
	if out := s.taken(); len(out) != 1 || !equalSent(out[0], sent{relay, channelData(0x4000, message(2))}) {
		t.Errorf("got %v, want the answer through the relay", out)
	}
	if a := <-b.Strays(); a != virtual {
		t.Errorf("got stray %v, want %v", a, virtual)
	}
}

func TestChannelRefusals(t *testing.T) {
	b, _, _ := scripted(t)
	relay := addr("192.0.2.1:9277")
	half := func(a netip.AddrPort, n uint16) Half { return Half{a, n} }
	virtual, _ := b.Channels().Open(relay, 0x4000)
	for _, bad := range []Half{
		half(relay, 0x3FFF), half(relay, 0x5000), half(netip.AddrPort{}, 0x4000), half(virtual, 0x4000), half(addr("192.0.2.1:0"), 0x4000),
	} {
		if _, err := b.Channels().Open(bad.Addr, bad.Channel); err == nil {
			t.Errorf("open %v: got no error", bad)
		}
		if _, err := b.Forwards().Set(bad, half(relay, 0x4001)); err == nil {
			t.Errorf("forward from %v: got no error", bad)
		}
		if _, err := b.Forwards().Set(half(relay, 0x4001), bad); err == nil {
			t.Errorf("forward to %v: got no error", bad)
		}
	}
	if _, err := b.Forwards().Set(half(relay, 0x4000), half(relay, 0x4001)); !errors.Is(err, ErrChannelInUse) {
		t.Errorf("forward from own channel: got %v, want ErrChannelInUse", err)
	}
	if _, err := b.Forwards().Set(half(relay, 0x4002), half(relay, 0x4003)); err != nil {
		t.Error(err)
	}
	if _, err := b.Channels().Open(relay, 0x4002); !errors.Is(err, ErrChannelInUse) {
		t.Errorf("open what is forwarded: got %v, want ErrChannelInUse", err)
	}
	if err := b.Channels().Move(virtual, netip.AddrPort{}); err == nil {
		t.Error("move to nowhere: got no error")
	}
	if err := b.Channels().Move(addr("[100::9]:9"), relay); err == nil {
		t.Error("move unknown: got no error")
	}
	b.Forwards().Remove(half(relay, 0x4000)) // not a forward: nothing happens
	if b.channels.byVirtual(virtual) == nil || len(*b.routes.table.Load()) != 2 {
		t.Error("removing a forward that is none removed something")
	}
}

func TestForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s, feed := scripted(t)
		defer b.Close()
		left, right, third := Half{addr("192.0.2.1:1"), 0x4001}, Half{addr("[2001:db8::2]:2"), 0x4002}, Half{addr("192.0.2.3:3"), 0x4003}
		there, err := b.Forwards().Set(left, right)
		if err != nil {
			t.Fatal(err)
		}
		b.Forwards().Set(third, left)
		var calls []int
		s.onSends = func(bufs [][]byte) {
			calls = append(calls, len(bufs))
			for i := 1; i < len(bufs); i++ {
				if end := unsafe.Add(unsafe.Pointer(unsafe.SliceData(bufs[i-1])), len(bufs[i-1])); end != unsafe.Pointer(unsafe.SliceData(bufs[i])) {
					t.Error("the frames are not back to back: UDP GSO would copy or give up")
				}
			}
		}
		one, two := message(4), message(1)
		got := feed(
			sent{left.Addr, channelData(left.Channel, one)},
			sent{third.Addr, channelData(third.Channel, one)},
			sent{left.Addr, append(channelData(left.Channel, two), 0, 0)}, // padding is not passed on
			sent{right.Addr, channelData(right.Channel, one)},             // one direction only
			sent{left.Addr, channelData(right.Channel, one)},
		)
		synctest.Wait()
		want := []sent{
			{right.Addr, channelData(right.Channel, one)}, {right.Addr, channelData(right.Channel, two)},
			{left.Addr, channelData(left.Channel, one)},
		}
		if out := s.taken(); !slices.EqualFunc(out, want, equalSent) || !slices.Equal(calls, []int{2, 1}) {
			t.Errorf("got %v in batches of %v, want %v in 2 and 1", out, calls, want)
		}
		if len(got) != 0 || b.Counters()[DropUnknownChannel] != 2 {
			t.Errorf("got %d packets for the device and %v, want none and 2 unknown", len(got), b.Counters())
		}
		if got, want := there.Load(), (ForwardStats{Packets: 2, Bytes: 228, Last: time.Now()}); got.Packets != 2 || got.Bytes != 228 || !got.Last.Equal(want.Last) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		again, _ := b.Forwards().Set(left, third)
		if again != there {
			t.Error("moving a forward began to count anew")
		}
		b.Forwards().Remove(left)
		feed(sent{left.Addr, channelData(left.Channel, one)})
		synctest.Wait()
		if out := s.taken(); len(out) != 0 {
			t.Errorf("removed: got %v", destinations(out))
		}
	})
}

// When the uplink is full, the receive function goes on and what does not fit is dropped.
func TestForwardNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s, feed := scripted(t)
		defer b.Close()
		from := Half{addr("192.0.2.1:1"), 0x4001}
		counters, _ := b.Forwards().Set(from, Half{addr("192.0.2.2:2"), 0x4002})
		full := make(chan struct{})
		largest := 0
		s.onSends = func(bufs [][]byte) {
			largest = max(largest, len(bufs))
			<-full
		}
		p := channelData(from.Channel, message(4))
		feed(sent{from.Addr, p})
		synctest.Wait() // the first is under way and stays there
		const calls = 40
		const room = blockFrames * maxBlocks
		for range calls {
			var in []sent
			for range conn.IdealBatchSize {
				in = append(in, sent{from.Addr, p})
			}
			feed(in...)
		}
		close(full)
		synctest.Wait()
		got := counters.Load()
		if got.Packets > 1+room || got.Packets < room/2 || got.Packets+got.Dropped != 1+calls*conn.IdealBatchSize || b.Counters()[DropForwardQueue] != got.Dropped {
			t.Errorf("got %+v, want at most %d forwarded and the rest dropped and counted", got, 1+room)
		}
		if largest > conn.IdealBatchSize {
			t.Errorf("got %d packets sent at once, want at most %d", largest, conn.IdealBatchSize)
		}
	})
}

// Packets larger than an arena's share are sent in several goes, and nothing is lost or reordered.
func TestLargeFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s, feed := scripted(t)
		defer b.Close()
		from, to := Half{addr("192.0.2.1:1"), 0x4001}, Half{addr("192.0.2.2:2"), 0x4002}
		b.Forwards().Set(from, to)
		virtual, _ := b.Channels().Open(to.Addr, 0x4005)
		e := b.NewEndpoint([32]byte{1})
		e.SetPath(virtual)
		var in []sent
		var bufs [][]byte
		for i := range 9 {
			p := make([]byte, 60_000)
			p[0], p[4] = 4, byte(i)
			bufs = append(bufs, p)
			in = append(in, sent{from.Addr, channelData(from.Channel, p)})
		}
		feed(in...)
		synctest.Wait()
		check := func(what string, number uint16) {
			t.Helper()
			out := s.taken()
			if len(out) != len(bufs) {
				t.Fatalf("%s: got %d packets, want %d", what, len(out), len(bufs))
			}
			for i, o := range out {
				if !equalSent(o, sent{to.Addr, channelData(number, bufs[i])}) {
					t.Errorf("%s: packet %d is another", what, i)
				}
			}
		}
		check("forwarded", to.Channel)
		transmit(t, b, e, bufs...)
		check("sent", 0x4005)
	})
}
