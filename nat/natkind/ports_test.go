package natkind

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

var outside = netip.MustParseAddr("203.0.113.9")

func samples(locals []uint16, ports ...uint16) []Sample {
	var list []Sample
	for i, p := range ports {
		s := Sample{Local: 50000 + uint16(7*i), Mapped: netip.AddrPortFrom(outside, p)}
		if i < len(locals) {
			s.Local = locals[i]
		}
		list = append(list, s)
	}
	return list
}

func TestPortsOf(t *testing.T) {
	pooled := samples(nil, 2000, 2001, 2002)
	pooled[2].Mapped = netip.AddrPortFrom(outside.Next(), 2002)
	tests := []struct {
		name    string
		samples []Sample
		want    Ports
		step    int
	}{
		{"none", nil, PortsUnknown, 0},
		{"two say nothing", samples(nil, 2000, 2001), PortsUnknown, 0},
		{"in a row", samples(nil, 2000, 2001, 2002), PortsSequential, 1},
		{"by two", samples(nil, 2000, 2002, 2004), PortsSequential, 2},
		{"downwards", samples(nil, 2004, 2003, 2002), PortsSequential, -1},
		{"others open some too", samples(nil, 2000, 2004, 2005), PortsSequential, 1},
		{"back and forth", samples(nil, 2000, 2002, 2001), PortsRandom, 0},
		{"the same twice", samples(nil, 2000, 2000, 2001), PortsRandom, 0},
		{"far apart", samples(nil, 2000, 2017, 2018), PortsRandom, 0},
		{"several addresses", pooled, PortsRandom, 0},
		{"kept", samples([]uint16{2000, 2001, 2002}, 2000, 2001, 2002), PortsKept, 0},
		{"kept where free", samples([]uint16{2000, 2001, 2002}, 41000, 2001, 2002), PortsKept, 0},
	}
	for _, tt := range tests {
		if got, step := PortsOf(tt.samples); got != tt.want || step != tt.step {
			t.Errorf("%s: got %s, step %d, want %s, %d", tt.name, got, step, tt.want, tt.step)
		}
	}
}

func TestBetween(t *testing.T) {
	elsewhere := Sample{Mapped: netip.AddrPortFrom(outside.Next(), 2002)}
	at := func(port uint16) Sample { return samples(nil, port)[0] }
	tests := []struct {
		name          string
		before, after Sample
		step          int
		want          []uint16
	}{
		{"one", at(2000), at(2002), 1, []uint16{2001}},
		{"one by two", at(2000), at(2004), 2, []uint16{2002, 2001, 2003}},
		{"others meanwhile", at(2000), at(2004), 1, []uint16{2001, 2002, 2003}},
		{"downwards", at(2004), at(2000), -2, []uint16{2002, 2003, 2001}},
		{"no room", at(2000), at(2001), 1, nil},
		{"no room by two", at(2000), at(2003), 2, nil},
		{"the wrong way", at(2002), at(2000), 1, nil},
		{"too far", at(2000), at(2010), 1, nil},
		{"another address", at(2000), elsewhere, 1, nil},
		{"no order known", at(2000), at(2002), 0, nil},
		{"well-known ports", at(1021), at(1026), 1, []uint16{1024, 1025}},
	}
	for _, tt := range tests {
		if got := Between(tt.before, tt.after, tt.step, 8); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Whatever the ports: never more than the limit, never one twice, none below 1024, all between the samples.
func TestBetweenIsBounded(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		from := uint16(rnd.Uint32())
		before, after := samples(nil, from)[0], samples(nil, from+uint16(rnd.IntN(100))-50)[0]
		step, limit := rnd.IntN(33)-16, rnd.IntN(40)
		got := Between(before, after, step, limit)
		low, high := min(from, after.Mapped.Port()), max(from, after.Mapped.Port())
		for i, p := range got {
			if p <= low || p >= high || p < 1024 || slices.Contains(got[:i], p) {
				t.Fatalf("from %d to %d by %d: got %v", from, after.Mapped.Port(), step, got)
			}
		}
		if len(got) > limit {
			t.Fatalf("got %d ports, want at most %d", len(got), limit)
		}
	}
}

func TestBefore(t *testing.T) {
	at := func(port uint16) Sample { return samples(nil, port)[0] }
	tests := []struct {
		sample Sample
		step   int
		want   []uint16
	}{
		{at(2000), 1, []uint16{1999, 1998, 1997}},
		{at(2000), 2, []uint16{1998, 1996, 1994}},
		{at(2000), -2, []uint16{2002, 2004, 2006}},
		{at(1025), 1, []uint16{1024}},
		{at(65534), -1, []uint16{65535}},
		{at(2000), 0, nil},
	}
	for _, tt := range tests {
		if got := Before(tt.sample, tt.step, 3); !slices.Equal(got, tt.want) {
			t.Errorf("before %d by %d: got %v, want %v", tt.sample.Mapped.Port(), tt.step, got, tt.want)
		}
	}
}
