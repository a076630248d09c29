//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// measured waits until x has verified just this path MTU to y, with traffic.
func (b *bed) measured(x, y *Node, want int) {
	b.t.Helper()
	got := 0
	b.eventually(fmt.Sprintf("%s has measured %d to %s", x.Name(), want, y.Name()), func() bool {
		b.must(x.WaitPing(b.ctx, y))
		p, _ := Peer(b.status(x), y.Name())
		if p.PathMTU != got {
			got = p.PathMTU
			b.step("path MTU from %s to %s: %d", x.Name(), y.Name(), got)
		}
		return got == want
	})
}

// bulk sends by TCP from x to an address for some seconds, where iperf3 must serve, and returns Mbit/s received.
func (b *bed) bulk(x *Node, to netip.Addr, seconds int, more ...string) float64 {
	b.t.Helper()
	var out struct {
		End struct {
			Received struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	text, err := x.Host.Run(b.ctx, append([]string{"iperf3", "-J", "-c", to.String(), "-t", fmt.Sprint(seconds)}, more...)...)
	b.must(err)
	b.must(json.Unmarshal([]byte(text), &out))
	return out.End.Received.Bits / 1e6
}

// serve runs an iperf3 server.
func (b *bed) serve(n *Node) {
	b.t.Helper()
	_, err := n.Host.Start("iperf3", "-s")
	b.must(err)
	b.eventually("iperf3 listens", func() bool {
		out, err := n.Host.Run(b.ctx, "ss", "-Htln", "sport = :5201")
		return err == nil && out != ""
	})
}

// unanswered returns which pings of count were not answered. The last one does not count: ping waits for it for no more than two round trips of those before
// it, and answers are later than that on a busy machine.
func unanswered(out string, count int) (seqs []int) {
	for seq := 1; seq < count; seq++ {
		if !strings.Contains(out, fmt.Sprintf("icmp_seq=%d ttl", seq)) {
			seqs = append(seqs, seq)
		}
	}
	return seqs
}

// row has a node send pings in a row, and returns what came of it, and which were not answered. Who is late by more than two round trips with the last
// ones is not waited for: on a busy machine up to three rows are sent, and one that is whole will do.
func (b *bed) row(n *Node, count int, args ...string) (out string, lost []int, err error) {
	b.t.Helper()
	argv := append([]string{"ping", "-n", "-c", strconv.Itoa(count), "-i", "0.05", "-W", "2"}, args...)
	for range 3 {
		out, err = n.Host.Run(b.ctx, argv...)
		if lost = unanswered(out, count); err == nil && lost == nil {
			break
		}
	}
	return out, lost, err
}

// TestNarrowPath has two members behind lines of 1,280 bytes, one over IPv4 and one over IPv6, whose routers tell nobody that a
// packet was too large. Packets of all sizes must get through or be refused at once, and TCP must flow.
func TestNarrowPath(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	thin4, thin6 := bed.Router("home4", natlab.EIMAPDF), bed.Router("home6", natlab.IPv6Only)
	for _, r := range []*natlab.Router{thin4, thin6} {
		bed.MTU(r, 1280)
	}
	bed.Silence(thin4, thin6)
	founder := bed.node("founder", nil)
	four, six := bed.node("four", thin4), bed.node("six", thin6)
	bed.must(Found(bed.ctx, "home", founder, four, six))
	bed.serve(founder)
	far, err := founder.Overlay(bed.ctx)
	bed.must(err)

	for _, test := range []struct {
		node *Node
		mtu  int
	}{{four, 1280 - 60 - 4}, {six, 1280 - 80}} { // in blocks of 16
		n := test.node
		bed.connected(n, founder, api.PathDirect)
		near, err := n.Overlay(bed.ctx)
		bed.must(err)

		bed.step("%s: the first large packets", n.Name())
		for _, size := range []string{"1252", "1348"} { // 1,280 and 1,376 bytes with IPv4's headers
			_, err := n.Host.Run(bed.ctx, "ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", "-M", "dont", "-s", size, far[0].String())
			bed.must(err)
		}
		bed.measured(n, founder, test.mtu)
		bed.measured(founder, n, test.mtu)

		bed.step("%s: large packets", n.Name())
		for _, ping := range [][]string{
			{n.Name(), "1272", "dont", far[0].String()}, {n.Name(), "1200", "dont", far[1].String()}, // 1,300 and 1,248 bytes
			{"founder", "1272", "dont", near[0].String()}, {"founder", "1200", "dont", near[1].String()},
		} {
			from := n
			if ping[0] == "founder" {
				from = founder
			}
			out, lost, err := bed.row(from, 10, "-M", ping[2], "-s", ping[1], ping[3])
			if err != nil || lost != nil {
				t.Errorf("ping of %s bytes from %s: %v: %s", ping[1], from.Name(), err, out)
			}
		}
		out, err := n.Host.Run(bed.ctx, "ping", "-n", "-c", "2", "-i", "0.2", "-W", "2", "-M", "do", "-s", "1272", far[0].String())
		if err == nil || !strings.Contains(strings.ReplaceAll(out, " ", ""), fmt.Sprintf("mtu=%d", test.mtu)) {
			t.Errorf("1,300 bytes with DF: got %q, want to be told %d", out, test.mtu)
		}

		bed.step("%s: TCP", n.Name())
		for _, to := range far {
			for _, more := range [][]string{nil, {"-R"}} {
				mbits := bed.bulk(n, to, 2, more...)
				bed.step("%s to %s %v: %.0f Mbit/s", n.Name(), to, more, mbits)
				if mbits < 1/crowd() {
					t.Errorf("TCP from %s to %s %v: got %.2f Mbit/s", n.Name(), to, more, mbits)
				}
			}
		}
	}

	bed.step("through the relay, whose halves are both narrow")
	bed.connected(four, six, api.PathRelay)
	bed.measured(four, six, (1280-84)&^15)
	bed.measured(six, four, (1280-84)&^15)
	bed.serve(six)
	to, err := six.Overlay(bed.ctx)
	bed.must(err)
	if mbits := bed.bulk(four, to[0], 2); mbits < 1/crowd() {
		t.Errorf("TCP through the relay: got %.2f Mbit/s", mbits)
	}
	bed.step("end")
}

// TestPathNarrows narrows a path that is in use, silently: a TCP stream goes on.
func TestPathNarrows(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	home := bed.Router("home", natlab.IPv6Only) // where nobody but the sender can fragment
	founder, member := bed.node("founder", nil), bed.node("member", home)
	bed.must(Found(bed.ctx, "home", founder, member))
	bed.connected(member, founder, api.PathDirect)
	bed.serve(founder)
	bed.measured(member, founder, 1376)
	far, err := founder.Overlay(bed.ctx)
	bed.must(err)
	stream, err := member.Host.Start("iperf3", "-c", far[0].String(), "-t", "20", "-i", "1", "--forceflush")
	bed.must(err)
	bed.eventually("the stream flows", func() bool { return strings.Count(stream.Output(), "bits/sec") >= 2 })

	bed.step("the line becomes narrow")
	bed.Silence(home)
	bed.MTU(home, 1280)
	bed.eventually("it was noticed", func() bool {
		p, _ := Peer(bed.status(member), "founder")
		return p.PathMTU == 1200
	})
	bed.step("it was noticed")
	bed.must(stream.Wait(bed.ctx))
	lines := strings.Split(strings.TrimSpace(stream.Output()), "\n")
	moving := 0
	for _, line := range lines[len(lines)*2/3:] {
		if strings.Contains(line, "bits/sec") && !strings.Contains(line, " 0.00 bits/sec") {
			moving++
		}
	}
	if moving < 5 {
		t.Errorf("the stream does not flow at its end:\n%s", stream.Output())
	}
	bed.step("end")
}

// TestJumboLAN has two members on a LAN with jumbo frames, and the founder, whom only ordinary ones reach.
func TestJumboLAN(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	founder := bed.node("founder", nil)
	office := bed.Router("office", natlab.EIMAPDF)
	a, b := bed.node("a", office), bed.node("b", office)
	bed.MTU(a.Host, 9000)
	bed.MTU(b.Host, 9000)
	bed.must(Found(bed.ctx, "home", founder, a, b))
	bed.meshed(founder, a, b)
	bed.connected(a, b, api.PathDirect)
	const jumbo = (9000 - 60) &^ 15
	bed.measured(a, b, jumbo)
	bed.measured(b, a, jumbo)
	toB, err := b.Overlay(bed.ctx)
	bed.must(err)
	toFounder, err := founder.Overlay(bed.ctx)
	bed.must(err)
	bed.eventually("jumbo frames are used", func() bool {
		_, err := a.Host.Run(bed.ctx, "ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", "8800", toB[0].String())
		return err == nil
	})
	for _, to := range toFounder {
		out, lost, err := bed.row(a, 20, "-M", "dont", "-s", "5000", to.String())
		// Of IPv6 only the source may fragment: it loses the packet by which it learns that.
		if err != nil || to.Is4() && lost != nil {
			t.Errorf("5,000 bytes to the founder: %v: %s", err, out)
		}
	}
	bed.serve(founder)
	if mbits := bed.bulk(a, toFounder[0], 2); mbits < 1/crowd() {
		t.Errorf("TCP to the founder: got %.2f Mbit/s", mbits)
	}
	bed.step("end")
}

// TestRoutedSegments opens TCP connections between a plain WireGuard peer, which is shared, and a member behind a narrow
// line: both must be told of segments that fit that line, by the node between them.
func TestRoutedSegments(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	thin := bed.Router("home", natlab.EIMAPDF)
	bed.MTU(thin, 1280)
	bed.Silence(thin)
	founder, member := bed.node("founder", nil), bed.node("member", thin)
	bed.must(founder.Create(bed.ctx, "home"))
	config := bed.configure(founder, "")
	bed.must(founder.Start(bed.ctx, "--config", config))
	self := bed.status(founder)
	inside := freeAddr(self)
	phone := bed.foreign(bed.Host("phone", nil), 51820, inside.String())
	key, err := wgtypes.ParseKey(self.Self.PublicKey)
	bed.must(err)
	bed.must(phone.AddPeer(bed.ctx, ForeignPeer{PublicKey: key, AllowedIPs: []netip.Prefix{self.Mesh.Prefix4},
		Endpoint: netip.AddrPortFrom(founder.Host.Addr4(), self.Self.Port)}))
	_, err = founder.Host.Run(bed.ctx, "sysctl", "-w", "net.ipv4.ip_forward=1")
	bed.must(err)
	bed.configure(founder, peerTable(phone, "share = true", inside.String()+"/32"))
	_, err = founder.Warren(bed.ctx, "", "up", "--config", config)
	bed.must(err)
	bed.must(Admit(bed.ctx, founder, member))
	bed.connected(member, founder, api.PathDirect)
	bed.measured(member, founder, 1216)
	bed.measured(founder, member, 1216)
	bed.must(member.pingAll(bed.ctx, []string{inside.String()}))
	to, err := member.Overlay(bed.ctx)
	bed.must(err)

	for _, way := range []struct {
		from, at *natlab.Host
		addr     netip.Addr
	}{{phone.Host, member.Host, to[0]}, {member.Host, phone.Host, inside}} {
		for _, segment := range bed.segments(way.from, way.at, way.addr) {
			if segment > 1216-40 || segment < 1000 {
				t.Errorf("from %s to %s: got segments of %d bytes, want at most %d", way.from.Name, way.at.Name, segment, 1216-40)
			}
		}
	}
	bed.step("end")
}

// segments opens a connection and returns the size of segment that each end will send.
func (b *bed) segments(from, at *natlab.Host, addr netip.Addr) (sizes [2]int) {
	b.t.Helper()
	var ends [2]net.Conn
	var listener net.Listener
	b.must(at.Do(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(addr, 7777).String())
		return err
	}))
	defer listener.Close()
	b.must(from.Do(func() (err error) {
		ends[0], err = net.DialTimeout("tcp", listener.Addr().String(), 10*time.Second)
		return err
	}))
	defer ends[0].Close()
	var err error
	ends[1], err = listener.Accept()
	b.must(err)
	defer ends[1].Close()
	for i, end := range ends {
		raw, err := end.(*net.TCPConn).SyscallConn()
		b.must(err)
		b.must(raw.Control(func(fd uintptr) { sizes[i], err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) }))
		b.must(err)
	}
	b.step("segments from %s to %s: %d and %d", from.Name, at.Name, sizes[0], sizes[1])
	return sizes
}

