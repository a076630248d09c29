//go:build linux

package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// configure writes the node's config file and returns its path.
func (b *bed) configure(n *Node, text string) string {
	b.t.Helper()
	path := filepath.Join(n.Host.Dir(), "etc", "warren.toml")
	b.must(os.WriteFile(path, []byte(text), 0o600))
	return path
}

// secret writes a key file of the node and returns its path.
func (b *bed) secret(n *Node, name string, key wgtypes.Key) string {
	b.t.Helper()
	path := filepath.Join(n.Host.Dir(), "etc", name)
	b.must(os.WriteFile(path, []byte(key.String()+"\n"), 0o600))
	return path
}

// foreign starts a foreign peer with one address.
func (b *bed) foreign(h *natlab.Host, port uint16, addr string) *Foreign {
	b.t.Helper()
	f, err := StartForeign(b.ctx, h, port, netip.MustParsePrefix(addr+"/32"))
	b.must(err)
	b.t.Cleanup(func() {
		if err := f.Stop(); err != nil {
			b.t.Errorf("stop foreign peer on %s: %v", h.Name, err)
		}
	})
	return f
}

// peerTable is a [[peer]] of the config file.
func peerTable(f *Foreign, more string, allowed ...string) string {
	return fmt.Sprintf("[[peer]]\nname = %q\npublic_key = %q\nendpoint = \"%s:%d\"\nallowed_ips = [\"%s\"]\n%s\n",
		f.Host.Name, f.PublicKey, f.Host.Addr4(), f.Port, strings.Join(allowed, `", "`), more)
}

