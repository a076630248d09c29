package osnet

import (
	"context"
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
	refuse  map[verb]bool
}

func (m *memory) close() error { return nil }

func (m *memory) watch(context.Context) (<-chan struct{}, error) { return nil, nil }
func (m *memory) elsewhere([]netip.Prefix) ([]Route, error)      { return nil, nil }

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
	if m.refuse[s.verb] {
		return os.ErrPermission
	}
	remove := func(list []netip.Prefix) []netip.Prefix {
		return slices.DeleteFunc(list, func(p netip.Prefix) bool { return p == s.prefix })
	}
	switch s.verb {
	case fetch: // with nothing but its name
		m.state = state{mtu: 1500, ipv6: true, name: m.name}
	case rename:
		m.name = s.name
	case release:
		m.master = ""
	case revive:
		m.dead = false
	case enable6:
		m.ipv6, m.off6 = true, false
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

// What others do to an interface is undone, and told.
func TestMend(t *testing.T) {
	config := Config{Addrs: prefixes("100.70.1.2/32 fd01::2/128"), Routes: prefixes("100.70.0.0/16 fd01::/48"), MTU: 1376, Up: true}
	all := "MTU 1500, address 100.70.1.2/32 gone, address fd01::2/128 gone, down, route 100.70.0.0/16 gone, route fd01::/48 gone"
	for name, c := range map[string]struct {
		do   func(m *memory)
		want string // lost
	}{
		"nothing":             {func(m *memory) {}, ""},
		"what is not ours":    {func(m *memory) { m.addrs = append(m.addrs, prefixes("10.1.1.1/32")...) }, ""},
		"routes flushed":      {func(m *memory) { m.routes = nil }, "route 100.70.0.0/16 gone, route fd01::/48 gone"},
		"one address removed": {func(m *memory) { m.addrs = m.addrs[1:] }, "address 100.70.1.2/32 gone"},
		"down":                {func(m *memory) { m.up, m.routes = false, nil }, "down, route 100.70.0.0/16 gone, route fd01::/48 gone"},
		"renamed":             {func(m *memory) { m.name = "foo0" }, "renamed to foo0"},
		"enslaved":            {func(m *memory) { m.master = "br0" }, "put under br0"},
		"carrier off":         {func(m *memory) { m.dead = true }, "carrier off"},
		"IPv6 off": {func(m *memory) { m.ipv6, m.off6, m.addrs, m.routes = false, true, m.addrs[:1], m.routes[:1] },
			"IPv6 off, address fd01::2/128 gone, route fd01::/48 gone"},
		"moved": {func(m *memory) { m.moved = true }, "moved to another network namespace, " + all},
		"small MTU": {func(m *memory) { m.mtu, m.addrs, m.routes = 1000, m.addrs[:1], m.routes[:1] },
			"MTU 1000, address fd01::2/128 gone, route fd01::/48 gone"},
	} {
		m := fresh()
		m.name = "test0"
		l := open(t, m)
		if lost, err := l.Mend(); err != nil || len(lost) > 0 {
			t.Errorf("%s: nothing set: got %q and %v, want nothing", name, lost, err)
		}
		if err := l.Set(config); err != nil {
			t.Fatal(err)
		}
		c.do(m)
		lost, err := l.Mend()
		if got := strings.Join(lost, ", "); err != nil || got != c.want {
			t.Errorf("%s: got %q and %v, want %q", name, got, err, c.want)
		}
		m.addrs = slices.DeleteFunc(m.addrs, func(p netip.Prefix) bool { return p == prefixes("10.1.1.1/32")[0] })
		if !slices.Equal(sorted(m.addrs), sorted(slices.Clone(config.Addrs))) || !slices.Equal(sorted(m.routes), sorted(slices.Clone(config.Routes))) ||
			m.mtu != 1376 || !m.up || m.name != "test0" || m.master != "" || m.dead || !m.ipv6 {
			t.Errorf("%s: got %+v, want what was set", name, m.state)
		}
		if lost, err := l.Mend(); err != nil || len(lost) > 0 {
			t.Errorf("%s: mended: got %q and %v, want nothing lost", name, lost, err)
		}
	}
}

// What cannot be mended is an error each time, and news once.
func TestMendRefused(t *testing.T) {
	config := Config{Addrs: prefixes("100.70.1.2/32 fd01::2/128"), Routes: prefixes("100.70.0.0/16"), MTU: 1376, Up: true}
	for name, c := range map[string]struct {
		do    func(m *memory)
		lost  string
		error string
	}{
		"renamed, and the name taken": {func(m *memory) { m.name, m.refuse = "foo0", map[verb]bool{rename: true} }, "renamed to foo0", "rename to test0"},
		"IPv6 off for good": {func(m *memory) {
			m.ipv6, m.off6, m.addrs, m.refuse = false, true, m.addrs[:1], map[verb]bool{enable6: true}
		}, "IPv6 off", "switch on IPv6"},
		"IPv6 off everywhere": {func(m *memory) { m.ipv6, m.addrs = false, m.addrs[:1] }, "", ErrNoIPv6.Error()},
		"route of another":    {func(m *memory) { m.routes, m.foreign = nil, map[netip.Prefix]bool{prefixes("100.70.0.0/16")[0]: true} }, "route 100.70.0.0/16 gone", "add route"},
		"moved for good":      {func(m *memory) { m.moved, m.refuse = true, map[verb]bool{fetch: true} }, "moved to another network namespace", "fetch back"},
	} {
		m := fresh()
		m.name = "test0"
		l := open(t, m)
		if err := l.Set(config); err != nil {
			t.Fatal(err)
		}
		c.do(m)
		for i, want := range []string{c.lost, ""} {
			lost, err := l.Mend()
			if got := strings.Join(lost, ", "); err == nil || !strings.Contains(err.Error(), c.error) || got != want {
				t.Errorf("%s, attempt %d: got %q lost and error %v, want %q and %q", name, i+1, got, err, want, c.error)
			}
		}
		m.refuse, m.foreign = nil, nil
		if name == "IPv6 off everywhere" {
			m.ipv6 = true
		}
		if _, err := l.Mend(); err != nil || len(m.addrs) != 2 || len(m.routes) != 1 {
			t.Errorf("%s: not in the way any more: got %+v and %v, want what was set", name, m.state, err)
		}
	}
}
