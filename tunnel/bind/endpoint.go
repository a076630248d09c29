package bind

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

// crossing is how long an initiation of ours goes before the peer's: longer than a packet takes anywhere on earth, and little
// against the five seconds after which WireGuard would repeat it. What seems to be an answer does not shorten it: anybody can send
// that.
const crossing = 500 * time.Millisecond

const (
	// stirAfter is the pause after which a packet is told of: whoever watches the path had nothing to see before.
	stirAfter  = time.Second
	stirBuffer = 1024
)

// Endpoint is how one mesh peer is spoken to. The WireGuard device holds the same object for as long as it
// has the peer; what changes is the path inside it, moved by SetPath and by nothing that is received. It
// implements conn.Endpoint. All methods may be called at any time by anyone.
//
// Without a path, WireGuard's newest handshake initiation is held if this side is controlling, and leaves the
// moment a path comes: WireGuard would repeat it only after five seconds. Meanwhile introductions can carry the handshake (carried.go).
type Endpoint struct {
	// constant after Bind.NewEndpoint
	bind        *Bind
	handle      netip.AddrPort
	handleBytes []byte
	checker     device.CookieChecker // knows the peer's key: finds handshakes that are meant for another peer

	// atomic
	path  atomic.Pointer[path]
	heard atomic.Pointer[netip.AddrPort] // where the peer spoke from while there was no path
	began atomic.Int64                   // the moment of our last initiation, if controlling; 0: none
	tx    traffic
	rx    traffic
	// elsewhere are the bytes of rx that did not come by the path.
	elsewhere atomic.Uint64

	witness witness // has a lock of its own
	carried Carried // the same, taken with mu held too

	// guarded by mu
	mu          sync.Mutex
	past        []netip.AddrPort
	sources     []netip.AddrPort
	controlling bool
	removed     bool
}

var _ conn.Endpoint = (*Endpoint)(nil)

// path is an immutable way to send: direct, or wrapped for a relay.
type path struct {
	addr    netip.AddrPort
	direct  *conn.StdNetEndpoint
	hop     *hop     // for a stream's addr
	channel *channel // for a channel's addr; nil if it is not open
}

// traffic counts one direction.
type traffic struct {
	packets, bytes atomic.Uint64
	last           atomic.Int64 // a moment
}

func (t *traffic) add(packets, bytes int, now int64) {
	t.packets.Add(uint64(packets))
	t.bytes.Add(uint64(bytes))
	if now != 0 {
		t.last.Store(now)
	}
}

// Activity says what WireGuard packets an endpoint has carried. Bytes are UDP payload without the relay's header.
type Activity struct {
	TxPackets, TxBytes uint64
	RxPackets, RxBytes uint64
	LastTx             time.Time // zero: never
	// LastRx is that of the last one received by the current path; other sources count in RxPackets only. Anybody can send
	// what looks like it, see Endpoint.Vouched.
	LastRx time.Time
}

// Carried are the peer's handshakes that need no path. Every call returns the same.
func (e *Endpoint) Carried() *Carried { return &e.carried }

// Handle returns the address to give to WireGuard as the peer's endpoint: a virtual one by which the device finds
// this object. It never changes.
func (e *Endpoint) Handle() netip.AddrPort { return e.handle }

// Path returns the current path; zero if there is none.
func (e *Endpoint) Path() netip.AddrPort {
	if p := e.path.Load(); p != nil {
		return p.addr
	}
	return netip.AddrPort{}
}

// SetPath moves the peer to an underlay address, or to a relay channel or stream by its virtual address; zero means
// that there is no path. Packets from the few paths before still count as the peer's, so that one that is late
// cannot make WireGuard roam back. It reports whether a handshake initiation was held and has left by the new
// path: then none has to be started, and a second one right after it would be taken for a flood.
func (e *Endpoint) SetPath(addr netip.AddrPort) (flushed bool) {
	var next *path
	if addr.IsValid() {
		next = e.bind.resolve(normal(addr))
	}
	e.mu.Lock()
	if e.removed {
		e.mu.Unlock()
		return false
	}
	if last := e.path.Load(); last != nil && (next == nil || last.addr != next.addr) {
		e.rememberLocked(last.addr)
	}
	e.path.Store(next)
	e.heard.Store(nil)
	e.claimLocked()
	var flush []byte
	var kept [][]byte
	if next != nil {
		flush, kept = e.carried.take(time.Now())
	}
	e.mu.Unlock()
	if flush != nil {
		e.transmit([][]byte{flush})
	}
	if kept != nil {
		for batch := range slices.Chunk(kept, e.bind.BatchSize()) {
			e.transmit(batch)
		}
	}
	return flush != nil
}

