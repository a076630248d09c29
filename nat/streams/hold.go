package streams

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"warren/mesh/identity"
	"warren/nat/limit"
	"warren/nat/stream"
	"warren/tunnel/bind"
)

// The streams themselves: those that this node dials, and those that others open to it.

const (
	dialTime = 10 * time.Second
	// endedFor is how long a stream that ended is remembered: a session by it would notice by itself after 40 s.
	endedFor = 45 * time.Second
)

// held are the streams that there are.
type held struct {
	dialled map[identity.NodeID]*dialled
	// accepted are those that each member has opened, oldest first: whoever races addresses has several for a moment, and hangs up on all
	// but one, in any order. Each goes when it has ended itself, and with no other. Bounded by what the server lets a member have.
	accepted map[identity.NodeID][]end
	// gone are the streams that ended lately, by virtual address, which are never used again. That a session went by one of
	// them may be told after its end. Bounded by what the server accepts within endedFor.
	gone map[netip.AddrPort]time.Time
}

// end is a stream as the socket and as the network know it.
type end struct {
	End
	local netip.Addr // of TCP
}

// dialled is a stream that the machine has asked for.
type dialled struct {
	serial  uint64
	end     end // zero: not up
	leaving bool
	cancel  context.CancelFunc // of the dialling and the stream
}

// news says that a stream is up or has ended. Those that were accepted have no serial number.
type news struct {
	Ref
	end end
	up  bool
	err error // why it is not up
}

func newHeld() held {
	return held{
		dialled: make(map[identity.NodeID]*dialled), accepted: make(map[identity.NodeID][]end), gone: make(map[netip.AddrPort]time.Time),
	}
}

// get returns a stream that was dialled, or nil when it was closed or replaced meanwhile.
func (h *held) get(ref Ref) *dialled {
	if d := h.dialled[ref.ID]; d != nil && d.serial == ref.Serial {
		return d
	}
	return nil
}

// end notes that a stream has ended.
func (h *held) end(now time.Time, e end) {
	for virtual, at := range h.gone {
		if now.Sub(at) > endedFor {
			delete(h.gone, virtual)
		}
	}
	if e.Virtual.IsValid() {
		h.gone[e.Virtual] = now
	}
}

// ended reports whether an address is that of a stream which is no more.
func (h *held) ended(virtual netip.AddrPort) bool {
	_, gone := h.gone[virtual]
	return gone
}

// accept notes that a member has opened a stream.
func (h *held) accept(id identity.NodeID, e end) { h.accepted[id] = append(h.accepted[id], e) }

// hungUp notes that a stream which a member had opened has ended.
func (h *held) hungUp(now time.Time, id identity.NodeID, e end) {
	h.accepted[id] = slices.DeleteFunc(h.accepted[id], func(other end) bool { return other.Virtual == e.Virtual })
	if len(h.accepted[id]) == 0 {
		delete(h.accepted, id)
	}
	h.end(now, e)
}

// ends returns one stream for each member with which one is up: that which was dialled; of those that the member has opened that by
// which its session goes, else the newest, since what it has left behind may never be told to have ended.
func (h *held) ends(sessions map[identity.NodeID]Session) map[identity.NodeID]End {
	out := make(map[identity.NodeID]End, len(h.accepted)+len(h.dialled))
	for id, list := range h.accepted {
		best := list[len(list)-1]
		for _, e := range list {
			if e.Virtual == sessions[id].Remote {
				best = e
			}
		}
		out[id] = best.End
	}
	for id, d := range h.dialled {
		if d.end.Virtual.IsValid() {
			out[id] = d.end.End
		}
	}
	return out
}

// targets returns the addresses at which sessions are to be dialled through streams.
func (h *held) targets() map[identity.NodeID]netip.AddrPort {
	out := make(map[identity.NodeID]netip.AddrPort)
	for id, d := range h.dialled {
		if d.end.Virtual.IsValid() && !d.leaving {
			out[id] = d.end.Virtual
		}
	}
	return out
}

func endOf(virtual netip.AddrPort, c net.Conn, accepted bool) end {
	plain := func(a net.Addr) netip.AddrPort {
		if tcp, ok := a.(*net.TCPAddr); ok {
			return netip.AddrPortFrom(tcp.AddrPort().Addr().Unmap(), tcp.AddrPort().Port())
		}
		return netip.AddrPort{}
	}
	return end{End: End{Virtual: virtual, Remote: plain(c.RemoteAddr()), Accepted: accepted}, local: plain(c.LocalAddr()).Addr()}
}

// open begins a stream.
func (l *loop) open(ctx context.Context, ref Ref) {
	ctx, cancel := context.WithCancel(ctx)
	l.held.dialled[ref.ID] = &dialled{serial: ref.Serial, cancel: cancel}
	var addrs []netip.AddrPort
	for _, a := range l.want.Anchors {
		if a.ID == ref.ID {
			addrs = l.want.streamAddrs(a)
		}
	}
	l.holder.work.Go(func() { l.holder.hold(ctx, ref, addrs) })
}

