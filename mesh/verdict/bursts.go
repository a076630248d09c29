package verdict

import (
	"fmt"

	"warren/mesh/identity"
)

// Bursts is what came of sending packets to a peer through the tunnel one by one, and as many at once: the kernel hands these on in one
// piece where it can (GSO), and some hosts and routers lose that piece.
type Bursts struct {
	Size    int // of a packet, in bytes
	Sent    int // of either kind; 0: it was not tried
	Singles int // answered
	Batched int // answered
}

// Vanish reports whether batches are lost and single packets are not: a line that merely loses some packets is none of that.
func (b Bursts) Vanish() bool { return b.Sent > 0 && b.Singles*4 >= b.Sent*3 && b.Batched*4 <= b.Sent }

// BatchesVanish is a way on which batches are lost.
type BatchesVanish struct{ Bursts Bursts }

// Words says what was measured.
func (c BatchesVanish) Words(Names) string {
	b := c.Bursts
	return fmt.Sprintf("single packets arrive and batches of them do not: of %d packets of %d bytes sent one by one %d were answered, of as many sent at once %d. "+
		"Large transfers stall so. A router or a driver on the way loses what the kernel sends in one piece (GSO)", b.Sent, b.Size, b.Singles, b.Batched)
}

// NoOffload is the remedy against lost batches.
type NoOffload struct{ Node identity.NodeID }

// Words says what to switch off, and where.
func (f NoOffload) Words(names Names) string {
	return fmt.Sprintf("on %s switch the offload off at the interface that leads there: sudo ethtool -K INTERFACE tx-udp-segmentation off tx off", names(f.Node))
}
