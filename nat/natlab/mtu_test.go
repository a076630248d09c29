//go:build linux

package natlab

import (
	"strings"
	"testing"
)

// TestNarrowAndSilent sends packets over a narrow line, before and after its routers fall silent, and over a LAN with
// jumbo frames.
func TestNarrowAndSilent(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	home := l.Router("home", EIMAPDF)
	public, a, b := l.Host("public", nil), l.Host("a", home), l.Host("b", home)
	reach(t, a, public.Addr4())
	sized := func(size, df string, to string) (string, error) {
		return a.Run(t.Context(), "ping", "-n", "-c", "2", "-i", "0.05", "-W", "1", "-M", df, "-s", size, to)
	}

	l.Silence(home)
	l.MTU(home, 1280)
	if out, err := sized("1252", "do", public.Addr4().String()); err != nil {
		t.Errorf("1,280 bytes with DF: %v: %s", err, out)
	}
	if out, err := sized("1300", "dont", public.Addr4().String()); err != nil {
		t.Errorf("1,328 bytes without DF: %v: %s", err, out)
	}
	if out, err := sized("1300", "do", public.Addr4().String()); err == nil || strings.Contains(out, "mtu") {
		t.Errorf("1,328 bytes with DF, silent: got %q, want silence", out)
	}
	home.Flush()
	if out, err := sized("1300", "do", public.Addr4().String()); err == nil || !strings.Contains(out, "mtu = 1280") {
		t.Errorf("1,328 bytes with DF: got %q, want to be told", out)
	}

	if out, err := sized("8000", "do", b.Addr4().String()); err == nil {
		t.Errorf("8,028 bytes on an ordinary LAN: %s", out)
	}
	l.MTU(a, 9000)
	l.MTU(b, 9000)
	if out, err := sized("8000", "do", b.Addr4().String()); err != nil {
		t.Errorf("8,028 bytes on a LAN with jumbo frames: %v: %s", err, out)
	}
}
