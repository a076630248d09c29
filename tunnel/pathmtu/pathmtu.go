// Package pathmtu finds the size of packet that the path to one peer carries, after RFC 8899 (DPLPMTUD): probes of a
// size are sent inside the tunnel, so that they are padded, encrypted and authenticated as all packets are, and the peer
// says what has arrived. No ICMP is needed, and none is believed.
//
// Sizes are those of IP packets inside the tunnel. Making, sending and answering probes, and holding packets to the
// limit, is left to package fit.
//
// The machine is pure: no goroutine, socket or clock. It belongs to one goroutine at a time.
package pathmtu

import (
	"net/netip"
	"time"
)

// Sizes that every path is asked about.
const (
	// Small is the smallest probe. Its answer says that the peer is there, so that the silence about a larger one
	// in the same round is the path's doing and not that of loss, or of a path that is dead.
	Small = 64

	// Base passes wherever IPv6 does, in the worst wrapping (RFC 8899, section 5.1.2): 1,280 less 84, in whole
	// blocks of WireGuard's padding.
	Base = (1280 - 84) &^ (block - 1)

	// least is taken for granted where not even Base passes: the smallest datagram that IPv4 obliges everyone to
	// take (RFC 791), less 84.
	least = (576 - 84) &^ (block - 1)

	block = 16 // WireGuard pads to it, so sizes in between cannot be told apart
)

// Timing.
const (
	// maxTries is MAX_PROBES of RFC 8899, section 5.1.2: with a tenth of all packets lost, one size in a thousand is
	// given up wrongly, until the next raise.
	maxTries = 3

	firstWait = time.Second            // for the first answer on a path, of which nothing is known
	leastWait = 300 * time.Millisecond // for an answer, when the round-trip time is known
	grace     = 100 * time.Millisecond // for a large answer after the small one, beside another round-trip time

	confirmEvery = 2 * time.Second  // while packets above Base leave: how long a path that has narrowed swallows them
	raiseEvery   = 10 * time.Minute // PMTU_RAISE_TIMER of RFC 8899, section 5.1.1

	firstPause = time.Second // after rounds without any answer; doubled up to
	lastPause  = 8 * time.Second
	mutePause  = time.Minute // with a peer that has never answered
)

// mutePauses is how many pauses make a peer one that answers no probes, as an older node.
const mutePauses = 2

// remembered bounds the paths whose size is kept for their return.
const remembered = 8

// common are path MTUs that networks have: IPv6's least, tunnels of many kinds, PPPoE, Ethernet, FDDI, jumbo frames of
// two clouds and of switches.
var common = [...]int{1280, 1300, 1340, 1360, 1380, 1400, 1420, 1436, 1452, 1460, 1472, 1480, 1492, 1500, 4352, 8500, 8896, 9000, 9216}

// Path is what is to be measured.
type Path struct {
	Addr     netip.AddrPort // tells paths apart; zero: there is none
	Overhead int            // bytes that a packet gains on this path
	Top      int            // the largest size of use, which is tried first
	Default  int            // what is taken to pass with peers that answer no probes, and for the MSS until it is known
}

// Limit says how packets to the peer are to be treated.
type Limit struct {
	Whole int // up to this size they are sent as they are
	// Split says that larger ones are cut into fragments whatever they say, because the limit is not final: whoever
	// is told that its packet is too large remembers that for ten minutes.
	Split bool
	Clamp int // no TCP segment shall make a packet larger than this
}

// Probe is to be sent at once.
type Probe struct {
	Nonce uint64
	Size  int
}

// Output is what follows from a step.
type Output struct {
	Probes []Probe // in ascending order
	Limit  Limit   // from now on
	// Report is the size from which on the machine wants to be told that a packet is sent (Sent): 0 any, negative none.
	Report int
	// Exact says that probes are under way, so that nothing shall be fragmented outside the tunnel.
	Exact bool
	// Verified is the largest size that was answered on this path, 0 while none was.
	Verified int
	Wake     time.Time // when Tick is due; zero: never
}
