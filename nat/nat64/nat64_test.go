package nat64

import (
	"net/netip"
	"testing"
)

// The examples of RFC 6052, section 2.4.
func TestWriteAndRead(t *testing.T) {
	v4 := netip.MustParseAddr("192.0.2.33")
	for prefix, want := range map[string]string{
		"2001:db8::/32":            "2001:db8:c000:221::",
		"2001:db8:100::/40":        "2001:db8:1c0:2:21::",
		"2001:db8:122::/48":        "2001:db8:122:c000:2:2100::",
		"2001:db8:122:300::/56":    "2001:db8:122:3c0:0:221::",
		"2001:db8:122:344::/64":    "2001:db8:122:344:c0:2:2100::",
		"2001:db8:122:344::/96":    "2001:db8:122:344::c000:221",
		"64:ff9b::/96":             "64:ff9b::c000:221",
		"64:ff9b:1:fffe::/96":      "64:ff9b:1:fffe::c000:221",
		"2001:db8:122:344:55::/96": "2001:db8:122:344:55:0:c000:221",
	} {
		p, ok := NewPrefix(netip.MustParsePrefix(prefix))
		if !ok {
			t.Errorf("%s: got no prefix", prefix)
			continue
		}
		got := p.Write(v4)
		if got != netip.MustParseAddr(want) {
			t.Errorf("%s: got %s, want %s", prefix, got, want)
		}
		if back, ok := p.Read(got); !ok || back != v4 {
			t.Errorf("%s: read got %s, %v, want %s", prefix, back, ok, v4)
		}
	}
	for _, prefix := range []string{"2001:db8::/33", "2001:db8::/128", "10.0.0.0/32", "2001:db8:1:2:ff00::/96", "::ffff:0:0/96"} {
		if p, ok := NewPrefix(netip.MustParsePrefix(prefix)); ok {
			t.Errorf("%s: got %s, want none", prefix, p)
		}
	}
}

func TestFind(t *testing.T) {
	for answers, want := range map[string]string{
		"64:ff9b::c000:aa":             "64:ff9b::/96",
		"64:ff9b::c000:ab":             "64:ff9b::/96",
		"2001:db8:c000:aa::":           "2001:db8::/32",
		"2001:db8:1c0:0:aa::":          "2001:db8:100::/40",
		"2001:db8:122:c000:0:aa00::":   "2001:db8:122::/48",
		"2001:db8:122:3c0:0:aa::":      "2001:db8:122:300::/56",
		"2001:db8:122:344:c0:0:aa00::": "2001:db8:122:344::/64",
		"2001:db8:122:344::c000:aa":    "2001:db8:122:344::/96",
		"2001:db8::1":                  "",
		"64:ff9b::c000:a9":             "",
		"::ffff:192.0.0.170":           "", // a resolver that maps what has no IPv6 address
		"192.0.0.170":                  "",
	} {
		a := netip.MustParseAddr(answers)
		p, ok := Find([]netip.Addr{netip.MustParseAddr("2001:db8::1"), a})
		if got := p.String(); ok != (want != "") || ok && got != want {
			t.Errorf("%s: got %s, %v, want %q", answers, got, ok, want)
		}
	}
}

func TestWay(t *testing.T) {
	var none *Way
	public, private := netip.MustParseAddrPort("198.51.100.7:9277"), netip.MustParseAddrPort("192.168.1.7:9277")
	if _, ok := none.Out(public); ok || none.In(public) != public {
		t.Error("no way: got an address of a NAT64")
	}
	w := new(Way)
	wellKnown, _ := NewPrefix(wellKnownPrefix)
	own, _ := NewPrefix(netip.MustParsePrefix("2001:db8:64::/96"))
	if !w.Set(wellKnown) || w.Set(wellKnown) {
		t.Error("set: got the change reported wrongly")
	}
	if got, ok := w.Out(public); !ok || got != netip.MustParseAddrPort("[64:ff9b::c633:6407]:9277") || w.In(got) != public {
		t.Errorf("public by the well-known prefix: got %s, %v", got, ok)
	}
	if got, ok := w.Fallback(private); ok {
		t.Errorf("private by the well-known prefix: got %s, want none (RFC 6052, section 3.1)", got)
	}
	if got, ok := w.Out(netip.MustParseAddrPort("[2001:db8::1]:1")); ok {
		t.Errorf("IPv6: got %s, want it left alone", got)
	}
	w.Set(own)
	if got, ok := w.Out(private); ok {
		t.Errorf("private: got %s before this host has tried by itself", got)
	}
	if got, ok := w.Fallback(private); !ok || w.In(got) != private {
		t.Errorf("private by a prefix of the network's own: got %s, %v", got, ok)
	}
	for _, useless := range []string{"127.0.0.1:1", "224.0.0.1:1", "169.254.1.1:1"} {
		if got, ok := w.Fallback(netip.MustParseAddrPort(useless)); ok {
			t.Errorf("%s: got %s, want none", useless, got)
		}
	}
	if other := netip.MustParseAddrPort("[2001:db8:65::1]:1"); w.In(other) != other {
		t.Errorf("an address of another prefix: got %s", w.In(other))
	}
	w.Set(Prefix{})
	if _, ok := w.Out(public); ok {
		t.Error("taken away: got an address still")
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), 96)
	f.Fuzz(func(t *testing.T, raw []byte, bits int) {
		a, ok := netip.AddrFromSlice(raw)
		if !ok || bits < 0 || bits > 128 {
			return
		}
		if p, ok := NewPrefix(netip.PrefixFrom(a, bits)); ok {
			if v4, ok := p.Read(a); ok && p.Write(v4) != a {
				t.Errorf("%s by %s: read %s, which is written %s", a, p, v4, p.Write(v4))
			}
		}
	})
}
