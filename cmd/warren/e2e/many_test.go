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

// maxMegabytes is what each of twenty agents may send and receive until all have a tunnel to all; of more, as much for each other.
const maxMegabytes = 1.0

// TestMany starts many agents at once on this machine, all on the Internet, where each reaches each: every one has a tunnel to every
// other soon, and again when all are killed and start anew. It runs alone, with the program as users have it. WARREN_MANY is how many,
// twenty unless it says otherwise; the time that they have grows with the square. What they may say is held where WARREN_MANY is set: each
// second that a busy machine needs more is another repetition.
func TestMany(t *testing.T) {
	size := 20
	if given := os.Getenv("WARREN_MANY"); given != "" {
		var err error
		if size, err = strconv.Atoi(given); err != nil {
			t.Fatal(err)
		}
	}
	limit := 30 * time.Second * time.Duration(size*size) / 400
	b := bedWith(t, buildPlain, 4*limit+2*time.Minute)
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
	b.startAll("first start", limit)
	for _, n := range b.nodes {
		b.must(n.Kill())
	}
	b.startAll("all restarted", 2*limit)
}

// startAll starts all agents at once, which have to be complete within the limit.
func (b *bed) startAll(what string, limit time.Duration) {
	b.t.Helper()
	var before, bytes float64
	for _, n := range b.nodes {
		before += b.wire(n).bytes
	}
	begin := time.Now()
	var all sync.WaitGroup
	for _, n := range b.nodes {
		all.Go(func() {
			if err := n.Start(b.ctx); err != nil {
				b.t.Error(err)
			}
		})
	}
	all.Wait()
	starving := b.starving()
	for _, n := range b.nodes {
		_, err := n.Wait(b.ctx, "all others are connected", func(s api.Status) bool {
			connected := 0
			for _, p := range s.Peers {
				if p.Connected() {
					connected++
				}
			}
			return connected == len(b.nodes)-1
		})
		b.must(err)
	}
	took, each := time.Since(begin), float64(len(b.nodes))
	starved := time.Duration(float64(starving()) / each)
	var cpu time.Duration
	for _, n := range b.nodes {
		u := b.use(n)
		cpu += u.cpu
		bytes += u.bytes
	}
	b.step("%s: %d agents complete after %.1f s, starved for %.1f s each, with %.2f s of CPU and %.2f MB", what, len(b.nodes), took.Seconds(),
		starved.Seconds(), cpu.Seconds()/each, (bytes-before)/1e6/each)
	if got, most := (bytes-before)/1e6/each, maxMegabytes*each/20; os.Getenv("WARREN_MANY") != "" && got > most {
		b.t.Errorf("%s: %.2f MB of each of %d agents, want %.2f at most", what, got, len(b.nodes), most)
	}
	if took > limit+starved {
		b.t.Errorf("%s: %d agents complete after %v, want %v at most, and the %v for which they were starved", what, len(b.nodes), took, limit, starved)
	}
}
