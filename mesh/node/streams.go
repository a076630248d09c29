package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session"
	"warren/nat"
	"warren/nat/stream"
	"warren/nat/streams"
	"warren/tunnel/bind"
)

/* Streams
 *
 * Where UDP is blocked, datagrams go over TLS streams to anchors (package stream). The machine of package streams, stepped by the loop,
 * says when; what it wants is done here. A stream is an address of the socket like any other, so that a session, what
 * is relayed, and the tunnel to the anchor itself only have to be told to go there:
 *
 *	machine ── OpenStream ──► dial, attach ── news ──► loop: StreamUp, the address first among the session's targets
 *	anchor:                   accept, attach ── news ──► loop: the tunnel to that member may go there
 */

const streamDialTime = 10 * time.Second

// streaming is what a member keeps of its streams.
type streaming struct {
	// constant
	server *stream.Server
	client *stream.Client
	orders chan streamOrder
	signs  *udpSigns

	// atomic
	listening atomic.Bool // streams are to be accepted

	// owned by the loop
	machine  *streams.Machine
	timer    *time.Timer // pokes the signs
	wake     time.Time   // of the machine
	anchors  []identity.NodeID
	udp      map[identity.NodeID]bool // anchors with a session by UDP, as the machine was told
	attempts map[identity.NodeID]int  // of dialling anchors by UDP, as the machine was told
	seen     time.Time                // when attempts were looked at
	dialled  map[identity.NodeID]*dialledStream
	accepted map[identity.NodeID]streamEnd
	leave    []identity.NodeID // sessions to be ended once the targets are without their streams
	trouble  string            // why the last stream did not come up
}

// streamEnd is a stream as the socket and as the network know it.
type streamEnd struct {
	virtual netip.AddrPort
	remote  netip.AddrPort // of TCP
	local   netip.Addr     // of TCP
}

// dialledStream is a stream that the machine has asked for.
type dialledStream struct {
	serial  uint64
	end     streamEnd // zero: not up
	leaving bool
	cancel  context.CancelFunc
}

// streamOrder asks for a stream to be dialled; ctx ends the dialling and the stream.
type streamOrder struct {
	ref   streams.Ref
	addrs []netip.AddrPort
	ctx   context.Context
}

// streamNews says that a stream is up or has ended. Those that were accepted have no serial number.
type streamNews struct {
	streams.Ref
	end streamEnd
	up  bool
	err error // why it is not up
}

func newStreaming() *streaming {
	s := &streaming{
		orders: make(chan streamOrder, 64), signs: newUDPSigns(), machine: streams.NewMachine(rand.Float64),
		udp: make(map[identity.NodeID]bool), attempts: make(map[identity.NodeID]int),
		dialled: make(map[identity.NodeID]*dialledStream), accepted: make(map[identity.NodeID]streamEnd),
	}
	s.timer = time.AfterFunc(time.Hour, s.signs.poke)
	return s
}

// to returns the stream that leads to or from a member.
func (s *streaming) to(id identity.NodeID) streamEnd {
	if d := s.dialled[id]; d != nil && d.end.virtual.IsValid() {
		return d.end
	}
	return s.accepted[id]
}

// ends returns all streams that are up.
func (s *streaming) ends() map[identity.NodeID]streamEnd {
	out := make(map[identity.NodeID]streamEnd, len(s.accepted)+len(s.dialled))
	for id := range s.accepted {
		out[id] = s.to(id)
	}
	for id, d := range s.dialled {
		if d.end.virtual.IsValid() {
			out[id] = d.end
		}
	}
	return out
}

// targets returns the addresses at which sessions are to be dialled through streams.
func (s *streaming) targets() map[identity.NodeID]netip.AddrPort {
	out := make(map[identity.NodeID]netip.AddrPort)
	for id, d := range s.dialled {
		if d.end.virtual.IsValid() && !d.leaving {
			out[id] = d.end.virtual
		}
	}
	return out
}

// assembleStreams makes the two sides of streams.
func (m *member) assembleStreams(n *node) (err error) {
	m.streams = newStreaming()
	members := streamMembers{m}
	m.streams.client = stream.NewClient(stream.ClientOptions{Members: members})
	m.streams.server, err = stream.New(stream.Options{Members: members, Joins: true, Logger: n.options.Logger})
	return err
}

