// Package tuntest has the in-memory twin of a tun.Device: frames are put in by a test, and those that were written are taken out.
//
// It leaves the kernel's opinion of a frame to the tests of package tun.
//
// A Device may be used by any goroutine; one of them may Pump.
package tuntest

import (
	"fmt"
	"os"
	"slices"
	"sync"

	"warren/tunnel/tun"
)

// most is how many frames wait in either direction; what comes when as many wait is dropped, as the kernel does.
const most = 500

// Device is an interface in memory.
type Device struct {
	with tun.Offloads
	wake chan struct{} // of capacity 1
	done chan struct{}
	over sync.Once

	mu      sync.Mutex
	in, out [][]byte
	queue   int
}

// New returns a device with these offloads.
func New(with tun.Offloads) *Device {
	return &Device{with: with, wake: make(chan struct{}, 1), done: make(chan struct{}), queue: most}
}

// Offloads returns what it was made with.
func (d *Device) Offloads() tun.Offloads { return d.with }

// SetQueue sets how many frames may wait to be read.
func (d *Device) SetQueue(packets int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queue = packets
	return nil
}

// Put has the host send a frame, and reports whether there was room for it.
func (d *Device) Put(frame []byte) bool {
	d.mu.Lock()
	room := len(d.in) < d.queue
	if room {
		d.in = append(d.in, slices.Clone(frame))
	}
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
	return room
}

// Taken returns the frames that were written since the last call.
func (d *Device) Taken() [][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.out
	d.out = nil
	return out
}

// Pump hands frames to the sink until the device is closed.
func (d *Device) Pump(to tun.Sink) error {
	buf := make([]byte, tun.MaxFrame)
	for {
		d.mu.Lock()
		in := d.in
		d.in = nil
		d.mu.Unlock()
		for _, frame := range in {
			to.Frame(buf[:copy(buf, frame)])
		}
		if len(in) > 0 {
			continue // more may have come
		}
		to.Dry()
		select {
		case <-d.wake:
		case <-d.done:
			return fmt.Errorf("read from interface in memory: %w", os.ErrClosed)
		}
	}
}

// Write takes a frame for Taken.
func (d *Device) Write(frame []byte) (int, error) {
	select {
	case <-d.done:
		return 0, fmt.Errorf("write to interface in memory: %w", os.ErrClosed)
	default:
	}
	if len(frame) < tun.HeaderSize+20 {
		return 0, tun.ErrFrame
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.out) < most {
		d.out = append(d.out, slices.Clone(frame))
	}
	return len(frame), nil
}

// Close ends a Pump.
func (d *Device) Close() error {
	d.over.Do(func() { close(d.done) })
	return nil
}
