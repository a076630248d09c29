package filter

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

const (
	me4, me6   = "100.64.0.1", "fd00::1"
	peer4      = "100.64.0.2"
	peer6      = "fd00::2"
	other4     = "100.64.0.3"
	other6     = "fd00::3"
	lateEnough = time.Second
)

// strict returns a filter under which the peer may reach TCP port 22 here and send echoes, and this node TCP port 80 there.
func strict() *Filter {
	f := New(time.Time{})
	f.SetPeers([]Peer{
		{Key: [32]byte{2}, AllowedIPs: prefixesOf(peer4+"/32", peer6+"/128")},
		{Key: [32]byte{3}, AllowedIPs: prefixesOf(other4+"/32", other6+"/128")},
	})
	f.SetRules(strictRules())
	return f
}

func strictRules() Rules {
	me, peer := prefixesOf(me4+"/32", me6+"/128"), prefixesOf(peer4+"/32", peer6+"/128")
	return Rules{Incoming: true, Own: []netip.Addr{netip.MustParseAddr(me4), netip.MustParseAddr(me6)}, Rules: []Rule{
		{From: peer, To: me, Ports: []Ports{{protoTCP, 22, 22}, {protoICMP, 0, 65535}, {protoUDP, 53, 53}, {132, 0, 65535}}},
		{From: me, To: peer, Ports: []Ports{{protoTCP, 80, 90}}},
	}}
}

type step struct {
	dir  Direction
	raw  []byte
	want Verdict
	why  Reason
}

func play(t *testing.T, f *Filter, steps ...step) {
	t.Helper()
	for i, s := range steps {
		got, why := f.Decide(s.dir, s.raw, lateEnough+time.Duration(i)*time.Millisecond)
		if got != s.want || why != s.why {
			t.Errorf("step %d: got %v (%v), want %v (%v)", i+1, got, why, s.want, s.why)
		}
	}
}

// families runs a test for IPv4 and IPv6.
func families(t *testing.T, test func(t *testing.T, me, peer, other string, echo, answer byte, icmpOf byte)) {
	t.Run("IPv4", func(t *testing.T) { test(t, me4, peer4, other4, 8, 0, protoICMP) })
	t.Run("IPv6", func(t *testing.T) { test(t, me6, peer6, other6, 128, 129, protoICMPv6) })
}

func TestFlows(t *testing.T) {
	families(t, func(t *testing.T, me, peer, other string, echo, answer, icmpOf byte) {
		play(t, strict(),
			step{In, ip(peer, me, protoTCP, tcp(4000, 23, flagSYN)), Drop, NotAllowed},
			step{In, ip(other, me, protoTCP, tcp(4000, 22, flagSYN)), Drop, NotAllowed},
			step{In, ip(peer, me, protoTCP, tcp(22, 4000, flagSYN|flagACK)), Drop, NotAllowed},
			step{In, ip(peer, me, protoTCP, tcp(4000, 22, flagSYN)), Pass, None},
			step{Out, ip(me, peer, protoTCP, tcp(22, 4000, flagSYN|flagACK)), Pass, None},
			step{In, ip(peer, me, protoTCP, tcp(4000, 22, flagACK)), Pass, None},
			// The one who answers may not open a connection between the same ports.
			step{Out, ip(me, peer, protoTCP, tcp(22, 4000, flagSYN)), Refuse, NotAllowed},
			step{Out, ip(me, peer, protoTCP, tcp(5000, 22, flagSYN)), Refuse, NotAllowed},
			step{Out, ip(me, peer, protoTCP, tcp(5000, 80, flagSYN)), Pass, None},
			step{In, ip(peer, me, protoTCP, tcp(80, 5000, flagSYN|flagACK)), Pass, None},
			step{In, ip(peer, me, protoTCP, tcp(80, 5000, flagSYN)), Drop, NotAllowed},
			step{In, ip(peer, me, icmpOf, icmp(echo, 7, nil)), Pass, None},
			step{Out, ip(me, peer, icmpOf, icmp(answer, 7, nil)), Pass, None},
			step{Out, ip(me, peer, icmpOf, icmp(echo, 7, nil)), Refuse, NotAllowed},
			step{In, ip(peer, me, icmpOf, icmp(answer, 8, nil)), Drop, NoFlow},
			step{In, ip(peer, me, protoUDP, udp(9, 53, 4)), Pass, None},
			step{In, ip(peer, me, protoUDP, udp(9, 54, 4)), Drop, NotAllowed},
			step{In, ip(peer, me, 47, make([]byte, 20)), Drop, NotAllowed},
			step{In, ip(peer, me, 132, ports(make([]byte, 12), 1, 2)), Pass, None},
			// Pings of the mesh, and what only looks like an answer to one.
			step{In, ip(peer, me, protoUDP, udp(9, pingPort, 24)), Pass, None},
			step{In, ip(peer, me, protoUDP, udp(pingPort, 9999, 24)), Drop, NotAllowed},
			step{In, ip(peer, "100.64.9.9", protoUDP, udp(9, pingPort, 24))[:], Drop, NotAllowed}.sameFamily(me),
			step{Out, ip(me, other, protoUDP, udp(10, pingPort, 24)), Pass, None},
			step{In, ip(other, me, protoUDP, udp(pingPort, 10, 24)), Pass, None},
		)
	})
}

