//go:build linux

package e2e

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"warren/mesh/api"
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

			bed.must(founder.Create(bed.ctx, "boat"))
			bed.must(founder.Start(bed.ctx))
			tokens := []string{}
			for range 2 {
				token, err := founder.Invite(bed.ctx)
				bed.must(err)
				tokens = append(tokens, token)
			}
			bed.step("the founder gets another address, the tokens go by file")
			bed.must(founder.Stop())
			renumber(founder)
			bed.must(founder.Start(bed.ctx))
			for i, n := range all[1:] {
				bed.must(n.Join(bed.ctx, tokens[i]))
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

// TestMeshesOnOneLANIgnoreEachOther has two meshes and a node that keeps out on one switch.
func TestMeshesOnOneLANIgnoreEachOther(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 90*time.Second)
	lan4 := netip.MustParsePrefix("192.168.50.0/24")
	wire := bed.Switch("switch", lan4, netip.Prefix{})
	red, pink := bed.node("red", wire), bed.node("pink", wire)
	blue, navy := bed.node("blue", wire), bed.node("navy", wire)
	bed.must(Found(bed.ctx, "reds", red, pink))
	bed.must(Found(bed.ctx, "blues", blue, navy))
	bed.meshed(red, pink)
	bed.meshed(blue, navy)
	for i, n := range []*Node{red, pink, blue, navy} {
		bed.must(n.Stop())
		bed.renumber(n, lan4, netip.Prefix{}, 100+i)
		bed.must(n.Launch())
	}
	bed.meshed(red, pink)
	bed.meshed(blue, navy)
	bed.agreed([]*Node{red, pink}, "pink", "red")
	bed.agreed([]*Node{blue, navy}, "blue", "navy")
	bed.eventually("beacons of the other mesh are heard and not readable", func() bool {
		return bed.status(red).Dropped["beacons: not readable"] > 0
	})
}