// Remember takes an address from which the device has authenticated a packet of the peer for one like those of the few paths before:
// what comes from there cannot make WireGuard roam any more. Two streams with one peer, one dialled by each side, are such.
func (e *Endpoint) Remember(addr netip.AddrPort) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.removed || !addr.IsValid() {
		return
	}
	e.rememberLocked(normal(addr))
	e.claimLocked()
}

// rememberLocked makes an address the youngest of the past ones. The caller holds mu.
func (e *Endpoint) rememberLocked(addr netip.AddrPort) {
	e.past = slices.DeleteFunc(e.past, func(a netip.AddrPort) bool { return a == addr })
	e.past = append(e.past, addr)
	e.past = e.past[max(0, len(e.past)-maxPast):]
}

// SetSources names further addresses whose WireGuard packets are this peer's. They ought to be proved by an
// authenticated check: a peer that claims another's address would receive what is meant for it until that one
// has a path. At most 32 are kept.
func (e *Endpoint) SetSources(addrs []netip.AddrPort) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.removed {
		return
	}
	e.sources = e.sources[:0]
	for _, a := range addrs[:min(len(addrs), maxSources)] {
		if a.IsValid() {
			e.sources = append(e.sources, normal(a))
		}
	}
	e.claimLocked()
}

// claimLocked enters the peer's addresses into the source table. The caller holds mu.
func (e *Endpoint) claimLocked() {
	want := make(map[netip.AddrPort]rank, len(e.past)+len(e.sources)+1)
	for _, a := range e.past {
		want[a] = rankPast
	}
	for _, a := range e.sources {
		want[a] = rankSource
	}
	if p := e.path.Load(); p != nil {
		want[p.addr] = rankPath
	}
	e.bind.sources.set(e, want)
}

// SetControlling says whether this side has the first word in the WireGuard handshake. If both had it, every
// third pair would lose five seconds to two handshakes crossing: each consumes the other's initiation and with it
// forgets its own. So the controlling side holds its initiation for the path, the other does not; and of two that
// cross all the same, the controlling side's goes on and the other is dropped.
func (e *Endpoint) SetControlling(controlling bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.controlling = controlling
	if !controlling {
		e.carried.drop()
	}
	e.began.Store(0)
}

// yields reports whether a handshake message that was received must not reach the device, since it would undo our own
// initiation.
func (e *Endpoint) yields(p []byte, now int64) bool {
	return p[0] == device.MessageInitiationType && now-e.began.Load() < int64(crossing)
}

// Activity returns the counters.
func (e *Endpoint) Activity() Activity {
	return Activity{
		TxPackets: e.tx.packets.Load(), TxBytes: e.tx.bytes.Load(), LastTx: timeOf(e.tx.last.Load()),
		RxPackets: e.rx.packets.Load(), RxBytes: e.rx.bytes.Load(), LastRx: timeOf(e.rx.last.Load()),
	}
}

// send carries WireGuard packets to the peer. A handshake that is meant for another peer (two of them have changed
// places behind one NAT, and the device took this object from a packet that came from the old address) goes to
// that one's endpoint.
func (e *Endpoint) send(bufs [][]byte) error {
	if len(bufs) == 1 && isHandshake(bufs[0]) && !e.checker.CheckMAC1(bufs[0]) {
		if other := e.bind.peers.addressee(bufs[0], e); other != nil {
			e.bind.strays.note(other.handle)
			e = other
		}
	}
	return e.transmit(bufs)
}

