//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestMetBefore restarts two members behind NATs while their only anchor is away: each goes to where it has met the other, and nobody is
// needed between them. Then one of them has moved, and the anchor is back: they meet as if nothing were remembered.
func TestMetBefore(t *testing.T) {
	t.Parallel()
	bed := newBed(t, time.Minute)
	founder := bed.node("founder", nil)
	a := bed.node("a", bed.Router("home-a", natlab.EIMAPDF))
	b := bed.node("b", bed.Router("home-b", natlab.EIMAPDF))
	bed.step("found")
	bed.must(Found(bed.ctx, "home", founder, a, b))
	bed.connected(a, b, api.PathDirect)
	ids, to := map[*Node]string{a: bed.status(a).Self.ID, b: bed.status(b).Self.ID}, bed.status(b).Self.Addresses
	for _, n := range []*Node{a, b, founder} {
		bed.must(n.Stop())
	}
	for _, pair := range [][2]*Node{{a, b}, {b, a}} {
		if !pair[0].remembers(ids[pair[1]]) {
			t.Errorf("%s does not remember where it has met %s", pair[0].Name(), pair[1].Name())
		}
	}
	bed.step("start both, without the anchor")
	begin := time.Now()
	bed.must(a.Launch("--log-level", "debug"))
	bed.must(b.Launch("--log-level", "debug"))
	var first time.Time
	bed.must(a.Host.Do(func() (err error) { first, err = firstEcho(to[0], 20*time.Second); return err }))
	bed.step("first ping after %v", first.Sub(begin).Round(time.Millisecond))
	for _, n := range []*Node{a, b} {
		if !regexp.MustCompile(`msg="signal received".*signal\.address=203`).MatchString(n.Agent().Output()) {
			t.Errorf("%s has got nothing straight", n.Name())
		}
	}
	bed.connected(a, b, api.PathDirect)
	bed.step("b moves while it is off")
	bed.must(b.Stop())
	bed.must(a.Stop())
	b.Host.Move(bed.Router("away", natlab.EIMAPDF))
	bed.must(founder.Start(bed.ctx))
	bed.must(a.Launch())
	bed.must(b.Launch())
	bed.connected(a, b, api.PathDirect)
	bed.step("end")
}

// remembers reports whether the node has a path to the member of that ID on its disk.
func (n *Node) remembers(id string) bool {
	raw, err := os.ReadFile(filepath.Join(n.StateDir(), "paths.json"))
	if err != nil {
		return false
	}
	var list []struct {
		ID   string         `json:"id"`
		Addr netip.AddrPort `json:"addr"`
	}
	if json.Unmarshal(raw, &list) != nil {
		return false
	}
	for _, m := range list {
		if m.ID == id {
			return true
		}
	}
	return false
}

// firstPacket starts the agent of a node whose anchor is away, and returns how long it takes until a packet of it is where the anchor was,
// and how long the same program takes to print its version.
func (b *bed) firstPacket(n, anchor *Node) (packet, version time.Duration) {
	b.t.Helper()
	begin := time.Now()
	_, err := n.Warren(b.ctx, "", "version")
	b.must(err)
	version = time.Since(begin)
	c, err := anchor.Host.ListenUDP(netip.AddrPortFrom(anchor.Host.Addr4(), 9277))
	b.must(err)
	defer c.Close()
	b.must(c.SetReadDeadline(time.Now().Add(20 * time.Second)))
	begin = time.Now()
	b.must(n.Launch())
	var from *net.UDPAddr
	for from == nil || from.AddrPort().Addr().Unmap() != n.Host.Addr4() {
		_, from, err = c.ReadFromUDP(make([]byte, 2048))
		b.must(err)
	}
	packet = time.Since(begin)
	b.must(n.Stop())
	return packet, version
}

// TestStartToFirstPacket: the first packet leaves while the program would print its version a few times.
func TestStartToFirstPacket(t *testing.T) {
	bed := bedWith(t, buildPlain, time.Minute)
	founder, a := bed.node("founder", nil), bed.node("a", nil)
	bed.must(Found(bed.ctx, "home", founder, a))
	bed.must(a.Stop())
	bed.must(founder.Stop())
	var ratios []float64
	for range 3 {
		packet, version := bed.firstPacket(a, founder)
		bed.step("first packet after %v, the version after %v", packet.Round(time.Millisecond), version.Round(time.Millisecond))
		ratios = append(ratios, float64(packet)/float64(version))
	}
	slices.Sort(ratios)
	if limit := 15.0; ratios[1] > limit {
		t.Errorf("got %.1f times as long as the version, want %.0f at most", ratios[1], limit)
	}
}

// BenchmarkStart measures the time from the start of the program to its first packet.
func BenchmarkStart(b *testing.B) {
	bed := newBenchBed(b)
	founder, a := bed.node("founder", nil), bed.node("a", nil)
	bed.must(Found(bed.ctx, "home", founder, a))
	bed.must(a.Stop())
	bed.must(founder.Stop())
	var all []time.Duration
	for b.Loop() {
		for range rounds(b) {
			packet, _ := bed.firstPacket(a, founder)
			all = append(all, packet)
		}
	}
	slices.Sort(all)
	fmt.Printf("\nstart to first packet: median %.0f ms, worst %.0f ms\n\n", ms(all[len(all)/2]), ms(all[len(all)-1]))
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