// streamMembers is what the two sides of streams ask.
type streamMembers struct{ *member }

func (m streamMembers) Credential() tls.Certificate { return m.credential() }

func (m streamMembers) Verify(chain []*x509.Certificate) (identity.NodeID, error) {
	return m.verifyStream(chain)
}

// streamTaker takes over what the server accepts.
type streamTaker struct{ *member }

func (m streamTaker) PortsChanged() { m.streams.signs.poke() }

// Accept is called by the server for each stream of a member or a joiner.
func (m streamTaker) Accept(from identity.NodeID, c net.Conn) (<-chan struct{}, error) {
	virtual, done, err := m.socket.AttachStream(c, bind.StreamOptions{QUICOnly: from.IsZero()})
	if err != nil || from.IsZero() {
		return done, err
	}
	news := streamNews{Ref: streams.Ref{ID: from}, end: endOf(virtual, c), up: true}
	m.streams.signs.tell(news)
	go func() { // ends with the stream, which the server ends at the latest with itself
		<-done
		news.up = false
		m.streams.signs.tell(news)
	}()
	return done, nil
}

func endOf(virtual netip.AddrPort, c net.Conn) streamEnd {
	plain := func(a net.Addr) netip.AddrPort {
		if tcp, ok := a.(*net.TCPAddr); ok {
			return netip.AddrPortFrom(tcp.AddrPort().Addr().Unmap(), tcp.AddrPort().Port())
		}
		return netip.AddrPort{}
	}
	return streamEnd{virtual: virtual, remote: plain(c.RemoteAddr()), local: plain(c.LocalAddr()).Addr()}
}

// dialStreams dials what is ordered until ctx ends, and ends those streams then.
func (m *member) dialStreams(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case o := <-m.streams.orders:
			work.Go(func() { m.dialStream(ctx, o) })
		}
	}
}

// dialStream holds one stream, from the dial to its end.
func (m *member) dialStream(ctx context.Context, o streamOrder) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(o.ctx, cancel)()
	last := streamNews{Ref: o.ref}
	defer func() { m.streams.signs.tell(last) }()
	dial, stop := context.WithTimeout(ctx, streamDialTime)
	defer stop()
	c, err := m.streams.client.Dial(dial, o.ref.ID, o.addrs)
	if err != nil {
		if ctx.Err() == nil {
			last.err = err
		}
		return
	}
	virtual, done, err := m.socket.AttachStream(c, bind.StreamOptions{})
	if err != nil {
		c.Close()
		m.log.Warn("stream not attached", "peer", m.nameOf(o.ref.ID), "error", err)
		return
	}
	m.streams.signs.tell(streamNews{Ref: o.ref, end: endOf(virtual, c), up: true})
	select {
	case <-done:
	case <-ctx.Done():
		m.socket.DetachStream(virtual)
		<-done
	}
}

func (m *member) streamAccepted(n streamNews) {
	switch {
	case n.up:
		m.log.Info("stream accepted", "peer", m.nameOf(n.ID), "address", n.end.remote.String())
		m.streams.accepted[n.ID] = n.end
		m.nat.Check(n.ID)
	default:
		if m.streams.accepted[n.ID] == n.end {
			delete(m.streams.accepted, n.ID)
		}
		m.streamLost(n.ID, n.end)
	}
}

func (m *member) streamDialled(n streamNews) {
	d := m.streams.dialled[n.ID]
	known := d != nil && d.serial == n.Serial // else it was closed meanwhile, and ends by itself
	switch {
	case n.up && known:
		m.log.Info("stream up", "peer", m.nameOf(n.ID), "address", n.end.remote.String())
		d.end = n.end
		m.streams.trouble = ""
		m.stream(streams.StreamUp{Ref: n.Ref})
	case !n.up:
		if known {
			delete(m.streams.dialled, n.ID)
			d.cancel()
			m.streamLost(n.ID, d.end)
		}
		if n.err != nil {
			m.streamFailed(n.ID, n.err)
		}
		m.stream(streams.StreamDown{Ref: n.Ref})
	}
}

