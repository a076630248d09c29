// Package tun is the edge to the kernel's TUN interface: packets are read many at a wake-up and, on Linux, as large
// segments of TCP and UDP with a virtio header before them, which Segments takes apart where they lie. Packets on their
// way in are joined into such segments by a Joiner, which says where the next one is to be decrypted, so that a payload
// is moved once, by the cipher.
//
// It leaves addresses, routes and the life of the interface to tunnel/osnet, and what becomes of a packet to its caller.
// A frame is HeaderSize bytes of header with an IP packet behind it on every system; macOS has no batches, so that a
// header says nothing there.
//
// One goroutine may Pump a Device, others may Write, each whole frames; Close may come from any. Segments and Joiner are
// for one goroutine.
package tun

import "errors"

// HeaderSize is the length in bytes of what stands before the IP packet in each frame: struct virtio_net_hdr of Linux
// (virtio 1.2, section 5.1.6) without the number of buffers.
const HeaderSize = 10

// MaxFrame is the length in bytes of the largest frame: the header and the largest IP packet.
const MaxFrame = HeaderSize + 65535

// ErrFrame is told of a frame that the kernel could not have made, or a packet that is none of IP.
var ErrFrame = errors.New("read frame: not an IP packet with a header that fits it")

// Sink takes what a Device has read.
type Sink interface {
	// Frame takes one frame, which it may change and which is its own until it returns.
	Frame(frame []byte)
	// Dry says that nothing waits any more: what was gathered has to leave now.
	Dry()
}

// Offloads is what the kernel takes and gives in one piece.
type Offloads struct {
	TCP bool // segments of TCP over IPv4 and IPv6 (TSO), and checksums left to the other side
	UDP bool // datagrams of UDP of one size (USO), Linux 6.2 and later
}

// Options say what interface is opened.
type Options struct {
	Name string // of the interface; "" or a pattern as "warren%d" on Linux, "utun" on macOS: the system chooses
	// Plain leaves all offloads off: each frame is one packet, with its checksums complete.
	Plain bool
	// Shared opens one more queue of an interface that was made with Shared (IFF_MULTI_QUEUE; Linux alone).
	Shared bool
}
