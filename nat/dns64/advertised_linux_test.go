package dns64

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"

	"warren/nat/nat64"
	"warren/nat/rtnl"
	"warren/tunnel/osnet/osnettest"
)

// TestPREF64 has a router, which is the other end of a cable, advertise a prefix when it is asked. The kernel hands the option on.
func TestPREF64(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	run := func(line string) {
		t.Helper()
		argv := strings.Fields(line)
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	set := func(key, value string) {
		t.Helper()
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+key, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	run("ip link add lan0 type veth peer name far0")
	set("lan0/accept_ra", "2")
	set("far0/accept_ra", "0")
	set("lan0/accept_dad", "0")
	set("far0/accept_dad", "0")
	run("ip link set far0 up")
	run("ip link set lan0 up")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	router, err := icmp.ListenPacket("ip6:ipv6-icmp", "::")
	if err != nil {
		t.Fatal(err)
	}
	defer router.Close()
	far, err := net.InterfaceByName("far0")
	if err != nil {
		t.Fatal(err)
	}
	p := router.IPv6PacketConn()
	for _, err := range []error{p.SetMulticastHopLimit(255), p.SetMulticastInterface(far), p.JoinGroup(far, &net.IPAddr{IP: net.IPv6linklocalallrouters}), p.SetControlMessage(ipv6.FlagInterface, true)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	// Hop limit 64, no flags, good as a router for half an hour (RFC 4861, section 4.2); then the option.
	body := append(binary.BigEndian.AppendUint16([]byte{64, 0}, 1800), make([]byte, 8)...)
	advert, err := (&icmp.Message{Type: ipv6.ICMPTypeRouterAdvertisement, Body: &icmp.RawBody{Data: append(body, pref64(1800, "2001:db8:64::")...)}}).Marshal(nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 1500)
		for {
			n, cm, _, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			if n > 0 && ipv6.ICMPType(buf[0]) == ipv6.ICMPTypeRouterSolicitation && cm != nil && cm.IfIndex == far.Index {
				_, _ = router.WriteTo(advert, &net.IPAddr{IP: net.IPv6linklocalallnodes, Zone: "far0"})
			}
		}
	}()

	d, way := new(dns), new(nat64.Way)
	d.says()
	f := New(Options{Way: way, DNS: d, Advertised: rtnl.Advertised})
	f.has4 = func() bool { return false }
	begin := time.Now()
	for !way.Prefix().IsValid() && ctx.Err() == nil { // the link-local addresses may not be there at once
		f.Once(ctx)
	}
	if got := way.Prefix(); !got.IsValid() || got.String() != "2001:db8:64::/96" {
		t.Fatalf("got prefix %v, want the one that is advertised", got)
	}
	t.Logf("found after %v", time.Since(begin).Round(time.Millisecond))
}
