package filter

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func addr16(s string) [16]byte { return netip.MustParseAddr(s).As16() }

func TestNoAllocations(t *testing.T) {
	f := strict()
	in, out := ip(peer4, me4, protoTCP, tcp(4000, 22, flagSYN)), ip(me4, peer4, protoTCP, tcp(22, 4000, flagACK))
	in6, denied := ip(peer6, me6, protoUDP, udp(4000, 53, 900)), ip(peer4, me4, protoTCP, tcp(4000, 23, flagSYN))
	all := func() {
		for _, p := range [][]byte{in, in6} {
			if got, why := f.Decide(In, p, time.Second); got != Pass {
				t.Fatal(got, why)
			}
		}
		if got, why := f.Decide(Out, out, time.Second); got != Pass {
			t.Fatal(got, why)
		}
		f.Decide(In, denied, time.Second)
	}
	all()
	in[33] = flagACK
	if n := testing.AllocsPerRun(100, all); n != 0 {
		t.Errorf("got %v allocations for four packets of known flows, want none", n)
	}
}

// manyRules are as many rules for pairs of a large mesh, the peer's among them.
func manyRules(n int) Rules {
	r := strictRules()
	for i := range n - len(r.Rules) {
		from, to := netip.AddrFrom4([4]byte{100, 65, byte(i >> 8), byte(i)}), netip.AddrFrom4([4]byte{100, 66, byte(i >> 8), byte(i)})
		r.Rules = append(r.Rules, Rule{From: []netip.Prefix{netip.PrefixFrom(from, 32), netip.MustParsePrefix(me4 + "/32")}, To: []netip.Prefix{netip.PrefixFrom(to, 32)}, Ports: []Ports{{protoTCP, 1, 65535}}})
	}
	return r
}

// BenchmarkDecide is one packet of an established flow, out of so many, under so many rules; and one that begins a flow.
func BenchmarkDecide(b *testing.B) {
	for _, size := range []struct{ flows, rules int }{{1, 2}, {10_000, 2}, {10_000, 1000}} {
		b.Run(fmt.Sprintf("flows=%d/rules=%d", size.flows, size.rules), func(b *testing.B) {
			f := strict()
			f.SetRules(manyRules(size.rules))
			p := ip(peer4, me4, protoTCP, append(tcp(0, 22, flagACK), make([]byte, 1300)...))
			for i := range size.flows {
				binary.BigEndian.PutUint16(p[20:], uint16(i))
				if got, why := f.Decide(In, p, time.Second); got != Pass {
					b.Fatal(got, why)
				}
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				binary.BigEndian.PutUint16(p[20:], uint16(i%size.flows))
				f.Decide(In, p, time.Second)
			}
		})
	}
	b.Run("new/rules=1000", func(b *testing.B) {
		f := strict()
		f.SetRules(manyRules(1000))
		p := ip(peer4, me4, protoTCP, tcp(0, 22, flagSYN))
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			i++
			binary.BigEndian.PutUint16(p[20:], uint16(i))
			f.Decide(In, p, time.Duration(i)*time.Minute) // the one before is over
		}
	})
	b.Run("compile/rules=1000", func(b *testing.B) {
		r := manyRules(1000)
		for b.Loop() {
			compile(r, 1)
		}
	})
}
