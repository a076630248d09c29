package netwatch

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// In a namespace of its own, a new address is noticed and a TUN device is not.
func TestRealChange(t *testing.T) {
	inSpace(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	notices, err := subscribe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	add(t, "lan0", "192.168.44.2/24", &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan0"}, PeerName: "far0"})
	select {
	case <-notices:
	case <-time.After(5 * time.Second):
		t.Error("got no notice of a new address, want one")
	}
	links, _, err := query()
	if err != nil {
		t.Fatal(err)
	}
	if got := choose(links, nil); len(got) != 1 || got[0].String() != "192.168.44.2" {
		t.Errorf("got addresses %v, want 192.168.44.2 alone", got)
	}
	add(t, "other", "10.66.0.1/24", &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "other"}, Mode: netlink.TUNTAP_MODE_TUN})
	if links, _, err = query(); err != nil {
		t.Fatal(err)
	}
	if got := choose(links, nil); len(got) != 1 {
		t.Errorf("got addresses %v, want none of the TUN device", got)
	}
}

// inSpace moves the test into a network namespace of its own.
func inSpace(t *testing.T) {
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
}

func add(t *testing.T, name, addr string, l netlink.Link) {
	t.Helper()
	if err := netlink.LinkAdd(l); err != nil {
		t.Fatalf("make a %s link: %v", l.Type(), err)
	}
	made, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(made, a); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(made); err != nil {
		t.Fatal(err)
	}
}
