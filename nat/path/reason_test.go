package path

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"warren/mesh/identity"
)

func TestReasonsNameMembers(t *testing.T) {
	gate, other := identity.NodeID{0: 1, 5: '\n', 9: 0}, identity.NodeID{31: 7}
	name := func(id identity.NodeID) string {
		if id == gate {
			return "gate"
		}
		return id.Short()
	}
	dead := because("relay through %s is dead: %d checks unanswered", gate, 3)
	for _, tt := range []struct {
		r          Reason
		want, logs string
	}{
		{"", "", ""},
		{"the peer has moved", "the peer has moved", "the peer has moved"},
		{dead, "relay through gate is dead: 3 checks unanswered", "relay through " + gate.Short() + " is dead: 3 checks unanswered"},
		{because("through %s and %s", gate, other), "through gate and " + other.Short(), "through " + gate.Short() + " and " + other.Short()},
		{"relayed: " + dead + "; next try", "relayed: relay through gate is dead: 3 checks unanswered; next try", "relayed: relay through " + gate.Short() + " is dead: 3 checks unanswered; next try"},
		{because("lost: %s", dead), "lost: relay through gate is dead: 3 checks unanswered", "lost: relay through " + gate.Short() + " is dead: 3 checks unanswered"},
		{because("relay: %s", "a text of"+mark+strings.Repeat("x", 40)), "relay: a text of" + strings.Repeat("x", 40), "relay: a text of" + strings.Repeat("x", 40)},
		{"cut" + mark + "short", "cut", "cut"},
	} {
		if got := tt.r.Words(name); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
		if got := tt.r.String(); got != tt.logs {
			t.Errorf("got %q for logs, want %q", got, tt.logs)
		}
	}
	for kind, handler := range map[string]func(*bytes.Buffer) slog.Handler{
		"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"JSON": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var out bytes.Buffer
		slog.New(handler(&out)).Info("path", "reason", dead)
		if !strings.Contains(out.String(), dead.String()) {
			t.Errorf("got %s log %q, want %q in it", kind, out.String(), dead)
		}
	}
}