// BenchmarkJumboLAN compares TCP between two members on a LAN with jumbo frames, whose interfaces have the MTU that the tunnel
// chose, and the default one.
func BenchmarkJumboLAN(b *testing.B) {
	for _, config := range []string{"", "[interface]\nmtu = 1376\n"} {
		name := "chosen"
		if config != "" {
			name = "1376"
		}
		b.Run(name, func(b *testing.B) {
			bed := newBenchBed(b)
			office := bed.Router("office", natlab.Public)
			x, y := bed.node("x", office), bed.node("y", office)
			bed.MTU(x.Host, 9000)
			bed.MTU(y.Host, 9000)
			want := 1376
			if config == "" {
				want = (9000 - 60) &^ 15
			}
			bed.must(Found(bed.ctx, "home", x, y))
			for _, n := range []*Node{x, y} {
				bed.must(n.Stop())
				bed.must(n.Start(bed.ctx, "--config", bed.configure(n, config)))
			}
			bed.connected(x, y, api.PathDirect)
			p, _ := Peer(bed.status(x), "y")
			if p.Path.Address.Addr().Is6() && config == "" {
				want = (9000 - 80) &^ 15
			}
			bed.measured(x, y, want)
			bed.measured(y, x, want)
			bed.serve(y)
			to, err := y.Overlay(bed.ctx)
			bed.must(err)
			var sum float64
			rounds := 0
			for b.Loop() {
				sum += bed.bulk(x, to[0], 3)
				rounds++
			}
			b.ReportMetric(sum/float64(rounds), "Mbit/s")
		})
	}
}
