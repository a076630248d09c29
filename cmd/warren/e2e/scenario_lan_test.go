//go:build linux

package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/beacon"
	"warren/nat/natlab"
)

// lans are networks without a way out: what a router, or nobody, gives to its hosts.
var lans = map[string]struct{ lan4, lan6 netip.Prefix }{
	"IPv4":               {lan4: netip.MustParsePrefix("192.168.50.0/24")},
	"IPv4 link-local":    {lan4: netip.MustParsePrefix("169.254.0.0/24")},
	"IPv6 unique local":  {lan6: netip.MustParsePrefix("fd12:3456:789a:1::/64")},
	"both, as on a boat": {netip.MustParsePrefix("192.168.51.0/24"), netip.MustParsePrefix("fd12:3456:789a:2::/64")},
}

// TestLANWithoutInternet makes a mesh on a switch that leads nowhere. Every host changes its address whenever it is
// off, so that no address in a token or in a list of contacts is of use.
func TestLANWithoutInternet(t *testing.T) {
	for name, lan := range lans {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bed := newBed(t, 90*time.Second)
			wire := bed.Switch("switch", lan.lan4, lan.lan6)
			founder, second, third := bed.node("founder", wire), bed.node("second", wire), bed.node("third", wire)
			all := []*Node{founder, second, third}
			generation := 0
			renumber := func(nodes ...*Node) {
				generation++
				for i, n := range nodes {
					bed.renumber(n, lan.lan4, lan.lan6, 100+30*generation+i)
				}
			}

			bed.step("the mesh is made before there is any network")
			_, err := founder.Host.Run(bed.ctx, "ip", "link", "set", "eth0", "down")
			bed.must(err)
			bed.must(founder.Create(bed.ctx, "boat"))
			bed.must(founder.Start(bed.ctx))
			tokens := []string{}
			for range 2 {
				invite, err := founder.NewInvite(bed.ctx)
				bed.must(err)
				if len(invite.Anchors) > 0 {
					t.Errorf("got a token with the addresses %v, want none: there are none", invite.Anchors)
				}
				tokens = append(tokens, invite.Token)
			}
			bed.step("the cable is plugged in, the tokens go by file")
			_, err = founder.Host.Run(bed.ctx, "ip", "link", "set", "eth0", "up")
			bed.must(err)
			renumber(founder)
			for i, n := range all[1:] {
				began := time.Now()
				bed.must(n.Join(bed.ctx, tokens[i]))
				bed.step("%s has joined after %.1f s", n.Name(), time.Since(began).Seconds())
				bed.must(n.Start(bed.ctx))
			}
			bed.meshed(all...)
			for _, pair := range [][2]*Node{{founder, second}, {founder, third}, {second, third}} {
				bed.connected(pair[0], pair[1], api.PathDirect)
			}

			bed.step("all are switched off, and on again together with other addresses")
			for _, n := range all {
				bed.kill(n)
			}
			renumber(all...)
			began := time.Now()
			for _, n := range all {
				bed.must(n.Launch())
			}
			bed.meshed(all...)
			bed.step("meshed again %.1f s after", time.Since(began).Seconds())

			bed.step("the founder is lost; the others start again elsewhere")
			for _, n := range all {
				bed.kill(n)
			}
			renumber(second, third)
			began = time.Now()
			bed.must(second.Launch())
			bed.must(third.Launch())
			bed.meshed(second, third)
			bed.connected(second, third, api.PathDirect)
			bed.step("connected again %.1f s after", time.Since(began).Seconds())
		})
	}
}

// renumber gives a host of a switch other addresses, whose last byte is n.
func (b *bed) renumber(node *Node, lan4, lan6 netip.Prefix, n int) {
	b.t.Helper()
	for _, lan := range []netip.Prefix{lan4, lan6} {
		if !lan.IsValid() {
			continue
		}
		raw := lan.Addr().AsSlice()
		raw[len(raw)-1] = byte(n)
		addr, _ := netip.AddrFromSlice(raw)
		_, err := node.Host.Run(b.ctx, "ip", "addr", "flush", "dev", "eth0", "to", lan.String())
		b.must(err)
		_, err = node.Host.Run(b.ctx, "ip", "addr", "add", fmt.Sprintf("%s/%d", addr, lan.Bits()), "dev", "eth0")
		b.must(err)
	}
}

