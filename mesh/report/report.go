// Package report puts what the owners know into the words of the local API: status, why and netcheck.
//
// Its functions are pure: the snapshots of the owners go in, as they were taken by whoever runs these, and values of mesh/api come
// out. Why something is as it is, mesh/verdict says; how it is printed is left to the command line.
//
// All of it may be called concurrently. What goes in is only read, and what comes out shares slices with it.
package report

import (
	"cmp"
	"time"

	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/mesh/verdict"
)

// Names are what nodes are called.
type Names map[identity.NodeID]string

// NamesOf returns the names of members.
func NamesOf(members []roster.Member) Names {
	names := make(Names, len(members))
	for _, m := range members {
		names[m.ID] = m.Name
	}
	return names
}

// Of returns the name of a node, or its short ID where it has none.
func (n Names) Of(id identity.NodeID) string { return cmp.Or(n[id], id.Short()) }

// moment is nil for a time that never was.
func moment(t time.Time) *time.Time {
	if never(t) {
		return nil
	}
	return &t
}

// wasSet is by how much a clock is off from what it was that somebody has set: time servers correct it by less, all the time.
const wasSet = time.Second

// shown is a time that this process has taken by its own clock, as the clock shows it now: somebody may have set that since, and the age is what counts.
// Else it is the time that it was, so that the same event has the same time whenever it is asked for.
func shown(t, now time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	was, is := t.Round(0), now.Add(t.Sub(now)).Round(0)
	if is.Sub(was).Abs() < wasSet {
		return was
	}
	return is
}

// seen is moment for such a time.
func seen(t, now time.Time) *time.Time {
	if never(t) {
		return nil
	}
	return moment(shown(t, now))
}

// never reports whether a time stands for none: UAPI says 0 for a handshake that there was not.
func never(t time.Time) bool { return t.IsZero() || t.Unix() == 0 }

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func say(s verdict.Sentence, names Names) string {
	if s == nil {
		return ""
	}
	return s.Words(names.Of)
}
