package echo

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// A burst is two batches of burstBatch questions, each filled up to the size of a packet that is worth batching; the answers are short.
const (
	burstBatch = 8
	burstCount = 2 * burstBatch
	burstPause = 5 * time.Millisecond // between questions that are sent one by one: each leaves by itself
	// headers are those of IPv6 and UDP, which stand before a question inside the tunnel.
	headers = 40 + 8
)

// Bursts is what came of asking twice as often: one by one, and in batches.
type Bursts struct {
	Size    int // of a packet inside the tunnel, in bytes
	Sent    int // of either kind
	Singles int // answered
	Batched int // answered
}

// Burst asks a node that answers pings with packets of size bytes, headers included, first one by one and then in batches that the system
// hands on in one piece as far as it can (UDP_SEGMENT, Linux 4.18): some hosts and routers lose these. It waits so long for the answers to
// either kind. An older node answers short questions only.
func Burst(ctx context.Context, to netip.Addr, size int, wait time.Duration) (Bursts, error) {
	return burstAt(ctx, netip.AddrPortFrom(to, Port), size, wait)
}

func burstAt(ctx context.Context, to netip.AddrPort, packet int, wait time.Duration) (Bursts, error) {
	out := Bursts{Size: packet, Sent: burstCount}
	length := packet - headers
	if length < size {
		return Bursts{}, fmt.Errorf("burst to %s: packets of %d bytes hold no question", to.Addr(), packet)
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "udp", to.String())
	if err != nil {
		return Bursts{}, fmt.Errorf("burst to %s: %w", to.Addr(), err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Now()) })
	defer stop()
	singles, all := questions(length)
	for i := range burstCount {
		if _, err := c.Write(all[i*length:][:length]); err != nil {
			return Bursts{}, fmt.Errorf("burst to %s: %w", to.Addr(), err)
		}
		time.Sleep(burstPause)
	}
	out.Singles = singles.count(c, wait)
	if err := segment(c.(*net.UDPConn), length); err != nil {
		return Bursts{}, fmt.Errorf("burst to %s: %w", to.Addr(), err)
	}
	batched, all := questions(length)
	for batch := range 2 {
		if _, err := c.Write(all[batch*burstBatch*length:][:burstBatch*length]); err != nil {
			return Bursts{}, fmt.Errorf("burst to %s: %w", to.Addr(), err)
		}
	}
	out.Batched = batched.count(c, wait)
	if ctx.Err() != nil {
		return Bursts{}, fmt.Errorf("burst to %s: %w", to.Addr(), ctx.Err())
	}
	return out, nil
}

// asked are the questions that are out, by the bytes that come back.
type asked map[[size - 12]byte]bool

// questions makes those of a burst, each of so many bytes.
func questions(length int) (asked, []byte) {
	out, all := make(asked, burstCount), make([]byte, burstCount*length)
	for i := range burstCount {
		one := all[i*length:][:length]
		copy(one, magic)
		rand.Read(one[12:size])
		out[[size - 12]byte(one[12:size])] = true
	}
	return out, all
}

// count reads answers until all are there, or nobody waits for more.
func (a asked) count(c net.Conn, wait time.Duration) (n int) {
	c.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 64)
	for len(a) > 0 {
		got, err := c.Read(buf)
		if err != nil {
			return n
		}
		if key := [size - 12]byte(buf[12:size]); got == size && buf[len(magic)] == answer && a[key] {
			delete(a, key)
			n++
		}
	}
	return n
}
