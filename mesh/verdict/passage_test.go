package verdict

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"warren/mesh/identity"
)

func TestPassagesAreJudged(t *testing.T) {
	four, six := netip.MustParseAddr("100.91.0.2"), netip.MustParseAddr("fd91::2")
	ok, lost := Passage{To: six, Answered: true}, func(f Fault) Passage { return Passage{To: four, Fault: f} }
	for name, test := range map[string]struct {
		passages []Passage
		want     Kind
		says     []string
	}{
		"both answer":        {[]Passage{ok, {To: four, Answered: true}}, Direct, nil},
		"one is not known":   {[]Passage{ok, lost(NoFault)}, Direct, nil},
		"nothing answers":    {[]Passage{{To: six}, lost(NoFault)}, Silent, []string{"got no answer"}},
		"lost, as the other": {[]Passage{{To: six, Fault: LostBeyond}, lost(LostBeyond)}, Silent, nil},
		"a route away": {
			[]Passage{ok, {To: four, Fault: RouteStolen, Interface: "tailscale0", Table: 52, Rule: 5270}}, KernelBars,
			[]string{"packets for 100.91.0.2 out by tailscale0 (ip rule of priority 5270, routing table 52)", "ip -4 route get 100.91.0.2", "ipv4 = false"},
		},
		"a route away of which no more is known": {[]Passage{ok, {To: four, Fault: RouteStolen, Interface: "wg7"}}, KernelBars, []string{"out by wg7, not into"}},
		"a black hole":                           {[]Passage{ok, {To: four, Fault: RouteRefuses, Detail: "blackhole"}}, KernelBars, []string{"its routes say blackhole"}},
		"a filter on the way out":                {[]Passage{ok, lost(FilteredOut)}, KernelBars, []string{"on their way out", "nft list ruleset"}},
		"a filter on the way in":                 {[]Passage{ok, lost(FilteredIn)}, KernelBars, []string{"answers of b over IPv4 come out of the tunnel"}},
		"lost there":                             {[]Passage{ok, lost(LostBeyond)}, KernelBars, []string{"nothing comes back from b over IPv4", "see on b"}},
		"nobody listens there":                   {[]Passage{ok, lost(NoListener)}, KernelBars, []string{"b says that nobody answers at 100.91.0.2"}},
		"IPv6, which cannot be done without": {
			[]Passage{{To: six, Fault: FilteredIn}, {To: four, Answered: true}}, KernelBars, []string{"over IPv6", "another VPN or a firewall may have set it"},
		},
		"both, of which one is certain": {[]Passage{{To: six, Fault: LostBeyond}, lost(FilteredOut)}, KernelBars, []string{"on their way out"}},
	} {
		e := Evidence{
			Signs: Signs{Now: judgedAt, Way: true, Keyed: judgedAt.Add(-time.Second), Heard: judgedAt}, Path: Path{Kind: DirectPath}, Here: Node{ID: identity.NodeID{1}}, There: Node{ID: identity.NodeID{2}},
			Ping: Ping{Asked: true, Passages: test.passages},
		}
		for _, p := range test.passages {
			e.Ping.Answered = e.Ping.Answered || p.Answered
		}
		v := Judge(e)
		text := v.Words(func(id identity.NodeID) string { return map[byte]string{1: "a", 2: "b"}[id[0]] })
		if v.Kind != test.want {
			t.Errorf("%s: got %s, want %s", name, v.Kind, test.want)
		}
		for _, want := range test.says {
			if !strings.Contains(text.Cause+" / "+text.Fix, want) {
				t.Errorf("%s: got %q, %q, want %q in it", name, text.Cause, text.Fix, want)
			}
		}
		if strings.Contains(name, "cannot be done without") && strings.Contains(text.Fix, "ipv4") {
			t.Errorf("%s: got %q", name, text.Fix)
		}
	}
}
