package filter

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Bounds of what is remembered of flows that may not begin.
const (
	maxDenied    = 512
	maxDeniedOne = 32 // of one far side; further ports count as port 0
)

// Denied is what may not begin: packets between one pair, to one port.
type Denied struct {
	From, To    netip.Addr
	Protocol    uint8  // IANA's number
	Port        uint16 // of the destination; 0: of several, or of a protocol without
	Direction   Direction
	Reason      Reason
	Count       uint64
	First, Last time.Duration // when, as Decide was told
}

// denied remembers them.
type denied struct {
	mu  sync.Mutex
	of  map[deniedKey]*Denied
	far map[[16]byte]int // how many there are of a far side
}

type deniedKey struct {
	src, dst [16]byte
	protocol uint16
	port     uint16
	dir      Direction
}

func (k deniedKey) far() [16]byte {
	if k.dir == In {
		return k.src
	}
	return k.dst
}

func (d *denied) note(dir Direction, p *packet, why Reason, now time.Duration) {
	k := deniedKey{p.src, p.dst, p.protocol, p.dstPort, dir}
	if p.protocol == protoICMP || p.protocol == protoICMPv6 {
		k.port = 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of == nil {
		d.of, d.far = make(map[deniedKey]*Denied), make(map[[16]byte]int)
	}
	one := d.of[k]
	if one == nil && d.far[k.far()] >= maxDeniedOne {
		k.port = 0
		one = d.of[k]
	}
	if one == nil {
		if len(d.of) >= maxDenied {
			d.forgetOldest()
		}
		one = &Denied{From: addrOf(k.src), To: addrOf(k.dst), Protocol: uint8(k.protocol), Port: k.port, Direction: dir, First: now}
		d.of[k] = one
		d.far[k.far()]++
	}
	one.Count++
	one.Last, one.Reason = now, why
}

// forgetOldest makes room. The caller holds the lock.
func (d *denied) forgetOldest() {
	var oldest deniedKey
	var at *Denied
	for k, one := range d.of {
		if at == nil || one.Last < at.Last {
			oldest, at = k, one
		}
	}
	delete(d.of, oldest)
	if d.far[oldest.far()]--; d.far[oldest.far()] == 0 {
		delete(d.far, oldest.far())
	}
}

// Denied returns what may not begin, the latest first.
func (f *Filter) Denied() []Denied {
	f.denied.mu.Lock()
	defer f.denied.mu.Unlock()
	out := make([]Denied, 0, len(f.denied.of))
	for _, one := range f.denied.of {
		out = append(out, *one)
	}
	slices.SortFunc(out, func(a, b Denied) int {
		return cmp.Or(cmp.Compare(b.Last, a.Last), a.From.Compare(b.From), a.To.Compare(b.To), cmp.Compare(a.Port, b.Port))
	})
	return out
}

func addrOf(a [16]byte) netip.Addr { return netip.AddrFrom16(a).Unmap() }
