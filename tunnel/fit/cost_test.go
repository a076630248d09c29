package fit

import (
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"
)

var pathTime = time.Unix(1000, 0)

// loaded returns a device that reads full batches, and what to read into.
func loaded() (d *Device, inner tun.Device, bufs [][]byte, sizes []int) {
	s := &sink{}
	for i := range conn.IdealBatchSize {
		p := packet4(1376, true)
		if i%2 == 1 {
			p = packet6(1376)
		}
		p[9] = protoTCP
		s.packets = append(s.packets, p)
		bufs = append(bufs, make([]byte, 65535))
	}
	d = fuzzed()
	d.Device = s
	return d, s, bufs, make([]int, len(bufs))
}

func TestNoAllocations(t *testing.T) {
	d, _, bufs, sizes := loaded()
	n := testing.AllocsPerRun(100, func() {
		if got, err := d.Read(bufs, sizes, headroom); got != len(bufs) || err != nil {
			t.Fatal(got, err)
		}
		if _, err := d.Write(bufs, headroom); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("got %v allocations for a batch, want none", n)
	}
}

// BenchmarkRead compares a batch of 128 packets that is read through the device and without it.
func BenchmarkRead(b *testing.B) {
	d, inner, bufs, sizes := loaded()
	for name, of := range map[string]tun.Device{"plain": inner, "fit": d} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				of.Read(bufs, sizes, headroom)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(bufs)), "ns/packet")
		})
	}
}

// BenchmarkWrite is the same for what is written.
func BenchmarkWrite(b *testing.B) {
	d, inner, bufs, sizes := loaded()
	d.Read(bufs, sizes, headroom)
	for name, of := range map[string]tun.Device{"plain": inner, "fit": d} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				of.Write(bufs, headroom)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(bufs)), "ns/packet")
		})
	}
}