func prefixes(addrs ...netip.Addr) (out []netip.Prefix) {
	for _, a := range addrs {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

// TestStaticPeers runs warren without a mesh between two foreign peers: one
// that it calls, and one behind a NAT that calls it, with a preshared key.
func TestStaticPeers(t *testing.T) {
	t.Parallel()
	bed := newBed(t, time.Minute)
	hub := bed.node("hub", nil)
	gate := bed.foreign(bed.Host("gate", nil), 51820, "10.98.0.2")
	phone := bed.foreign(bed.Host("phone", bed.Router("home", natlab.Symmetric)), 0, "10.98.0.3")
	private, err := wgtypes.GeneratePrivateKey()
	bed.must(err)
	shared, err := wgtypes.GenerateKey()
	bed.must(err)
	hubAddr := netip.MustParseAddr("10.98.0.1")
	config := bed.configure(hub, fmt.Sprintf(`
[interface]
port = 4242
private_key_file = %q
addresses = ["%s/24"]

%s
[[peer]]
name = "phone"
public_key = %q
preshared_key_file = %q
allowed_ips = ["10.98.0.3/32"]
`, bed.secret(hub, "private.key", private), hubAddr, peerTable(gate, "", "10.98.0.2/32"), phone.PublicKey, bed.secret(hub, "psk", shared)))
	bed.must(gate.AddPeer(bed.ctx, ForeignPeer{PublicKey: private.PublicKey(), AllowedIPs: prefixes(hubAddr)}))
	bed.must(phone.AddPeer(bed.ctx, ForeignPeer{PublicKey: private.PublicKey(), PresharedKey: shared, AllowedIPs: prefixes(hubAddr),
		Endpoint: netip.AddrPortFrom(hub.Host.Addr4(), 4242)}))

	hub.Mesh = "static" // what an agent without a mesh is called
	bed.must(hub.Start(bed.ctx, "--config", config))
	bed.must(hub.pingAll(bed.ctx, []string{"10.98.0.2"}))
	if _, err := phone.Host.Run(bed.ctx, "ping", "-n", "-c", "1", "-W", "5", hubAddr.String()); err != nil {
		t.Error(err)
	}
	bed.must(hub.pingAll(bed.ctx, []string{"10.98.0.3"}))
	if out, err := hub.Warren(bed.ctx, "", "status"); err != nil || !strings.Contains(out, "static peers") {
		t.Errorf("warren status: got %q, %v", out, err)
	}
	s := bed.status(hub)
	if s.Mesh != nil || s.Self.PublicKey != private.PublicKey().String() || s.Self.Port != 4242 {
		t.Errorf("got mesh %v, self %+v", s.Mesh, s.Self)
	}
	for name, at := range map[string]netip.Addr{"gate": gate.Host.Addr4(), "phone": phone.Host.Router().Public()} {
		p, _ := Peer(s, name)
		if !p.Static || !p.Connected() || p.Path.Kind != api.PathDirect || p.Path.Address.Addr() != at || p.RxBytes == 0 {
			t.Errorf("%s: got %+v, want it up at %s", name, p, at)
		}
	}
}

// TestReload changes one static peer of a member again and again, by `warren
// up` and SIGHUP, while packets flow to another one and to a member: none of
// those is lost, no handshake repeated. A wrong file changes nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	bed := newBed(t, time.Minute)
	founder, member := bed.node("founder", nil), bed.node("member", bed.Router("home", natlab.EIMAPDF))
	steady := bed.foreign(bed.Host("steady", nil), 51820, "10.97.1.1")
	moody := bed.foreign(bed.Host("moody", nil), 51821, "10.97.2.1")
	same := peerTable(steady, "", "10.97.1.1/32")
	config := bed.configure(founder, same+peerTable(moody, "", "10.97.2.1/32"))
	bed.must(founder.Create(bed.ctx, "home"))
	bed.must(founder.Start(bed.ctx, "--config", config))
	self := bed.status(founder)
	for _, f := range []*Foreign{steady, moody} {
		key, err := wgtypes.ParseKey(self.Self.PublicKey)
		bed.must(err)
		bed.must(f.AddPeer(bed.ctx, ForeignPeer{PublicKey: key, AllowedIPs: prefixes(self.Self.Addresses...)}))
	}
	bed.must(Admit(bed.ctx, founder, member))
	bed.meshed(founder, member)
	bed.must(founder.pingAll(bed.ctx, []string{"10.97.1.1", "10.97.2.1"}))
	// Where both sides began one, there is a second handshake: whoever has had no response to its own repeats it after 5 to 5.33 s (WireGuard, 6.4).
	before, err := founder.Wait(bed.ctx, "the handshakes are six seconds old", func(s api.Status) bool {
		return !slices.ContainsFunc(s.Peers, func(p api.Peer) bool {
			return p.LastHandshake == nil || time.Since(*p.LastHandshake) < 6*time.Second
		})
	})
	bed.must(err)

	var streams []*natlab.Process
	for _, to := range []string{"10.97.1.1", bed.status(member).Self.Addresses[0].String()} {
		p, err := founder.Host.Start("ping", "-n", "-i", "0.05", "-c", "100", "-W", "2", to)
		bed.must(err)
		streams = append(streams, p)
	}

	bed.step("another address, by warren up")
	_, err = moody.Host.Run(bed.ctx, "ip", "addr", "add", "10.97.2.2/32", "dev", foreignName)
	bed.must(err)
	bed.configure(founder, same+peerTable(moody, "persistent_keepalive = \"25s\"", "10.97.2.1/32", "10.97.2.2/32"))
	_, err = founder.Warren(bed.ctx, "", "up", "--config", config)
	bed.must(err)
	bed.must(founder.pingAll(bed.ctx, []string{"10.97.2.2", "10.97.2.1"}))

	bed.step("taken out, by SIGHUP")
	bed.configure(founder, same)
	bed.must(founder.Agent().Signal(syscall.SIGHUP))
	bed.eventually("the peer is gone", func() bool { return !slices.Contains(bed.wireGuardPeers(founder), moody.PublicKey.String()) })
	bed.silent(founder, netip.MustParseAddr("10.97.2.2"))

	bed.step("a wrong file")
	bed.configure(founder, same+"[[peer]]\nname = \"x\"\npublic_kye = \"x\"\n")
	if _, err := founder.Warren(bed.ctx, "", "up", "--config", config); ExitCode(err) != 1 || !strings.Contains(err.Error(), `did you mean "public_key"`) {
		t.Errorf("warren up with a wrong file: got %v, want its mistake", err)
	}
	bed.must(founder.Agent().Signal(syscall.SIGHUP))
	_, err = founder.Wait(bed.ctx, "a warning about the settings", func(s api.Status) bool {
		return slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.Contains(w, "not reloaded") })
	})
	bed.must(err)

	bed.step("back, and shared with the mesh")
	inside := freeAddr(self)
	bed.configure(founder, same+peerTable(moody, "share = true", inside.String()+"/32"))
	bed.must(founder.Agent().Signal(syscall.SIGHUP))
	_, err = member.Wait(bed.ctx, "the founder's route is known", func(s api.Status) bool {
		p, _ := Peer(s, "founder")
		return slices.Equal(p.Routes, prefixes(inside))
	})
	bed.must(err)
	after := bed.status(founder)
	if !slices.Equal(after.Warnings, before.Warnings) {
		t.Errorf("warnings after a good file: got %q, want those before it, %q", after.Warnings, before.Warnings)
	}
	for _, name := range []string{"steady", "member"} {
		was, _ := Peer(before, name)
		is, _ := Peer(after, name)
		if was.LastHandshake == nil || is.LastHandshake == nil || !is.LastHandshake.Equal(*was.LastHandshake) || is.RxBytes <= was.RxBytes {
			t.Errorf("%s: got %+v, was %+v: want the same session, used", name, is, was)
		}
	}
	for _, p := range streams {
		bed.must(p.Wait(bed.ctx)) // stopped before its end, it would count the echo in flight as lost
		if lost := unanswered(p.Output(), 100); lost != nil {
			t.Errorf("%s: %v not answered, want none: %s", p, lost, p.Output())
		}
	}
	bed.step("end")
}

