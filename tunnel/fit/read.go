package fit

import (
	"encoding/binary"
	"net/netip"
	"time"

	"warren/tunnel/pathmtu"
)

/* A packet's way out
 *
 * 1. Read takes probes and answers of ours that wait, then what goes through this node (transit.go), then fragments that found no room in the last batch, then the
 *    kernel's packets, which the TUN device has already cut into segments of their own.
 * 2. Each finds its peer by its destination; runs of packets have the same one.
 * 3. A TCP SYN has its segment size lowered.
 * 4. A packet that is larger than the peer's path is answered with ICMP, or cut into fragments.
 */

// reader is the state of Read. Only the goroutine that calls it touches it.
type reader struct {
	// the peer of the last packet, since packets come in runs
	table *table
	dst   [16]byte
	four  bool
	peer  *peer

	notes   []note
	waiting [][]byte // fragments that found no room, oldest first
	spare   [][]byte
	tooBig  bucket
	through bool   // what is being read goes through this node
	id      uint32 // of the fragments that need one
	scratch []byte // of ICMP, with room for a header before it
}

// headroom is what the inner device wants before a packet: more than the 10 bytes of a virtio header.
const headroom = 16

func (r *reader) setup() {
	r.notes = make([]note, 128)
	r.scratch = make([]byte, headroom+maxTooBig)
	r.id = uint32(nonce())
	r.tooBig.full(time.Now())
}

// Read implements tun.Device.
func (d *Device) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for {
		if d.inject.some.Load() {
			if n := d.readNotes(bufs, sizes, offset); n > 0 {
				return n, nil
			}
		}
		if d.through.some.Load() {
			if b := (batch{bufs: bufs, sizes: sizes, offset: offset, n: d.through.take(bufs, sizes, offset)}); b.n > 0 {
				d.read.through = true
				for i := range b.n {
					d.out(&b, i)
				}
				d.read.through = false
				return b.n, nil
			}
		}
		if len(d.read.waiting) > 0 {
			return d.read.readWaiting(bufs, sizes, offset), nil
		}
		n, err := d.Device.Read(bufs, sizes, offset)
		if d.interrupted(err) {
			continue
		}
		if n == 0 {
			return 0, err
		}
		b := batch{bufs: bufs, sizes: sizes, offset: offset, n: n}
		for i := range n {
			d.out(&b, i)
		}
		return b.n, err
	}
}

// readNotes fills a batch with packets of ours.
func (d *Device) readNotes(bufs [][]byte, sizes []int, offset int) int {
	self := d.table.Load().self
	if !self.Is6() {
		d.takeNotes(d.read.notes) // what was meant for peers that are gone
		return 0
	}
	n := d.takeNotes(d.read.notes[:min(len(bufs), len(d.read.notes))])
	for i, note := range d.read.notes[:n] {
		sizes[i] = note.packet(bufs[i][offset:], self)
	}
	return n
}

// readWaiting fills a batch with fragments.
func (r *reader) readWaiting(bufs [][]byte, sizes []int, offset int) int {
	n := min(len(bufs), len(r.waiting))
	for i, p := range r.waiting[:n] {
		sizes[i] = copy(bufs[i][offset:], p)
		r.spare = append(r.spare, p[:0])
	}
	rest := copy(r.waiting, r.waiting[n:])
	clear(r.waiting[rest:])
	r.waiting = r.waiting[:rest]
	return n
}

// batch is what Read fills.
type batch struct {
	bufs   [][]byte
	sizes  []int
	offset int
	n      int
}

// out deals with packet i of a batch.
func (d *Device) out(b *batch, i int) {
	packet := b.bufs[i][b.offset:][:b.sizes[i]]
	r := &d.read
	p := r.find(d.table.Load(), packet)
	if p == nil {
		return
	}
	if isProbe(packet) {
		d.drops[DropForged].Add(1)
		b.sizes[i] = 0
		return
	}
	limit := p.getLimit()
	if tcp := tcpSYN(packet); tcp > 0 {
		clampMSS(packet, tcp, limit.Clamp)
	}
	if report := p.report.Load(); report >= 0 && len(packet) >= int(report) {
		p.report.Store(-1) // the machine says anew
		d.step(p, sent(len(packet)))
		limit = p.getLimit()
	}
	if len(packet) > limit.Whole {
		d.reduce(b, i, limit)
	}
}

