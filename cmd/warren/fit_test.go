package main

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"warren/mesh/api"
	"warren/mesh/report"
)

// linesOf are the lines of what was printed.
func linesOf(text string) []string { return strings.Split(strings.TrimSuffix(text, "\n"), "\n") }

// TestDiagnosisPages holds how why and netcheck look on screens of some widths.
func TestDiagnosisPages(t *testing.T) {
	for _, width := range []int{40, 60, 80, 120} {
		agent := &fakeAgent{status: exampleStatus()}
		for _, peer := range []string{"beta", "gamma", "delta", "old"} {
			y, err := agent.Why(t.Context(), api.WhyRequest{Peer: peer})
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			printWhy(&out, width, y)
			name := fmt.Sprintf("why-%s-%d", peer, width)
			fits(t, name, linesOf(out.String()), width)
			golden(t, filepath.Join("testdata", "diagnosis", name+".golden"), out.String())
		}
		for _, net := range []string{"", "open", "blocked", "portal", "lonely"} {
			agent.net = net
			n, err := agent.Netcheck(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			printNetcheck(&out, width, n)
			name := fmt.Sprintf("netcheck-%s-%d", strings.TrimPrefix(net+"-", "-"), width)
			fits(t, name, linesOf(out.String()), width)
			if net == "" || net == "open" {
				golden(t, filepath.Join("testdata", "diagnosis", strings.ReplaceAll(name, "--", "-")+".golden"), out.String())
			}
		}
	}
}

// TestDiagnosesFit draws reports made at random on screens of any width.
func TestDiagnosesFit(t *testing.T) {
	d := dice{rand.New(rand.NewPCG(3, 4)), exampleTime}
	for range 1000 {
		width := minWidth + d.IntN(maxWidth-minWidth)
		y := report.Why(d.inquiry())
		y.Peer.Name = strings.Repeat("long-name-", d.IntN(6)) + "x"
		var out strings.Builder
		printWhy(&out, width, y)
		fits(t, "why", linesOf(out.String()), width)
	}
}
