//go:build linux

package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestProxy asserts that a host whose network lets nothing out but an HTTP proxy, which wants a password and allows port 443
// only, joins and reaches every member; and what its status says when the proxy does not serve it.
func TestProxy(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 3*time.Minute)
	office := bed.Router("office-router", natlab.EIMAPDF)
	founder, clerk := bed.node("founder", nil), bed.node("clerk", office)
	others := []*Node{
		founder, bed.node("home", bed.Router("home-router", natlab.EIMAPDF)), bed.node("sym", bed.Router("sym-router", natlab.Symmetric)),
		bed.node("strict", bed.Router("strict-router", natlab.UDPBlocked)),
	}
	proxy := bed.proxy(bed.Host("proxy", office))
	const secret = "s3cret-word"
	proxy.account.Store("clerk:" + secret)
	proxy.onlyPort.Store("443")
	bed.fence(clerk, fmt.Sprintf("ip daddr != %s drop; meta protocol ip6 drop", proxy.at.Addr()))
	withPassword := func(password string) []string {
		return []string{fmt.Sprintf("HTTPS_PROXY=http://clerk:%s@%s", password, proxy.at)}
	}

	bed.must(founder.Create(bed.ctx, "home"))
	bed.must(founder.Start(bed.ctx, "--config", bed.configure(founder, "mesh.stream_ports = [443]\n")))
	for _, n := range others[1:] {
		bed.must(Admit(bed.ctx, founder, n))
	}
	bed.step("a host joins through a proxy")
	clerk.Env = withPassword(secret)
	bed.must(Admit(bed.ctx, founder, clerk))
	bed.byTransport(clerk, founder, api.PathDirect, api.TransportTCP)
	bed.meshed(append(others, clerk)...)
	if proxy.tunnels.Load() == 0 {
		t.Error("got no tunnel through the proxy")
	}

	for _, tt := range []struct {
		name, password, onlyPort, want string
	}{
		{"a wrong password", "wr0ng-word", "443", "does not take the user name and password"},
		{"a port that is forbidden", secret, "80", "forbids port"},
	} {
		bed.step("%s", tt.name)
		bed.must(clerk.Stop())
		proxy.onlyPort.Store(tt.onlyPort)
		clerk.Env = withPassword(tt.password)
		bed.must(clerk.Start(bed.ctx, "--log-level", "debug"))
		s, err := clerk.Wait(bed.ctx, "its status says what is wrong with the proxy", func(s api.Status) bool {
			return strings.Contains(strings.Join(s.Warnings, "\n"), tt.want)
		})
		bed.must(err)
		shown, err := json.Marshal(s)
		bed.must(err)
		for what, text := range map[string]string{"status": string(shown), "log": clerk.Agent().Output()} {
			if strings.Contains(text, tt.password) || strings.Contains(text, "clerk:") {
				t.Errorf("%s: got the account of the proxy in the %s", tt.name, what)
			}
		}
	}
	bed.step("the proxy allows it again")
	proxy.onlyPort.Store("443")
	bed.meshed(append(others, clerk)...)
}

// TestPort443 asserts that a host whose network lets out nothing but TCP to port 443 joins and reaches every member, and that
// the anchor says so when it cannot have the port.
func TestPort443(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	founder, guest := bed.node("founder", nil), bed.node("guest", bed.Router("hotel", natlab.EIMAPDF))
	home := bed.node("home", bed.Router("home-router", natlab.EIMAPDF))
	bed.fence(guest, "meta protocol ip6 drop; meta protocol ip tcp dport 443 accept; meta protocol ip drop")
	bed.must(founder.Create(bed.ctx, "home"))
	bed.must(founder.Start(bed.ctx, "--config", bed.configure(founder, "mesh.stream_ports = [443]\n")))
	bed.must(Admit(bed.ctx, founder, home))
	bed.must(Admit(bed.ctx, founder, guest))
	bed.byTransport(guest, founder, api.PathDirect, api.TransportTCP)
	bed.meshed(founder, home, guest)

	bed.step("another program has the port")
	var taken net.Listener
	bed.must(home.Host.Do(func() (err error) { taken, err = net.Listen("tcp", ":443"); return err }))
	defer taken.Close()
	bed.must(home.Stop())
	config := bed.configure(home, fmt.Sprintf("[mesh]\nanchor = \"always\"\nendpoint = \"%s:9277\"\nstream_ports = [443]\n", home.Host.Addr4()))
	bed.must(home.Start(bed.ctx, "--config", config))
	_, err := home.Wait(bed.ctx, "its status says so", func(s api.Status) bool {
		return strings.Contains(strings.Join(s.Warnings, "\n"), "TCP port 443 is not listened on")
	})
	bed.must(err)
	bed.meshed(founder, home, guest)
}

// fence drops silently what leaves the host and what the rules, of nftables' egress hook, drop.
func (b *bed) fence(n *Node, rules string) {
	b.t.Helper()
	cmd := n.Host.Command(b.ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader("table netdev fence {\n chain out {\n type filter hook egress device eth0 priority 0; policy accept;\n" +
		strings.ReplaceAll(rules, "; ", "\n") + "\n }\n}\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("fence %s: %v: %s", n.Name(), err, out)
	}
}

// proxy is an HTTP proxy on a host of the lab that does nothing but CONNECT.
type proxy struct {
	at       netip.AddrPort
	tunnels  atomic.Int64
	account  atomic.Value // user:password
	onlyPort atomic.Value
}

func (b *bed) proxy(h *natlab.Host) *proxy {
	b.t.Helper()
	p := &proxy{at: netip.AddrPortFrom(h.Addr4(), 3128)}
	var l net.Listener
	b.must(h.Do(func() (err error) { l, err = net.Listen("tcp", p.at.String()); return err }))
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(h, w, r) })}
	var running sync.WaitGroup
	running.Go(func() { server.Serve(l) })
	b.t.Cleanup(func() { server.Close(); running.Wait() })
	return p
}

func (p *proxy) serve(h *natlab.Host, w http.ResponseWriter, r *http.Request) {
	_, port, _ := net.SplitHostPort(r.Host)
	account := base64.StdEncoding.EncodeToString([]byte(p.account.Load().(string)))
	switch {
	case r.Method != http.MethodConnect:
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	case r.Header.Get("Proxy-Authorization") != "Basic "+account:
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	case port != p.onlyPort.Load():
		w.WriteHeader(http.StatusForbidden)
		return
	}
	var far net.Conn
	if h.Do(func() (err error) { far, err = net.DialTimeout("tcp", r.Host, 5*time.Second); return err }) != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer far.Close()
	w.WriteHeader(http.StatusOK)
	near, early, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer near.Close()
	early.Flush()
	p.tunnels.Add(1)
	go func() { io.Copy(far, early); far.Close() }()
	io.Copy(near, far)
}
