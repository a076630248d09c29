//go:build linux

package natlab

import (
	"maps"
	"net/netip"
	"strings"
	"testing"
)

func TestCutAndMend(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	home := l.Router("home", EIMAPDF)
	public, a, b := l.Host("public", nil), l.Host("a", home), l.Host("b", home)
	reach(t, a, public.Addr4())

	l.Cut(a)
	if ping(a, public.Addr4()) || ping(a, b.Addr4()) {
		t.Error("a host that is cut off reaches others")
	}
	if out, err := a.Run(t.Context(), "cat", "/sys/class/net/eth0/carrier"); err != nil || strings.TrimSpace(out) != "1" {
		t.Errorf("carrier of a host that is cut off: got %q, %v, want 1", out, err)
	}
	reach(t, b, public.Addr4())
	l.Mend(a)
	reach(t, a, public.Addr4())

	l.Cut(public)
	if ping(a, public.Addr4()) {
		t.Error("a public host that is cut off is reached")
	}
	l.Mend(public)
	reach(t, a, public.Addr4())
}

func TestPartitionAndHeal(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	a, b, c := l.Host("a", nil), l.Host("b", nil), l.Host("c", l.Router("home", EIMAPDF))
	l.Partition([]Attached{a}, []Attached{b, c})
	if ping(a, b.Addr4()) || ping(b, a.Addr6()) || ping(c, a.Addr4()) {
		t.Error("a partition lets traffic through")
	}
	reach(t, c, b.Addr4())
	l.Heal()
	reach(t, a, b.Addr4())
	reach(t, c, a.Addr4())
}

