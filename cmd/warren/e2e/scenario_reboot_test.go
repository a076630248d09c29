//go:build linux

package e2e

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"warren/nat/natlab"
)

// againWithin is how soon after the last start, or the last event, everybody reaches everybody, on a machine that is not crowded.
const againWithin = 10 * time.Second

// TestAllReboot kills all members and starts them in any order, with one of them public, which is not the founder: the mesh
// stands again.
func TestAllReboot(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 3*time.Minute)
	founder, hub := bed.node("founder", nil), bed.node("hub", nil)
	nodes := []*Node{founder, hub}
	for _, name := range []string{"a", "b", "c"} {
		nodes = append(nodes, bed.node(name, bed.Router(name+"-home", natlab.EIMAPDF)))
	}
	bed.must(Found(bed.ctx, "home", nodes[0], nodes[1:]...))
	bed.meshed(nodes...)
	bed.step("the founder moves behind a NAT")
	founder.Host.Move(bed.Router("founder-home", natlab.EIMAPDF))
	bed.meshed(nodes...)

	const rounds = 4
	for round := range rounds {
		rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		if last := len(nodes) - 1; round == 0 { // the hardest order of all is always tried
			for i, n := range nodes {
				if n == hub {
					nodes[i], nodes[last] = nodes[last], nodes[i]
				}
			}
		}
		bed.step("all are killed, and start in the order %s", strings.Join(names(nodes), ", "))
		for _, n := range nodes {
			bed.kill(n)
		}
		for _, n := range nodes {
			bed.must(n.Launch())
			time.Sleep(time.Duration(rand.Int64N(int64(2 * time.Second)))) // the moment is random: there is nothing to wait for
		}
		begin, starving := time.Now(), bed.starving()
		bed.meshed(nodes...)
		took := time.Since(begin)
		bed.step("the mesh stands %.2f s after the last start", took.Seconds())
		if most := stretch(againWithin) + starving(); took > most {
			t.Errorf("round %d: got the mesh %s after the last start, want %s at most", round+1, took, most)
		}
	}
}

// TestIntroducedByNeighbour starts a member when the only anchor is dead. It finds one member on its LAN, and by that one a
// third, behind a NAT elsewhere, to which it never spoke.
func TestIntroducedByNeighbour(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	home := bed.Router("home", natlab.EIMAPDF)
	anchor := bed.node("anchor", nil)
	neighbour, late := bed.node("neighbour", home), bed.node("late", home)
	far := bed.node("far", bed.Router("far-home", natlab.EIMAPDF))
	bed.must(Found(bed.ctx, "home", anchor, neighbour, far))
	bed.meshed(anchor, neighbour, far)
	token, err := anchor.Invite(bed.ctx)
	bed.must(err)
	bed.must(late.Join(bed.ctx, token)) // its agent does not run yet
	bed.agreed([]*Node{anchor, neighbour, far}, "anchor", "neighbour", "far", "late")

	bed.step("the anchor is killed")
	bed.kill(anchor)
	bed.must(late.Start(bed.ctx))
	begin, starving := time.Now(), bed.starving()
	bed.meshed(neighbour, far, late)
	took := time.Since(begin)
	bed.step("all that live reach each other %.2f s after the start", took.Seconds())
	if most := stretch(againWithin) + starving(); took > most {
		t.Errorf("got the late one connected %s after its start, want %s at most", took, most)
	}
}
