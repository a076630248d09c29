//go:build linux

package e2e

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// raw opens a socket in the node's network by which any IPv4 packet can be sent, its own header included.
func (b *bed) raw(h *natlab.Host) (send func(to netip.Addr, packet []byte)) {
	b.t.Helper()
	fd := -1
	b.must(h.Do(func() (err error) {
		fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.IPPROTO_RAW)
		return err
	}))
	b.t.Cleanup(func() { syscall.Close(fd) })
	return func(to netip.Addr, packet []byte) {
		_ = syscall.Sendto(fd, packet, 0, &syscall.SockaddrInet4{Addr: to.As4()}) // what the system drops was sent
	}
}

// datagram is an IPv4 packet with a UDP datagram. The kernel fills in the checksum of its header; that of UDP is left out.
func datagram(from, to netip.AddrPort, payload []byte) []byte {
	p := make([]byte, 28, 28+len(payload))
	p[0], p[8], p[9] = 0x45, 64, syscall.IPPROTO_UDP
	binary.BigEndian.PutUint16(p[2:], uint16(28+len(payload)))
	src, dst := from.Addr().As4(), to.Addr().As4()
	copy(p[12:], src[:])
	copy(p[16:], dst[:])
	binary.BigEndian.PutUint16(p[20:], from.Port())
	binary.BigEndian.PutUint16(p[22:], to.Port())
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(payload)))
	return append(p, payload...)
}

// lookalike is a payload that looks like one of the protocols of the shared port, or like none, at random.
func lookalike() []byte {
	p := make([]byte, 20+rand.IntN(1180))
	for i := 0; i+8 <= len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], rand.Uint64())
	}
	switch rand.IntN(6) {
	case 0: // WireGuard's initiation, of its size
		p = append(p, make([]byte, 148)...)[:148]
		copy(p, []byte{1, 0, 0, 0})
	case 1: // its data
		copy(p, []byte{4, 0, 0, 0})
	case 2: // a STUN request
		p = p[:20]
		copy(p, []byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42})
	case 3: // a QUIC initial packet
		p = append(p, make([]byte, 1200)...)[:1200]
		copy(p, []byte{0xc3, 0, 0, 0, 1, 8})
	case 4: // a relay's channel
		copy(p, []byte{0x40, byte(rand.IntN(4))})
	}
	return p
}

// TestSpoofedFlood has a stranger send some thousand datagrams a second to a member's port, each from another address that is not the sender's, some
// of them those of members, and datagrams as large as there are. Echoes go on, and the agent does not grow.
func TestSpoofedFlood(t *testing.T) {
	t.Parallel()
	bed := bedWith(t, buildPlain, 2*time.Minute)
	founder, b := bed.node("founder", nil), bed.node("b", bed.Router("home", natlab.EIMAPDF))
	evil := bed.Host("evil", nil)
	bed.must(Found(bed.ctx, "home", founder, b))
	bed.connected(b, founder, api.PathDirect)
	m := bed.meter(b, founder)
	bed.eventually("echoes go", func() bool { return m.silent(time.Now()) < hole })
	before := bed.rss(founder)
	send := bed.raw(evil)
	at := netip.AddrPortFrom(founder.Host.Addr4(), 9277)
	begin, sent := time.Now(), 0
	for time.Since(begin) < 3*time.Second {
		for range 100 {
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32())}), uint16(1024+rand.IntN(60000)))
			switch rand.IntN(10) {
			case 0:
				from = netip.AddrPortFrom(b.Host.Router().Public(), 9277)
			case 1:
				from = at
			}
			send(at.Addr(), datagram(from, at, lookalike()))
			sent++
		}
		time.Sleep(20 * time.Millisecond) // some thousand a second, and no more: the machine is to be shared
	}
	flooded := time.Now()
	large, err := evil.ListenUDP(netip.AddrPortFrom(evil.Addr4(), 0))
	bed.must(err)
	defer large.Close()
	for i := range 200 {
		if _, err := large.WriteToUDPAddrPort(make([]byte, 65507-i), at); err != nil {
			t.Fatalf("send a datagram of %d bytes: %v", 65507-i, err)
		}
		time.Sleep(time.Millisecond)
	}
	bed.eventually("echoes go on", func() bool { now := time.Now(); return now.Sub(flooded) > time.Second && m.silent(now) < hole })
	silent, _ := m.silences(begin, time.Now())
	grown := bed.rss(founder) - before
	bed.step("%d spoofed datagrams: silent for %v, grown by %d KiB", sent, silent.Round(time.Millisecond), grown>>10)
	if silent > 4*time.Second {
		t.Errorf("got no echo for %v during the flood, want 4 s at most", silent)
	}
	if grown > rssGrowth<<20 {
		t.Errorf("the agent has grown by %d MiB, want %d at most", grown>>20, rssGrowth)
	}
	bed.connected(b, founder, api.PathDirect)
	if s := bed.status(founder); len(s.Peers) != 1 {
		t.Errorf("got peers %s, want b alone", Describe(s))
	}
}

