//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestRevoked throws a member out: it is cut off everywhere, says why, and
// finds no way back, whoever starts anew.
func TestRevoked(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	founder := bed.node("founder", nil)
	a := bed.node("a", bed.Router("home-a", natlab.EIMAPDF))
	b := bed.node("b", bed.Router("home-b", natlab.EIMAPDF))
	thief := bed.node("thief", bed.Router("home-t", natlab.EIMAPDF))
	others := []*Node{founder, a, b}
	bed.must(Found(bed.ctx, "home", founder, a, b, thief))
	bed.meshed(founder, a, b, thief)
	was := bed.status(thief)

	bed.step("revoke")
	out, err := founder.Warren(bed.ctx, "", "revoke", "thief", "--wait", "--reason", "stolen")
	bed.must(err)
	for _, want := range []string{"revoked thief", "confirmed by a,", "confirmed by b,", "all members have confirmed"} {
		if !strings.Contains(out, want) {
			t.Errorf("revoke --wait: got %q, want %q in it", out, want)
		}
	}
	cutOff := func(n *Node) {
		t.Helper()
		s, err := n.Wait(bed.ctx, "the thief is out", func(s api.Status) bool {
			_, known := Peer(s, "thief")
			return !known
		})
		bed.must(err)
		if !slices.ContainsFunc(s.Revoked, func(r api.Revoked) bool {
			return r.ID == was.Self.ID && r.By == "founder" && r.Reason == "stolen"
		}) {
			t.Errorf("%s: got revocations %+v, want thief's", n.Name(), s.Revoked)
		}
		if slices.Contains(s.Self.Anchors, "thief") {
			t.Errorf("%s has a session with the thief", n.Name())
		}
		if slices.Contains(bed.wireGuardPeers(n), was.Self.PublicKey) {
			t.Errorf("%s: the thief is a WireGuard peer", n.Name())
		}
	}
	for _, n := range others {
		cutOff(n)
	}
	bed.step("the thief hears why")
	bed.endsWith(thief, 2, "revoked", "founder", "stolen")
	bed.meshed(others...)

	bed.step("it starts again")
	bed.must(thief.Launch())
	bed.endsWith(thief, 2, "revoked", "founder", "stolen")

	bed.step("it forgets what it heard, and the others start anew")
	bed.must(os.Remove(filepath.Join(thief.StateDir(), "records.db")))
	bed.must(thief.Launch())
	for _, n := range others {
		bed.must(n.Stop())
		bed.must(n.Start(bed.ctx))
		cutOff(n)
	}
	bed.meshed(others...)
	for _, n := range others {
		cutOff(n)
		bed.silent(thief, bed.status(n).Self.Addresses...)
	}
	bed.step("it believes the others")
	bed.endsWith(thief, 2, "revoked", "founder", "stolen")

	bed.step("commands say it from the state, and clear it away")
	for _, command := range []string{"status", "ping founder", "invite"} {
		_, err := thief.Warren(bed.ctx, "", strings.Fields(command)...)
		for _, want := range []string{"in mesh home no more", "revoked", "founder", "stolen", "new invite"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q in it", command, err, want)
			}
		}
	}
	if _, err := thief.Warren(bed.ctx, "", "leave"); err != nil {
		t.Errorf("leave: got %v, want it done without force", err)
	}
	if left, err := thief.stateLeft(); err != nil || len(left) != 0 {
		t.Errorf("after leave: got %v, %v, want nothing", left, err)
	}
	bed.step("end")
}
