package bind

import (
	"net/netip"
	"testing"

	"golang.zx2c4.com/wireguard/conn"
)

// mute is an inner bind that returns the same batch again and again and sends nowhere, without allocating.
type mute struct {
	script
	batch []sent
	eps   []conn.Endpoint
}

func (m *mute) Open(uint16) ([]conn.ReceiveFunc, uint16, error) {
	for _, s := range m.batch {
		m.eps = append(m.eps, &conn.StdNetEndpoint{AddrPort: s.addr})
	}
	return []conn.ReceiveFunc{m.receive}, 1, nil
}

func (m *mute) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	for i, in := range m.batch {
		sizes[i] = copy(bufs[i], in.p)
		eps[i] = m.eps[i]
	}
	return len(m.batch), nil
}

func (m *mute) Send([][]byte, conn.Endpoint) error { return nil }

// TestNoAllocations holds that a packet costs no memory on any of its ways through the bind.
func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, and makes sync.Pool forget")
	}
	direct, second, relay := addr("192.0.2.1:1"), addr("192.0.2.2:2"), addr("[2001:db8::3]:3")
	data := make([]byte, 1452)
	data[0] = 4
	stun := withAttribute(0x0020, 0, 1, 0, 1, 192, 0, 2, 1)
	fill := func(of ...sent) (batch []sent) {
		for i := range conn.IdealBatchSize {
			batch = append(batch, of[i%len(of)])
		}
		return batch
	}
	tests := []struct {
		name  string
		batch []sent
		want  int // WireGuard packets
	}{
		{"one peer", fill(sent{direct, data}), 128},
		{"two peers interleaved", fill(sent{direct, data}, sent{second, data}), 128},
		{"relayed to us", fill(sent{relay, channelData(0x4001, data)}), 128},
		{"to be relayed", fill(sent{relay, channelData(0x4002, data)}, sent{relay, channelData(0x4003, data)}), 0},
		{"stun", fill(sent{direct, stun}), 0},
		{"junk", fill(sent{direct, make([]byte, 100)}), 0},
	}
	for _, test := range tests {
		m := &mute{batch: test.batch}
		b := New(Options{Inner: m, Logger: quiet})
		fns, _, _ := b.Open(0)
		virtual, _ := b.Channels().Open(relay, 0x4001)
		b.Forwards().Set(Half{relay, 0x4002}, Half{direct, 0x4002})
		b.Forwards().Set(Half{relay, 0x4003}, Half{second, 0x4003})
		for i, a := range []netip.AddrPort{direct, second, virtual} {
			b.NewEndpoint([32]byte{byte(i)}).SetPath(a)
		}
		bufs, sizes, eps := buffers()
		receive := func() {
			n, err := fns[0](bufs, sizes, eps)
			got := 0
			for _, size := range sizes[:n] {
				if size > 0 {
					got++
				}
			}
			if err != nil || got != test.want {
				t.Errorf("%s: got %d packets, %v, want %d", test.name, got, err, test.want)
			}
		}
		for range 20 {
			receive() // the lanes' and the forwarder's buffers
		}
		if got := testing.AllocsPerRun(100, receive); got > 0 {
			t.Errorf("receive %s: got %v allocations per batch, want none", test.name, got)
		}
		b.Close()
	}

	b := New(Options{Inner: new(mute), Logger: quiet})
	virtual, _ := b.Channels().Open(relay, 0x4001)
	ways := map[string]conn.Endpoint{"plain": &conn.StdNetEndpoint{AddrPort: second}}
	b.SetStatic([]netip.AddrPort{second})
	for i, a := range []netip.AddrPort{direct, virtual} {
		e := b.NewEndpoint([32]byte{byte(i)})
		e.SetPath(a)
		ways["to "+a.String()] = e
	}
	bufs := make([][]byte, conn.IdealBatchSize)
	for i := range bufs {
		bufs[i] = data
	}
	for name, ep := range ways {
		if got := testing.AllocsPerRun(100, func() { b.Send(bufs, ep) }); got > 0 {
			t.Errorf("send %s: got %v allocations per batch, want none", name, got)
		}
	}
	lane := b.STUN().(*lane)
	for _, a := range []netip.AddrPort{direct, virtual} {
		if got := testing.AllocsPerRun(100, func() { lane.WriteToUDPAddrPort(stun, a) }); got > 0 {
			t.Errorf("write to %v: got %v allocations, want none", a, got)
		}
	}
}
