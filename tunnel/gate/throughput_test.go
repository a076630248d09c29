package gate

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/curve25519"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"warren/tunnel/filter"
)

// pump is a TUN device whose programs send packets of some flows, as fast as they are taken, while it is on, and which counts what comes in.
type pump struct {
	tun.Device
	flows  int
	next   int
	packet []byte
	on     chan struct{} // closed when it begins to send
	closed chan struct{}
	events chan tun.Event
	got    atomic.Int64
	far    *pump // where its packets come in
	sent   int64
}

func newPump(flows int, packet []byte) *pump {
	return &pump{flows: flows, packet: packet, on: make(chan struct{}), closed: make(chan struct{}), events: make(chan tun.Event, 1)}
}

func (p *pump) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case <-p.closed:
		return 0, os.ErrClosed
	case <-p.on:
	}
	select {
	case <-p.closed:
		return 0, os.ErrClosed
	default:
	}
	// Not more than sockets hold: what is lost has cost time, and is not counted.
	for late := time.Now().Add(5 * time.Millisecond); p.sent-p.far.got.Load() > window; time.Sleep(20 * time.Microsecond) {
		if time.Now().After(late) {
			p.sent = p.far.got.Load()
		}
	}
	p.sent += int64(len(bufs))
	for i := range bufs {
		if i%16 == 0 { // what comes in one piece from the kernel is of one flow
			p.next = (p.next + 1) % p.flows
		}
		sizes[i] = copy(bufs[i][offset:], p.packet)
		bufs[i][offset+ipv4Header], bufs[i][offset+ipv4Header+1] = byte(p.next>>8), byte(p.next)
	}
	return len(bufs), nil
}

func (p *pump) Write(bufs [][]byte, _ int) (int, error) {
	p.got.Add(int64(len(bufs)))
	return len(bufs), nil
}
func (p *pump) Name() (string, error)    { return "pump", nil }
func (p *pump) MTU() (int, error)        { return 1420, nil }
func (p *pump) File() *os.File           { return nil }
func (p *pump) BatchSize() int           { return conn.IdealBatchSize }
func (p *pump) Events() <-chan tun.Event { return p.events }
func (p *pump) Close() error             { close(p.closed); close(p.events); return nil }

// window is how many packets are under way at most.
const window = 512

// spent is the time that the processors have given to this process.
func spent(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// pair joins two devices over loopback, and returns how many packets a second get through within a span, and what
// processor time each has cost at both ends together.
func pair(b *testing.B, flows int, wrap func(tun.Device) tun.Device, span time.Duration) (rate, cost float64) {
	b.Helper()
	keys := [2][32]byte{{31: 64, 0: 8}, {31: 64, 0: 16}}
	pumps := [2]*pump{newPump(flows, packet(me4, peer4, protoTCP, segment(0, 22, 1, 1, flagACK, 1340))), newPump(1, nil)}
	pumps[0].far = pumps[1]
	var ends [2]*device.Device
	for i := range ends {
		ends[i] = device.NewDevice(wrap(pumps[i]), conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
		defer ends[i].Close()
		far, err := curve25519.X25519(keys[1-i][:], curve25519.Basepoint)
		if err != nil {
			b.Fatal(err)
		}
		text := fmt.Sprintf("private_key=%s\nlisten_port=%d\npublic_key=%s\nallowed_ip=%s/32\nendpoint=127.0.0.1:%d\n",
			hex.EncodeToString(keys[i][:]), 41830+i, hex.EncodeToString(far), []string{peer4, me4}[i], 41831-i)
		if err := ends[i].IpcSet(text); err != nil {
			b.Fatal(err)
		}
		if err := ends[i].Up(); err != nil {
			b.Fatal(err)
		}
	}
	close(pumps[0].on)
	for deadline := time.Now().Add(20 * time.Second); pumps[1].got.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatal("nothing gets through")
		}
	}
	time.Sleep(span / 4)
	before, began, used := pumps[1].got.Load(), time.Now(), spent(b)
	time.Sleep(span)
	packets := float64(pumps[1].got.Load() - before)
	return packets / time.Since(began).Seconds(), float64(spent(b)-used) / packets
}

// BenchmarkThroughput is what gets through two WireGuard devices over loopback, with gates at both ends and without, in turn: one round is one of
// each. The ratio is that of the processor time for a packet, which says on a busy machine too what the rules cost where the processor is the bound.
func BenchmarkThroughput(b *testing.B) {
	for _, c := range []struct{ flows, rules int }{{1, 1}, {10_000, 1}, {10_000, 1000}} {
		b.Run(fmt.Sprintf("flows=%d/rules=%d", c.flows, c.rules), func(b *testing.B) {
			rules := filter.Rules{Incoming: true}
			for i := range c.rules {
				to := []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 65, byte(i >> 8), byte(i)}), 32)}
				rules.Rules = append(rules.Rules, filter.Rule{From: []netip.Prefix{prefix(me4)}, To: to, Ports: []filter.Ports{{Protocol: protoTCP, Last: 65535}}})
			}
			rules.Rules[c.rules-1].To = []netip.Prefix{prefix(peer4)}
			gate := func(inner tun.Device) tun.Device {
				f := filter.New(time.Now())
				f.SetRules(rules)
				return New(inner, f)
			}
			var rates, costs [2]float64
			for range b.N {
				for i, wrap := range []func(tun.Device) tun.Device{func(inner tun.Device) tun.Device { return inner }, gate} {
					rate, cost := pair(b, c.flows, wrap, time.Second)
					rates[i], costs[i] = rates[i]+rate/float64(b.N), costs[i]+cost/float64(b.N)
				}
			}
			b.ReportMetric(rates[0], "packets/s-without")
			b.ReportMetric(rates[1], "packets/s-with")
			b.ReportMetric(costs[0], "cpu-ns/packet-without")
			b.ReportMetric(costs[1], "cpu-ns/packet-with")
			b.ReportMetric(costs[1]/costs[0], "ratio")
		})
	}
}
