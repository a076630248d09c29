package bind

import (
	"errors"
	"net/netip"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

/* A packet's way out
 *
 * 1. The device calls Send with a batch and the endpoint object that it holds for the peer.
 * 2. A mesh peer's object knows the path, or keeps the handshake for later (endpoint.go).
 * 3. A direct path goes to the sockets as it is; a relayed one through an arena of ChannelData messages. Where either
 *    leads to a stream, it goes to that stream's queue instead of the sockets (stream.go).
 *
 * STUN and QUIC start at step 3, from WriteTo of their lane.
 */

// Send sends WireGuard packets, all to one endpoint: one of ours, or a plain one of a static peer or of a source that
// the device has roamed to by itself. See conn.Bind.
func (b *Bind) Send(bufs [][]byte, ep conn.Endpoint) error {
	switch e := ep.(type) {
	case *Endpoint:
		return e.send(bufs)
	case *answering:
		return b.Send(bufs, e.Endpoint)
	case *conn.StdNetEndpoint:
		if len(bufs) > 0 && !isCookieReply(bufs[0]) {
			b.checkStray(e.AddrPort)
		}
		switch {
		case len(bufs) != 1:
		case isInitiation(bufs[0]):
			b.strays.call(e.AddrPort)
		case isResponse(bufs[0]):
			if to := b.peers.addressee(bufs[0], nil); to != nil {
				to.carried.crossed()
			}
		}
		if IsVirtual(e.AddrPort.Addr()) {
			return b.out.sendBy(b.resolve(e.AddrPort), bufs)
		}
		return b.inner.Send(bufs, e)
	default:
		return conn.ErrWrongEndpointType
	}
}

// checkStray notes a that the device sends to, unless a static peer is there or it is the current path of a peer,
// whose next packet will put things right.
func (b *Bind) checkStray(a netip.AddrPort) {
	if e, known := b.sources.lookup(a); known && (e == nil || e.Path() == a) {
		return
	}
	b.strays.note(a)
}

// resolve makes a path of a normal address.
func (b *Bind) resolve(a netip.AddrPort) *path {
	switch {
	case !IsVirtual(a.Addr()):
		return &path{addr: a, direct: &conn.StdNetEndpoint{AddrPort: a}}
	case IsStream(a.Addr()):
		return &path{addr: a, hop: b.streams.hopTo(a)}
	default:
		return &path{addr: a, channel: b.channels.byVirtual(a)}
	}
}

// hop is an immutable place that packets leave for: an underlay address by the sockets, or a stream.
type hop struct {
	udp    conn.StdNetEndpoint // of a stream, its virtual address
	stream *stream             // nil: none, or detached
}

// hopTo makes one of a normal address that is no relay channel's.
func (s *Streams) hopTo(a netip.AddrPort) *hop {
	return &hop{conn.StdNetEndpoint{AddrPort: a}, s.byVirtual(a)}
}

// outlet is where all packets leave.
type outlet struct {
	// constant after newOutlet
	inner  conn.Bind
	drops  *drops
	frames sync.Pool // of *frames
}

func newOutlet(inner conn.Bind, drops *drops) *outlet {
	return &outlet{inner: inner, drops: drops, frames: sync.Pool{New: func() any { return newFrames(conn.IdealBatchSize) }}}
}

// sendHop returns what the sockets do.
func (o *outlet) sendHop(h *hop, bufs [][]byte) error {
	switch {
	case h.stream != nil:
		h.stream.send(bufs)
	case IsVirtual(h.udp.AddrPort.Addr()):
		o.drops.add(DropStreamGone, len(bufs))
	default:
		return o.inner.Send(bufs, &h.udp)
	}
	return nil
}

// sendBy sends by a path, counts what the system refuses, and returns only what WireGuard has to know.
func (o *outlet) sendBy(p *path, bufs [][]byte) error {
	var err error
	switch {
	case p.direct != nil:
		err = o.inner.Send(bufs, p.direct)
	case p.hop != nil:
		err = o.sendHop(p.hop, bufs)
	default:
		err = o.sendChannel(p.channel, bufs)
	}
	if err == nil {
		return nil
	}
	rest := retried(err)
	if rest != nil {
		o.drops.add(DropSendFailed, len(bufs))
	}
	if rest != err {
		return err
	}
	return nil
}

// sendChannel wraps bufs for a relay; a nil channel is one that was never open.
func (o *outlet) sendChannel(c *channel, bufs [][]byte) error {
	var relay *hop
	if c != nil {
		relay = c.relay.Load()
	}
	if relay == nil {
		o.drops.add(DropUnknownChannel, len(bufs))
		return nil
	}
	f := o.frames.Get().(*frames)
	defer o.frames.Put(f)
	f.reset()
	var first error
	for _, p := range bufs {
		if f.add(c.number, p) {
			continue
		}
		if err := o.sendHop(relay, f.list); first == nil {
			first = err
		}
		f.reset()
		if !f.add(c.number, p) {
			o.drops.add(DropTooLarge, 1)
		}
	}
	if len(f.list) > 0 {
		if err := o.sendHop(relay, f.list); first == nil {
			first = err
		}
	}
	return first
}

// retried returns what is left of an error of the sockets when the notice that they have switched off UDP GSO and
// sent again without it is taken away.
func retried(err error) error {
	if err == nil {
		return nil // before the variable below, which is allocated
	}
	var gso conn.ErrUDPGSODisabled
	if errors.As(err, &gso) {
		return gso.RetryErr
	}
	return err
}

// isCookieReply reports whether p is what WireGuard answers to unproven sources when it is under load.
func isCookieReply(p []byte) bool {
	return len(p) == device.MessageCookieReplySize && p[0] == device.MessageCookieReplyType
}
