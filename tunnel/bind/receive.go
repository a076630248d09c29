package bind

import (
	"net/netip"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

/* A packet's way in
 *
 * 1. The sockets' receive function, or that of the streams (streamin.go), fills a batch.
 * 2. Each packet is classified by its first bytes.
 * 3. ChannelData is unwrapped in place and classified again, or set aside for forwarding.
 * 4. STUN, QUIC and letters are copied to their lanes.
 * 5. WireGuard stays in the batch, with the endpoint object of its source; all else gets size 0, which the device skips.
 * 6. What is to be forwarded goes to the forwarder's batch (forward.go).
 *
 * Nothing here waits or calls the device: it holds a lock while it waits for these functions to return.
 */

// receiver is the state of one receive function. Only the one goroutine that calls the function touches it.
type receiver struct {
	// constant
	bind    *Bind
	next    conn.ReceiveFunc
	forward *forwarder

	// the last-address caches: packets come in runs from one source
	generation uint64
	source     netip.AddrPort
	endpoint   *Endpoint
	known      bool
	routes     *map[Half]route
	half       Half
	route      route

	// the current run of packets from one source, counted together
	runFrom           netip.AddrPort
	run               *Endpoint
	runPackets, runSz int

	todo []pending
}

func (r *receiver) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	n, err := r.next(bufs, sizes, eps)
	if err != nil {
		return n, err
	}
	if g := r.bind.sources.generation.Load(); g != r.generation {
		r.generation, r.source = g, netip.AddrPort{}
	}
	if routes := r.bind.routes.table.Load(); routes != r.routes {
		r.routes, r.half = routes, Half{}
	}
	now := nanos()
	for i := range n {
		if sizes[i] > 0 {
			sizes[i] = r.sort(bufs[i][:sizes[i]], &eps[i], now)
		}
	}
	r.endRun(now)
	if len(r.todo) > 0 {
		r.forward.enqueue(r.todo)
		r.todo = r.todo[:0]
	}
	return n, nil
}

// sort deals with one packet and returns how many bytes of p are WireGuard's.
func (r *receiver) sort(p []byte, ep *conn.Endpoint, now int64) int {
	if _, handed := (*ep).(*Endpoint); handed {
		return r.answer(p, ep) // of no socket: see carried.go
	}
	std, ok := (*ep).(*conn.StdNetEndpoint)
	if !ok {
		r.bind.drops.add(DropUnknown, 1)
		return 0
	}
	src := normal(std.AddrPort)
	switch Classify(p) {
	case WireGuard:
		if std.AddrPort != src { // that of a stream is shared
			std.AddrPort = src
		}
		return r.wireGuard(p, src, ep, now)
	case STUN:
		r.bind.stun.push(p, src)
	case QUIC:
		r.bind.quic.push(p, src)
	case Letter:
		r.bind.letters.push(p, src)
	case ChannelData:
		return r.channelData(p, src, ep, now)
	case MalformedSTUN:
		r.bind.drops.add(DropMalformedSTUN, 1)
	default:
		r.bind.drops.add(DropUnknown, 1)
	}
	return 0
}

// wireGuard puts the endpoint object of the packet's source in place. A source that is nobody's keeps the plain
// endpoint it came with, and gets one if it came with none: if the packet is authentic, the peer has roamed there. It returns the length of p, or
// 0 if the device is not to see it.
func (r *receiver) wireGuard(p []byte, src netip.AddrPort, ep *conn.Endpoint, now int64) int {
	if src != r.source {
		r.source = src
		r.endpoint, r.known = r.bind.sources.lookup(src)
	}
	if r.endpoint == nil {
		if *ep == nil {
			*ep = &conn.StdNetEndpoint{AddrPort: src}
		}
		return r.answer(p, ep)
	}
	*ep = r.endpoint
	if r.run != r.endpoint || r.runFrom != src {
		r.endRun(now)
		r.run, r.runFrom = r.endpoint, src
	}
	r.runPackets++
	r.runSz += len(p)
	if p[0] == device.MessageTransportType {
		return len(p)
	}
	if r.endpoint.yields(p, now) {
		r.bind.drops.add(DropCrossed, 1)
		return 0
	}
	if isInitiation(p) {
		if response := r.endpoint.carried.again(p, now); response != nil {
			// Counted by nobody: the device does not know of it. Its error is a lost packet's.
			_ = r.bind.out.sendBy(r.bind.resolve(src), [][]byte{response})
			return 0
		}
	}
	return r.answer(p, ep)
}

// answer returns the length of p, or 0 if it is a response that must not reach the device any more.
func (r *receiver) answer(p []byte, ep *conn.Endpoint) int {
	if isResponse(p) && !r.bind.answers.admit(p, ep) {
		r.bind.drops.add(DropCrossed, 1)
		return 0
	}
	return len(p)
}

func (r *receiver) endRun(now int64) {
	if r.run != nil {
		r.run.received(r.runFrom, r.runPackets, r.runSz, now)
	}
	r.run, r.runPackets, r.runSz = nil, 0, 0
}

// channelData deals with one ChannelData message and returns how many bytes of p are WireGuard's afterwards.
func (r *receiver) channelData(p []byte, src netip.AddrPort, ep *conn.Endpoint, now int64) int {
	half := Half{src, uint16(p[0])<<8 | uint16(p[1])}
	if half != r.half {
		r.half, r.route = half, (*r.routes)[half]
	}
	payload := p[channelHeaderSize:][:channelLength(p)]
	switch {
	case r.route.forward != nil:
		// The buffer is ours until this call returns, and enqueue copies.
		r.todo = append(r.todo, pending{r.route.forward, payload})
	case r.route.own != nil:
		virtual := r.route.own.virtual
		switch Classify(payload) {
		case WireGuard:
			size := copy(p, payload)
			*ep = nil
			return r.wireGuard(p[:size], virtual, ep, now)
		case STUN:
			r.bind.stun.push(payload, virtual)
		case MalformedSTUN:
			r.bind.drops.add(DropMalformedSTUN, 1)
		default:
			r.bind.drops.add(DropNested, 1)
		}
	default:
		r.bind.drops.add(DropUnknownChannel, 1)
	}
	return 0
}
