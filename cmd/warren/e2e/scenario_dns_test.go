//go:build linux

package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// asks sends a question from a host to an address, and tells the answer: its code, then what it holds.
func (b *bed) asks(n *Node, network string, to netip.Addr, name string, kind uint16) string {
	b.t.Helper()
	var q dns.Msg
	q.SetQuestion(dns.Fqdn(name), kind)
	var c net.Conn
	err := n.Host.Do(func() (err error) {
		c, err = net.DialTimeout(network, netip.AddrPortFrom(to, 53).String(), 5*time.Second)
		return err
	})
	if err != nil {
		return "unreachable"
	}
	defer c.Close()
	client := dns.Client{Net: network, Timeout: 2 * time.Second}
	reply, _, err := client.ExchangeWithConn(&q, &dns.Conn{Conn: c})
	if err != nil {
		return "silence"
	}
	out := []string{dns.RcodeToString[reply.Rcode]}
	for _, rr := range reply.Answer {
		out = append(out, strings.TrimSpace(strings.TrimPrefix(rr.String(), rr.Header().String())))
	}
	return strings.Join(out, " ")
}

// looks is what the host's own libc makes of a name or an address (getent(1)) without asking anybody; "" for nothing.
func (b *bed) looks(n *Node, database, key string) string {
	b.t.Helper()
	out, err := n.Host.Run(b.ctx, "getent", "-s", "files", database, key)
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(out), " ")
}

// named waits until the agent answers and the machine has been told.
func (b *bed) named(n *Node, using string) api.Status {
	b.t.Helper()
	s, err := n.Wait(b.ctx, "it answers for names, and this machine knows them by "+using, func(s api.Status) bool {
		return s.Names != nil && len(s.Names.Served) == 2 && s.Names.Using == using
	})
	b.must(err)
	return s
}

const plainHosts = "127.0.0.1\tlocalhost\n"

func (b *bed) hostsFile(n *Node) string {
	b.t.Helper()
	raw, err := os.ReadFile(n.Host.HostsFile())
	b.must(err)
	return string(raw)
}