// streamAddrs are where streams to an anchor are dialled: where it says, or where it most likely is.
func (d *Desired) streamAddrs(a Anchor) []netip.AddrPort {
	if out := d.counting(a.TCP); len(out) > 0 {
		return out
	}
	return stream.Guess(d.counting(a.UDP))
}

// holder dials and takes over streams, and holds each in a goroutine until it ends. What comes of them it leaves in the
// inbox. It is the server's Taker.
type holder struct {
	// constant
	client Client
	socket Socket
	inbox  *inbox
	log    *slog.Logger

	work sync.WaitGroup // the goroutines that hold a stream
}

// hold keeps one stream, from the dial to its end. ctx ends both.
func (h *holder) hold(ctx context.Context, ref Ref, addrs []netip.AddrPort) {
	last := news{Ref: ref}
	defer func() { h.inbox.tell(last) }()
	dial, stop := context.WithTimeout(ctx, dialTime)
	defer stop()
	c, err := h.client.Dial(dial, ref.ID, addrs)
	if err != nil {
		if ctx.Err() == nil {
			last.err = err
		}
		return
	}
	virtual, done, err := h.socket.Attach(c, bind.StreamOptions{})
	if err != nil {
		c.Close()
		h.log.Warn("stream not attached", "id", ref.ID.Short(), "error", err)
		return
	}
	h.inbox.tell(news{Ref: ref, end: endOf(virtual, c, false), up: true})
	select {
	case <-done:
	case <-ctx.Done():
		h.socket.Detach(virtual)
		<-done
	}
}

// PortsChanged implements stream.Taker.
func (h *holder) PortsChanged() { h.inbox.poke() }

// Accept implements stream.Taker.
func (h *holder) Accept(from identity.NodeID, c net.Conn) (<-chan struct{}, error) {
	virtual, done, err := h.socket.Attach(c, bind.StreamOptions{QUICOnly: from.IsZero()})
	if err != nil || from.IsZero() {
		return done, err
	}
	n := news{Ref: Ref{ID: from}, end: endOf(virtual, c, true), up: true}
	h.inbox.tell(n)
	h.work.Go(func() { // ends with the stream, which the server ends at the latest with itself
		<-done
		n.up = false
		h.inbox.tell(n)
	})
	return done, nil
}

func (l *loop) streamChanged(ctx context.Context, n news) {
	if n.Serial == 0 {
		l.streamAccepted(n)
	} else {
		l.streamDialled(ctx, n)
	}
}

func (l *loop) streamAccepted(n news) {
	if n.up {
		if skipped, due := l.accepted.Due(time.Now(), limit.Host(n.end.Remote.Addr())); due { // strangers can cause it
			l.log.Info("stream accepted", "id", n.ID.Short(), "address", n.end.Remote.String(), "skipped", skipped)
		}
		l.held.accept(n.ID, n.end)
		return
	}
	l.held.hungUp(time.Now(), n.ID, n.end)
}

func (l *loop) streamDialled(ctx context.Context, n news) {
	d := l.held.get(n.Ref) // nil: it was closed meanwhile, and ends by itself
	switch {
	case n.up && d != nil:
		l.log.Info("stream up", "id", n.ID.Short(), "address", n.end.Remote.String())
		d.end = n.end
		l.tally.trouble = ""
		delete(l.tally.refusals, n.ID)
		l.step(ctx, StreamUp{Ref: n.Ref})
	case !n.up:
		if d != nil {
			delete(l.held.dialled, n.ID)
			d.cancel()
			l.held.end(time.Now(), d.end)
		}
		if n.err != nil {
			l.streamFailed(n.ID, n.err)
		}
		l.step(ctx, StreamDown{Ref: n.Ref})
	}
}

// streamFailed notes why a stream did not come up. Where no UDP gets through, an anchor's no is heard only here.
func (l *loop) streamFailed(id identity.NodeID, err error) {
	l.log.Debug("stream not up", "id", id.Short(), "error", err)
	l.tally.trouble = strings.ReplaceAll(err.Error(), "\n", "; ")
	if proxy, ok := errors.AsType[*stream.ProxyError](err); ok {
		l.tally.trouble = proxy.Error() // the same for all addresses
	}
	no, ok := errors.AsType[*stream.Refusal](err)
	if !ok {
		return
	}
	now, before := time.Now(), l.tally.refusals[id]
	refusal := Refusal{Code: no.Code, Reason: no.Reason, At: before.At, Proof: before.Proof, Proved: before.Proved}
	if len(no.Proof) > 0 {
		refusal.Proof, refusal.Proved = no.Proof, now
	}
	if before.At.IsZero() || before.Code != no.Code {
		refusal.At = now
		l.log.Warn("stream refused", "id", id.Short(), "reason", no.Reason)
	}
	l.tally.refusals[id] = refusal
}