// sameFamily has a step of IPv4 say the same in a test of IPv6, where its source would be of the other family.
func (s step) sameFamily(me string) step {
	if netip.MustParseAddr(me).Is6() {
		s.raw = ip(peer6, "fd00::9", protoUDP, udp(9, pingPort, 24))
	}
	return s
}

func TestOlderConnection(t *testing.T) {
	f := strict()
	// This process has not seen how the connection began. Its own side is believed, the far one is not.
	play(t, f,
		step{In, ip(peer4, me4, protoTCP, tcp(80, 5000, flagACK)), Drop, NotAllowed},
		step{Out, ip(me4, peer4, protoTCP, tcp(5000, 80, flagACK)), Pass, None},
		step{In, ip(peer4, me4, protoTCP, tcp(80, 5000, flagACK)), Pass, None},
		step{Out, ip(me4, peer4, protoTCP, tcp(22, 4000, flagACK)), Pass, None},
		step{In, ip(peer4, me4, protoTCP, tcp(4000, 22, flagACK)), Pass, None},
	)
}

func TestRulesChange(t *testing.T) {
	f := strict()
	syn, ack := ip(peer4, me4, protoTCP, tcp(4000, 22, flagSYN)), ip(me4, peer4, protoTCP, tcp(22, 4000, flagACK))
	play(t, f, step{In, syn, Pass, None}, step{Out, ack, Pass, None})
	off := strictRules()
	off.Incoming = false
	f.SetRules(off)
	play(t, f,
		step{Out, ack, Pass, None}, // what goes on, goes on
		step{In, ip(peer4, me4, protoTCP, tcp(4001, 22, flagSYN)), Drop, IncomingOff},
		step{In, ip(peer4, me4, protoUDP, udp(9, pingPort, 24)), Pass, None},
		step{Out, ip(me4, peer4, protoTCP, tcp(5000, 80, flagSYN)), Pass, None},
		step{In, ip(peer4, me4, protoTCP, tcp(80, 5000, flagACK)), Pass, None},
	)
	f.SetRules(Rules{Incoming: true})
	play(t, f,
		step{Out, ack, Refuse, NotAllowed},
		step{In, ip(peer4, me4, protoTCP, tcp(4000, 22, flagACK)), Drop, NotAllowed},
		step{In, ip(peer4, me4, protoTCP, tcp(80, 5000, flagACK)), Drop, NotAllowed},
	)
	f.SetRules(Rules{Open: true})
	play(t, f,
		step{In, ip(peer4, me4, protoTCP, tcp(4000, 22, flagSYN)), Drop, IncomingOff},
		step{Out, ip(me4, peer4, 47, nil), Pass, None},
	)
	f.SetRules(Rules{Open: true, Through: prefixesOf(other4 + "/32")})
	play(t, f, step{In, ip(peer4, other4, protoTCP, tcp(4000, 22, flagSYN)), Pass, None})
}

