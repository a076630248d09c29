package limit

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

type invite string

// Each line of a table is one that comes: who, from where, by what, when; and what is said to it.
func TestPlaces(t *testing.T) {
	const quiet = 3 * time.Second
	type step struct {
		at   time.Duration
		name string
		from string
		by   invite
		want string // "in", "no", or who goes
	}
	for name, steps := range map[string][]step{
		"one source takes its share, and no more": {
			{0, "a", "x", "1", "in"}, {0, "b", "x", "2", "in"}, {0, "c", "x", "3", "no"}, {quiet - 1, "d", "x", "3", "no"}, {quiet, "e", "x", "3", "[a]"},
		},
		"one invite takes its share from many sources": {
			{0, "a", "x", "1", "in"}, {0, "b", "y", "1", "in"}, {0, "c", "z", "1", "no"}, {quiet, "d", "z", "1", "[a]"},
		},
		"another source finds a place at once beside a source that took all of an invite": {
			{0, "a", "x", "1", "in"}, {0, "b", "x", "1", "in"}, {0, "c", "y", "1", "[a]"}, {0, "d", "y", "1", "no"}, {0, "e", "x", "1", "no"},
		},
		"another source finds a place at once when all are taken by two": {
			{0, "a", "x", "1", "in"}, {0, "b", "x", "2", "in"}, {0, "c", "y", "3", "in"}, {0, "d", "y", "4", "in"},
			{0, "e", "z", "5", "[a]"}, {0, "f", "x", "6", "no"}, // y has two, x would have as many
			{0, "g", "u", "7", "[c]"}, {0, "h", "v", "8", "no"}, {quiet, "i", "v", "8", "[b]"},
		},
		"one that crowds two shares makes room in both": {
			{0, "a", "x", "1", "in"}, {0, "b", "x", "2", "in"}, {0, "c", "y", "3", "in"}, {1, "d", "y", "3", "in"}, {quiet + 1, "e", "x", "3", "[a c]"},
		},
		"one that has to make room in two shares and can in one makes none": {
			{0, "a", "x", "1", "in"}, {0, "b", "x", "2", "in"}, {1, "c", "y", "3", "in"}, {1, "d", "z", "3", "in"}, {quiet, "e", "x", "3", "no"}, {quiet, "f", "x", "4", "[a]"},
		},
	} {
		p := NewPlaces[string](4, quiet)
		start := time.Unix(1000, 0)
		for _, s := range steps {
			out, ok := p.Enter(start.Add(s.at), s.name, Share{s.from, 2}, Share{s.by, 2})
			got := "no"
			switch {
			case ok && len(out) == 0:
				got = "in"
			case ok:
				got = fmt.Sprint(out)
			}
			if got != s.want {
				t.Errorf("%s: %s at %v: got %s, want %s", name, s.name, s.at, got, s.want)
			}
			if p.Taken(nil) > 4 {
				t.Errorf("%s: got %d places taken, want 4 at most", name, p.Taken(nil))
			}
		}
	}
}

func TestPlacesThatAreRenewedOrLeft(t *testing.T) {
	p, start := NewPlaces[string](2, time.Second), time.Unix(1000, 0)
	p.Enter(start, "a", Share{"x", 2})
	p.Enter(start, "b", Share{"y", 2})
	p.Renew(start.Add(500*time.Millisecond), "a")
	p.Renew(start.Add(500*time.Millisecond), "nobody")
	if _, ok := p.Enter(start.Add(time.Second-1), "c", Share{"z", 2}); ok {
		t.Error("got a place before the quiet time, want none")
	}
	if out, _ := p.Enter(start.Add(time.Second), "c", Share{"z", 2}); !slices.Equal(out, []string{"b"}) {
		t.Errorf("got %v out, want b: a has got on", out)
	}
	p.Leave("b") // it has gone already
	if got := p.Values(); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("got %v, want a and c", got)
	}
	p.Leave("a")
	p.Leave("a")
	if got := [2]int{p.Taken(nil), p.Taken("x")}; got != [2]int{1, 0} {
		t.Errorf("got %v places taken, in all and in x, want 1 and 0", got)
	}
	if out, ok := p.Enter(start, "d", Share{"x", 2}); len(out) > 0 || !ok {
		t.Errorf("got %v out, %v, want a place that was free", out, ok)
	}
	if len(p.taken) != 2 || p.Taken("x") != 1 {
		t.Errorf("got keys %v, want those of what is there", p.taken)
	}
}

// One source a minute has a line, and hears how many it had not; sources without end have one line for all that are too many.
func TestLines(t *testing.T) {
	var l Lines[int]
	now := time.Unix(1000, 0)
	due := func(from int) string {
		skipped, due := l.Due(now, from)
		return fmt.Sprint(due, skipped)
	}
	for i, want := range []string{"true 0", "false 0", "false 0"} {
		if got := due(1); got != want {
			t.Errorf("line %d: got %s, want %s", i, got, want)
		}
	}
	if got := due(2); got != "true 0" {
		t.Errorf("another source: got %s, want a line", got)
	}
	now = now.Add(lineEvery)
	if got := due(1); got != "true 2" {
		t.Errorf("a minute later: got %s, want a line that tells of 2", got)
	}
	written := 0
	for i := range 100 * maxSources {
		if _, yes := l.Due(now, 1000+i); yes {
			written++
		}
	}
	if want := maxSources - 1 + 1; written != want { // 2 has rested, 1 has not; and one for all that are too many
		t.Errorf("many sources: got %d lines, want %d", written, want)
	}
	if len(l.each) > maxSources {
		t.Errorf("got %d sources kept, want %d at most", len(l.each), maxSources)
	}
	now = now.Add(lineEvery)
	if got, want := due(-1), fmt.Sprint(true, 0); got != want {
		t.Errorf("after a rest: got %s, want %s", got, want)
	}
}