// find returns the peer of a packet's destination.
func (r *reader) find(t *table, p []byte) *peer {
	var dst [16]byte
	four := false
	switch {
	case len(p) >= ipv4Header && p[0]>>4 == 4:
		copy(dst[:4], p[16:20])
		four = true
	case len(p) >= ipv6Header && p[0]>>4 == 6:
		copy(dst[:], p[24:40])
	default:
		return nil
	}
	if t == r.table && dst == r.dst && four == r.four {
		return r.peer
	}
	r.table, r.dst, r.four = t, dst, four
	if four {
		r.peer = t.lookup(netip.AddrFrom4([4]byte(dst[:4])))
	} else {
		r.peer = t.lookup(netip.AddrFrom16(dst))
	}
	return r.peer
}

// reduce makes packet i of a batch, which is larger than the peer's path, fit, or tells its sender.
func (d *Device) reduce(b *batch, i int, limit pathmtu.Limit) {
	packet := b.bufs[i][b.offset:][:b.sizes[i]]
	// Whoever sends IPv6 may count on 1,280 bytes (RFC 8200, section 5), whatever the path carries.
	if limit.Split || !whole(packet) || packet[0]>>4 == 6 && len(packet) <= minIPv6 {
		if size := d.read.split(b, i, limit.Whole); size > 0 {
			b.sizes[i] = size
			return
		}
		d.drops[DropUnsplit].Add(1)
		b.sizes[i] = 0
		return
	}
	d.drops[DropTooLarge].Add(1)
	b.sizes[i] = 0
	if !d.read.tooBig.take(time.Now()) {
		return
	}
	if size := tooBig(d.read.scratch[headroom:], packet, limit.Whole); size > 0 {
		if d.read.through {
			d.through.push(d.read.scratch[headroom : headroom+size])
			return
		}
		// The kernel refuses it only when the interface goes away.
		_, _ = d.Device.Write([][]byte{d.read.scratch[:headroom+size]}, headroom)
	}
}

// whole reports whether a packet must not be fragmented on its way: all of IPv6, and IPv4 with DF.
func whole(p []byte) bool { return p[0]>>4 == 6 || p[6]&flagDF != 0 }

// bucket rations the ICMP that is sent: one tells the kernel about all packets to a destination.
type bucket struct {
	tokens int
	last   time.Time
}

const (
	bucketSize  = 64
	bucketEvery = 10 * time.Millisecond
)

func (b *bucket) full(now time.Time) { b.tokens, b.last = bucketSize, now }

func (b *bucket) take(now time.Time) bool {
	if n := int(now.Sub(b.last) / bucketEvery); n > 0 {
		b.tokens, b.last = min(b.tokens+n, bucketSize), now
	}
	if b.tokens == 0 {
		return false
	}
	b.tokens--
	return true
}

// room returns where the next fragment of a batch goes: into the batch, or among those that wait.
func (r *reader) room(b *batch, size int) []byte {
	if b.n < len(b.bufs) {
		b.sizes[b.n] = size
		b.n++
		return b.bufs[b.n-1][b.offset:][:size]
	}
	var p []byte
	if last := len(r.spare) - 1; last >= 0 {
		p, r.spare = r.spare[last], r.spare[:last]
	}
	if cap(p) < size {
		p = make([]byte, size)
	}
	r.waiting = append(r.waiting, p[:size])
	return p[:size]
}

// nextID makes the identification of a packet that is cut here.
func (r *reader) nextID() uint32 {
	r.id++
	return r.id
}

// put16 and get16 are in network byte order.
func put16(p []byte, v int) { binary.BigEndian.PutUint16(p, uint16(v)) }
func get16(p []byte) int    { return int(binary.BigEndian.Uint16(p)) }
