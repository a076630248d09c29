package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"warren/mesh/identity"
)

const (
	// clocksBear is how far clocks may differ without a word: signals are late by some seconds.
	clocksBear = 30 * time.Second
	// clocksRefuse is where introductions are refused (signal.Window).
	clocksRefuse = 5 * time.Minute
	// clocksNamed is how many members are named in a warning.
	clocksNamed = 3
)

// clocks says whose clock is wrong, by how far those of others are ahead of this machine's. Where most others agree with each other it is this machine's;
// where most agree with this machine, theirs who do not. Of two nobody knows.
func clocks(ahead map[identity.NodeID]time.Duration, names Names) (out []string) {
	var all []time.Duration
	var ids []identity.NodeID
	for id, d := range ahead {
		all, ids = append(all, d), append(ids, id)
	}
	if len(all) == 0 {
		return nil
	}
	slices.Sort(all)
	slices.SortFunc(ids, func(a, b identity.NodeID) int { return strings.Compare(names.Of(a), names.Of(b)) })
	most := all[len(all)/2]
	if most.Abs() > clocksBear && len(all) > 1 && spread(all, most)*2 > len(all) {
		off := 0 - most
		var agree []string
		for _, id := range ids {
			if (ahead[id] - most).Abs() <= clocksBear {
				agree = append(agree, names.Of(id))
			}
		}
		return []string{fmt.Sprintf("this machine's clock is %s %s%s", apart(off, "those of"), named(agree), clocksHint(most))}
	}
	for _, id := range ids {
		switch d := ahead[id]; {
		case d.Abs() <= clocksBear:
		case len(all) == 1:
			out = append(out, fmt.Sprintf("the clock of %s is %s this machine's: one of the two is wrong%s", names.Of(id), apart(d, ""), clocksHint(d)))
		default:
			out = append(out, fmt.Sprintf("the clock of %s is %s this machine's%s", names.Of(id), apart(d, ""), clocksHint(d)))
		}
	}
	return out
}

// spread counts the clocks that agree with one.
func spread(all []time.Duration, with time.Duration) (n int) {
	for _, d := range all {
		if (d - with).Abs() <= clocksBear {
			n++
		}
	}
	return n
}

// apart says how far one clock is from another.
func apart(d time.Duration, whose string) string {
	word := "ahead of"
	if d < 0 {
		word = "behind"
	}
	return strings.TrimSpace(d.Abs().Round(time.Second).String() + " " + word + " " + whose)
}

func named(names []string) string {
	if len(names) > clocksNamed {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:clocksNamed], ", "), len(names)-clocksNamed)
	}
	return strings.Join(names, ", ")
}

func clocksHint(d time.Duration) string {
	if d.Abs() > clocksRefuse {
		return ", so that no new tunnel between them comes up: set it, as by timedatectl set-ntp true"
	}
	return ": set it, as by timedatectl set-ntp true"
}
