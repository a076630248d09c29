package tunnel

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/identity"
)

// key makes a key out of one letter.
func key(letter byte) (k wgtypes.Key) {
	for i := range k {
		k[i] = letter
	}
	return k
}

func prefixes(list string) (out []netip.Prefix) {
	for _, f := range strings.Fields(list) {
		out = append(out, netip.MustParsePrefix(f))
	}
	return out
}

func endpoint(s string) netip.AddrPort {
	if s == "" {
		return netip.AddrPort{}
	}
	return netip.MustParseAddrPort(s)
}

// text writes changes in one line: +a adds, -a removes, ~a changes; then what is set.
func text(changes []wgtypes.PeerConfig) string {
	slices.SortStableFunc(changes, func(a, b wgtypes.PeerConfig) int {
		if a.Remove && b.Remove {
			return cmp.Compare(a.PublicKey[0], b.PublicKey[0])
		}
		return 0
	})
	var words []string
	for _, c := range changes {
		sign := "+"
		switch {
		case c.Remove:
			sign = "-"
		case c.UpdateOnly:
			sign = "~"
		}
		words = append(words, sign+string(c.PublicKey[0]))
		if c.PresharedKey != nil {
			words = append(words, "psk="+string('0'+c.PresharedKey[0]))
		}
		if c.Endpoint != nil {
			words = append(words, "at="+c.Endpoint.String())
		}
		if c.PersistentKeepaliveInterval != nil {
			words = append(words, "keepalive="+c.PersistentKeepaliveInterval.String())
		}
		if c.ReplaceAllowedIPs {
			words = append(words, "only")
		}
		for _, n := range c.AllowedIPs {
			words = append(words, n.String())
		}
	}
	return strings.Join(words, " ")
}

func TestPlan(t *testing.T) {
	nets := func(list string) []net.IPNet { return ipNets(prefixes(list)) }
	udp := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 9}
	have := map[wgtypes.Key]wgtypes.Peer{
		key('a'): {PublicKey: key('a'), AllowedIPs: nets("10.0.0.1/32 fd01::1/128"), Endpoint: udp, PersistentKeepaliveInterval: 25 * time.Second},
		key('b'): {PublicKey: key('b'), AllowedIPs: nets("10.0.0.2/32"), PresharedKey: key(1)},
	}
	a := Peer{PublicKey: key('a'), AllowedIPs: prefixes("fd01::1/128 10.0.0.1/32"), Endpoint: endpoint("192.0.2.1:1"), Keepalive: 24100 * time.Millisecond}
	b := Peer{ID: id('b'), PublicKey: key('b'), AllowedIPs: prefixes("10.0.0.2/32"), PresharedKey: key(1)}
	set := map[wgtypes.Key]holder{key('a'): {endpoint: endpoint("192.0.2.1:1")}, key('b'): {id: id('b')}}
	with := func(p Peer, change func(*Peer)) Peer { change(&p); return p }
	for _, c := range []struct {
		name string
		want []Peer
		text string
	}{
		{"nothing to do, though it roamed", []Peer{a, b}, ""},
		{"order does not matter", []Peer{b, a}, ""},
		{"all go", nil, "-a -b"},
		{"one goes, one comes", []Peer{a, {PublicKey: key('c'), AllowedIPs: prefixes("10.0.0.2/32"), Endpoint: endpoint("[fd02::1]:7"), PresharedKey: key(2), Keepalive: time.Second}},
			"-b +c psk=2 at=[fd02::1]:7 keepalive=1s 10.0.0.2/32"},
		{"bare", []Peer{a, b, {PublicKey: key('c')}}, "+c"},
		{"another endpoint", []Peer{with(a, func(p *Peer) { p.Endpoint = endpoint("192.0.2.1:2") }), b}, "~a at=192.0.2.1:2"},
		{"no endpoint any more", []Peer{with(a, func(p *Peer) { p.Endpoint = netip.AddrPort{} }), b}, ""},
		{"a first endpoint", []Peer{a, with(b, func(p *Peer) { p.Endpoint = endpoint("192.0.2.2:2") })}, "~b at=192.0.2.2:2"},
		{"no keepalive", []Peer{with(a, func(p *Peer) { p.Keepalive = 0 }), b}, "~a keepalive=0s"},
		{"another preshared key", []Peer{a, with(b, func(p *Peer) { p.PresharedKey = key(3) })}, "~b psk=3"},
		{"no preshared key", []Peer{a, with(b, func(p *Peer) { p.PresharedKey = key(0) })}, "~b psk=0"},
		{"one prefix more", []Peer{a, with(b, func(p *Peer) { p.AllowedIPs = prefixes("10.0.0.2/32 10.3.0.0/16") })}, "~b 10.3.0.0/16"},
		{"one prefix less", []Peer{with(a, func(p *Peer) { p.AllowedIPs = prefixes("10.0.0.1/32") }), b}, "~a only 10.0.0.1/32"},
		{"no prefix", []Peer{a, with(b, func(p *Peer) { p.AllowedIPs = nil })}, "~b only"},
		{"a prefix moves", []Peer{with(a, func(p *Peer) { p.AllowedIPs = prefixes("10.0.0.1/32") }), with(b, func(p *Peer) { p.AllowedIPs = prefixes("10.0.0.2/32 fd01::1/128") })},
			"~a only 10.0.0.1/32 ~b fd01::1/128"},
		// A key that goes over to another node is another peer: nothing of the first one stays.
		{"a key goes over to another member", []Peer{a, with(b, func(p *Peer) { p.ID, p.PresharedKey = id('c'), wgtypes.Key{} })}, "-b +b 10.0.0.2/32"},
		{"a key goes over to a static peer", []Peer{a, with(b, func(p *Peer) { p.ID, p.PresharedKey = identity.NodeID{}, key(4) })}, "-b +b psk=4 10.0.0.2/32"},
		{"a static peer's key goes over to a member", []Peer{with(a, func(p *Peer) { p.ID = id('a') }), b}, "-a +a at=192.0.2.1:1 keepalive=25s fd01::1/128 10.0.0.1/32"},
	} {
		if got := text(plan(have, c.want, set)); got != c.text {
			t.Errorf("%s: got %q, want %q", c.name, got, c.text)
		}
	}
}

