package verdict

import (
	"net/netip"
	"testing"
)

func TestOutcomes(t *testing.T) {
	running, ended := Attempt{}, Attempt{Ended: judgedAt}
	won := Attempt{Ended: judgedAt, Nominated: pair("host", 0, 0, 0).Remote}
	for _, tt := range []struct {
		a    Attempt
		p    Pair
		want Outcome
		says string
	}{
		{ended, Pair{Unable: true}, Unable, "not tried: this node has no address of its family"},
		{won, pair("host", 3, 1, 0), Chosen, "answered, chosen"},
		{ended, pair("host", 3, 1, 0), NotChosen, "answered, not chosen"},
		{ended, pair("prflx", 3, 0, 2), HeardMute, "its checks came in; no answer to 3"},
		{ended, pair("prflx", 0, 0, 2), HeardOnly, "its checks came in, none was sent back"},
		{running, pair("host", 0, 0, 0), Untried, "not tried yet"},
		{ended, pair("host", 0, 0, 0), NeverTried, "not tried: the attempt ended before"},
		{ended, pair("host", 1, 0, 0), Unanswered, "no answer to 1 check"},
	} {
		if got := tt.a.Outcome(tt.p); got != tt.want {
			t.Errorf("%s: got outcome %d, want %d", tt.says, got, tt.want)
		}
		if got := tt.a.Tell(tt.p); got != tt.says {
			t.Errorf("got %q, want %q", got, tt.says)
		}
	}
}

func TestResults(t *testing.T) {
	at := netip.MustParseAddrPort("203.0.113.9:9277")
	for _, tt := range []struct {
		a    Attempt
		want string
	}{
		{Attempt{}, "runs"},
		{Attempt{Ended: judgedAt}, "the peer has told no address"},
		{Attempt{Ended: judgedAt, Pairs: []Pair{{Answered: 2}}}, "1 of 1 address answered"},
		{Attempt{Ended: judgedAt, Pairs: []Pair{{Answered: 2}, {}}}, "1 of 2 addresses answered"},
		{Attempt{Ended: judgedAt, Nominated: at, Pairs: []Pair{{}}}, "found 203.0.113.9:9277"},
	} {
		if got := tt.a.Result(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestRanked(t *testing.T) {
	a := Attempt{Pairs: []Pair{{Type: "silent", Sent: 9}, {Type: "busy", Sent: 40}, {Type: "heard", Heard: 1}, {Type: "answered", Answered: 1}}}
	want := []string{"answered", "heard", "busy", "silent"}
	for i, p := range a.Ranked() {
		if p.Type != want[i] {
			t.Errorf("got pair %d %s, want %s", i, p.Type, want[i])
		}
	}
	if a.Pairs[0].Type != "silent" {
		t.Error("the attempt itself was put into another order")
	}
}