// TestUplinkDown has a home whose line is dead, and the mesh's only anchor beyond it: who is at home stays connected and
// lets others in, and all meet again when the line is back.
func TestUplinkDown(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	home := bed.Router("home", natlab.EIMAPDF)
	founder := bed.node("founder", nil)
	alice, bob, carol := bed.node("alice", home), bed.node("bob", home), bed.node("carol", home)
	family := []*Node{alice, bob, carol}
	bed.must(Found(bed.ctx, "home", founder, alice, bob))
	bed.meshed(founder, alice, bob)
	token, err := founder.Invite(bed.ctx)
	bed.must(err)
	for _, n := range family[:2] {
		_, err := n.Wait(bed.ctx, "the invite is known", func(s api.Status) bool {
			return slices.ContainsFunc(s.Invites, func(i api.Invited) bool { return i.Used == 0 })
		})
		bed.must(err)
	}

	bed.step("the line goes dead; the founder alone stands in the token")
	bed.Cut(home)
	began := time.Now()
	bed.must(carol.Join(bed.ctx, token))
	bed.step("carol has joined after %.1f s", time.Since(began).Seconds())
	bed.must(carol.Start(bed.ctx))
	bed.meshed(family...)

	bed.step("all at home start again with other addresses")
	for _, n := range family {
		bed.kill(n)
		n.Host.Renumber()
	}
	began = time.Now()
	for _, n := range family {
		bed.must(n.Launch())
	}
	bed.meshed(family...)
	bed.step("meshed again after %.1f s", time.Since(began).Seconds())
	for i, n := range family {
		bed.connected(n, family[(i+1)%3], api.PathDirect)
	}

	bed.step("the line is back")
	bed.Mend(home)
	bed.meshed(founder, alice, bob, carol)
	bed.agreed([]*Node{founder, alice, bob, carol}, "alice", "bob", "carol", "founder")
	bed.step("end")
}

// TestMeshesOnOneLANIgnoreEachOther has two meshes and a node that keeps out on one switch.
func TestMeshesOnOneLANIgnoreEachOther(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 90*time.Second)
	lan4 := netip.MustParsePrefix("192.168.50.0/24")
	wire := bed.Switch("switch", lan4, netip.Prefix{})
	red, pink := bed.node("red", wire), bed.node("pink", wire)
	blue, navy := bed.node("blue", wire), bed.node("navy", wire)
	hermit := bed.node("hermit", wire)
	bed.must(Found(bed.ctx, "reds", red, pink, hermit))
	bed.must(Found(bed.ctx, "blues", blue, navy))
	bed.meshed(red, pink)
	bed.meshed(blue, navy)
	keepOut := bed.configure(hermit, "[mesh]\nlan = false\n")
	for i, n := range []*Node{red, pink, blue, navy, hermit} {
		bed.must(n.Stop())
		bed.renumber(n, lan4, netip.Prefix{}, 100+i)
	}
	for _, n := range []*Node{red, pink, blue, navy} {
		bed.must(n.Launch())
	}
	bed.must(hermit.Launch("--config", keepOut))
	bed.meshed(red, pink)
	bed.meshed(blue, navy)
	bed.agreed([]*Node{red, pink}, "hermit", "pink", "red")
	bed.agreed([]*Node{blue, navy}, "blue", "navy")
	bed.eventually("beacons of the other mesh are heard and not readable", func() bool {
		return bed.status(red).Dropped["beacons: not readable"] > 0
	})

	bed.step("who keeps out neither speaks nor listens, until told otherwise")
	listens := func(n *Node) bool {
		out, err := n.Host.Run(bed.ctx, "ss", "-Hlun", "sport", "=", fmt.Sprintf(":%d", beacon.Port))
		bed.must(err)
		return out != ""
	}
	if listens(hermit) || !listens(red) {
		t.Errorf("got sockets of beacons on hermit: %v, on red: %v, want them on red alone", listens(hermit), listens(red))
	}
	for _, p := range bed.status(hermit).Peers {
		if p.Connected() {
			t.Errorf("hermit has found %s", p.Name)
		}
	}
	bed.configure(hermit, "")
	_, err := hermit.Warren(bed.ctx, "", "up", "--config", keepOut)
	bed.must(err)
	bed.meshed(red, pink, hermit)
}