func TestLoss(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	a, b := l.Host("a", nil), l.Host("b", nil)
	reach(t, a, b.Addr4())
	l.Loss(a, 300)
	// One answer of 400 is lost unless both directions let it through: 49 % of
	// them come back, and less than a quarter or more than three quarters
	// practically never.
	out, _ := a.Command(t.Context(), "ping", "-q", "-c", "400", "-i", "0.002", "-W", "0.3", b.Addr4().String()).Output()
	_, rest, _ := strings.Cut(string(out), "transmitted, ")
	got := 0
	for _, c := range rest {
		if c < '0' || c > '9' {
			break
		}
		got = got*10 + int(c-'0')
	}
	if got < 100 || got > 300 {
		t.Errorf("got %d of 400 answers, want about 196:\n%s", got, out)
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	a, b := l.Host("a", nil), l.Host("b", nil)
	l.Rate(a, 10)
	reach(t, a, b.Addr4())
	if out, err := run(nil, "tc", "-n", a.space.ns, "qdisc", "show", "dev", "eth0"); err != nil || !strings.Contains(string(out), "rate 10Mbit") {
		t.Errorf("got %s, %v", out, err)
	}
	l.Rate(a, 0)
	reach(t, a, b.Addr4())
}

func TestMove(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	public, home := l.Host("public", nil), l.Router("home", DualStack)
	h := l.Host("laptop", home)
	old := h.Addr4()
	l.Cut(h)
	for _, to := range []*Router{l.Router("cafe", EIMAPDF), nil, home} {
		h.Move(to)
		if back := to == home; (h.Addr4() == old) != back {
			t.Errorf("moved to %v: got %v, want the address %v only at home", to, h.Addr4(), old)
		}
		reach(t, h, public.Addr4())
	}
	reach(t, h, public.Addr6())
}

func TestRenumber(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	public, home := l.Host("public", nil), l.Router("home", EIMAPDF)
	h, other := l.Host("laptop", home), l.Host("other", home)
	first := h.Addr4()
	for range 2 {
		old := h.Addr4()
		h.Renumber()
		if h.Addr4() == old || !home.LAN4().Contains(h.Addr4()) {
			t.Errorf("got %v after %v, want another address in %v", h.Addr4(), old, home.LAN4())
		}
		reach(t, h, public.Addr4())
		reach(t, other, h.Addr4())
		if ping(other, old) {
			t.Errorf("the old address %v still answers", old)
		}
	}
	if h.Addr4() != first {
		t.Errorf("got %v after two changes, want the first address %v", h.Addr4(), first)
	}
}

func TestFlushForgetsMappings(t *testing.T) {
	for _, kind := range []Kind{EIMEIF, EIMAPDF, Symmetric} {
		t.Run(kind.String(), func(t *testing.T) {
			l := ForTest(t)
			public, home := l.Host("public", nil), l.Router("home", kind)
			p, at := listen(t, public, 1000), netip.AddrPortFrom(public.Addr4(), 1000)
			a := listen(t, l.Host("a", home), 9277)
			m := a.mapped(p, at)
			p.send(m)
			if _, ok := a.receive(); !ok {
				t.Error("no answer through a fresh mapping")
			}
			home.Flush()
			p.send(m)
			if _, ok := a.hear(); ok {
				t.Error("the router remembers a mapping after Flush")
			}
			p.send(a.mapped(p, at))
			if _, ok := a.receive(); !ok {
				t.Error("no answer through the mapping after Flush")
			}
		})
	}
}

func TestRebindChangesTheAddress(t *testing.T) {
	for _, kind := range []Kind{EIMEIF, EIMAPDF, DualStack} {
		t.Run(kind.String(), func(t *testing.T) {
			l := ForTest(t)
			public, home := l.Host("public", nil), l.Router("home", kind)
			p, at := listen(t, public, 1000), netip.AddrPortFrom(public.Addr4(), 1000)
			a := listen(t, l.Host("a", home), 9277)
			before := a.mapped(p, at)
			home.Rebind()
			after := a.mapped(p, at)
			if before.Addr() == after.Addr() || after.Addr() != home.WAN4() || home.Public() != home.WAN4() {
				t.Errorf("seen as %v, then as %v, want another address, %v", before, after, home.WAN4())
			}
			p.send(after)
			if _, ok := a.receive(); !ok {
				t.Error("no answer through the mapping after Rebind")
			}
			l.plugs = maxPlugs
			for range 2 {
				home.Rebind()
				again := a.mapped(p, at)
				if again.Addr() == after.Addr() {
					t.Errorf("no address is left that nobody had: seen as %v after Rebind, as before", again)
				}
				after = again
			}
		})
	}
}

func TestCoreRulesHaveNoOrder(t *testing.T) {
	a, b := cut{"c1", "c2"}, cut{"c2", "c1"}
	x, y := coreRules([]cut{a, b, a}), coreRules([]cut{b, a})
	if x != y || strings.Count(x, "drop") != 2 {
		t.Errorf("got\n%s\nand\n%s", x, y)
	}
}

// TestCountUDP counts what leaves a home for one address, and nothing else.
func TestCountUDP(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	home := l.Router("home", EIMAPDF)
	public, other := l.Host("public", nil), l.Host("other", nil)
	home.CountUDP(public.Addr4())
	if got := home.CountedUDP(); len(got) != 0 {
		t.Errorf("got %v counted at once, want nothing", got)
	}
	s, p := listen(t, l.Host("a", home), 9277), listen(t, public, 1000)
	from := s.mapped(p, netip.AddrPortFrom(public.Addr4(), 1000))
	p.send(from)
	s.send(netip.AddrPortFrom(public.Addr4(), 1000))
	s.send(netip.AddrPortFrom(public.Addr4(), 1001))
	s.send(netip.AddrPortFrom(other.Addr4(), 1002))
	var got map[uint16]int
	want := map[uint16]int{1000: 2, 1001: 1}
	eventually(t, "what was sent is counted", func() bool { got = home.CountedUDP(); return got[1000] >= 2 && got[1001] >= 1 })
	if !maps.Equal(got, want) {
		t.Errorf("got %v counted, want %v", got, want)
	}
}
