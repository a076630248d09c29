//go:build linux

package e2e

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"warren/mesh/api"
)

// TestMany starts many agents at once on this machine, all on the Internet, where each reaches each: every one has to have a tunnel to
// every other soon, and again when all are killed and start anew. WARREN_MANY is how many, twenty unless it says otherwise.
func TestMany(t *testing.T) {
	size := 20
	if given := os.Getenv("WARREN_MANY"); given != "" {
		var err error
		if size, err = strconv.Atoi(given); err != nil {
			t.Fatal(err)
		}
	}
	b := bedWith(t, buildPlain, 4*time.Minute)
	founder := b.node("n0", nil)
	b.must(founder.Create(b.ctx, "home"))
	b.must(founder.Start(b.ctx))
	token, err := founder.Invite(b.ctx, "--uses", strconv.Itoa(size))
	b.must(err)
	for i := 1; i < size; i++ {
		n := b.node(fmt.Sprintf("n%d", i), nil)
		b.must(n.Join(b.ctx, token))
	}
	b.must(founder.Stop())
	if os.Getenv("WARREN_DEBUG") != "" {
		defer t.Fail() // prints the logs
	}
	for _, what := range []string{"first start", "all restarted"} {
		begin := time.Now()
		b.startAll()
		for i, n := range b.nodes {
			_, err := n.Wait(b.ctx, "all others are up", func(s api.Status) bool {
				up := 0
				for _, p := range s.Peers {
					if p.State == api.PeerUp {
						up++
					}
				}
				return up == size-1
			})
			b.must(err)
			if i == 0 {
				b.step("%s: the first is complete after %.1f s", what, time.Since(begin).Seconds())
			}
		}
		took := time.Since(begin)
		var cpu time.Duration
		var bytes, most float64
		for _, n := range b.nodes {
			u := b.use(n)
			cpu += u.cpu
			bytes += u.bytes
			most = max(most, u.rss)
		}
		b.step("%s: %d agents complete after %.1f s; each %.2f s of CPU, %.2f MB; the largest %.0f MiB", what, size, took.Seconds(),
			cpu.Seconds()/float64(size), bytes/1e6/float64(size), most)
		for _, n := range b.nodes {
			b.must(n.Kill())
		}
	}
}

// startAll starts all agents at once.
func (b *bed) startAll() {
	b.t.Helper()
	var all sync.WaitGroup
	for _, n := range b.nodes {
		all.Go(func() {
			if err := n.Start(b.ctx); err != nil {
				b.t.Error(err)
			}
		})
	}
	all.Wait()
}
