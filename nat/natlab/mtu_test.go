//go:build linux

package natlab

import (
	"net/netip"
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
	passes := func(size, df string, to netip.Addr) func() bool {
		return func() bool { _, err := sized(size, df, to.String()); return err == nil }
	}

	l.Silence(home)
	l.MTU(home, 1280)
	eventually(t, "1,280 bytes with DF pass", passes("1252", "do", public.Addr4()))
	eventually(t, "1,328 bytes without DF pass", passes("1300", "dont", public.Addr4()))
	if out, err := sized("1300", "do", public.Addr4().String()); err == nil || strings.Contains(out, "mtu") {
		t.Errorf("1,328 bytes with DF, silent: got %q, want silence", out)
	}
	home.Flush()
	eventually(t, "1,328 bytes with DF: to be told", func() bool {
		out, err := sized("1300", "do", public.Addr4().String())
		return err != nil && strings.Contains(out, "mtu = 1280")
	})

	if out, err := sized("8000", "do", b.Addr4().String()); err == nil {
		t.Errorf("8,028 bytes on an ordinary LAN: %s", out)
	}
	l.MTU(a, 9000)
	l.MTU(b, 9000)
	eventually(t, "8,028 bytes pass on a LAN with jumbo frames", passes("8000", "do", b.Addr4()))
}
