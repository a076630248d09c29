//go:build linux

package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestDamagedStore damages the store of records on a member at home and on the
// founder: it is kept under another name, status says so, and the
// records come back from the others.
func TestDamagedStore(t *testing.T) {
	damages := map[string]func([]byte) []byte{
		"overwritten": func(b []byte) []byte { return bytes.Repeat([]byte("not a store\n"), len(b)/12) },
		"cut short":   func(b []byte) []byte { return b[:3*os.Getpagesize()] }, // both heads are whole

	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bed := newBed(t, time.Minute)
			founder := bed.node("founder", nil)
			a := bed.node("a", bed.Router("home-a", natlab.EIMAPDF))
			b := bed.node("b", bed.Router("home-b", natlab.EIMAPDF))
			nodes := []*Node{founder, a, b}
			bed.must(Found(bed.ctx, "home", founder, a, b))
			_, err := founder.Invite(bed.ctx)
			bed.must(err)
			bed.meshed(nodes...)
			for _, n := range []*Node{a, founder} {
				before, err := n.Wait(bed.ctx, "the invite is known", func(s api.Status) bool { return len(s.Invites) == 1 })
				bed.must(err)
				bed.must(n.Stop())
				bed.step("damage %s", n.Name())
				path := filepath.Join(n.StateDir(), "records.db")
				whole, err := os.ReadFile(path)
				bed.must(err)
				broken := damage(whole)
				bed.must(os.WriteFile(path, broken, 0o600))
				bed.must(n.Start(bed.ctx))
				after := bed.status(n)
				if !slices.ContainsFunc(after.Warnings, func(w string) bool {
					return strings.Contains(w, "set aside") && strings.Contains(w, "records.db.corrupt-")
				}) {
					t.Errorf("%s: got warnings %q, want one about the store", n.Name(), after.Warnings)
				}
				aside, _ := filepath.Glob(path + ".corrupt-*")
				if len(aside) != 1 {
					t.Fatalf("set aside: got %q, want one file", aside)
				}
				if kept, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(kept, broken) {
					t.Errorf("%s is not what the store was: %v", aside[0], err)
				}
				_, err = n.Wait(bed.ctx, "all records are back", func(s api.Status) bool {
					return len(s.Invites) == 1 && s.Mesh.Records >= before.Mesh.Records && s.Mesh.Syncing == 0
				})
				bed.must(err)
				bed.agreed(nodes, names(nodes)...)
				bed.meshed(nodes...)
			}
			bed.step("end")
		})
	}
}
