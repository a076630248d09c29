package report

import (
	"slices"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/mesh/roster"
)

// Whose clock is wrong: this machine's when the others agree with each other, theirs when they do not agree with the rest, nobody knows of two.
func TestWhoseClockIsWrong(t *testing.T) {
	const hint = ": set it, as by timedatectl set-ntp true"
	const far = ", so that no new tunnel between them comes up: set it, as by timedatectl set-ntp true"
	var members []roster.Member
	for i, name := range []string{"a", "b", "c", "d", "e"} {
		var m roster.Member
		m.ID, m.Name = identity.NodeID{byte(i)}, name
		members = append(members, m)
	}
	names := NamesOf(members)
	for name, tt := range map[string]struct {
		ahead []time.Duration
		want  []string
	}{
		"nobody":         {nil, nil},
		"all agree":      {[]time.Duration{time.Second, -3 * time.Second}, nil},
		"late signals":   {[]time.Duration{-20 * time.Second, -25 * time.Second}, nil},
		"this one":       {[]time.Duration{time.Hour, time.Hour + time.Second, time.Hour}, []string{"this machine's clock is 1h0m0s behind those of a, b, c" + far}},
		"this one a bit": {[]time.Duration{-2 * time.Minute, -2 * time.Minute}, []string{"this machine's clock is 2m0s ahead of those of a, b" + hint}},
		"this one, and many": {[]time.Duration{time.Hour, time.Hour, time.Hour, time.Hour, 0},
			[]string{"this machine's clock is 1h0m0s behind those of a, b, c and 1 more" + far}},
		"one of them": {[]time.Duration{0, -time.Hour, 0}, []string{"the clock of b is 1h0m0s behind this machine's" + far}},
		"of two":      {[]time.Duration{time.Minute}, []string{"the clock of a is 1m0s ahead of this machine's: one of the two is wrong" + hint}},
		"no two agree": {[]time.Duration{time.Hour, -time.Hour}, []string{
			"the clock of a is 1h0m0s ahead of this machine's" + far, "the clock of b is 1h0m0s behind this machine's" + far}},
	} {
		ahead := make(map[identity.NodeID]time.Duration)
		for i, d := range tt.ahead {
			ahead[members[i].ID] = d
		}
		if got := clocks(ahead, names); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}