// freeAddr is an IPv4 address of the mesh that no member has.
func freeAddr(s api.Status) netip.Addr {
	addr := s.Mesh.Prefix4.Addr().Next()
	for slices.Contains(s.Self.Addresses, addr) {
		addr = addr.Next()
	}
	return addr
}

// TestRoutesAndSettings asserts what comes of settings that the agent cannot follow, or not yet: routes that would swallow the tunnel are
// refused by `config check` and left out by the agent, the rest works; what waits for the next start is named with what runs, each time;
// a TCP port that was taken is had within seconds.
func TestRoutesAndSettings(t *testing.T) {
	t.Parallel()
	bed := newBed(t, time.Minute)
	founder, member := bed.node("founder", nil), bed.node("member", bed.Router("home", natlab.EIMAPDF))
	phone := bed.foreign(bed.Host("phone", nil), 51820, "10.97.1.1")
	var taken net.Listener
	bed.must(founder.Host.Do(func() (err error) { taken, err = net.Listen("tcp", ":443"); return err }))
	defer taken.Close()
	const ports = "[mesh]\nstream_ports = [443]\n"
	around := netip.PrefixFrom(phone.Host.Addr4(), 24).Masked().String()
	bed.must(founder.Create(bed.ctx, "home"))
	config := bed.configure(founder, ports+peerTable(phone, "", "10.97.1.1/32", "0.0.0.0/1", "128.0.0.0/1", around))
	bed.must(founder.Start(bed.ctx, "--config", config))
	self := bed.status(founder)
	key, err := wgtypes.ParseKey(self.Self.PublicKey)
	bed.must(err)
	bed.must(phone.AddPeer(bed.ctx, ForeignPeer{PublicKey: key, AllowedIPs: prefixes(self.Self.Addresses...)}))
	bed.must(Admit(bed.ctx, founder, member))

	bed.step("what swallows the tunnel is left out")
	if out, err := founder.Warren(bed.ctx, "", "config", "check", config); ExitCode(err) != 1 || !strings.Contains(err.Error(), `allowed_ips "0.0.0.0/1"`) ||
		!strings.Contains(err.Error(), around+`": it holds the endpoint of static peer`) {
		t.Errorf("config check: got %q, %v, want the three routes refused", out, err)
	}
	warnings := strings.Join(bed.status(founder).Warnings, "\n")
	for _, want := range []string{"0.0.0.0/1 of static peer", "128.0.0.0/1 of static peer", around + " of static peer", "TCP port 443 is not listened on"} {
		if !strings.Contains(warnings, want) {
			t.Errorf("got warnings %q, want one of %s", warnings, want)
		}
	}
	bed.must(founder.pingAll(bed.ctx, []string{"10.97.1.1"}))
	bed.meshed(founder, member)

	bed.step("what waits for the next start is named")
	bed.configure(founder, "[interface]\nport = 9300\n"+ports+peerTable(phone, "", "10.97.1.1/32"))
	const waits = "interface.port 9300 takes effect when the agent starts again; it runs with 9277"
	for range 2 {
		out, err := founder.Warren(bed.ctx, "", "up", "--config", config)
		if err != nil || !strings.Contains(out, waits) {
			t.Errorf("warren up: got %q, %v, want %q", out, err, waits)
		}
	}
	_, err = founder.Wait(bed.ctx, "its status says so, and nothing of routes", func(s api.Status) bool {
		all := strings.Join(s.Warnings, "\n")
		return strings.Contains(all, waits) && !strings.Contains(all, "left out")
	})
	bed.must(err)

	bed.step("the port is free")
	taken.Close()
	_, err = founder.Wait(bed.ctx, "it is listened on", func(s api.Status) bool { return !strings.Contains(strings.Join(s.Warnings, "\n"), "port 443") })
	bed.must(err)
	bed.must(founder.pingAll(bed.ctx, []string{"10.97.1.1"}))
	bed.step("end")
}
