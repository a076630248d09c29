// Package letter carries sealed introductions straight from one address to another, where no session leads: as one datagram or two of
// the shared port, with nothing around them that tells who writes to whom.
//
// What is in a letter, who may have sent it and whether it is new is decided by whoever opens it (mesh/signal, by way of mesh/courier). Nothing
// is answered here. All datagrams are of one size, so that a letter that answers another is at most twice as large, and nobody can have this
// node send more than that to an address (RFC 9000, section 8.1, allows three times).
//
// A Post's methods may be called concurrently.
package letter

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"warren/nat/limit"
	"warren/nat/path"
)

/* A datagram of a letter
 *
 *	| a7 77 6c (3) | part: 0, 1 (1) | number, random (8) | size of the signal (2) | part of the signal, then zeros (1,126) |
 *
 * An ask fits into one. An offer with its keys does not fit into one of the least MTU of IPv6: it takes two. Each has 1,140 bytes, 1,188 with
 * the headers of IPv6.
 */
const (
	headerSize = 3 + 1 + 8 + 2
	// Size is that of each datagram, in bytes.
	Size = 1140
	// Max is the size of the largest signal that a letter holds.
	Max  = 2 * half
	half = Size - headerSize
)

// mark is how the datagrams begin.
var mark = [3]byte{0xa7, 'w', 'l'}

const (
	// maxHalves bounds what waits for its other half, of which the oldest goes: with a letter of each of many members at once there are two
	// or three.
	maxHalves = 64
	// halfLife is how long the other half may take: both leave at once.
	halfLife = 2 * time.Second
)

// Bounds of what is read, in datagrams: each letter costs whoever opens it a tenth of a millisecond. A peer sends ten to its own.
var (
	allRate  = limit.Rate{PerSecond: 200, Burst: 400}
	hostRate = limit.Rate{PerSecond: 20, Burst: 40}
)

// ErrTooLarge is wrapped by the error of Send for a signal that no letter holds.
var ErrTooLarge = errors.New("signal larger than a letter")

// Options are what a Post works with. Both are needed.
type Options struct {
	Conn net.PacketConn // the bind's lane of letters
	// Take is given each letter that is whole, and keeps it. It must not block. Anybody may have sent it.
	Take func(sealed []byte, from netip.AddrPort)
}

// Post sends letters, and puts together those that come. See the package comment.
type Post struct {
	// Constant after New.
	conn  net.PacketConn
	take  func(sealed []byte, from netip.AddrPort)
	hosts *limit.Sources[netip.Prefix]

	// Atomic.
	limited, malformed, torn atomic.Uint64

	// Owned by Run.
	halves []piece
}

// piece is a part of a letter.
type piece struct {
	from   netip.AddrPort
	number [8]byte
	part   byte
	size   int
	bytes  []byte
	until  time.Time
}

// New allocates; nothing runs before Run.
func New(o Options) *Post {
	return &Post{conn: o.Conn, take: o.Take, hosts: limit.NewSources[netip.Prefix](allRate, hostRate)}
}

// parts is how many datagrams carry a signal of that size.
func parts(size int) int {
	if size <= half {
		return 1
	}
	return 2
}

// Send sends a signal to an address of the underlay. Each datagram may get lost.
func (p *Post) Send(to netip.AddrPort, sealed []byte) error {
	if len(sealed) > Max {
		return fmt.Errorf("send letter of %d bytes: %w", len(sealed), ErrTooLarge)
	}
	var number [8]byte
	rand.Read(number[:]) // never fails
	for part := range parts(len(sealed)) {
		raw := make([]byte, Size)
		copy(raw, mark[:])
		raw[3] = byte(part)
		copy(raw[4:], number[:])
		binary.BigEndian.PutUint16(raw[12:], uint16(len(sealed)))
		copy(raw[headerSize:], sealed[min(part*half, len(sealed)):min((part+1)*half, len(sealed))])
		if _, err := p.conn.WriteTo(raw, net.UDPAddrFromAddrPort(to)); err != nil {
			return fmt.Errorf("send letter: %w", err)
		}
	}
	return nil
}

// Run reads until ctx ends; then it returns nil.
func (p *Post) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = p.conn.SetReadDeadline(time.Now()) })()
	buf := make([]byte, Size+1)
	for {
		n, addr, err := p.conn.ReadFrom(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("read letters: %w", err)
		}
		if udp, ok := addr.(*net.UDPAddr); ok {
			from := udp.AddrPort()
			p.read(time.Now(), buf[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
		}
	}
}

// read takes one datagram.
func (p *Post) read(now time.Time, raw []byte, from netip.AddrPort) {
	if len(raw) != Size || [3]byte(raw) != mark || raw[3] > 1 || path.IsVirtual(from.Addr()) {
		p.malformed.Add(1)
		return
	}
	if !p.hosts.Allow(now, limit.Host(from.Addr())) {
		p.limited.Add(1)
		return
	}
	one := piece{from: from, number: [8]byte(raw[4:]), part: raw[3], size: int(binary.BigEndian.Uint16(raw[12:])), until: now.Add(halfLife)}
	if one.size == 0 || one.size > Max || int(one.part) >= parts(one.size) {
		p.malformed.Add(1)
		return
	}
	one.bytes = append(one.bytes, raw[headerSize:]...)
	if whole := p.join(now, one); whole != nil {
		p.take(whole, from)
	}
}

// join returns the letter that a part makes whole; nil: it is a half, and waits for the other one.
func (p *Post) join(now time.Time, one piece) []byte {
	if parts(one.size) == 1 {
		return one.bytes[:one.size]
	}
	for len(p.halves) > 0 && (len(p.halves) >= maxHalves || now.After(p.halves[0].until)) {
		p.halves = p.halves[1:]
		p.torn.Add(1)
	}
	for i, other := range p.halves {
		if other.from != one.from || other.number != one.number {
			continue
		}
		if other.part == one.part || other.size != one.size {
			return nil // the same again, or somebody's who makes numbers up
		}
		p.halves = append(p.halves[:i:i], p.halves[i+1:]...)
		if one.part == 0 {
			one, other = other, one
		}
		return append(other.bytes, one.bytes...)[:one.size]
	}
	p.halves = append(p.halves, one)
	return nil
}

// Dropped returns how many datagrams were dropped so far, by reason; reasons that did not occur are left out.
func (p *Post) Dropped() map[string]uint64 {
	out := make(map[string]uint64)
	for name, n := range map[string]*atomic.Uint64{"letter: too many": &p.limited, "letter: malformed": &p.malformed, "letter: other half lost": &p.torn} {
		if n := n.Load(); n > 0 {
			out[name] = n
		}
	}
	return out
}
