package place

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"warren/nat/dns64"
	"warren/nat/nat64"
	"warren/nat/stunwire"
)

const (
	// narrowTime is what the questions of narrow may take: a round trip, and the repetition of what was lost.
	narrowTime  = 1200 * time.Millisecond
	narrowAgain = 400 * time.Millisecond
	// firstFlight is QUIC's first packet with its headers over IPv4 (RFC 9000, section 14.1).
	firstFlight = 1228
)

// narrowSizes are the sizes of questions, as bytes of UDP. They are few, since a member answers few of a stranger's.
var narrowSizes = [...]int{300, 600, 900, 1100, 1200}

// narrow asks a member that could not be dialled how large packets get there: it answers STUN of any size. It returns the largest UDP
// payload that was answered, and false when none was, or all were, or others than the largest are missing.
func narrow(ctx context.Context, c net.PacketConn, to netip.AddrPort) (most int, ok bool) {
	sizes := make(map[stunwire.ID]int, len(narrowSizes))
	for _, size := range narrowSizes {
		sizes[stunwire.NewID()] = size
	}
	deadline := time.Now().Add(narrowTime)
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Now()) })
	defer stop()
	buf := make([]byte, 1500)
	for ctx.Err() == nil && time.Now().Before(deadline) {
		for id, size := range sizes {
			_, _ = c.WriteTo(stunwire.Sized(id, size), net.UDPAddrFromAddrPort(to)) // one that is too large for the card is as lost
		}
		_ = c.SetReadDeadline(time.Now().Add(narrowAgain))
		for {
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				break
			}
			if p, sound := stunwire.Inspect(buf[:n]); sound && p.Class == stunwire.Success {
				most = max(most, sizes[p.ID])
				delete(sizes, p.ID)
			}
		}
	}
	ok = most > 0 && len(sizes) > 0
	for _, lost := range sizes {
		ok = ok && lost > most
	}
	return most, ok
}

// isSilence reports whether nobody answered, rather than that somebody said no.
func isSilence(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// withSize adds to the failure to reach a member that packets are too large for the path, if it is that.
func withSize(ctx context.Context, failure error, to netip.AddrPort, way *nat64.Way) error {
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		return failure
	}
	defer c.Close()
	most, ok := narrow(ctx, dns64.Packets{PacketConn: c, Way: way}, to)
	if !ok {
		return failure
	}
	return fmt.Errorf("%w; packets of up to %d bytes get there and larger ones do not, while %d are needed: make the MTU of the line, or of a tunnel on the way, larger, or let TCP port %d through",
		failure, most+28, firstFlight, to.Port())
}
