package gate

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"warren/tunnel/filter"
)

// kernel is a TUN device in memory: what programs send is read from it, and what is written to it they get.
type kernel struct {
	tun.Device
	sends [][]byte
	gets  [][]byte
}

func (k *kernel) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n := 0
	for ; n < min(len(bufs), len(k.sends)); n++ {
		sizes[n] = copy(bufs[n][offset:], k.sends[n])
	}
	k.sends = k.sends[n:]
	return n, nil
}

func (k *kernel) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		k.gets = append(k.gets, slices.Clone(b[offset:]))
	}
	return len(bufs), nil
}

const (
	me4, me6     = "100.64.0.1", "fd00::1"
	peer4, peer6 = "100.64.0.2", "fd00::2"
)

func prefix(s string) netip.Prefix {
	a := netip.MustParseAddr(s)
	return netip.PrefixFrom(a, a.BitLen())
}

// gated returns a device whose rules let the peer reach TCP port 22 here, and this node nothing.
func gated() (*Device, *kernel) {
	f := filter.New(time.Now())
	f.SetRules(filter.Rules{Incoming: true, Rules: []filter.Rule{{
		From: []netip.Prefix{prefix(peer4), prefix(peer6)}, To: []netip.Prefix{prefix(me4), prefix(me6)}, Ports: []filter.Ports{{Protocol: protoTCP, First: 22, Last: 22}},
	}}})
	k := &kernel{}
	return New(k, f), k
}

func packet(from, to string, protocol byte, payload []byte) []byte {
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	if src.Is4() {
		p := make([]byte, ipv4Header)
		p[0], p[8], p[9] = 0x45, 64, protocol
		binary.BigEndian.PutUint16(p[2:], uint16(ipv4Header+len(payload)))
		copy(p[12:], src.AsSlice())
		copy(p[16:], dst.AsSlice())
		return append(p, payload...)
	}
	p := make([]byte, ipv6Header)
	p[0], p[6], p[7] = 0x60, protocol, 64
	binary.BigEndian.PutUint16(p[4:], uint16(len(payload)))
	copy(p[8:], src.AsSlice())
	copy(p[24:], dst.AsSlice())
	return append(p, payload...)
}

func segment(from, to uint16, seq, ack uint32, flags byte, length int) []byte {
	b := make([]byte, tcpHeader+length)
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13] = 5<<4, flags
	return b
}

func datagram(from, to uint16, length int) []byte {
	b := make([]byte, 8+length)
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	return b
}

// send has a program send packets, and returns what goes on to the WireGuard device, and what the kernel is told.
func send(t *testing.T, d *Device, k *kernel, packets ...[]byte) (on, told [][]byte) {
	t.Helper()
	k.sends, k.gets = packets, nil
	bufs, sizes := make([][]byte, 8), make([]int, 8)
	for i := range bufs {
		bufs[i] = make([]byte, 2048)
	}
	n, err := d.Read(bufs, sizes, 16)
	if n != len(packets) || err != nil {
		t.Fatalf("got %d packets, %v, want %d", n, err, len(packets))
	}
	for i := range n {
		if sizes[i] > 0 {
			on = append(on, bufs[i][16:][:sizes[i]])
		}
	}
	return on, k.gets
}

// verify checks the length and all checksums of a packet.
func verify(t *testing.T, p []byte) {
	t.Helper()
	var sum uint32
	upper, protocol := p[ipv4Header:], p[9]
	if p[0]>>4 == 4 {
		if int(binary.BigEndian.Uint16(p[2:])) != len(p) || fold(sum16(p[:ipv4Header])) != 0xffff {
			t.Errorf("length or checksum of the header: %x", p)
		}
		if protocol == protoTCP {
			sum = sum16(p[12:20]) + protoTCP + uint32(len(upper))
		}
	} else {
		upper, protocol = p[ipv6Header:], p[6]
		if int(binary.BigEndian.Uint16(p[4:])) != len(upper) {
			t.Errorf("length: %x", p)
		}
		sum = sum16(p[8:40]) + uint32(protocol) + uint32(len(upper))
	}
	if fold(sum+sum16(upper)) != 0xffff {
		t.Errorf("checksum of protocol %d: %x", protocol, p)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ name, from, to string }{{"IPv4", me4, peer4}, {"IPv6", me6, peer6}} {
		t.Run(c.name, func(t *testing.T) {
			d, k := gated()
			head := ipv4Header
			if c.name == "IPv6" {
				head = ipv6Header
			}
			on, told := send(t, d, k, packet(c.from, c.to, protoTCP, segment(5000, 80, 1000, 0, flagSYN, 0)))
			if len(on) != 0 || len(told) != 1 {
				t.Fatalf("a connection that is refused: got %d packets on and %d back, want the reset alone", len(on), len(told))
			}
			verify(t, told[0])
			if got, want := told[0][head:head+14], segment(80, 5000, 0, 1001, flagRST|flagACK, 0)[:14]; !slices.Equal(got, want) {
				t.Errorf("got %x, want %x", got, want)
			}
			// In the middle of a connection the reset has the number that the far side would use (RFC 9293, section 3.5.2).
			_, told = send(t, d, k, packet(c.from, c.to, protoTCP, segment(5000, 80, 1000, 77, flagACK, 100)))
			verify(t, told[0])
			if got, want := told[0][head:head+14], segment(80, 5000, 77, 0, flagRST, 0)[:14]; !slices.Equal(got, want) {
				t.Errorf("got %x, want %x", got, want)
			}
			if _, told = send(t, d, k, packet(c.from, c.to, protoTCP, segment(5000, 80, 1000, 77, flagRST, 0))); len(told) != 0 {
				t.Error("a reset was answered")
			}
			sent := packet(c.from, c.to, 17, datagram(5000, 53, 1200))
			_, told = send(t, d, k, sent)
			verify(t, told[0])
			kind, code := byte(3), byte(13)
			if head == ipv6Header {
				kind, code = 1, 1
			}
			if got := told[0][head:]; got[0] != kind || got[1] != code || !slices.Equal(got[8:], sent[:len(got)-8]) || len(got) < 500 {
				t.Errorf("got type %d, code %d and %d bytes of the packet, want %d, %d", got[0], got[1], len(got)-8, kind, code)
			}
			// Nobody is told about an answer or an error that may not pass.
			if on, told = send(t, d, k, packet(c.from, c.to, 47, []byte{}), make([]byte, 100)); len(on) != 0 || len(told) != 1 {
				t.Errorf("got %d packets on and %d back, want none and one", len(on), len(told))
			}
		})
	}
}

