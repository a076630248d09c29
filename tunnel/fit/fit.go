// Package fit makes every packet fit the path to its peer. It stands between the TUN device and the WireGuard device: it
// probes the path MTU of each peer inside the tunnel (package pathmtu decides when, and what follows), holds what
// leaves to it, and lowers the segment size of TCP connections both ways, those of routed traffic included.
//
// A packet on its way out is read in read.go, one on its way in is written in write.go. Which peers there are, and by which
// path each is reached, is left to whoever calls SetPeers and SetPath.
//
// Read belongs to one goroutine, as the device has it. All other methods may be called concurrently.
package fit

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"warren/tunnel/pathmtu"
)

// Options are the settings of a Device. Only Inner must be set.
type Options struct {
	Inner   tun.Device // packets have room for a header before them, as WireGuard's device gives it
	Sockets Sockets    // which what is written here leaves by; nil: they cannot be told
	Judge   Judge      // of what goes through this node; nil: all of it may
}

// Sockets can be told that probes are under way.
type Sockets interface {
	// Exact is called with true before probes leave: from then until false nothing may be fragmented outside the
	// tunnel, where the system can have it so. Calls do not overlap.
	Exact(on bool)
}

// Judge says what may go through this node, to a peer that it hosts or from it. What goes to this host and comes from it is the inner
// device's to judge.
type Judge interface {
	Through(packet []byte) bool
}

// Peer is what Device has to know of a peer.
type Peer struct {
	Key        [32]byte
	AllowedIPs []netip.Prefix // masked; no prefix is another peer's too
	// Addr is the peer's own IPv6 address inside the tunnel, at which it answers probes. Zero: it answers none, and
	// packets up to Path.Default are taken to pass.
	Addr netip.Addr
	// Hosted says that the peer is a device that reaches the other peers through this node, and they it.
	Hosted bool
	Path   pathmtu.Path // Addr is zero while there is none
}

// Device is a tun.Device that keeps packets within the path MTU of their peer.
type Device struct {
	tun.Device
	sockets Sockets
	judge   Judge
	grown   chan struct{} // of capacity 1

	table   atomic.Pointer[table]
	drops   [drops]atomic.Uint64
	inject  injected
	through transit
	read    reader // belongs to Read

	// guarded by mu
	mu     sync.Mutex
	peers  map[[32]byte]*peer
	exacts int // peers that are being probed
	most   int // largest size ever verified
	timer  *time.Timer
	closed bool
	todo   []work // what the one that does it will find
	doing  bool   // somebody is in do: the others leave their work to it

	exact bool // as the sockets were told: owned by the one in do
}

// peer is one peer. It lives as long as SetPeers names it, through all changes of its addresses.
type peer struct {
	// atomic: what the packets' way reads
	limit  atomic.Uint64 // pathmtu.Limit, packed
	report atomic.Int32  // pathmtu.Output.Report

	// constant
	addr   netip.Addr
	hosted bool

	// guarded by Device.mu
	machine  *pathmtu.Machine // nil: it answers no probes
	exact    bool
	wake     time.Time
	verified int
}

const splitBit = 1 << 63

func (p *peer) setLimit(l pathmtu.Limit) {
	packed := uint64(l.Whole)<<32 | uint64(l.Clamp)
	if l.Split {
		packed |= splitBit
	}
	p.limit.Store(packed)
}

func (p *peer) getLimit() pathmtu.Limit {
	packed := p.limit.Load()
	return pathmtu.Limit{Whole: int(packed &^ splitBit >> 32), Split: packed&splitBit != 0, Clamp: int(uint32(packed))}
}

// New returns a device without peers: packets pass as they are.
func New(o Options) *Device {
	d := &Device{Device: o.Inner, sockets: o.Sockets, judge: o.Judge, grown: make(chan struct{}, 1), peers: make(map[[32]byte]*peer)}
	d.table.Store(&table{})
	d.read.setup()
	d.timer = time.AfterFunc(time.Hour, d.tick)
	d.timer.Stop()
	return d
}