func TestClean(t *testing.T) {
	in := []Peer{
		{PublicKey: key('a'), AllowedIPs: prefixes("10.0.0.9/24 10.0.0.0/24 fd01::1/128")},
		{PublicKey: key('s')},
		{PublicKey: key('b'), AllowedIPs: append(prefixes("10.0.0.0/24 10.0.0.0/25"), netip.Prefix{})},
		{PublicKey: key('a')},
		{PublicKey: key('m'), ID: id('m')},
		{PublicKey: key('n'), ID: id('m')},
		{PublicKey: key('o'), ID: id('o'), AllowedIPs: prefixes("10.0.9.1/32 10.0.9.2/32")},
		{PublicKey: key('q'), ID: id('q'), AllowedIPs: prefixes("10.0.9.2/32")},
		{PublicKey: key('o'), AllowedIPs: prefixes("10.0.9.1/32"), PresharedKey: key(1)},
		{PublicKey: key('p'), AllowedIPs: prefixes("10.0.9.2/32")},
	}
	out, err := clean(in, key('s'))
	var got []string
	for _, p := range out {
		got = append(got, fmt.Sprint(string(p.PublicKey[0]), p.AllowedIPs))
	}
	if want := "a[10.0.0.0/24 fd01::1/128] b[10.0.0.0/25] o[10.0.9.1/32] p[10.0.9.2/32] m[] q[]"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if !errors.Is(err, ErrConflict) {
		t.Errorf("got %v, want ErrConflict", err)
	}
	for _, want := range []string{"own key", "twice", "not a prefix", "10.0.0.0/24"} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	}
	if !slices.Equal(in[0].AllowedIPs, prefixes("10.0.0.9/24 10.0.0.0/24 fd01::1/128")) {
		t.Error("the caller's peers were changed")
	}
}

func TestWholeSeconds(t *testing.T) {
	for in, want := range map[time.Duration]time.Duration{0: 0, 1: time.Second, time.Second: time.Second, -5: 0, 100 * time.Hour: 65535 * time.Second} {
		if got := wholeSeconds(in); got != want {
			t.Errorf("%v: got %v, want %v", in, got, want)
		}
	}
}