// TestNamesByDNS has members reach each other by name: by DNS from each to each, by both transports, and by the libc of machines that have nothing but
// /etc/hosts, which is mounted by itself as in a container. A member is renamed, another wants a name that is taken, one is put out, the founder
// dies. What an agent has changed is gone when it stops, starts after it was killed, and leaves.
func TestNamesByDNS(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 3*time.Minute)
	founder, a := bed.node("founder", nil), bed.node("a", bed.Router("home-a", natlab.EIMAPDF))
	b, c := bed.node("b", bed.Router("home-b", natlab.EIMAPDF)), bed.node("c", nil)
	outside := bed.Host("outside", nil)
	bed.must(Found(bed.ctx, "home", founder, a, b, c))
	all := []*Node{founder, a, b, c}
	bed.meshed(all...)
	own := make(map[*Node][]netip.Addr)
	for _, n := range all {
		own[n] = bed.named(n, "hosts").Self.Addresses
	}

	bed.step("each asks each")
	for _, from := range all {
		for _, to := range all {
			for i, network := range []string{"udp", "tcp"} {
				at, name := own[to][i], "a.home.internal"
				bed.eventually(fmt.Sprintf("%s answers %s for %s by %s", to.Name(), from.Name(), name, network), func() bool {
					return bed.asks(from, network, at, name, dns.TypeA) == "NOERROR "+own[a][0].String() &&
						bed.asks(from, network, at, name, dns.TypeAAAA) == "NOERROR "+own[a][1].String()
				})
			}
		}
	}
	at := own[b][0]
	for _, test := range []struct {
		name string
		kind uint16
		want string
	}{
		{"a.home.internal", dns.TypeMX, "NOERROR"}, {"nobody.home.internal", dns.TypeA, "NXDOMAIN"}, {"example.com", dns.TypeA, "REFUSED"},
		{"home.internal", dns.TypeNS, "NOERROR b.home.internal."},
	} {
		if got := bed.asks(a, "udp", at, test.name, test.kind); got != test.want {
			t.Errorf("%s %s: got %s, want %s", test.name, dns.TypeToString[test.kind], got, test.want)
		}
	}
	stranger := &Node{Host: outside}
	if got := bed.asks(stranger, "udp", founder.Host.Addr4(), "a.home.internal", dns.TypeA); got != "silence" && got != "unreachable" {
		t.Errorf("a stranger, of the founder's own address: got %s", got)
	}

	bed.step("by libc")
	for _, name := range []string{"b", "b.home.internal"} {
		bed.eventually("a's libc knows "+name, func() bool {
			got := bed.looks(a, "ahosts", name)
			return strings.Contains(got, own[b][0].String()) && strings.Contains(got, own[b][1].String())
		})
	}
	if got, want := bed.looks(a, "hosts", own[b][0].String()), own[b][0].String()+" b.home.internal b"; got != want {
		t.Errorf("whose address: got %q, want %q", got, want)
	}
	_, err := a.Host.Run(bed.ctx, "ping", "-n", "-c", "1", "-W", "5", "b")
	bed.must(err)
	for _, command := range [][]string{{"ping", "b.home.internal", "-c", "1"}, {"whois", "b.home.internal"}, {"why", "b.home.internal"}, {"ip", "b.home.internal"}} {
		if _, err := a.Warren(bed.ctx, "", command...); err != nil {
			t.Errorf("warren %v: %v", command, err)
		}
	}
	out, err := a.Warren(bed.ctx, "", "dns", "query", "b")
	bed.must(err)
	bed.said(a, "dns query b", out, []string{"b.home.internal A " + own[b][0].String(), "b.home.internal AAAA " + own[b][1].String()})
	out, err = a.Warren(bed.ctx, "", "dns")
	bed.must(err)
	bed.said(a, "dns", out, []string{"home.internal", "/etc/hosts", own[a][0].String()})

	bed.step("another name, and one that is taken")
	_, err = b.Warren(bed.ctx, "", "rename", "attic")
	bed.must(err)
	bed.eventually("a knows attic, and b no more", func() bool {
		return bed.asks(a, "udp", own[a][0], "attic.home.internal", dns.TypeA) == "NOERROR "+own[b][0].String() &&
			bed.asks(a, "udp", own[a][0], "b.home.internal", dns.TypeA) == "NXDOMAIN" && bed.looks(a, "hosts", "attic") != "" && bed.looks(a, "hosts", "b") == ""
	})
	_, err = c.Warren(bed.ctx, "", "rename", "a")
	bed.must(err)
	s, err := c.Wait(bed.ctx, "it has a name beside a", func(s api.Status) bool { return s.Self.Name != "c" })
	bed.must(err)
	if !strings.HasPrefix(s.Self.Name, "a-") {
		t.Errorf("the second a: got %q", s.Self.Name)
	}
	if got := bed.asks(b, "udp", own[b][0], "a.home.internal", dns.TypeA); got != "NOERROR "+own[a][0].String() {
		t.Errorf("the first a: got %s", got)
	}

	bed.step("one is put out")
	_, err = founder.Warren(bed.ctx, "", "revoke", "attic.home.internal")
	bed.must(err)
	began, starving := time.Now(), bed.starving()
	bed.eventually("nobody is called attic", func() bool {
		return bed.asks(a, "udp", own[a][0], "attic.home.internal", dns.TypeA) == "NXDOMAIN" && bed.looks(a, "hosts", "attic") == ""
	})
	if took, most := time.Since(began), stretch(2*time.Second)+starving(); took > most {
		t.Errorf("gone after %v, want %v at most", took, most)
	}
	bed.endsWith(b, 2)
	if got := bed.hostsFile(b); got != plainHosts {
		t.Errorf("the one that was put out has\n%s", got)
	}

	bed.step("the founder dies, and others write the file")
	bed.kill(founder)
	if got := bed.asks(a, "udp", own[a][0], s.Self.Name+".home.internal", dns.TypeAAAA); got != "NOERROR "+own[c][1].String() {
		t.Errorf("without the founder: got %s", got)
	}
	const printer = "10.9.9.9\tprinter\n"
	bed.must(os.WriteFile(a.Host.HostsFile(), []byte(bed.hostsFile(a)+printer), 0o644))
	bed.must(a.Stop())
	if got := bed.hostsFile(a); got != plainHosts+printer {
		t.Errorf("stopped: got\n%s", got)
	}
	bed.must(a.Start(bed.ctx))
	bed.named(a, "hosts")
	bed.kill(a)
	if got := bed.hostsFile(a); !strings.Contains(got, "# warren home") {
		t.Errorf("killed: got\n%s\nwant what was there", got)
	}
	bed.must(a.Start(bed.ctx, "--config", bed.configure(a, "[mesh]\nnames = \"off\"\n")))
	bed.eventually("swept at the next start", func() bool { return bed.hostsFile(a) == plainHosts+printer })
	off, err := a.Wait(bed.ctx, "names are off", func(s api.Status) bool { return s.Names != nil && strings.Contains(s.Names.Why, "off") })
	bed.must(err)
	if off.Names.Using != "" {
		t.Errorf("off: got %+v", off.Names)
	}
	bed.must(a.Stop())

	bed.step("killed at any moment of its start")
	for i := range 8 {
		bed.must(a.Launch())
		time.Sleep(time.Duration(i*i) * 20 * time.Millisecond) // from before it does anything until the names are told
		bed.kill(a)
		if got := bed.hostsFile(a); !strings.HasPrefix(got, plainHosts+printer) {
			t.Errorf("killed after %d ms: others' lines are gone:\n%s", i*i*20, got)
		}
	}
	bed.must(a.Start(bed.ctx))
	bed.named(a, "hosts")
	bed.kill(a)
	_, err = a.Warren(bed.ctx, "", "leave", "--force")
	bed.must(err)
	if got := bed.hostsFile(a); got != plainHosts+printer {
		t.Errorf("left: got\n%s", got)
	}
}