// streamFailed notes why a stream did not come up. Where no UDP gets through, an anchor's no is heard only here.
func (m *member) streamFailed(id identity.NodeID, err error) {
	m.log.Debug("stream not up", "peer", m.nameOf(id), "error", err)
	m.streams.trouble = strings.ReplaceAll(err.Error(), "\n", "; ")
	if proxy, ok := errors.AsType[*stream.ProxyError](err); ok {
		m.streams.trouble = proxy.Error() // the same for all addresses
	}
	if no, ok := errors.AsType[*stream.Refusal](err); ok {
		m.refuse(sessionEvent{ID: id, Code: uint64(no.Code), Reason: no.Reason})
	}
}

// streamLost ends the session that went over a stream which is no more: it would take 40 s to notice.
func (m *member) streamLost(id identity.NodeID, end streamEnd) {
	if s, up := m.up[id]; up && end.virtual.IsValid() && s.remote == end.virtual {
		m.sessions.Drop(id, session.CodeLost, "its stream ended")
	}
}

func (m *member) openStream(ref streams.Ref) {
	ctx, cancel := context.WithCancel(context.Background())
	m.streams.dialled[ref.ID] = &dialledStream{serial: ref.Serial, cancel: cancel}
	select {
	case m.streams.orders <- streamOrder{ref: ref, addrs: m.streamAddrs(ref.ID), ctx: ctx}:
	default: // the machine tries again
		m.streams.signs.tell(streamNews{Ref: ref})
	}
}

// udpAddrs are where an anchor to which streams may lead is asked by UDP: its endpoints, and where it was met before.
func (m *member) udpAddrs(id identity.NodeID) (out []netip.AddrPort) {
	if other, ok := m.mesh.View().Member(id); ok {
		out = m.streams.signs.counting(other.Record.Endpoints)
	}
	for _, c := range m.contacts.Snapshot() {
		if c.ID == id && m.streams.signs.counts(c.Addr.Addr()) && !slices.Contains(out, c.Addr) {
			out = append(out, c.Addr)
		}
	}
	return out
}

// streamAddrs are where streams to an anchor are dialled: where it says, or where it most likely is.
func (m *member) streamAddrs(id identity.NodeID) []netip.AddrPort {
	if other, ok := m.mesh.View().Member(id); ok {
		if out := m.streams.signs.counting(other.Record.Streams); len(out) > 0 {
			return out
		}
	}
	return stream.Guess(m.udpAddrs(id))
}

// followStreams moves the tunnels of the peers to which a stream leads, and back.
func (m *member) followStreams() {
	state, _, _ := m.streams.machine.State()
	blocked := state == streams.Blocked || state == streams.Returning
	changed := false
	for id, p := range m.peers {
		end := m.streams.to(id)
		wanted := blocked
		if end == m.streams.accepted[id] {
			// Whoever opened a stream to this node may take UDP to be blocked, and is the one to know: its session tells.
			wanted = m.speaksBy(id, end.virtual)
		}
		prefer := end.virtual.IsValid() && wanted && (p.path.Kind == nat.Relayed || m.streams.signs.counts(p.path.Addr.Addr()))
		if end == p.stream && prefer == p.preferStream {
			continue
		}
		changed = true
		before := p.way()
		opened := end != p.stream && end.virtual.IsValid()
		p.stream, p.preferStream = end, prefer
		p.endpoint.SetSources(p.allSources())
		// Whoever opens a stream may have started anew and lost its keys.
		m.moveTo(p, before, m.self.Compare(id) < 0, opened && p.way() == end.virtual)
		if bind.IsStream(before.Addr()) && !bind.IsStream(p.way().Addr()) {
			m.nat.Check(id) // nat saw no traffic by which to watch the path
		}
	}
	if changed {
		m.publishRoutes()
	}
}

// speaksBy reports whether a member's session goes by a stream, or may be about to since it has none. A peer that has left a
// stream, or never used it, goes on speaking by UDP; the end of the stream may be told late or never.
func (m *member) speaksBy(id identity.NodeID, stream netip.AddrPort) bool {
	s, up := m.up[id]
	return !up || s.remote == stream
}

// usesStream reports whether packets for a peer go by a stream. It may be called from any goroutine.
func (m *member) usesStream(id identity.NodeID) bool {
	e := m.routes.Load().endpoints[id]
	return e != nil && bind.IsStream(e.Path().Addr())
}