// Close ends the probing and closes the inner device.
func (d *Device) Close() error {
	d.mu.Lock()
	d.closed = true
	d.timer.Stop()
	d.mu.Unlock()
	return d.Device.Close()
}

// SetPeers says which peers there are. self is this node's IPv6 address inside the tunnel, which probes come from; zero:
// none leave. What is known of the path of a peer that stays is kept while the path is the same.
func (d *Device) SetPeers(self netip.Addr, list []Peer) {
	t := &table{self: self, routes: make(map[netip.Prefix]*peer)}
	var todo []work
	d.mu.Lock()
	now := time.Now()
	before := d.peers
	d.peers = make(map[[32]byte]*peer, len(list))
	for _, want := range list {
		p, probed := before[want.Key], want.Addr.Is6() && self.Is6()
		if p == nil || p.addr != want.Addr || p.hosted != want.Hosted || (p.machine != nil) != probed {
			p = &peer{addr: want.Addr, hosted: want.Hosted}
			if probed {
				p.machine = pathmtu.New(nonce)
			}
		}
		d.peers[want.Key] = p
		if p.machine == nil {
			p.report.Store(-1)
			p.setLimit(pathmtu.Limit{Whole: want.Path.Default, Clamp: want.Path.Default})
		} else {
			todo = append(todo, d.applyLocked(p, p.machine.Move(now, want.Path)))
		}
		t.hosts = t.hosts || want.Hosted
		for _, prefix := range want.AllowedIPs {
			t.add(prefix, p)
		}
	}
	for key, p := range before {
		if d.peers[key] == p {
			continue
		}
		p.machine = nil // packets that are on their way may still find it
		if p.exact {
			d.exacts--
		}
	}
	d.rearmLocked(now)
	d.mu.Unlock()
	d.table.Store(t)
	d.do(todo...)
}

// SetPath says that the path to one peer is another one, and touches that peer only. A key that SetPeers did not name is ignored.
func (d *Device) SetPath(key [32]byte, path pathmtu.Path) {
	d.mu.Lock()
	p := d.peers[key]
	d.mu.Unlock()
	if p != nil {
		d.step(p, path)
	}
}

// Verified returns the path MTU of each peer whose path has been measured.
func (d *Device) Verified() map[[32]byte]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make(map[[32]byte]int, len(d.peers))
	for key, p := range d.peers {
		if p.verified > 0 {
			out[key] = p.verified
		}
	}
	return out
}

// Most returns the largest size that was ever verified for a peer.
func (d *Device) Most() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.most
}

// Grown delivers a value when Most has grown since the last one was taken.
func (d *Device) Grown() <-chan struct{} { return d.grown }

// nonce makes what only who receives a probe can know.
func nonce() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}

// work is what a step of a machine leaves to be done without the lock.
type work struct {
	to     netip.Addr
	probes []pathmtu.Probe
	grown  bool
}

// applyLocked makes a machine's output what holds, and returns the rest of the work. The caller holds mu.
func (d *Device) applyLocked(p *peer, o pathmtu.Output) work {
	p.setLimit(o.Limit)
	p.report.Store(int32(o.Report))
	p.wake, p.verified = o.Wake, o.Verified
	if p.exact != o.Exact {
		p.exact = o.Exact
		if o.Exact {
			d.exacts++
		} else {
			d.exacts--
		}
	}
	w := work{to: p.addr, probes: o.Probes}
	if o.Verified > d.most {
		d.most, w.grown = o.Verified, true
	}
	return w
}

// rearmLocked has tick called when the next machine wants it. The caller holds mu.
func (d *Device) rearmLocked(now time.Time) {
	var next time.Time
	for _, p := range d.peers {
		if !p.wake.IsZero() && (next.IsZero() || p.wake.Before(next)) {
			next = p.wake
		}
	}
	if next.IsZero() || d.closed {
		d.timer.Stop()
		return
	}
	d.timer.Reset(max(next.Sub(now), 0))
}