// TestOddTraffic sends through a tunnel what is seldom sent: a VXLAN, packets larger than the tunnel's, floods of multicast and broadcast, packets with
// sources that are not the sender's, and those of the mesh itself. What may pass does, what may not does not, and echoes go on.
func TestOddTraffic(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	founder := bed.node("founder", nil)
	a, b := bed.node("a", bed.Router("home-a", natlab.EIMAPDF)), bed.node("b", bed.Router("home-b", natlab.EIMAPDF))
	bed.must(Found(bed.ctx, "home", founder, a, b))
	bed.connected(a, b, api.PathDirect)
	bed.connected(a, founder, api.PathDirect)
	addr := func(n *Node) netip.Addr { return bed.status(n).Self.Addresses[0] }
	ofA, ofB, ofFounder := addr(a), addr(b), addr(founder)
	run := func(n *Node, script string) {
		t.Helper()
		_, err := n.Host.Run(bed.ctx, "sh", "-ec", script)
		bed.must(err)
	}
	m := bed.meter(a, b)
	begin := time.Now()

	for i, n := range []*Node{a, b} {
		own, other := []netip.Addr{ofA, ofB}[i], []netip.Addr{ofB, ofA}[i]
		run(n, fmt.Sprintf("ip link add vx0 type vxlan id 7 local %s remote %s dstport 4789; ip addr add 10.99.0.%d/24 dev vx0; ip link set vx0 up", own, other, i+1))
	}
	bed.eventually("a VXLAN in the tunnel carries", func() bool {
		return a.Ping(bed.ctx, netip.MustParseAddr("10.99.0.2"), time.Second) == nil
	})
	run(a, "ping -n -q -c 3 -i 0.2 -s 8000 -W 2 "+ofB.String())
	bed.step("a VXLAN, and packets that are cut up")

	run(a, "ip route add 224.0.0.0/4 dev warren0; ip route add 255.255.255.255/32 dev warren0")
	flood, err := listenAny(bed, a)
	bed.must(err)
	defer flood.Close()
	for i := range 20_000 {
		to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{239, 1, byte(i >> 8), byte(i)}), 5353)
		if i%10 == 0 {
			to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), 9277)
		}
		_, _ = flood.WriteToUDPAddrPort(make([]byte, 200), to) // a queue that is full is what is wanted
	}
	bed.step("a flood of multicast")

	heard, err := b.Host.ListenUDP(netip.AddrPortFrom(ofB, 7777))
	bed.must(err)
	defer heard.Close()
	send := bed.raw(a.Host)
	to := netip.AddrPortFrom(ofB, 7777)
	for range 20 {
		for _, from := range []netip.Addr{ofFounder, netip.MustParseAddr("10.1.2.3"), b.Host.Addr4(), ofB, netip.MustParseAddr("8.8.8.8")} {
			send(ofB, datagram(netip.AddrPortFrom(from, 6666), to, []byte("forged")))
		}
		// What speaks to the mesh's own port of another's overlay address, as if it came from the founder, and as itself.
		for _, from := range []netip.Addr{ofFounder, ofA} {
			send(ofB, datagram(netip.AddrPortFrom(from, 9277), netip.AddrPortFrom(ofB, 9277), lookalike()))
		}
	}
	bed.eventually("a true one arrives", func() bool {
		send(ofB, datagram(netip.AddrPortFrom(ofA, 6666), to, []byte("true")))
		buf := make([]byte, 100)
		heard.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		n, from, err := heard.ReadFromUDPAddrPort(buf)
		if err == nil && (string(buf[:n]) == "forged" || from.Addr().Unmap() != ofA) {
			t.Fatalf("b has got %q from %v", buf[:n], from)
		}
		return err == nil
	})
	bed.step("forged sources do not arrive")
	bed.eventually("echoes go on", func() bool { return m.silent(time.Now()) < hole })
	if silent, _ := m.silences(begin, time.Now()); silent > 4*time.Second {
		t.Errorf("got no echo for %v, want 4 s at most", silent)
	}
	bed.connected(a, b, api.PathDirect)
	for _, pair := range [][2]*Node{{a, b}, {b, a}} {
		p, _ := Peer(bed.status(pair[0]), pair[1].Name())
		if at := p.Path.Address.Addr(); at == ofA || at == ofB || at == ofFounder {
			t.Errorf("%s reaches %s at %v: the tunnel goes through itself", pair[0].Name(), pair[1].Name(), at)
		}
	}
	for _, n := range bed.nodes {
		if lines := strings.Count(n.Agent().Output(), "\n"); lines > 200 {
			t.Errorf("the agent of %s has logged %d lines", n.Name(), lines)
		}
	}
}

