//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/icmp"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// BenchmarkFirstPing measures, for pairs of networks, the time from the start of both agents, which are members already,
// to the first answer to a ping between them. The founder, a public anchor, runs all the time. The program is built
// without the race detector.
func BenchmarkFirstPing(b *testing.B) {
	pairs := []struct {
		a, b natlab.Kind
		want string
	}{
		{natlab.Public, natlab.Public, api.PathDirect},
		{natlab.Public, natlab.EIMAPDF, api.PathDirect},
		{natlab.EIMAPDF, natlab.EIMAPDF, api.PathDirect},
		{natlab.DoubleNAT, natlab.EIMEIF, api.PathDirect},
		{natlab.Public, natlab.Symmetric, api.PathDirect},
		{natlab.Symmetric, natlab.Symmetric, api.PathRelay},
		{natlab.Symmetric, natlab.EIMAPDF, api.PathRelay},
	}
	for _, p := range pairs {
		b.Run(fmt.Sprintf("%s-%s-%s", p.a, p.b, p.want), func(b *testing.B) {
			bed := newBenchBed(b)
			founder := bed.node("founder", nil)
			x, y := bed.node("a", bed.Router("home-a", p.a)), bed.node("b", bed.Router("home-b", p.b))
			bed.must(Found(bed.ctx, "home", founder, x, y))
			bed.connected(x, y, p.want)
			to, err := y.Overlay(bed.ctx)
			bed.must(err)
			var took []time.Duration
			for b.Loop() {
				bed.must(x.Stop())
				bed.must(y.Stop())
				start := time.Now()
				bed.must(x.Launch())
				bed.must(y.Launch())
				var first time.Time
				bed.must(x.Host.Do(func() (err error) { first, err = firstEcho(to[0], 10*time.Second); return err }))
				took = append(took, first.Sub(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
			b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "ms-worst")
		})
	}
}

// firstEcho sends an echo request every 5 ms, from the namespace that it is called in, until one is answered. The first
// ones find no interface yet.
func firstEcho(to netip.Addr, limit time.Duration) (time.Time, error) {
	c, err := icmp.ListenPacket("ip4:icmp", "0.0.0.0")
	if err != nil {
		return time.Time{}, err
	}
	defer c.Close()
	deadline := time.Now().Add(limit)
	id := int(0x4000 + meterIDs.Add(1))
	buf := make([]byte, 1500)
	for seq := 0; time.Now().Before(deadline); seq++ {
		sendEcho(c, to, id, seq) // fails until the interface is there
		c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				break
			}
			if isEcho(buf[:n], from, to, id) {
				return time.Now(), nil
			}
		}
	}
	return time.Time{}, errors.New("no echo from " + to.String() + " within " + limit.String())
}
