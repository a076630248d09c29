package tun

import (
	"encoding/binary"
	"io"
)

// Joiner makes large frames out of packets on their way in, of one flow at a time: a packet of another flow, or one that does
// not continue the flow, has the frame written first, so that the order of packets is what it was.
//
//	Place  → where the next packet is to be decrypted: with its payload right behind the frame, its headers over the end
//	Take   → it is there: it continues the frame, or begins one
//	Flush  → nothing more comes now
//
// Only packets whose checksum is right are joined, since the kernel believes those of a frame: one that is wrong goes as it
// came, for the kernel to refuse.
type Joiner struct {
	to   io.Writer
	with Offloads
	buf  []byte

	n        int // length of the packet in buf, 0: none
	segments int
	head     flow
	size     int           // of the first payload
	next     uint32        // TCP: the sequence number that continues it
	checked  bool          // the first packet's checksum is known to be right
	headers  [maxHead]byte // of the first packet: in buf a place may lie over them
	covered  [maxHead]byte
	placed   int // where the last place began, in buf
}

// maxJoined is how many datagrams of UDP become one frame: the kernel takes 64 in all versions that take any.
const maxJoined = 64

// slack is what a place may be longer than an IP packet: padding and tag of the cipher.
const slack = 64

// NewJoiner returns a Joiner that writes frames to a Device, or what stands in for one.
func NewJoiner(to io.Writer, with Offloads) *Joiner {
	return &Joiner{to: to, with: with, buf: make([]byte, MaxFrame+slack)}
}

// Place returns where the next packet, which has at most size bytes with its padding, is to be put: a slice of length 0 and that
// capacity, good until Take or the next Place. A frame that has no room for it is written first. Nobody has to Take: what a
// place covered is put back by whatever comes next. size is at most 65535.
func (j *Joiner) Place(size int) ([]byte, error) {
	var err error
	j.uncover()
	if j.n > 0 && j.n+size-j.head.length > 65535 {
		err = j.Flush()
	}
	j.placed = HeaderSize
	if j.n > 0 {
		j.placed += j.n - j.head.length
		copy(j.covered[:j.head.length], j.buf[j.placed:])
	}
	return j.buf[j.placed : j.placed : j.placed+min(size, 65535)+slack], err
}

// uncover puts back what a place lay over.
func (j *Joiner) uncover() {
	if j.placed > 0 && j.n > 0 {
		copy(j.buf[j.placed:], j.covered[:j.head.length])
	}
	j.placed = 0
}

// Take says that the place has a packet now, of length n with its padding. It returns ErrFrame for one that is none of IP, which
// is forgotten, and errors of writing.
func (j *Joiner) Take(n int) error {
	at := j.placed
	if at == 0 {
		return ErrFrame
	}
	packet := j.buf[at : at+n]
	length, ok := Length(packet)
	if !ok {
		j.uncover()
		return ErrFrame
	}
	packet = packet[:length]
	f := flowOf(packet)
	if j.n == 0 {
		j.placed = 0
		return j.begin(f, length)
	}
	if j.continues(packet, f) {
		return j.add(packet, f)
	}
	// The beginning of the packet lies over the end of the frame: it is kept aside until the frame is written.
	var head [maxHead]byte
	over := copy(head[:j.head.length], packet)
	j.uncover()
	err := j.Flush()
	copy(j.buf[HeaderSize+over:], j.buf[at+over:at+length])
	copy(j.buf[HeaderSize:], head[:over])
	if other := j.begin(f, length); err == nil {
		err = other
	}
	return err
}

// begin starts a frame with the packet that lies at its beginning. One that nothing can follow is written at once.
func (j *Joiner) begin(f flow, length int) error {
	j.n, j.segments, j.head, j.checked = length, 1, f, false
	j.size = length - f.length
	copy(j.headers[:f.length], j.buf[HeaderSize:])
	if !j.open() {
		return j.Flush()
	}
	if f.protocol == protoTCP {
		p := j.buf[HeaderSize:]
		j.next = binary.BigEndian.Uint32(p[f.start+4:]) + uint32(j.size)
		if p[f.start+13]&flagPSH != 0 {
			return j.Flush()
		}
	}
	return nil
}