func TestErrors(t *testing.T) {
	families(t, func(t *testing.T, me, peer, other string, _, _, icmpOf byte) {
		kind := byte(3)
		if icmpOf == protoICMPv6 {
			kind = 1
		}
		sent := ip(me, peer, protoTCP, tcp(5000, 80, flagSYN))
		f := strict()
		play(t, f,
			step{In, ip(peer, me, icmpOf, icmp(kind, 0, sent)), Drop, ErrorAlone},
			step{Out, sent, Pass, None},
			step{In, ip(peer, me, icmpOf, icmp(kind, 0, sent)), Pass, None},
			step{In, ip(peer, me, icmpOf, icmp(kind, 0, sent[:len(sent)-12])), Pass, None},
			step{In, ip(peer, me, icmpOf, icmp(kind, 0, sent[:len(sent)-13])), Drop, ErrorAlone},
			step{In, ip(other, me, icmpOf, icmp(kind, 0, sent)), Drop, ErrorAlone}, // not who it was sent to
			step{In, ip(peer, me, icmpOf, icmp(kind, 0, ip(me, peer, protoTCP, tcp(5001, 80, flagSYN)))), Drop, ErrorAlone},
			step{In, ip(peer, me, icmpOf, icmp(kind, 0, ip(other, peer, protoTCP, tcp(5000, 80, flagSYN)))), Drop, ErrorAlone},
			step{In, ip(peer, me, protoTCP, tcp(4000, 22, flagSYN)), Pass, None},
			step{Out, ip(me, peer, icmpOf, icmp(kind, 0, ip(peer, me, protoTCP, tcp(4000, 22, flagSYN)))), Pass, None},
			step{In, ip(peer, me, icmpOf, icmp(5, 0, sent)), Drop, Unsupported}, // a redirect; of IPv6 no such error
			step{In, ip(peer, me, icmpOf, icmp(137, 0, sent)), Drop, Unsupported},
		)
	})
}

func TestFragments(t *testing.T) {
	long := append(tcp(4000, 22, flagSYN), make([]byte, 28)...) // 48 bytes
	four := func(payload []byte, id uint16, offset int, more bool) []byte {
		return fragmentOf(ip(peer4, me4, protoTCP, payload), id, offset, more)
	}
	six := func(payload []byte, id uint16, offset int, more bool) []byte {
		return ip(peer6, me6, protoFragment, fragment6(protoTCP, uint32(id), offset, more, payload))
	}
	for name, of := range map[string]func([]byte, uint16, int, bool) []byte{"IPv4": four, "IPv6": six} {
		t.Run(name, func(t *testing.T) {
			denied := append(tcp(4000, 23, flagSYN), make([]byte, 28)...)
			f := strict()
			play(t, f,
				step{In, of(make([]byte, 16), 1, 48, false), Drop, FragmentAlone}, // before the first
				step{In, of(long, 1, 0, true), Pass, None},
				step{In, of(make([]byte, 16), 1, 48, true), Pass, None},
				step{In, of(make([]byte, 9), 1, 64, false), Pass, None},
				step{In, of(make([]byte, 9), 1, 40, false), Drop, FragmentAlone}, // reaches into the first
				step{In, of(make([]byte, 9), 1, 8, false), Drop, FragmentAlone},
				step{In, of(make([]byte, 16), 2, 48, false), Drop, FragmentAlone},
				step{In, of(denied, 3, 0, true), Drop, NotAllowed},
				step{In, of(make([]byte, 16), 3, 48, false), Drop, FragmentAlone},
				step{In, of(long[:16], 4, 0, true), Drop, FragmentTiny},
				step{In, of(long[:8], 4, 0, true), Drop, FragmentTiny},
				step{In, of(make([]byte, 7), 5, 48, true), Drop, Malformed},
				step{In, of(make([]byte, 64), 5, 65528, true), Drop, Malformed}, // the ping of death
				step{In, of(long, 6, 0, false), Pass, None},                     // in one piece (RFC 6946)
				step{Out, of(make([]byte, 16), 1, 48, false), Drop, FragmentAlone},
			)
			if got, why := f.Decide(In, of(make([]byte, 16), 1, 48, false), lateEnough+lastsFragments+time.Second); got != Drop || why != FragmentAlone {
				t.Errorf("a fragment that comes too late: got %v (%v), want it dropped", got, why)
			}
		})
	}
}

