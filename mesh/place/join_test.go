package place

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/mesh/join"
)

func TestJoinExplainsTheFailureThatMatters(t *testing.T) {
	unreachable := fmt.Errorf("[2001:db8::1]:9277: %w", syscall.ENETUNREACH)
	silent := errors.New("203.0.113.1:9277: no answer")
	said := fmt.Errorf("203.0.113.2:9277: %w", join.Refuse(join.CodeClock, "the clock of this machine is 7 minutes behind"))
	for _, tt := range []struct {
		failures  []error
		want, not string
	}{
		{[]error{unreachable}, "unreachable", "none of"},
		{[]error{unreachable, silent}, "203.0.113.1:9277: no answer", "2001:db8"},
		{[]error{unreachable, silent, said}, "7 minutes behind", "no answer"},
	} {
		if got := explainJoin(tt.failures).Error(); !strings.Contains(got, tt.want) || strings.Contains(got, tt.not) || strings.Contains(got, "\n") {
			t.Errorf("got %q, want one line with %q and without %q", got, tt.want, tt.not)
		}
	}
}

func TestFailedJoinLeavesNothing(t *testing.T) {
	root := t.TempDir()
	closed := netip.MustParseAddrPort("127.0.0.1:9") // nothing listens on the discard port
	token := identity.Token{Mesh: identity.MeshID{1}, Seed: [32]byte{2}, Anchors: []identity.TokenAnchor{{Addr: closed}}}
	err := within(t, 2*joinTimeout, func() error {
		_, err := Join(t.Context(), JoinOptions{Token: token.Encode(), StateRoot: root, Name: "beta"}, nil)
		return err
	})
	if err == nil {
		t.Error("joined through a closed port")
	}
	for _, o := range []JoinOptions{{Token: "nonsense", Name: "beta"}, {Token: token.Encode(), Name: "not a name"}} {
		o.StateRoot = root
		if _, err := Join(t.Context(), o, nil); err == nil {
			t.Errorf("join %+v: got no error", o.Name)
		}
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 0 {
		t.Errorf("got %v (%v), want an empty directory", entries, err)
	}
}

// within runs f and fails the test when it takes longer than limit.
func within(t *testing.T, limit time.Duration, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		t.Fatalf("not done after %s", limit)
		return nil
	}
}
