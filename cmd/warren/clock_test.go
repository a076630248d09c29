package main

import (
	"strings"
	"testing"
	"time"

	"warren/mesh/place"
)

// A join says that the two clocks differ, by how much, and what that does.
func TestJoinSaysWhatTheClockIs(t *testing.T) {
	for ahead, want := range map[time.Duration]string{
		0: "", -20 * time.Second: "",
		-time.Hour:      "note: the clock of this machine is 1h0m0s behind that of alpha, and with five minutes between them no tunnel comes up: set the one that is wrong",
		2 * time.Minute: "note: the clock of this machine is 2m0s ahead of that of alpha: set the one that is wrong",
	} {
		var out strings.Builder
		(&console{err: &out}).clock(place.Membership{AdmittedBy: "alpha", Ahead: ahead})
		if got := out.String(); !strings.HasPrefix(got, want) || (got == "") != (want == "") {
			t.Errorf("%s: got %q, want %q", ahead, got, want)
		}
	}
}
