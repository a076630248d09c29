package rtnl

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// inSpace moves the test into a network namespace of its own, with an interface lan0 of 192.168.44.2/24 and fd44::2/64 that is up.
func inSpace(t *testing.T) netlink.Link {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	runtime.LockOSThread()
	old, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	space, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Set(old); err != nil {
			t.Error(err) // the thread stays locked, and ends with its goroutine
			return
		}
		runtime.UnlockOSThread()
		_, _ = space.Close(), old.Close()
	})
	// Without link-local addresses, of which the kernel tells later.
	ip(t, "link add lan0 type veth peer name far0", "link set far0 addrgenmode none", "link set lan0 addrgenmode none", "link set far0 up", "link set lan0 up",
		"addr add 192.168.44.2/24 dev lan0", "addr add fd44::2/64 dev lan0 nodad")
	lan, err := netlink.LinkByName("lan0")
	if err != nil {
		t.Fatal(err)
	}
	return lan
}

// ip has ip(8) do these lines.
func ip(t *testing.T, lines ...string) {
	t.Helper()
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n"))
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ip: %v: %s", err, text)
	}
}

// More messages than the kernel keeps are no end: the overflow is a change, and so is what comes later.
func TestOverflow(t *testing.T) {
	lan := inSpace(t)
	s, err := openRoute(groups)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(int(s.Fd()), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<10); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(int(s.Fd()), true); err != nil { // Fd has made it a blocking one
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
		listen(ctx, s, func(Message) bool { return true }, notices)
	}()
	expect := func(what string) {
		t.Helper()
		select {
		case <-notices:
		case <-done:
			t.Fatalf("%s: got the end of the subscription, want it to go on", what)
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: got no notice within 30 s, want one", what)
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

// Of a big table that changes all the time, only what is asked for counts.
func TestNotices(t *testing.T) {
	lan := inSpace(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	byDefault, err := Subscribe(ctx, Message.IsDefaultRoute)
	if err != nil {
		t.Fatal(err)
	}
	byLink, err := Subscribe(ctx, func(m Message) bool { return m.LinkOf() == lan.Attrs().Index })
	if err != nil {
		t.Fatal(err)
	}
	expect := func(what string, notices <-chan struct{}, want bool) {
		t.Helper()
		wait := 5 * time.Second
		if !want {
			wait = 100 * time.Millisecond
		}
		select {
		case <-notices:
			if !want {
				t.Errorf("%s: got a notice, want none", what)
			}
		case <-time.After(wait):
			if want {
				t.Errorf("%s: got no notice within %v, want one", what, wait)
			}
		}
	}
	for _, c := range []struct {
		line               string
		byDefault, byLinks bool
	}{
		{"route add 11.0.0.0/24 dev lan0", false, true},
		{"route add 11.0.1.0/24 dev far0", false, false},
		{"route add fd45::/64 dev lan0", false, true},
		{"route del fd45::/64 dev lan0", false, true},
		{"route add default via 192.168.44.1", true, true},
		{"route add default via fd44::1 metric 7", true, true},
		{"route add default dev far0 table 7", false, false},
		{"addr add 10.1.1.1/32 dev far0", false, false},
		{"addr del 192.168.44.2/24 dev lan0", false, true}, // what IPv4 routes go with it, the kernel does not say
		{"link set lan0 mtu 1400", false, true},
		{"link set far0 mtu 1400", false, false},
	} {
		drain(byDefault)
		drain(byLink)
		ip(t, c.line)
		expect(c.line+": default routes", byDefault, c.byDefault)
		expect(c.line+": link", byLink, c.byLinks)
	}
}

func vias(hops []Hop) (all []string) {
	for _, h := range hops {
		all = append(all, h.Via.String())
	}
	return all
}

// The default routes of a table of many are found, and few of the others are read for it.
func TestDefaultHops(t *testing.T) {
	lan := inSpace(t)
	if hops, err := DefaultHops(); err != nil || len(hops) != 0 {
		t.Errorf("without a default route: got %v and error %v, want none", hops, err)
	}
	var lines []string
	for i := range 5000 {
		lines = append(lines, fmt.Sprintf("route add 11.%d.%d.0/24 via 192.168.44.1", i>>8, i&255))
	}
	ip(t, append(lines, "route add 0.0.0.0/8 via 192.168.44.1", "route add default via 192.168.44.9 metric 200", "route add default via 192.168.44.1 metric 100",
		"route add default via fd44::1 metric 300", "route add default via fd44::9 metric 400", "route add blackhole default metric 900",
		"route add default metric 7 nexthop via 192.168.44.5 nexthop via 192.168.44.6",
		"route add default via 192.168.44.77 table 77")...)
	want := []string{"192.168.44.5", "192.168.44.6", "192.168.44.1", "192.168.44.9", "fd44::1", "fd44::9"}
	check := func(what string, want ...string) {
		t.Helper()
		hops, err := DefaultHops()
		if got := vias(hops); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got default routes by %v and error %v, want %v", what, got, err, want)
		}
		for _, h := range hops {
			if h.Link != lan.Attrs().Index {
				t.Errorf("%s: got a default route by link %d, want %d", what, h.Link, lan.Attrs().Index)
			}
		}
	}
	check("5,000 routes", want...)
	if _, others, err := defaultHops(unix.AF_INET); err != nil || others > 2 {
		t.Errorf("5,000 routes: got %d of them looked at, error %v, want 2 at most", others, err)
	}
	lines = nil
	for i := range few + 500 {
		lines = append(lines, fmt.Sprintf("route add 2001:db8:%x::/48 via fd44::1", i))
	}
	ip(t, lines...)
	check("more IPv6 routes than are read", want[:5]...)
	ip(t, "route del default via fd44::1 metric 300")
	check("the best one gone", append(want[:4:4], "fd44::9")...)
	ip(t, "route del default via fd44::9 metric 400")
	check("no IPv6 default", want[:4]...)
}

// What is not asked for is passed over.
func TestRoutes(t *testing.T) {
	lan := inSpace(t)
	ip(t, "route add 100.70.5.0/24 dev far0", "route add 100.64.0.0/10 dev far0 table 4242", "route add 10.0.0.0/8 via 192.168.44.1",
		"route add fd44:1::/32 dev far0", "route add unreachable 100.70.6.0/24", "addr add 100.70.7.7/32 dev far0",
		"route add 100.70.8.0/24 nexthop dev lan0 nexthop dev far0")
	texts := func(routes []Route, err error) (all []string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range routes {
			name := "several"
			if l, err := netlink.LinkByIndex(r.Link); err == nil {
				name = l.Attrs().Name
			}
			all = append(all, fmt.Sprintf("%v %s %d", r.Prefix, name, r.Table))
		}
		slices.Sort(all)
		return all
	}
	got := texts(RoutesOverlapping([]netip.Prefix{netip.MustParsePrefix("100.70.0.0/16")}))
	if want := []string{"100.64.0.0/10 far0 4242", "100.70.5.0/24 far0 254", "100.70.8.0/24 several 254"}; !slices.Equal(got, want) {
		t.Errorf("overlapping: got %q, want %q", got, want)
	}
	got = slices.DeleteFunc(texts(RoutesBy(lan.Attrs().Index)), func(s string) bool { return strings.HasPrefix(s, "fe80:") })
	if want := []string{"10.0.0.0/8 lan0 254", "192.168.44.0/24 lan0 254", "fd44::/64 lan0 254"}; !slices.Equal(got, want) {
		t.Errorf("by lan0: got %q, want %q", got, want)
	}
}

// A route of somebody else costs no memory.
func TestRouteIsReadWithoutMemory(t *testing.T) {
	m := routeMessage(unix.RtMsg{Family: unix.AF_INET, Dst_len: 24, Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST})
	m = appendAttribute(m, unix.RTA_DST, []byte{11, 1, 2, 0})
	m = appendAttribute(m, unix.RTA_OIF, []byte{7, 0, 0, 0})
	if got := testing.AllocsPerRun(100, func() {
		if r, ok := readRoute(m); !ok || r.Link != 7 {
			t.Fatalf("got %+v, want a route by link 7", r)
		}
		_ = Message{Kind: unix.RTM_NEWROUTE, Body: m}.LinkOf()
	}); got != 0 {
		t.Errorf("got %v allocations for a route, want none", got)
	}
}

// TestCutOff feeds what no kernel sends.
func TestCutOff(t *testing.T) {
	m := routeMessage(unix.RtMsg{Family: unix.AF_INET, Dst_len: 24, Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST})
	m = appendAttribute(m, unix.RTA_DST, []byte{11, 1, 2, 0})
	m = appendAttribute(m, unix.RTA_MULTIPATH, make([]byte, 13))
	for n := range len(m) {
		_, _ = readRoute(m[:n])
		_ = Message{Kind: unix.RTM_NEWROUTE, Body: m[:n]}.LinkOf()
		_ = Message{Kind: unix.RTM_NEWLINK, Body: m[:n]}.LinkOf()
		_ = isDefault(m[:n])
		if n >= unix.SizeofRtMsg {
			_ = readHops(m[:n])
		}
		for range Messages(m[:n]) {
			t.Errorf("%d bytes: got a message, want none", n)
		}
	}
}

// What a table of 200,000 routes costs is printed: run with -v.
func TestManyRoutesCost(t *testing.T) {
	if os.Getenv("WARREN_BIG") == "" {
		t.Skip("WARREN_BIG is not set: it takes seconds")
	}
	inSpace(t)
	var b strings.Builder
	for i := range 200_000 {
		fmt.Fprintf(&b, "route add %d.%d.%d.0/24 via 192.168.44.1\n", 11+i>>16, i>>8&255, i&255)
	}
	for i := range 50_000 {
		fmt.Fprintf(&b, "route add 2001:db8:%x::/48 via fd44::1\n", i)
	}
	ip(t, b.String(), "route add default via 192.168.44.1", "route add default via fd44::1")
	cost := func(what string, f func() error) {
		t.Helper()
		cpu := func() (u syscall.Rusage) { _ = syscall.Getrusage(unix.RUSAGE_THREAD, &u); return u }
		before, began := cpu(), time.Now()
		if err := f(); err != nil {
			t.Error(err)
		}
		after := cpu()
		used := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
		t.Logf("%s: %v of a core, %v", what, used.Round(time.Microsecond), time.Since(began).Round(time.Microsecond))
	}
	for range 2 {
		cost("default routes", func() error { _, err := DefaultHops(); return err })
		cost("routes by one link", func() error { _, err := RoutesBy(1); return err })
		cost("routes that overlap", func() error {
			_, err := RoutesOverlapping([]netip.Prefix{netip.MustParsePrefix("100.70.0.0/16")})
			return err
		})
	}
}
