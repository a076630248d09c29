// Package gate stands between the TUN device and the WireGuard device and lets through what package filter lets pass: what was decrypted, before
// this machine or anything that it forwards to sees it, and what leaves, as a courtesy: who may not connect is told at once, by a reset of TCP or
// by ICMP, instead of waiting for an answer that never comes.
//
// Who may is left to package filter, and the size of packets to package fit, which stands above: its probes do not come by here.
//
// All methods may be called concurrently, but Read belongs to one goroutine, as the device has it.
package gate

import (
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"warren/tunnel/filter"
)

// Device is a tun.Device that passes on what a filter lets pass.
type Device struct {
	tun.Device
	filter  *filter.Filter
	refusal refusals // belongs to Read
}

// New puts a filter before a device. Packets have room for a header before them, as WireGuard's device gives it.
func New(inner tun.Device, f *filter.Filter) *Device {
	d := &Device{Device: inner, filter: f}
	d.refusal.setup()
	return d
}

// Through reports whether a packet may go through this node from one peer to another: it comes in, and it leaves, so that what answers it may
// come in and leave as well. It implements fit.Judge.
func (d *Device) Through(packet []byte) bool {
	now := time.Since(d.filter.Born())
	for _, dir := range []filter.Direction{filter.In, filter.Out} {
		if verdict, _ := d.filter.Decide(dir, packet, now); verdict != filter.Pass {
			return false
		}
	}
	return true
}

/* A packet's way out: the kernel's packets, as segments of their own, are judged one by one. One that does not pass becomes an empty one, which
 * the WireGuard device passes over.
 */

// Read implements tun.Device.
func (d *Device) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n, err := d.Device.Read(bufs, sizes, offset)
	if n == 0 {
		return n, err
	}
	now := time.Since(d.filter.Born())
	batch := d.filter.Batch(filter.Out, now)
	for i := range n {
		packet := bufs[i][offset:][:sizes[i]]
		verdict, _ := batch.Decide(packet)
		if verdict == filter.Pass {
			continue
		}
		if verdict == filter.Refuse {
			d.tell(packet, now)
		}
		sizes[i] = 0
	}
	return n, err
}

// tell answers a packet that was refused.
func (d *Device) tell(packet []byte, now time.Duration) {
	if answer := d.refusal.answer(packet, now); answer != nil {
		// The kernel refuses it only when the interface goes away.
		_, _ = d.Device.Write([][]byte{answer}, headroom)
	}
}

/* A packet's way in: WireGuard has decrypted it and checked that its source is an address of the peer that sent it. */

// Write implements tun.Device.
func (d *Device) Write(bufs [][]byte, offset int) (int, error) {
	batch, kept := d.filter.Batch(filter.In, time.Since(d.filter.Born())), 0
	for i, buf := range bufs {
		if verdict, _ := batch.Decide(buf[offset:]); verdict != filter.Pass {
			continue
		}
		bufs[kept], bufs[i] = bufs[i], bufs[kept]
		kept++
	}
	if kept == 0 {
		return 0, nil
	}
	return d.Device.Write(bufs[:kept], offset)
}