// open reports whether a packet may be followed by another one in the same frame.
func (j *Joiner) open() bool {
	if j.size == 0 {
		return false
	}
	switch j.head.protocol {
	case protoTCP:
		flags := j.buf[HeaderSize+j.head.start+13]
		return j.with.TCP && flags&flagACK != 0 && flags&^(flagACK|flagPSH|flagECE) == 0
	case protoUDP:
		return j.with.UDP
	}
	return false
}

// continues reports whether a packet follows the frame so that the kernel, were it to take the frame apart, would make it again.
func (j *Joiner) continues(packet []byte, f flow) bool {
	size := len(packet) - f.length
	first := j.headers[:j.head.length]
	if f.protocol != j.head.protocol || f.start != j.head.start || f.length != j.head.length || size == 0 || size > j.size {
		return false
	}
	if !sameNetwork(first, packet, j.segments) {
		return false
	}
	a, b := first[f.start:], packet[f.start:]
	if string(a[:4]) != string(b[:4]) { // ports
		return false
	}
	if f.protocol == protoTCP {
		// The acknowledgement, the window and the options say something of their own when they differ.
		if binary.BigEndian.Uint32(b[4:]) != j.next || string(a[8:13]) != string(b[8:13]) || (a[13]^b[13])&^flagPSH != 0 ||
			string(a[14:16]) != string(b[14:16]) || string(a[18:f.length-f.start]) != string(b[18:f.length-f.start]) {
			return false
		}
	} else if f.none(packet) {
		return false
	}
	return f.right(packet) && j.firstRight()
}

// firstRight checks the first packet once, when a second one is there: most that stay alone are checked by the kernel. The
// first's end is covered, if there is one packet and it is shorter than its headers are.
func (j *Joiner) firstRight() bool {
	if j.checked {
		return true
	}
	at, length := j.placed, j.head.length
	var over [maxHead]byte
	copy(over[:length], j.buf[at:])
	copy(j.buf[at:], j.covered[:length])
	first := j.buf[HeaderSize : HeaderSize+j.n]
	j.checked = j.head.right(first) && !(j.head.protocol == protoUDP && j.head.none(first))
	copy(j.buf[at:], over[:length])
	return j.checked
}

// add takes a packet that continues the frame: its payload is where it belongs.
func (j *Joiner) add(packet []byte, f flow) error {
	size := len(packet) - f.length
	last := size < j.size
	j.segments++
	pushed := f.protocol == protoTCP && packet[f.start+13]&flagPSH != 0
	j.uncover()
	j.n += size
	j.next += uint32(size)
	if pushed {
		j.buf[HeaderSize+f.start+13] |= flagPSH
	}
	if last || pushed || f.protocol == protoUDP && j.segments == maxJoined {
		return j.Flush()
	}
	return nil
}

// Flush writes the frame, if there is one.
func (j *Joiner) Flush() error {
	j.uncover()
	if j.n == 0 {
		return nil
	}
	frame := j.buf[:HeaderSize+j.n]
	clear(frame[:HeaderSize])
	if j.segments > 1 {
		j.finish(frame)
	}
	j.n, j.segments = 0, 0
	_, err := j.to.Write(frame)
	return err
}

// finish writes the headers of a frame of several packets.
func (j *Joiner) finish(frame []byte) {
	p, f := frame[HeaderSize:], j.head
	four := p[0]>>4 == 4
	h := header{flags: flagPartial, kind: kindTCP6, length: uint16(f.length), size: j.size, start: f.start, offsetSum: checksumTCP}
	switch {
	case f.protocol == protoUDP:
		h.kind, h.offsetSum = kindUDP, checksumUDP
		binary.BigEndian.PutUint16(p[f.start+4:], uint16(len(p)-f.start))
	case four:
		h.kind = kindTCP4
	}
	h.write(frame)
	if four {
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
		clear(p[10:12])
		put(p[10:], sum(p[:f.start], 0), 0)
	} else {
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
	}
	binary.NativeEndian.PutUint16(p[f.start+h.offsetSum:], fold(pseudo(p, f.protocol, len(p)-f.start)))
}
