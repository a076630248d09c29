package nat

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"warren/nat/path"
)

func TestEvidenceOfAnAttempt(t *testing.T) {
	for _, kind := range []natKind{portRestricted, symmetric} {
		t.Run(kind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t)
				anchor, x, y := pair(s, kind, kind)
				time.Sleep(time.Second)
				if _, known := x.Evidence(y.id); known {
					t.Error("got evidence of a node that is no peer")
				}
				meet(x, y)
				time.Sleep(8 * time.Second) // an attempt has six
				e, known := x.Evidence(y.id)
				if !known || len(e.Trials) == 0 {
					t.Fatalf("got %+v, %v, want an attempt", e, known)
				}
				trial := e.Trials[0]
				won := trial.Nominated.IsValid()
				if won != (kind == portRestricted) || trial.Ended.IsZero() || trial.Number == 0 || len(e.Changes) == 0 {
					t.Errorf("got %+v, want an attempt that has ended, won by cones only", e)
				}
				host, outside := findPair(trial, "host"), findPair(trial, "srflx")
				if host.Sent == 0 || host.Answered != 0 || host.Heard != 0 {
					t.Errorf("got %+v, want checks to the peer's inside address, and no answer", host)
				}
				if outside.Sent == 0 || (outside.Answered > 0) != won || (outside.Heard > 0) != won {
					t.Errorf("got %+v, want checks to the peer's outside address, answered by cones only", outside)
				}
				for range 40 { // relayed, it tries again now and then
					time.Sleep(5 * time.Second)
				}
				if e, _ := x.Evidence(y.id); len(e.Trials) > maxTrials {
					t.Errorf("got %d attempts kept, want %d at most", len(e.Trials), maxTrials)
				}
				if got := x.Sightings(); len(got) != 1 || got[0].Server != anchor.host.addr || time.Since(got[0].At) > 2*probeAgain {
					t.Errorf("got sightings %+v, want the anchor's, lately", got)
				}
				for _, n := range []*simNode{x, y, anchor} {
					n.halt()
				}
			})
		})
	}
}

func findPair(a Attempt, kind string) Pair {
	for _, p := range a.Pairs {
		if p.Type == kind {
			return p
		}
	}
	return Pair{}
}

func TestTrialIsBounded(t *testing.T) {
	tr := &trial{v4: true}
	v6 := netip.MustParseAddrPort("[2001:db8::1]:9277")
	tr.begun(time.Now(), path.StartICE{Attempt: 3})
	tr.named([]path.Candidate{path.NewCandidate(path.Host, v6, 0)})
	for i := range 2 * maxPairs {
		tr.heard(netip.MustParseAddrPort(fmt.Sprintf("192.0.2.1:%d", 1000+i)))
	}
	got := tr.snapshot()
	if len(got.Pairs) != maxPairs || got.More != maxPairs+1 {
		t.Errorf("got %d pairs and %d more, want %d and %d", len(got.Pairs), got.More, maxPairs, maxPairs+1)
	}
	if first := got.Pairs[0]; !first.Unable || first.Remote != v6 || first.Type != "host" || got.Pairs[1].Unable || got.Pairs[1].Type != "prflx" {
		t.Errorf("got %+v, want an IPv6 host candidate that cannot be tried, then what was heard", got.Pairs[:2])
	}
}
