package netwatch

import (
	"context"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// More messages than the kernel keeps are no end: the overflow is a change, and so is what comes later.
func TestOverflow(t *testing.T) {
	inSpace(t)
	add(t, "lan0", "192.168.44.2/24", &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan0"}, PeerName: "far0"})
	s, err := openRoute()
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(int(s.Fd()), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<10); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(int(s.Fd()), true); err != nil { // Fd has made it a blocking one
		t.Fatal(err)
	}
	lan, err := netlink.LinkByName("lan0")
	if err != nil {
		t.Fatal(err)
	}
	flap := func(n int) {
		for i := range n {
			a := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 7, byte(i>>8), byte(i)), Mask: net.CIDRMask(32, 32)}}
			if err := netlink.AddrAdd(lan, a); err != nil {
				t.Fatal(err)
			}
			if err := netlink.AddrDel(lan, a); err != nil {
				t.Fatal(err)
			}
		}
	}
	flap(500) // nobody reads
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	notices := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		listen(ctx, s, notices)
	}()
	expect := func(what string) {
		t.Helper()
		select {
		case <-notices:
		case <-done:
			t.Fatalf("%s: got the end of the subscription, want it to go on", what)
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: got no notice within 5 s, want one", what)
		}
	}
	expect("an overflow")
	drain(notices)
	flap(1)
	expect("a change after it")
}

// drain waits until nothing more is told.
func drain(notices <-chan struct{}) {
	for {
		select {
		case <-notices:
		case <-time.After(100 * time.Millisecond):
			return
		}
	}
}

// Of a big table that changes all the time, only default routes count.
func TestBigTable(t *testing.T) {
	inSpace(t)
	add(t, "lan0", "192.168.44.2/24", &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan0"}, PeerName: "far0"})
	lan, err := netlink.LinkByName("lan0")
	if err != nil {
		t.Fatal(err)
	}
	far, err := netlink.LinkByName("far0")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(far); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	notices, err := subscribe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	drain(notices)
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for i := range 5000 {
		r := &netlink.Route{LinkIndex: lan.Attrs().Index, Gw: net.IPv4(192, 168, 44, 1), Dst: &net.IPNet{IP: net.IPv4(11, byte(i>>8), byte(i), 0), Mask: net.CIDRMask(24, 32)}}
		if err := h.RouteAdd(r); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-notices:
		t.Error("5,000 routes that are no default: got a notice, want none")
	case <-time.After(300 * time.Millisecond):
	}
	for _, gw := range []string{"192.168.44.1", "192.168.44.9"} {
		r := &netlink.Route{LinkIndex: lan.Attrs().Index, Gw: net.ParseIP(gw), Priority: 100 + int(gw[len(gw)-1])}
		if err := h.RouteAdd(r); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-notices:
	case <-time.After(5 * time.Second):
		t.Error("a default route: got no notice within 5 s, want one")
	}
	hops, err := defaultHops()
	if err != nil {
		t.Fatal(err)
	}
	var via []string
	for _, h := range hops {
		if h.link != lan.Attrs().Index {
			t.Errorf("got a default route by link %d, want %d", h.link, lan.Attrs().Index)
		}
		via = append(via, h.via.String())
	}
	if want := []string{"192.168.44.1", "192.168.44.9"}; !slices.Equal(via, want) {
		t.Errorf("got default routes by %v, want %v", via, want)
	}
	multi := &netlink.Route{Priority: 7, Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, MultiPath: []*netlink.NexthopInfo{
		{LinkIndex: lan.Attrs().Index, Gw: net.IPv4(192, 168, 44, 5)}, {LinkIndex: lan.Attrs().Index, Gw: net.IPv4(192, 168, 44, 6)},
	}}
	if err := h.RouteAdd(multi); err != nil {
		t.Fatal(err)
	}
	if hops, err = defaultHops(); err != nil || len(hops) != 4 || hops[0].via.String() != "192.168.44.5" || hops[1].via.String() != "192.168.44.6" {
		t.Errorf("with a route of two hops: got %v and error %v, want .5 and .6 first, and two more", hops, err)
	}
}