// listenAny opens a UDP socket of the node that may broadcast.
func listenAny(b *bed, n *Node) (*net.UDPConn, error) {
	c, err := n.Host.ListenUDP(netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	if err != nil {
		return nil, err
	}
	return c, control(c, func(fd int) error { return syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_BROADCAST, 1) })
}

func control(c *net.UDPConn, set func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = set(int(fd)) }); err != nil {
		return err
	}
	return failed
}

// TestForeignDefaultRoute has another VPN take the default route with a TUN interface that swallows all, and go again: while it is there nothing that
// is not so is blamed, its addresses are offered to nobody, and the tunnel is back once it has gone.
func TestForeignDefaultRoute(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	founder, a := bed.node("founder", nil), bed.node("a", bed.Router("home", natlab.EIMAPDF))
	bed.must(Found(bed.ctx, "home", founder, a))
	bed.connected(a, founder, api.PathDirect)
	m := bed.meter(a, founder)
	bed.eventually("echoes go", func() bool { return m.silent(time.Now()) < hole })
	run := func(script string) {
		t.Helper()
		_, err := a.Host.Run(bed.ctx, "sh", "-ec", script)
		bed.must(err)
	}
	begin := time.Now()
	run("ip tuntap add mode tun name tunvpn; ip addr add 10.8.0.2/24 dev tunvpn; ip link set tunvpn up; ip route add 0.0.0.0/1 dev tunvpn; ip route add 128.0.0.0/1 dev tunvpn")
	bed.gone(a, founder, begin)
	if w, err := a.Why(bed.ctx, "founder"); err != nil || w.PingMS > 0 || strings.Contains(w.Cause, "UDP") {
		t.Errorf("while another VPN swallows all: got %s, %q, %v", w.Verdict, w.Cause, err)
	}
	run("ip link del tunvpn")
	freed := time.Now()
	bed.eventually("echoes go on", func() bool { return m.silent(time.Now()) < hole })
	took := time.Since(freed)
	bed.step("the other VPN has gone: answered again after %v", took.Round(time.Millisecond))
	if took > stretch(12*time.Second) {
		t.Errorf("got echoes again after %v, want 12 s at most", took)
	}
	bed.judge(a, founder, []string{"direct"})
	bed.judge(founder, a, []string{"direct"})
	if strings.Contains(founder.Agent().Output(), "10.8.0.2") {
		t.Error("the founder was told of the address that the other VPN gave a")
	}
}
