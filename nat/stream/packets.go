package stream

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
)

// maxPacket is the longest frame that Packets reads: any QUIC packet fits.
const maxPacket = 2048

// Packets makes a net.PacketConn of a stream, for a joiner, which has no shared socket: everything comes from remote, and
// what is written goes to the far end whatever its address. Frames that are longer than 2,048 bytes end it. One goroutine may read,
// several may write; a write waits for TCP. Read deadlines work; closing it closes the stream.
func Packets(stream net.Conn, remote netip.AddrPort) net.PacketConn {
	return &packets{Conn: stream, remote: net.UDPAddrFromAddrPort(remote), turn: make(chan struct{}, 1)}
}

type packets struct {
	net.Conn
	remote *net.UDPAddr

	// owned by the reader; they outlast a deadline
	in    [2 + maxPacket]byte
	start int
	end   int

	turn chan struct{} // held by the one that writes, so that frames stay whole; a channel, for it waits for the network
	out  []byte        // owned by that one
}

// ReadFrom implements net.PacketConn.
func (c *packets) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		frame, size, ok := cut(c.in[c.start:c.end])
		switch {
		case !ok:
			return 0, nil, &net.OpError{Op: "read", Net: "tcp", Err: io.ErrUnexpectedEOF}
		case size > 0:
			n := copy(p, frame)
			c.start += size
			if len(frame) > 0 {
				return n, c.remote, nil
			}
			continue
		}
		c.end = copy(c.in[:], c.in[c.start:c.end])
		c.start = 0
		n, err := c.Conn.Read(c.in[c.end:])
		c.end += n
		if n == 0 && err != nil {
			return 0, nil, err
		}
	}
}

// cut returns the first frame of p and its size with the header; size 0 means that it is not all there, and false
// that it never will be.
func cut(p []byte) (frame []byte, size int, ok bool) {
	if len(p) < 2 {
		return nil, 0, true
	}
	n := int(binary.BigEndian.Uint16(p))
	switch {
	case n > maxPacket:
		return nil, 0, false
	case len(p) < 2+n:
		return nil, 0, true
	}
	return p[2 : 2+n], 2 + n, true
}

// WriteTo implements net.PacketConn.
func (c *packets) WriteTo(p []byte, _ net.Addr) (int, error) {
	if len(p) > maxPacket {
		return 0, &net.OpError{Op: "write", Net: "tcp", Err: io.ErrShortWrite}
	}
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	c.out = append(binary.BigEndian.AppendUint16(c.out[:0], uint16(len(p))), p...)
	if _, err := c.Conn.Write(c.out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// LocalAddr returns an address of the kind that users of packets expect.
func (c *packets) LocalAddr() net.Addr { return &net.UDPAddr{IP: net.IPv6unspecified} }