func TestHeaders(t *testing.T) {
	up := tcp(4000, 22, flagSYN)
	routed := extension(protoTCP, up)
	routed[2], routed[3] = 4, 0
	zero := extension(protoTCP, up)
	zero[2], zero[3] = 0, 0
	ah := append([]byte{protoTCP, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, up...)
	chain := extension(protoTCP, up)
	for range maxHeaders {
		chain = extension(protoOptions, chain)
	}
	wide := make([]byte, 8*256+20)
	wide[0], wide[1] = protoTCP, 255
	copy(wide[8*256:], up)
	options := ip(peer4, me4, protoTCP, append([]byte{131, 7, 4, 10, 0, 0, 1, 0}, up...))
	options[0] = 0x47
	record := ip(peer4, me4, protoTCP, append([]byte{7, 7, 4, 10, 0, 0, 1, 0}, up...))
	record[0] = 0x47
	short := ip(peer4, me4, protoTCP, up)
	short[3]++
	six := func(next byte, b []byte) []byte { return ip(peer6, me6, next, b) }
	for i, c := range []struct {
		raw  []byte
		want Reason
	}{
		{six(protoHopByHop, extension(protoTCP, up)), None},
		{six(protoOptions, extension(protoOptions, extension(protoTCP, up))), None},
		{six(protoHopByHop, extension(protoOptions, extension(protoTCP, up))), None},
		{six(protoOptions, extension(protoHopByHop, extension(protoTCP, up))), Malformed},
		{six(protoAH, ah), None},
		{six(protoRouting, routed), None},
		{six(protoRouting, zero), Unsupported},
		{six(protoRouting, extension(protoTCP, up)), Unsupported}, // a route not at its end
		{six(protoMobility, extension(protoTCP, up)), Unsupported},
		{six(protoHIP, extension(protoTCP, up)), Unsupported},
		{six(protoTest1, extension(protoTCP, up)), Unsupported},
		{six(protoOptions, chain), Unsupported},
		{six(protoOptions, wide), Unsupported},
		{six(protoOptions, extension(protoTCP, up)[:4]), Malformed},
		{six(protoFragment, fragment6(protoFragment, 1, 0, false, fragment6(protoTCP, 1, 0, false, up))), Malformed},
		{six(protoFragment, fragment6(protoOptions, 1, 0, true, []byte{protoTCP, 1, 0, 0, 0, 0, 0, 0})), FragmentTiny},
		{ip("::ffff:1.2.3.4", me6, protoTCP, up), Malformed}, // never on a wire
		{six(protoTCP, up[:19]), Malformed},
		{six(protoUDP, udp(1, 53, 0)[:7]), Malformed},
		{six(protoICMP, icmp(8, 1, nil)), Unsupported},
		{six(59, nil), NotAllowed},
		{six(50, make([]byte, 16)), NotAllowed},
		{ip(peer4, me4, protoICMPv6, icmp(128, 1, nil)), Unsupported},
		{ip(peer4, me4, protoOptions, extension(protoTCP, up)), Unsupported},
		{ip(peer4, me4, protoTCP, tcp(4000, 22, flagSYN|flagFIN)), Malformed},
		{options, Unsupported},
		{record, None},
		{short, Malformed},
		{nil, Malformed},
		{[]byte{0x45}, Malformed},
		{make([]byte, 100), Malformed},
	} {
		if got, why := strict().Decide(In, c.raw, 0); why != c.want || (got == Pass) != (c.want == None) {
			t.Errorf("packet %d: got %v (%v), want %v", i+1, got, why, c.want)
		}
	}
	// Without rules what cannot be read passes, as with no filter there.
	if got, _ := New(time.Time{}).Decide(In, make([]byte, 100), 0); got != Pass {
		t.Error("a packet was stopped without any rule")
	}
}

func TestBounds(t *testing.T) {
	f := strict()
	lasting := ip(peer4, me4, protoTCP, tcp(1, 22, flagSYN))
	play(t, f, step{In, lasting, Pass, None}, step{Out, ip(me4, peer4, protoTCP, tcp(22, 1, flagSYN|flagACK)), Pass, None})
	// A flood of one peer: twice as many flows as it may have. None of them is answered.
	for i := range 2 * maxPeer {
		f.Decide(In, ip(peer4, me4, 132, ports(make([]byte, 12), uint16(i), uint16(i>>16))), 2*time.Second)
	}
	if got := f.peers.Load().owners[[32]byte{2}].count.Load(); got > maxPeer {
		t.Errorf("one peer has %d flows, want at most %d", got, maxPeer)
	}
	play(t, f,
		step{Out, ip(me4, peer4, protoTCP, tcp(22, 1, flagACK)), Pass, None}, // goes on
		step{In, ip(peer4, me4, protoTCP, tcp(2, 22, flagSYN)), Pass, None},  // takes the place of one that nobody answered
		step{Out, ip(me4, peer4, protoTCP, tcp(5000, 80, flagSYN)), Pass, None},
	)
	// All are over by then, and counted out.
	f.Decide(In, ip(peer4, me4, protoTCP, tcp(3, 22, flagSYN)), 24*time.Hour)
	f.flows.sweep(48 * time.Hour)
	if got := f.flows.count.Load(); got != 0 {
		t.Errorf("got %d flows after their time, want none", got)
	}
	if got := f.self.count.Load() + f.peers.Load().owners[[32]byte{2}].count.Load(); got != 0 {
		t.Errorf("got %d flows of somebody, want none", got)
	}
}

func TestAnsweredFlowsStay(t *testing.T) {
	f := strict()
	for i := range maxPeer {
		f.Decide(In, ip(peer4, me4, 132, ports(make([]byte, 12), uint16(i), 7)), lateEnough)
		f.Decide(Out, ip(me4, peer4, 132, ports(make([]byte, 12), 7, uint16(i))), lateEnough)
	}
	if got, why := f.Decide(In, ip(peer4, me4, 132, ports(make([]byte, 12), 1, 8)), lateEnough); got != Drop || why != TableFull {
		t.Errorf("one more flow: got %v (%v), want it dropped (%v)", got, why, TableFull)
	}
	for i := range maxPeer {
		if got, why := f.Decide(In, ip(peer4, me4, 132, ports(make([]byte, 12), uint16(i), 7)), 2*lateEnough); got != Pass {
			t.Fatalf("flow %d: got %v (%v), want it to go on", i, got, why)
		}
	}
}

func TestDenied(t *testing.T) {
	f := strict()
	for i := range 100 {
		f.Decide(In, ip(peer4, me4, protoTCP, tcp(4000, uint16(1000+i), flagSYN)), time.Duration(i)*time.Second)
	}
	f.Decide(Out, ip(me6, other6, protoUDP, udp(4000, 53, 0)), 1000*time.Second)
	f.Decide(Out, ip(me6, other6, protoUDP, udp(4001, 53, 0)), 1001*time.Second)
	got := f.Denied()
	want := Denied{netip.MustParseAddr(me6), netip.MustParseAddr(other6), protoUDP, 53, Out, NotAllowed, 2, 1000 * time.Second, 1001 * time.Second}
	if got[0] != want {
		t.Errorf("got %+v, want %+v", got[0], want)
	}
	if len(got) != maxDeniedOne+2 || got[1].Port != 0 || got[1].Count != 100-maxDeniedOne {
		t.Errorf("got %d entries, the second %+v; want %d, the ports beyond %d in one", len(got), got[1], maxDeniedOne+2, maxDeniedOne)
	}
	for i := range 4 * maxDenied {
		f.Decide(In, ip(fmt.Sprintf("10.0.%d.%d", i>>8, i&255), me4, protoTCP, tcp(4000, 23, flagSYN)), 2000*time.Second)
	}
	if got := len(f.Denied()); got != maxDenied {
		t.Errorf("got %d entries, want %d", got, maxDenied)
	}
}