// transmit sends by the path, or keeps what is worth keeping. Errors of the system are counted and not returned, since
// WireGuard would only log them, once per packet for as long as the network is away.
func (e *Endpoint) transmit(bufs [][]byte) error {
	if e.carried.keyed.Load() != nil && isTransport(bufs) {
		defer e.carried.sentUnderKeys() // once they have left, or wait
	}
	switch {
	case len(bufs) != 1:
	case isInitiation(bufs[0]):
		e.bind.answers.begun(e, bufs[0])
	case isResponse(bufs[0]):
		e.carried.crossed()
		if e.carried.capture(bufs[0]) && e.path.Load() == nil && e.heard.Load() == nil {
			return nil // it is carried, and needs no path
		}
	}
	p := e.path.Load()
	if p == nil {
		if p = e.keep(bufs); p == nil {
			return nil
		}
	}
	now := nanos()
	if len(bufs) == 1 && isInitiation(bufs[0]) {
		e.begin(now)
	}
	size := 0
	for _, buf := range bufs {
		size += len(buf)
	}
	if now-e.tx.last.Load() >= int64(stirAfter) {
		select {
		case e.bind.stirs <- e.handle:
		default:
		}
	}
	e.tx.add(len(bufs), size, now)
	return e.bind.out.sendBy(p, bufs)
}

// begin notes that an initiation of ours leaves.
func (e *Endpoint) begin(now int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.controlling {
		e.began.Store(now)
	}
}

// keep deals with packets for which there was no path a moment ago. If one has come, or the peer has just spoken to us
// from a known source and this is the answer, it returns the way to send them.
func (e *Endpoint) keep(bufs [][]byte) *path {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.path.Load(); p != nil {
		return p
	}
	if len(bufs) == 1 && isInitiation(bufs[0]) {
		if e.controlling && !e.removed {
			e.carried.hold(bufs[0])
		} else {
			e.bind.drops.add(DropNotOurTurn, 1)
		}
		return nil
	}
	if heard := e.heard.Load(); heard != nil && !e.removed {
		return e.bind.resolve(*heard)
	}
	if isTransport(bufs) && !e.removed {
		if kept, lost := e.carried.keep(bufs, time.Now()); kept {
			e.bind.drops.add(DropNoPath, lost)
			return nil
		}
	}
	e.bind.drops.add(DropNoPath, len(bufs))
	return nil
}

// received counts packets that came from the peer at src.
func (e *Endpoint) received(src netip.AddrPort, packets, bytes int, now int64) {
	switch p := e.path.Load(); {
	case p == nil:
		now = 0
		e.elsewhere.Add(uint64(bytes))
		if heard := e.heard.Load(); heard == nil || *heard != src {
			from := src // a copy, so that only this case allocates
			e.heard.Store(&from)
		}
	case p.addr != src:
		now = 0
		e.elsewhere.Add(uint64(bytes))
	}
	e.rx.add(packets, bytes, now)
}

// Removed reports whether the peer was forgotten, by RemoveEndpoint.
func (e *Endpoint) Removed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.removed
}

// remove takes the peer out of the tables for good; the device may go on using the object for a while.
func (e *Endpoint) remove() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.removed = true
	e.carried.remove()
	e.path.Store(nil)
	e.heard.Store(nil)
	e.bind.sources.set(e, nil)
}

// ClearSrc does nothing: local addresses are the system's choice.
func (e *Endpoint) ClearSrc() {}

// SrcToString returns nothing: local addresses are the system's choice.
func (e *Endpoint) SrcToString() string { return "" }

// SrcIP returns nothing: local addresses are the system's choice.
func (e *Endpoint) SrcIP() netip.Addr { return netip.Addr{} }

// DstToString returns the current path, or the handle if there is none, as a numeric ip:port without a zone: what
// `wg show` and wgctrl can parse.
func (e *Endpoint) DstToString() string {
	if p := e.path.Load(); p != nil {
		return p.addr.String()
	}
	return e.handle.String()
}

// DstToBytes returns what WireGuard binds cookies to. It is the peer's handle and not an underlay address, so that
// a cookie outlives a change of path; it still goes only to where the peer is spoken to.
func (e *Endpoint) DstToBytes() []byte { return e.handleBytes }

// DstIP returns what WireGuard limits the rate of handshakes by under load: the handle's address, so that peers behind
// one NAT or relay do not share one allowance.
func (e *Endpoint) DstIP() netip.Addr { return e.handle.Addr() }

// isHandshake reports whether p is a WireGuard initiation or response: the messages whose MAC1 names their addressee.
func isHandshake(p []byte) bool {
	return isInitiation(p) || isResponse(p)
}

// isTransport reports whether a batch is of WireGuard's data messages.
func isTransport(bufs [][]byte) bool {
	return len(bufs) > 0 && len(bufs[0]) > 0 && bufs[0][0] == device.MessageTransportType
}

func isInitiation(p []byte) bool {
	return len(p) == device.MessageInitiationSize && p[0] == device.MessageInitiationType
}
