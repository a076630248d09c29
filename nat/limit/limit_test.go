package limit

import (
	"net/netip"
	"testing"
	"time"
)

func nth(i int) netip.Prefix {
	return Host(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
}

func TestSources(t *testing.T) {
	s := NewSources[netip.Prefix](Rate{PerSecond: 100, Burst: 200}, Rate{PerSecond: 10, Burst: 50})
	now := time.Unix(1000, 0)
	allowed := func(source netip.Prefix, n int) (count int) {
		for range n {
			if s.Allow(now, source) {
				count++
			}
		}
		return count
	}
	if got := allowed(nth(0), 1000); got != 50 {
		t.Errorf("got %d of one source at once, want its burst of 50", got)
	}
	if got := allowed(nth(1), 1000); got != 50 {
		t.Errorf("got %d of another beside one with too much, want its burst of 50", got)
	}
	now = now.Add(time.Second)
	if got := allowed(nth(0), 1000); got != 10 {
		t.Errorf("got %d of one source a second later, want 10", got)
	}
	now = now.Add(time.Minute)
	total := 0
	for i := range 10000 {
		total += allowed(nth(i), 1)
	}
	if total != 200 {
		t.Errorf("got %d of many sources at once, want the burst of all, 200", total)
	}
}

// Strangers who make up sources take no more memory than a bounded table, and not their bound from those in it.
func TestSourcesAreBounded(t *testing.T) {
	s := NewSources[netip.Prefix](Rate{PerSecond: 1e6, Burst: 1e6}, Rate{PerSecond: 10, Burst: 50})
	now := time.Unix(1000, 0)
	for i := range 100 * maxSources {
		now = now.Add(time.Millisecond)
		s.Allow(now, nth(i))
	}
	if got := len(s.each); got > maxSources {
		t.Errorf("got %d sources kept, want %d at most", got, maxSources)
	}
	now = now.Add(5 * time.Second) // 50 at 10 a second: all are at rest
	s.Allow(now, nth(-1))
	if got := len(s.each); got != 1 {
		t.Errorf("got %d sources kept when all but one have rested, want 1", got)
	}
}

func TestHost(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "::ffff:192.0.2.1": "192.0.2.1/32", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
	} {
		if got := Host(netip.MustParseAddr(addr)); got != netip.MustParsePrefix(want) {
			t.Errorf("%s: got %s, want %s", addr, got, want)
		}
	}
	if got := Host(netip.Addr{}); got.IsValid() {
		t.Errorf("no address: got %s, want nothing", got)
	}
}

func BenchmarkAllow(b *testing.B) {
	s := NewSources[netip.Prefix](Rate{PerSecond: 1000, Burst: 1000}, Rate{PerSecond: 50, Burst: 50})
	source, now := nth(1), time.Unix(1000, 0)
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Millisecond)
		s.Allow(now, source)
	}
}
