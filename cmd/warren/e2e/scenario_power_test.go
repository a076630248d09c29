//go:build linux

package e2e

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestPower walks the ways back: an admin is made and unmade, a stolen admin key throws the founder out and the root key, on another
// machine, undoes that; the only admin dies and the root key makes another, which lets a new machine in.
func TestPower(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 3*time.Minute)
	founder, gate := bed.node("founder", nil), bed.node("gate", nil)
	a := bed.node("a", bed.Router("home-a", natlab.EIMAPDF))
	b := bed.node("b", bed.Router("home-b", natlab.EIMAPDF))
	guest := bed.node("guest", bed.Router("home-g", natlab.EIMAPDF))
	late := bed.node("late", bed.Router("home-l", natlab.EIMAPDF))
	bed.must(Found(bed.ctx, "home", founder, gate, a, b))
	bed.meshed(founder, gate, a, b)
	key := filepath.Join(t.TempDir(), "root.key")

	say := func(n *Node, want []string, args ...string) {
		t.Helper()
		out, err := n.Warren(bed.ctx, "", args...)
		bed.must(err)
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: warren %s: got %q, want %q in it", n.Name(), strings.Join(args, " "), out, w)
			}
		}
	}
	refused := func(n *Node, want string, args ...string) {
		t.Helper()
		_, err := n.Warren(bed.ctx, "", args...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: warren %s: got %v, want a refusal with %q", n.Name(), strings.Join(args, " "), err, want)
		}
	}
	admins := func(n *Node, want ...string) {
		t.Helper()
		_, err := n.Wait(bed.ctx, "the admins are "+strings.Join(want, " and "), func(s api.Status) bool {
			var got []string
			for _, admin := range s.Admins {
				got = append(got, admin.Name)
			}
			slices.Sort(got)
			return slices.Equal(got, want)
		})
		bed.must(err)
	}

	bed.step("the root key goes to a safe place")
	warned := func() bool {
		return slices.ContainsFunc(bed.status(founder).Warnings, func(w string) bool { return strings.Contains(w, "export-root") })
	}
	if !warned() {
		t.Errorf("founder: got warnings %q, want one of the only root key", bed.status(founder).Warnings)
	}
	say(founder, []string{key, "keep it"}, "admin", "export-root", key, "--remove")
	if warned() {
		t.Errorf("founder: got warnings %q after the export", bed.status(founder).Warnings)
	}
	refused(founder, "not on this machine", "admin", "promote", "b", "--root")

	bed.step("a is made an admin, and lets somebody in")
	refused(a, "only an admin", "invite")
	say(founder, []string{"a (", "an admin from now on", "promoted a", "all members have confirmed"}, "admin", "promote", "a", "--wait")
	admins(a, "a", "founder")
	admins(b, "a", "founder")
	bed.must(Admit(bed.ctx, a, guest))
	bed.meshed(founder, gate, a, b, guest)

	bed.step("its key is stolen: it throws the founder out")
	say(a, []string{"founder (", "revoked founder"}, "revoke", "founder", "--keep-admitted", "--wait")
	bed.endsWith(founder, 2, "revoked", "a")
	admins(b) // whom it has put out had made it one

	bed.step("the root key, on b, throws it out, and the founder is back")
	refused(b, "only an admin", "revoke", "a", "--cascade")
	out, err := b.Warren(bed.ctx, "", "revoke", "a", "--root-key", key, "--dry-run", "--json")
	bed.must(err)
	var shown api.Consequences
	bed.must(json.Unmarshal([]byte(out), &shown))
	if len(shown.Others) != 1 || shown.Others[0].Name != "guest" || len(shown.Revocations) != 1 || shown.Revocations[0].Name != "founder" || shown.By != "the root" {
		t.Errorf("revoke --dry-run: got %+v, want guest who depends on a, and its word on the founder", shown)
	}
	refused(b, "guest (", "revoke", "a", "--root-key", key)
	say(b, []string{"guest (", "founder (", "revoked a", "1 other stay", "no effect any more"}, "revoke", "a", "--root-key", key, "--keep-admitted", "--undo-revocations")
	bed.endsWith(a, 2, "revoked", "the root")
	bed.must(founder.Start(bed.ctx))
	rest := []*Node{founder, gate, b, guest}
	bed.meshed(rest...)
	bed.agreed(rest, "b", "founder", "gate", "guest")
	for _, n := range rest {
		admins(n, "founder")
	}

	bed.step("b is made an admin and unmade, for good")
	say(founder, []string{"promoted b"}, "admin", "promote", "b")
	admins(b, "b", "founder")
	say(founder, []string{"b (", "demoted b"}, "admin", "demote", "b", "--wait")
	admins(b, "founder")
	refused(b, "demoted by founder", "invite")
	refused(founder, "for good", "admin", "promote", "b")
	bed.meshed(rest...)

	bed.step("the only admin dies; the root key makes another one")
	bed.kill(founder)
	bed.Cut(founder.Host)
	refused(gate, "only an admin", "invite")
	say(gate, []string{"guest (", "promoted guest"}, "admin", "promote", "guest", "--root-key", key)
	admins(guest, "founder", "guest")
	bed.must(Admit(bed.ctx, guest, late))
	bed.meshed(gate, b, guest, late)
	bed.step("end")
}