// TestNamesOfFiveMeshes has one machine in five meshes, each with names of its own, and one of them far away floods it with questions.
func TestNamesOfFiveMeshes(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 3*time.Minute)
	hub := bed.Host("hub", nil)
	var here []*Node
	var far []*Node
	for i := range 5 {
		n := NewNode(hub, bed.binary)
		n.Env = []string{fmt.Sprint("WARREN_MESH=mesh", i)}
		bed.nodes = append(bed.nodes, n)
		bed.must(n.Create(bed.ctx, fmt.Sprint("mesh", i), "--name", "hub"))
		bed.must(n.Start(bed.ctx))
		other := bed.node(fmt.Sprint("far", i), nil)
		bed.must(Admit(bed.ctx, n, other))
		here, far = append(here, n), append(far, other)
	}
	for i, n := range here {
		bed.named(n, "hosts")
		full := fmt.Sprintf("far%d.mesh%d.internal", i, i)
		bed.eventually("the hub's libc knows "+full, func() bool { return bed.looks(n, "ahosts", full) != "" })
	}
	text := bed.hostsFile(here[0])
	for i := range here {
		if !strings.Contains(text, fmt.Sprintf("# warren mesh%d", i)) {
			t.Errorf("no line of mesh%d in\n%s", i, text)
		}
	}

	bed.step("a flood")
	s := bed.named(here[0], "hosts")
	var flood net.Conn
	bed.must(far[0].Host.Do(func() (err error) {
		flood, err = net.Dial("udp", netip.AddrPortFrom(s.Self.Addresses[0], 53).String())
		return err
	}))
	defer flood.Close()
	var q dns.Msg
	q.SetQuestion("hub.mesh0.internal.", dns.TypeA)
	raw, err := q.Pack()
	bed.must(err)
	stop := make(chan struct{})
	sent := make(chan int)
	go func() {
		n, tick := 0, time.NewTicker(10*time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				sent <- n
				return
			case <-tick.C:
				for range 200 { // 20,000 a second
					_, _ = flood.Write(raw)
					n++
				}
			}
		}
	}()
	bed.eventually("most of it is not answered", func() bool { return bed.status(here[0]).Dropped["question over the limit"] > 5000 })
	bed.eventually("others are answered as ever", func() bool {
		return bed.asks(far[1], "udp", bed.status(here[1]).Self.Addresses[0], "hub.mesh1.internal", dns.TypeA) != "silence" &&
			bed.asks(here[0], "udp", s.Self.Addresses[0], "far0.mesh0.internal", dns.TypeA) != "silence"
	})
	close(stop)
	bed.step("%d questions", <-sent)
	slices.Reverse(here)
	for _, n := range here {
		bed.must(n.Stop())
	}
	if got := bed.hostsFile(here[0]); got != plainHosts {
		t.Errorf("all stopped: got\n%s", got)
	}
}
