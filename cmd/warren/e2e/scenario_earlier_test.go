//go:build linux

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestEarlierClock has nodes start again with a clock that is four minutes behind what it was, as boards without a battery do. WireGuard
// alone would refuse their handshakes until the clock is where it was. With an hour introductions are refused: status, the log and
// join say so.
func TestEarlierClock(t *testing.T) {
	t.Parallel()
	bed := bedWith(t, buildSettable, 3*time.Minute)
	founder := bed.node("founder", nil)
	a := bed.node("a", bed.Router("home-a", natlab.EIMAPDF))
	b := bed.node("b", bed.Router("home-b", natlab.EIMAPDF))
	late := bed.node("late", nil)
	bed.must(Found(bed.ctx, "home", founder, a, b))
	bed.meshed(founder, a, b)
	bed.step("meshed")
	// One of the two is the controlling side.
	for _, n := range []*Node{a, b} {
		others := []*Node{founder, a, b}
		bed.must(n.Kill())
		bed.clock(n, -4*time.Minute)
		began := time.Now()
		bed.must(n.Start(bed.ctx))
		ready := time.Since(began)
		for _, other := range others {
			if other == n {
				continue
			}
			bed.must(n.WaitPing(bed.ctx, other))
			bed.must(other.WaitPing(bed.ctx, n))
		}
		took := time.Since(began) - ready
		bed.step("%s, four minutes behind: ready after %.1f s, reaches and is reached %.1f s later", n.Name(), ready.Seconds(), took.Seconds())
		if took > stretch(6*time.Second) {
			t.Errorf("%s: reachable after %v, want 2 s", n.Name(), took)
		}
		bed.eventually("status of "+n.Name()+" says whose clock is wrong", func() bool {
			return warned(bed.status(n), "this machine's clock is ", "behind those of")
		})
		bed.eventually("status of the founder names "+n.Name(), func() bool {
			return warned(bed.status(founder), "the clock of "+n.Name()+" is", "behind this machine's")
		})
		if log := founder.Agent().Output(); !strings.Contains(log, "clocks differ") {
			t.Errorf("nothing of it in the log of the founder:\n%s", log)
		}
		// Back where it was. The clock of WireGuard goes forward, which it bears.
		bed.must(n.Kill())
		bed.clock(n, 0)
		bed.must(n.Start(bed.ctx))
	}
	bed.meshed(founder, a, b)

	bed.must(a.Kill())
	bed.clock(a, -time.Hour)
	bed.must(a.Start(bed.ctx))
	bed.eventually("status says that the clock is an hour behind", func() bool {
		return warned(bed.status(a), "this machine's clock is ", "behind those of", "no new tunnel")
	})
	bed.step("an hour behind: status says so")
	if log := a.Agent().Output(); !strings.Contains(log, "clocks differ") {
		t.Errorf("nothing of it in the log:\n%s", log)
	}
	token, err := founder.Invite(bed.ctx)
	bed.must(err)
	bed.clock(late, -time.Hour)
	// The whole second before or after an hour, as it falls.
	if told := joinNotes(bed.ctx, late, token); !regexp.MustCompile(`the clock of this machine is (59m5\ds|1h0m\ds) behind that of founder`).MatchString(told) {
		t.Errorf("join said %q, want that the clock is an hour behind", told)
	}
}

// warned reports whether a status has a warning with all of the words.
func warned(s api.Status, words ...string) bool {
	for _, w := range s.Warnings {
		all := true
		for _, word := range words {
			all = all && strings.Contains(w, word)
		}
		if all {
			return true
		}
	}
	return false
}

// joinNotes has a node join, and returns what the command wrote to standard error.
func joinNotes(ctx context.Context, n *Node, token string) string {
	cmd := n.Host.Command(ctx, n.argv([]string{"join", "--no-start", "--name", n.Name(), "-"})...)
	cmd.Stdin = strings.NewReader(token)
	var told bytes.Buffer
	cmd.Stderr = &told
	if err := cmd.Run(); err != nil {
		return fmt.Sprintf("%v: %s", err, told.String())
	}
	return told.String()
}
