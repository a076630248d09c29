package osnet

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

// memory is a system that is a variable. Like Linux it takes routes away with up, and IPv6 addresses with a small MTU.
type memory struct {
	state
	foreign map[netip.Prefix]bool // routes of other interfaces
	done    []string
	gone    bool
}

func (m *memory) close() error { return nil }

func (m *memory) read() (state, error) {
	if m.gone {
		return state{}, os.ErrNotExist
	}
	s := m.state
	s.addrs, s.routes = slices.Clone(s.addrs), slices.Clone(s.routes)
	return s, nil
}

func (m *memory) apply(s step) error {
	m.done = append(m.done, s.String())
	remove := func(list []netip.Prefix) []netip.Prefix {
		return slices.DeleteFunc(list, func(p netip.Prefix) bool { return p == s.prefix })
	}
	switch s.verb {
	case setMTU:
		m.mtu = s.mtu
	case bringUp:
		m.up = true
	case bringDown:
		m.up, m.routes = false, nil
	case addAddr:
		if slices.Contains(m.addrs, s.prefix) || is6(s.prefix) && (m.mtu < minMTU6 || !m.ipv6) {
			return errors.New("refused")
		}
		m.addrs = append(m.addrs, s.prefix)
	case removeAddr:
		m.addrs = remove(m.addrs)
	case addRoute:
		if m.foreign[s.prefix] {
			return os.ErrExist
		}
		if !m.up || slices.Contains(m.routes, s.prefix) {
			return errors.New("refused")
		}
		m.routes = append(m.routes, s.prefix)
	case removeRoute:
		m.routes = remove(m.routes)
	}
	return nil
}

// prefixes parses a list separated by spaces.
func prefixes(list string) (out []netip.Prefix) {
	for _, f := range strings.Fields(list) {
		out = append(out, netip.MustParsePrefix(f))
	}
	return out
}

