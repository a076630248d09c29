package beacon

import (
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// inNamespace runs the test in a network of its own with two interfaces, and returns them as links.
func inNamespace(t *testing.T) []Link {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
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
			t.Fatal(err)
		}
		space.Close()
		old.Close()
	})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0))
	loop, err := netlink.LinkByName("lo") // answers on one host go through it
	must(err)
	must(netlink.LinkSetUp(loop))
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan0"}, PeerName: "lan1"}))
	var links []Link
	for i, name := range []string{"lan0", "lan1"} {
		made, err := netlink.LinkByName(name)
		must(err)
		link := Link{Index: made.Attrs().Index, Name: name}
		for _, text := range [][]string{{"192.168.44.2/24", "fd00:44::2/64"}, {"192.168.45.2/24", "fd00:45::2/64"}}[i] {
			addr, err := netlink.ParseAddr(text)
			must(err)
			must(netlink.AddrAdd(made, addr))
			link.Prefixes = append(link.Prefixes, netip.MustParsePrefix(text))
		}
		must(netlink.LinkSetUp(made))
		links = append(links, link)
	}
	return links
}

// Two programs on one host share the port: both hear the group, on the link that was sent on, and an answer goes to the
// one that asked. A third that was opened for another link is told by the index that it is not meant.
func TestSystemNetwork(t *testing.T) {
	links := inNamespace(t)
	var conns []Conn
	for _, of := range [][]Link{links[:1], links[:1], links[1:]} {
		c, err := system{}.Open(of)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	packets := make([]chan Packet, len(conns))
	for i, c := range conns {
		packets[i] = make(chan Packet, 64)
		go func() {
			for {
				p, err := c.Receive()
				if err != nil {
					close(packets[i])
					return
				}
				packets[i] <- p
			}
		}()
	}
	// next returns the next packet with this first byte.
	next := func(i int, first byte) Packet {
		t.Helper()
		for deadline := time.After(10 * time.Second); ; {
			select {
			case p := <-packets[i]:
				if p.Raw[0] == first {
					return p
				}
			case <-deadline:
				t.Fatalf("program %d hears nothing", i)
			}
		}
	}
	mark := byte(0)
	for _, family := range []Family{IPv4, IPv6} {
		mark++
		raw := make([]byte, Size)
		raw[0] = mark
		// The kernel notices a new carrier in a worker of its own, and an address is not usable before.
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if err := conns[0].Send(Send{Link: links[0].Index, Group: family, Raw: raw}); err == nil {
				break
			} else if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
		var asked Packet
		for i := range conns[:2] {
			if asked = next(i, mark); asked.Link != links[0].Index || len(asked.Raw) != Size || asked.From.Port() == Port {
				t.Errorf("%s, program %d: got %d bytes on link %d from %v, want %d on %d from another port", family, i, len(asked.Raw), asked.Link, asked.From, Size, links[0].Index)
			}
		}
		answer := make([]byte, Size)
		answer[0] = mark + 100
		if err := conns[1].Send(Send{Link: links[0].Index, To: asked.From, Raw: answer}); err != nil {
			t.Fatal(err)
		}
		next(0, mark+100)
	}
	for _, c := range conns {
		c.Close()
	}
	for p := range packets[1] {
		if p.Raw[0] > 100 {
			t.Error("an answer went to a program that did not ask")
		}
	}
	for p := range packets[2] {
		if p.Link == links[0].Index {
			continue // the machine drops it: it was opened for the other link
		}
		if p.Raw[0] > 100 {
			t.Error("an answer went to another link")
		}
	}
	if _, err := conns[0].Receive(); err == nil {
		t.Error("a closed Conn receives")
	}
}
