//go:build linux

package e2e

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/nat/natlab"
)

// TestBadTokens joins with everything that is no good token: each has a
// message of its own, and leaves nothing behind.
func TestBadTokens(t *testing.T) {
	t.Parallel()
	bed := newBed(t, time.Minute)
	home := bed.Router("home", natlab.EIMAPDF)
	founder, user, loser := bed.node("founder", nil), bed.node("user", home), bed.node("loser", home)
	bed.must(founder.Create(bed.ctx, "home"))
	bed.must(founder.Start(bed.ctx))

	invite := func(args ...string) (token, id string) {
		made, err := founder.NewInvite(bed.ctx, args...)
		bed.must(err)
		return made.Token, made.ID
	}
	short, shortID := invite("--expires", "1s")
	revoked, revokedID := invite()
	_, err := founder.Warren(bed.ctx, "", "revoke", "--invite", revokedID)
	bed.must(err)
	used, _ := invite()
	bed.must(user.Join(bed.ctx, used))
	good, _ := invite()
	forged, err := identity.ParseToken(good)
	bed.must(err)
	forged.Seed[7] ^= 1
	foreign := forged
	foreign.Mesh[0] ^= 1
	_, err = founder.Wait(bed.ctx, "the short invite has expired", func(s api.Status) bool {
		for _, i := range s.Invites {
			if i.ID == shortID {
				return false
			}
		}
		return true
	})
	bed.must(err)

	swap := func(token string, at int) string { // the same length, one character another
		other := byte('a')
		if token[at] == other {
			other = 'b'
		}
		return token[:at] + string(other) + token[at+1:]
	}
	tests := []struct{ name, token, want string }{
		{"expired", short, `expired`},
		{"revoked", revoked, `invite .*revoked`},
		{"used", used, `used by .*user.* at \d{4}-`},
		{"forged", forged.Encode(), `does not know this invite`},
		{"of another mesh", foreign.Encode(), `another mesh`},
		{"cut short", good[:len(good)-7], `cut short`},
		{"mistyped", swap(good, 40), `mistyped`},
		{"one character missing", good[:40] + good[41:], `cut short|mistyped`},
		{"no token", "hello", `not a warren token`},
		{"nothing", "", `no token`},
	}
	said := make(map[string]string)
	for _, tt := range tests {
		err := loser.Join(bed.ctx, tt.token)
		var failed *CommandError
		if !errors.As(err, &failed) {
			t.Fatalf("%s: got %v, want a refusal", tt.name, err)
		}
		want := 1
		if tt.name == "nothing" {
			want = 2 // wrong usage
		}
		if got := ExitCode(err); got != want {
			t.Errorf("%s: got exit code %d, want %d", tt.name, got, want)
		}
		message := lineOf(failed.Stderr)
		t.Logf("%s: %s", tt.name, message)
		if !regexp.MustCompile(tt.want).MatchString(message) {
			t.Errorf("%s: got %q, want %q in it", tt.name, message, tt.want)
		}
		if other := said[message]; other != "" {
			t.Errorf("%s: got the same message as %s: %q", tt.name, other, message)
		}
		said[message] = tt.name
		if strings.Contains(failed.Stderr, good[20:60]) {
			t.Errorf("%s: the message shows the token: %q", tt.name, failed.Stderr)
		}
		left, err := loser.stateLeft()
		bed.must(err)
		if len(left) > 0 {
			t.Errorf("%s: got %q left in the state directory, want nothing", tt.name, left)
		}
	}
	bed.step("the good one is good")
	bed.must(loser.Join(bed.ctx, good[:50]+"\n  "+good[50:]))
	bed.must(user.Start(bed.ctx))
	bed.must(loser.Start(bed.ctx))
	bed.meshed(founder, user, loser)
	bed.agreed([]*Node{founder, user, loser}, "founder", "loser", "user")
}

// lineOf is the line of an error, without the progress before and the hint after it.
func lineOf(stderr string) string {
	for line := range strings.Lines(stderr) {
		if rest, ok := strings.CutPrefix(line, "warren: "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return stderr
}