// tick gives the time to the machines that want it.
func (d *Device) tick() {
	var todo []work
	d.mu.Lock()
	now := time.Now()
	for _, p := range d.peers {
		if !p.wake.IsZero() && !p.wake.After(now) {
			todo = append(todo, d.applyLocked(p, p.machine.Tick(now)))
		}
	}
	d.rearmLocked(now)
	d.mu.Unlock()
	d.do(todo...)
}

// Inputs of step, beside a pathmtu.Path: the path is another one.
type (
	sent     int  // a packet of that size has left
	answered note // an answer has come
)

// step has one machine take an input.
func (d *Device) step(p *peer, input any) {
	d.mu.Lock()
	if p.machine == nil {
		d.mu.Unlock()
		return
	}
	now := time.Now()
	var out pathmtu.Output
	switch in := input.(type) {
	case pathmtu.Path:
		out = p.machine.Move(now, in)
	case sent:
		out = p.machine.Sent(now, int(in))
	case answered:
		out = p.machine.Answer(now, in.nonce, in.size)
	}
	w := d.applyLocked(p, out)
	d.rearmLocked(now)
	d.mu.Unlock()
	d.do(w)
}

// do does what has to be done without mu. One at a time does, for all that come meanwhile: so the calls of Exact do not overlap,
// and no probe leaves before the sockets know of it.
func (d *Device) do(todo ...work) {
	d.mu.Lock()
	d.todo = append(d.todo, todo...)
	if d.doing {
		d.mu.Unlock()
		return
	}
	d.doing = true
	for len(d.todo) > 0 || d.exact != (d.exacts > 0) {
		next, want := d.todo, d.exacts > 0
		d.todo = nil
		d.mu.Unlock()
		d.followExact(want)
		for _, w := range next {
			d.carryOut(w)
		}
		d.mu.Lock()
	}
	d.doing = false
	d.mu.Unlock()
}

// followExact tells the sockets whether probes are under way.
func (d *Device) followExact(want bool) {
	if want == d.exact {
		return
	}
	d.exact = want
	if d.sockets != nil {
		d.sockets.Exact(want)
	}
}

func (d *Device) carryOut(w work) {
	if w.grown {
		select {
		case d.grown <- struct{}{}:
		default:
		}
	}
	for _, p := range w.probes {
		d.push(note{kind: kindAsk, to: w.to, size: p.Size, nonce: p.Nonce})
	}
}

// note is a packet of ours that waits for the next Read.
type note struct {
	kind  byte
	to    netip.Addr
	size  int // kindAsk: of the packet; kindAnswer: of the packet that is answered
	nonce uint64
}

// maxNotes bounds the packets that wait. A new one that does not fit is dropped: the machine asks again.
const maxNotes = 256

// injected are the packets of ours that wait.
type injected struct {
	mu    sync.Mutex
	notes []note
	some  atomic.Bool
}

// push queues a packet of ours and has a Read that waits for the kernel return.
func (d *Device) push(n note) {
	d.inject.mu.Lock()
	full := len(d.inject.notes) >= maxNotes
	if !full {
		d.inject.notes = append(d.inject.notes, n)
		d.inject.some.Store(true)
	}
	d.inject.mu.Unlock()
	if full {
		d.drops[DropProbeQueue].Add(1)
		return
	}
	d.wake()
}

// wake has a Read that waits for the kernel return.
func (d *Device) wake() {
	if file := d.File(); file != nil {
		// Without deadlines it waits for the kernel's next packet.
		_ = file.SetReadDeadline(past)
	}
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// takeNotes moves up to len(into) packets of ours out of the queue.
func (d *Device) takeNotes(into []note) int {
	d.inject.mu.Lock()
	defer d.inject.mu.Unlock()
	n := copy(into, d.inject.notes)
	d.inject.notes = slices.Delete(d.inject.notes, 0, n)
	d.inject.some.Store(len(d.inject.notes) > 0)
	return n
}

// interrupted reports whether a read has ended because of push, and makes the next one wait again.
func (d *Device) interrupted(err error) bool {
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	return d.File().SetReadDeadline(time.Time{}) == nil
}
