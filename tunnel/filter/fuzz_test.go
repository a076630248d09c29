package filter

import (
	"bytes"
	"testing"
	"time"
)

// FuzzDecide: no packet harms the filter, changes, or passes without having been read: what passes says the same of itself when it is cut to
// the length that its header has.
func FuzzDecide(f *testing.F) {
	up := tcp(4000, 22, flagSYN)
	sent := ip(me4, peer4, protoTCP, tcp(5000, 80, flagSYN))
	for _, seed := range [][]byte{
		nil, {0x45}, {0x60}, make([]byte, 40), ip(peer4, me4, protoTCP, up), ip(peer6, me6, protoTCP, up), ip(peer4, me4, protoUDP, udp(9, 53, 4)), ip(peer6, me6, protoUDP, udp(9, 53, 4)),
		ip(peer4, me4, protoICMP, icmp(8, 7, nil)), ip(peer6, me6, protoICMPv6, icmp(128, 7, nil)), ip(peer4, me4, protoICMP, icmp(3, 0, sent)),
		ip(peer6, me6, protoICMPv6, icmp(1, 0, ip(me6, peer6, protoTCP, up))), ip(peer6, me6, protoHopByHop, extension(protoOptions, extension(protoTCP, up))),
		ip(peer6, me6, protoFragment, fragment6(protoTCP, 1, 0, true, append(up, make([]byte, 12)...))), ip(peer6, me6, protoFragment, fragment6(protoTCP, 1, 32, false, up)),
		fragmentOf(ip(peer4, me4, protoTCP, append(up, make([]byte, 12)...)), 1, 0, true), fragmentOf(ip(peer4, me4, protoTCP, up), 1, 32, false),
		ip(peer6, me6, protoRouting, extension(protoTCP, up)), ip(peer6, me6, protoAH, append([]byte{protoTCP, 4}, make([]byte, 42)...)), ip(peer4, me4, 132, ports(make([]byte, 12), 1, 2)),
	} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	filter := strict()
	f.Fuzz(func(t *testing.T, raw []byte, out bool) {
		dir, before := In, bytes.Clone(raw)
		if out {
			dir = Out
		}
		verdict, why := filter.Decide(dir, raw, time.Second)
		if !bytes.Equal(raw, before) {
			t.Fatal("the packet was changed")
		}
		if (verdict == Pass) != (why == None) || why >= reasons {
			t.Fatalf("got %v for %v", verdict, why)
		}
		if verdict != Pass {
			return
		}
		var p packet
		if why := p.parse(raw); why != None {
			t.Fatalf("a packet has passed that cannot be read: %v", why)
		}
		// What leaves with another's source is on its way through, and may be answered.
		spoofed := p.src == addr16(me4) || p.src == addr16(me6)
		if dir == In && !spoofed && p.kind != laterFragment && p.kind != quoting && p.dst != addr16(me4) && p.dst != addr16(me6) {
			t.Fatalf("a packet has passed to %x", p.dst)
		}
		total := int(get16(raw[2:]))
		if p.six {
			total = ipv6Header + int(get16(raw[4:]))
		}
		var again packet
		if why := again.parse(raw[:total]); why != None || again != p {
			t.Fatalf("what is behind the packet's end counts: got %+v (%v), want %+v", again, why, p)
		}
	})
}