func open(t *testing.T, m *memory) *link {
	t.Helper()
	l, err := newLink("test0", m)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func fresh() *memory { return &memory{state: state{mtu: 1500, ipv6: true}} }

func TestSetTouchesOnlyTheDifference(t *testing.T) {
	m := fresh()
	l := open(t, m)
	for _, c := range []struct {
		name          string
		addrs, routes string
		mtu           int
		up            bool
		want          string
	}{
		{"first", "100.70.1.2/32 fd01::2/128", "fd01::/48 100.70.0.0/16", 1376, true,
			"set MTU 1376, add address 100.70.1.2/32, add address fd01::2/128, bring up, add route 100.70.0.0/16, add route fd01::/48"},
		{"again", "fd01::2/128 100.70.1.2/32", "100.70.0.0/16 fd01::/48", 1376, true, ""},
		{"host bits, repeated", "fd01::2/128 100.70.1.2/32 100.70.1.2/32", "100.70.9.9/16 100.70.0.0/16 fd01::/48", 0, true, ""},
		{"one route more", "fd01::2/128 100.70.1.2/32", "100.70.0.0/16 fd01::/48 10.1.0.0/24", 1376, true, "add route 10.1.0.0/24"},
		{"another address", "fd01::2/128 100.70.1.3/32", "100.70.0.0/16 fd01::/48", 1376, true,
			"remove route 10.1.0.0/24, add address 100.70.1.3/32, remove address 100.70.1.2/32"},
		{"down", "fd01::2/128 100.70.1.3/32", "100.70.0.0/16 fd01::/48", 1376, false,
			"remove route 100.70.0.0/16, remove route fd01::/48, bring down"},
		{"still down", "fd01::2/128 100.70.1.3/32", "100.70.0.0/16 fd01::/48", 1376, false, ""},
		{"up again", "fd01::2/128 100.70.1.3/32", "100.70.0.0/16 fd01::/48", 1376, true, "bring up, add route 100.70.0.0/16, add route fd01::/48"},
		{"nothing", "", "", 0, true, "remove route 100.70.0.0/16, remove route fd01::/48, remove address fd01::2/128, remove address 100.70.1.3/32"},
	} {
		m.done = nil
		err := l.Set(Config{Addrs: prefixes(c.addrs), Routes: prefixes(c.routes), MTU: c.mtu, Up: c.up})
		if got := strings.Join(m.done, ", "); err != nil || got != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}

func TestForeignThingsAreLeftAlone(t *testing.T) {
	m := fresh()
	m.addrs, m.routes = prefixes("10.9.0.1/24"), prefixes("10.8.0.0/16") // left by a killed run
	m.up = true
	l := open(t, m)
	m.foreign = map[netip.Prefix]bool{netip.MustParsePrefix("192.168.1.0/24"): true}
	m.addrs = append(m.addrs, prefixes("172.16.0.1/32")...) // by the administrator, while we run
	m.routes = append(m.routes, prefixes("172.16.0.0/16")...)

	err := l.Set(Config{Addrs: prefixes("100.70.1.2/32"), Routes: prefixes("192.168.1.0/24 100.70.0.0/16"), Up: true})
	if !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "192.168.1.0/24") {
		t.Errorf("route of another interface: got %v, want it named and to exist", err)
	}
	if got, want := sorted(m.addrs), sorted(prefixes("172.16.0.1/32 100.70.1.2/32")); !slices.Equal(got, want) {
		t.Errorf("addresses: got %v, want %v", got, want)
	}
	if got, want := sorted(m.routes), sorted(prefixes("172.16.0.0/16 100.70.0.0/16")); !slices.Equal(got, want) {
		t.Errorf("routes: got %v, want %v", got, want)
	}
	if err := l.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if !slices.Equal(m.addrs, prefixes("172.16.0.1/32")) || !slices.Equal(m.routes, prefixes("172.16.0.0/16")) {
		t.Errorf("after close: got %v and %v, want only the administrator's", m.addrs, m.routes)
	}
}

func TestSetWithoutIPv6(t *testing.T) {
	m := fresh()
	m.ipv6 = false
	l := open(t, m)
	config := Config{Addrs: prefixes("100.70.1.2/32 fd01::2/128"), Routes: prefixes("100.70.0.0/16 fd01::/48"), Up: true}
	for range 2 {
		if err := l.Set(config); !errors.Is(err, ErrNoIPv6) {
			t.Errorf("got %v, want ErrNoIPv6", err)
		}
	}
	if want := "add address 100.70.1.2/32, bring up, add route 100.70.0.0/16"; strings.Join(m.done, ", ") != want {
		t.Errorf("got %q, want %q", m.done, want)
	}
	if err := l.Set(Config{Addrs: prefixes("100.70.1.2/32"), Up: true}); err != nil {
		t.Errorf("IPv4 only: got %v, want no error", err)
	}
}

func TestSetRefuses(t *testing.T) {
	for want, c := range map[string]Config{
		"default route":   {Routes: prefixes("0.0.0.0/0")},
		"the tunnel into": {Routes: prefixes("::/0")},
		"unicast":         {Routes: prefixes("224.0.0.0/4")},
		"can have":        {Addrs: prefixes("0.0.0.0/8")},
		"not one":         {Addrs: []netip.Prefix{{}}},
		"not a unicast":   {Routes: []netip.Prefix{{}}},
		"not between":     {MTU: 100},
		"at least 1280":   {MTU: 1200, Addrs: prefixes("fd01::2/128")},
	} {
		m := fresh()
		if err := open(t, m).Set(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", c, err, want)
		}
		if len(m.done) > 0 {
			t.Errorf("%v: got %v done, want nothing", c, m.done)
		}
	}
	m := fresh()
	l := open(t, m)
	m.gone = true
	if err := l.Set(Config{Up: true}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("interface gone: got %v, want os.ErrNotExist", err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("close when gone: got %v, want nil", err)
	}
}

// Whatever was before, a Set ends in what it says, and a second one has nothing to do.
func TestSetConverges(t *testing.T) {
	pool := prefixes("100.70.1.2/32 100.70.1.2/24 10.0.0.1/8 fd01::2/128 fd01::3/64")
	nets := prefixes("100.70.0.0/16 10.1.0.0/24 10.1.0.0/16 fd01::/48 fd02::/64")
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(from []netip.Prefix) (out []netip.Prefix) {
		for _, p := range from {
			if random.IntN(2) == 0 {
				out = append(out, p)
			}
		}
		return out
	}
	m := fresh()
	l := open(t, m)
	for range 500 {
		want, err := Config{Addrs: pick(pool), Routes: pick(nets), MTU: 1280 + random.IntN(2)*100, Up: random.IntN(4) > 0}.Clean()
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Set(want); err != nil {
			t.Fatalf("%v: %v", want, err)
		}
		if !want.Up {
			want.Routes = nil
		}
		if !slices.Equal(sorted(m.addrs), want.Addrs) || !slices.Equal(sorted(m.routes), want.Routes) || m.mtu != want.MTU || m.up != want.Up {
			t.Fatalf("got %+v, want %+v", m.state, want)
		}
		m.done = nil
		if err := l.Set(want); err != nil || len(m.done) > 0 {
			t.Fatalf("%v again: did %v, %v", want, m.done, err)
		}
	}
}
