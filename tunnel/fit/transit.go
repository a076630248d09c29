package fit

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

/* A packet's way through
 *
 * A plain WireGuard device that this node hosts has one peer, this node, and reaches the other peers through it: what WireGuard has decrypted for
 * one peer and is for another one goes back to be encrypted for that, if one of the two is hosted. The system's own forwarding, and its settings,
 * have no part in it.
 *
 * 1. Write sets it aside, with one hop less. One with no hop left is dropped.
 * 2. Read takes what waits, and treats it as any other: held to the path of its peer, its segment size lowered.
 * 3. That it is too large is told to who sent it, by the same way.
 */

// maxTransit bounds the packets that wait to go through; what finds no room is dropped, as by any router.
const maxTransit = 512

// transit are the packets that go through.
type transit struct {
	some atomic.Bool

	mu      sync.Mutex
	waiting [][]byte
	spare   [][]byte
}

// passes reports whether a packet that has come in goes on to another peer, and not to this host.
func (t *table) passes(packet []byte) bool {
	if !t.hosts || len(packet) == 0 {
		return false
	}
	to, ok := destination(packet)
	if !ok {
		return false
	}
	next, from := t.lookup(to), t.lookup(source(packet))
	if next == nil || from == nil || next == from {
		return false
	}
	return next.hosted && (from.hosted || from.addr.IsValid()) || from.hosted && next.addr.IsValid()
}

// destination is where a packet goes; false: it has no whole header.
func destination(p []byte) (netip.Addr, bool) {
	switch {
	case len(p) >= ipv4Header && p[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(p[16:20])), true
	case len(p) >= ipv6Header && p[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(p[24:40])), true
	}
	return netip.Addr{}, false
}

// hop takes one hop from a packet with a whole header (RFC 1812, 5.3.1; RFC 8200, 3), and reports whether one is left.
func hop(p []byte) bool {
	if p[0]>>4 == 6 {
		p[7]--
		return p[7] != 0 && p[7] != 255
	}
	p[8]--
	// The sum is mended, not made anew: a wrong one stays wrong (RFC 1624).
	sum := uint32(get16(p[10:])) + 0x100
	put16(p[10:], int(sum+sum>>16)&0xffff)
	return p[8] != 0 && p[8] != 255
}

// pass sets a packet aside for the next Read.
func (d *Device) pass(packet []byte) {
	if !hop(packet) {
		d.drops[DropHops].Add(1)
		return
	}
	if !d.through.push(packet) {
		d.drops[DropTransit].Add(1)
	}
}

// push keeps a copy; false: there is no room.
func (t *transit) push(packet []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) >= maxTransit {
		return false
	}
	var p []byte
	if last := len(t.spare) - 1; last >= 0 {
		p, t.spare = t.spare[last], t.spare[:last]
	}
	t.waiting = append(t.waiting, append(p[:0], packet...))
	t.some.Store(true)
	return true
}

// take moves packets that wait into a batch.
func (t *transit) take(bufs [][]byte, sizes []int, offset int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(len(bufs), len(t.waiting))
	for i, p := range t.waiting[:n] {
		sizes[i] = copy(bufs[i][offset:], p)
		if len(t.spare) < maxTransit {
			t.spare = append(t.spare, p)
		}
	}
	rest := copy(t.waiting, t.waiting[n:])
	clear(t.waiting[rest:])
	t.waiting = t.waiting[:rest]
	t.some.Store(rest > 0)
	return n
}