// A refusal is the far side's in the eyes of the system, so it has to be one that the filter of this node would not stop: it does not come by.
func TestWhatPasses(t *testing.T) {
	d, k := gated()
	allowed, denied := packet(peer4, me4, protoTCP, segment(4000, 22, 1, 0, flagSYN, 0)), packet(peer4, me4, protoTCP, segment(4000, 23, 1, 0, flagSYN, 0))
	var bufs [][]byte
	for _, p := range [][]byte{denied, allowed, denied} {
		bufs = append(bufs, append(make([]byte, 16), p...))
	}
	if n, err := d.Write(bufs, 16); n != 1 || err != nil {
		t.Errorf("got %d packets, %v, want one", n, err)
	}
	if len(k.gets) != 1 || !slices.Equal(k.gets[0], allowed) {
		t.Errorf("the kernel got %x, want %x", k.gets, allowed)
	}
	if n, err := d.Write(bufs[1:], 16); n != 0 || err != nil {
		t.Errorf("got %d packets, %v, want none", n, err)
	}
	answer := packet(me4, peer4, protoTCP, segment(22, 4000, 1, 2, flagSYN|flagACK, 0))
	if on, told := send(t, d, k, answer); len(on) != 1 || len(told) != 0 || !slices.Equal(on[0], answer) {
		t.Errorf("an answer: got %d packets on and %d back, want it to pass", len(on), len(told))
	}
}

// What goes through to a hosted peer is judged as what comes in, and its answers pass both ways.
func TestThrough(t *testing.T) {
	d, _ := gated()
	open, closed := packet(peer4, me4, protoTCP, segment(4000, 22, 1, 0, flagSYN, 0)), packet(peer4, me4, protoTCP, segment(4000, 23, 1, 0, flagSYN, 0))
	answer, other := packet(me4, peer4, protoTCP, segment(22, 4000, 1, 2, flagSYN|flagACK, 0)), packet(me4, peer4, protoTCP, segment(22, 4001, 1, 2, flagSYN|flagACK, 0))
	for i, c := range []struct {
		packet []byte
		want   bool
	}{{answer, false}, {closed, false}, {open, true}, {answer, true}, {other, false}} {
		if got := d.Through(c.packet); got != c.want {
			t.Errorf("packet %d goes through: %t, want %t", i+1, got, c.want)
		}
	}
}

func TestRefusalsAreRationed(t *testing.T) {
	d, k := gated()
	told := 0
	p := packet(me4, peer4, 17, datagram(5000, 53, 0))
	d.refusal.last = time.Hour // no time passes
	for range 4 * refusalBurst {
		_, back := send(t, d, k, p)
		told += len(back)
	}
	if told != refusalBurst {
		t.Errorf("got %d answers, want %d", told, refusalBurst)
	}
}

// BenchmarkGate is a batch of 128 packets of one established flow, read and written, with the gate and without.
func BenchmarkGate(b *testing.B) {
	f := filter.New(time.Now())
	f.SetRules(filter.Rules{Incoming: true, Rules: []filter.Rule{{
		From: []netip.Prefix{prefix(peer4)}, To: []netip.Prefix{prefix(me4)}, Ports: []filter.Ports{{Protocol: protoTCP, First: 22, Last: 22}},
	}}})
	p := packet(peer4, me4, protoTCP, segment(4000, 22, 1, 0, flagACK, 1340))
	var bufs [][]byte
	for range 128 {
		bufs = append(bufs, append(make([]byte, 16, 2048), p...))
	}
	for name, of := range map[string]tun.Device{"without": void{}, "with": New(void{}, f)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				of.Write(bufs, 16)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(bufs)), "ns/packet")
		})
	}
}

// void takes everything.
type void struct{ tun.Device }

func (void) Write(bufs [][]byte, _ int) (int, error) { return len(bufs), nil }
