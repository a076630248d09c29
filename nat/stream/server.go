package stream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"warren/mesh/identity"
	"warren/nat/limit"
)

// relistenFirst and relistenMost are the times between two tries to listen on a port that somebody else has, or that we may not have: it
// may have been a program that restarts. They are doubled.
const (
	relistenFirst = time.Second
	relistenMost  = 20 * time.Second
)

// Options are what a Server needs from its node.
type Options struct {
	// Members is required. Verify is called twice for each stream, so that a revocation that falls between the handshake and
	// Drop is not missed.
	Members Members
	Roster  Roster       // nil: everybody is a member
	Joins   bool         // joiners are let in
	Logger  *slog.Logger // nil: none
}

// Members proves this node to others and tells who is a member. Both methods are called concurrently, without any lock held.
type Members interface {
	// Credential returns the node's chain, leaf first, root last.
	Credential() tls.Certificate
	// Verify checks a member's chain, leaf first, and returns the leaf's node ID. Its error may wrap a Refusal, which a
	// Server gives to the refused node.
	Verify(chain []*x509.Certificate) (identity.NodeID, error)
}

// Roster is what the records say of members. Its methods are called concurrently, without any lock held, and do not wait.
type Roster interface {
	// Member reports whether a node is an active member, which its chain alone does not prove.
	Member(id identity.NodeID) bool
	// Spent reports whether all uses of an invite are taken, as far as the records tell.
	Spent(invite identity.KeyID) bool
}

// everybody is the roster of those who are not told one.
type everybody struct{}

func (everybody) Member(identity.NodeID) bool { return true }
func (everybody) Spent(identity.KeyID) bool   { return false }

// Taker takes over what a Server accepts.
type Taker interface {
	// Accept takes a stream over, from a goroutine of the stream's own. A zero ID is a joiner: its stream is slow, ends after
	// 30 s, and is to carry nothing but QUIC. done closes when the stream has ended and c is closed. With an error c stays
	// the Server's.
	Accept(from identity.NodeID, c net.Conn) (done <-chan struct{}, err error)
	// PortsChanged says, from Run's goroutine, that Ports returns something else than before.
	PortsChanged()
}

// Server accepts streams. See New.
type Server struct {
	// constant after New
	o       Options
	log     *slog.Logger
	tls     *tls.Config
	gate    *gate
	changed chan struct{}
	listen  func(port uint16) (net.Listener, error) // for tests

	lines limit.Lines[netip.Prefix] // of streams that could not be attached

	working sync.WaitGroup // every goroutine of Run but its own

	// guarded by mu
	mu      sync.Mutex
	wanted  []uint16
	ports   map[uint16]error
	streams map[*served]struct{}
	counts  Counts
}

// Counts says what has become of connections.
type Counts struct {
	Accepted uint64 // streams of members
	Joins    uint64 // streams of joiners
	Limited  uint64 // over a rate or a number
	Failed   uint64 // no handshake of ours, or not in time
	Refused  uint64 // no member
}

// served is one stream.
type served struct {
	from  identity.NodeID // zero: a joiner
	conn  net.Conn
	since time.Time
	// patience is how long a stranger has to become a member; zero: it is one. Guarded by mu once the stream is entered.
	patience time.Duration
}

// Port is a port to listen on and how that goes.
type Port struct {
	Port uint16
	Err  error // nil: listening
}

// New returns a server that listens nowhere.
func New(o Options) (*Server, error) {
	if o.Members == nil {
		return nil, errors.New("new stream server: Members is needed")
	}
	if o.Roster == nil {
		o.Roster = everybody{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		o: o, log: o.Logger.With("part", "stream"), gate: newGate(), changed: make(chan struct{}, 1), listen: listenTCP,
		ports: make(map[uint16]error), streams: make(map[*served]struct{}),
	}
	s.tls = s.serverTLS()
	return s, nil
}

func listenTCP(port uint16) (net.Listener, error) {
	return net.Listen("tcp", ":"+strconv.Itoa(int(port)))
}

// serverTLS tells members and joiners apart by their ALPN. Who knows neither gets no further.
func (s *Server) serverTLS() *tls.Config {
	credential := func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		c := s.o.Members.Credential()
		return &c, nil
	}
	member, join := baseTLS(alpnMember), baseTLS(alpnJoin)
	member.GetCertificate, join.GetCertificate = credential, credential
	member.ClientAuth = tls.RequireAnyClientCert // verified in admit, where a refused node can be told why
	outer := member.Clone()
	outer.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		switch {
		case slices.Contains(hello.SupportedProtos, alpnMember):
			return member, nil
		case slices.Contains(hello.SupportedProtos, alpnJoin) && s.o.Joins:
			return join, nil
		}
		return nil, errors.New("protocol not offered")
	}
	return outer
}

// SetPorts says on which ports to listen, on all addresses; none ends listening, not the streams. Repeating it changes
// nothing. A port that cannot be had is tried again after a second, and every 20 s in the end.
func (s *Server) SetPorts(ports ...uint16) {
	s.mu.Lock()
	same := slices.Equal(s.wanted, ports)
	s.wanted = slices.Clone(ports)
	s.mu.Unlock()
	if !same {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
}

// Ports returns the ports that are wanted and have been tried, and why one is not listened on.
func (s *Server) Ports() []Port {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Port
	for _, p := range s.wanted {
		if err, tried := s.ports[p]; tried {
			out = append(out, Port{p, err})
		}
	}
	return out
}

// Counts returns the counters.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

// count adds to one of counts.
func (s *Server) count(which *uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*which++
}

// Drop ends every stream of a member, at once: it was revoked or left.
func (s *Server) Drop(id identity.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.streams {
		if c.from == id {
			s.working.Go(func() { c.conn.Close() }) // says good-bye, which may take a while; its serve still runs
		}
	}
}

// Run listens until ctx ends and gives what it accepts to t; then it closes everything, waits until all streams have ended, and
// returns ctx's error.
func (s *Server) Run(ctx context.Context, t Taker) error {
	open := make(map[uint16]net.Listener)
	retry := time.NewTimer(relistenFirst)
	defer retry.Stop()
	wait := relistenFirst
	for {
		s.reconcile(ctx, open, t)
		if s.lacking(open) {
			retry.Reset(wait)
		} else {
			wait = relistenFirst
			retry.Stop()
		}
		select {
		case <-ctx.Done():
			for _, l := range open {
				l.Close()
			}
			s.working.Wait()
			return ctx.Err()
		case <-s.changed:
			wait = relistenFirst
		case <-retry.C:
			wait = min(2*wait, relistenMost)
		}
	}
}

// lacking reports whether a wanted port is not listened on.
func (s *Server) lacking(open map[uint16]net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.wanted, func(port uint16) bool { return open[port] == nil })
}

// reconcile opens and closes listeners until they are those wanted.
func (s *Server) reconcile(ctx context.Context, open map[uint16]net.Listener, t Taker) {
	s.mu.Lock()
	wanted := s.wanted
	s.mu.Unlock()
	for port, l := range open {
		if !slices.Contains(wanted, port) {
			l.Close()
			delete(open, port)
		}
	}
	tried := make(map[uint16]error)
	for _, port := range wanted {
		if open[port] != nil {
			tried[port] = nil
			continue
		}
		l, err := s.listen(port)
		if tried[port] = err; err != nil {
			s.log.Debug("not listening", "port", port, "error", err)
			continue
		}
		s.log.Info("listening", "port", port)
		open[port] = l
		s.working.Go(func() { s.accept(ctx, l, t) })
	}
	s.mu.Lock()
	same := maps.EqualFunc(s.ports, tried, func(a, b error) bool { return (a == nil) == (b == nil) })
	s.ports = tried
	s.mu.Unlock()
	if !same {
		t.PortsChanged()
	}
}

// accept takes connections until the listener is closed.
func (s *Server) accept(ctx context.Context, l net.Listener, t Taker) {
	for {
		c, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // out of descriptors, most likely
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		if !s.gate.enter(c, time.Now()) {
			s.count(&s.counts.Limited)
			c.Close()
			continue
		}
		s.working.Go(func() {
			leave := sync.OnceFunc(func() { s.gate.halfOpen.Leave(c) })
			defer leave()
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			s.serve(ctx, c, t, leave)
		})
	}
}

// serve shakes hands and keeps one stream until it ends. shaken is called when the handshake is over.
func (s *Server) serve(ctx context.Context, c net.Conn, taker Taker, shaken func()) {
	tune(c)
	c.SetDeadline(time.Now().Add(handshakeTimeout)) // the whole of it, however slowly the bytes come
	t := tls.Server(c, s.tls)
	if err := t.HandshakeContext(ctx); err != nil {
		s.count(&s.counts.Failed)
		s.log.Debug("no handshake", "address", c.RemoteAddr().String(), "error", err)
		return
	}
	if t.ConnectionState().NegotiatedProtocol == alpnJoin {
		if !s.gate.enterJoin(c, time.Now()) {
			s.count(&s.counts.Limited)
			_ = writeGreeting(t, &Refusal{Reason: "too many joins at once; try again"})
			return
		}
		defer s.gate.joins.Leave(c)
		s.count(&s.counts.Joins)
		s.keep(&served{conn: newLimited(t)}, taker, shaken)
		return
	}
	id, err := s.o.Members.Verify(t.ConnectionState().PeerCertificates)
	if err == nil {
		m := &served{from: id, conn: timed{t}, since: time.Now()}
		invite, stranger := identity.IssuerOf(t.ConnectionState().PeerCertificates[0]), !s.o.Roster.Member(id)
		if stranger {
			if !s.gate.enterStranger(c, invite, m.since) {
				s.count(&s.counts.Limited)
				_ = writeGreeting(t, &Refusal{Reason: "too many nodes at once that are no members by the records here: it is tried again by itself"})
				t.CloseWrite()
				return
			}
			defer s.gate.strangers.Leave(c)
			if m.patience = strangerTime; s.o.Roster.Spent(invite) {
				m.patience = strangerSpentTime
			}
		}
		patience := m.patience
		if err = s.enter(m); err == nil {
			defer s.leave(m)
			// Whoever was revoked since the handshake was not found by Drop, but is refused here.
			if _, err = s.o.Members.Verify(t.ConnectionState().PeerCertificates); err == nil {
				s.count(&s.counts.Accepted)
				if stranger {
					watched, stop := context.WithCancel(ctx)
					defer stop()
					s.working.Go(func() { s.watch(watched, m, c, patience) })
				}
				s.keep(m, taker, shaken)
				return
			}
		}
	}
	s.count(&s.counts.Refused)
	s.log.Debug("stream refused", "address", c.RemoteAddr().String(), "error", err)
	no, ok := errors.AsType[*Refusal](err)
	if !ok {
		no = &Refusal{Reason: err.Error()}
	}
	_ = writeGreeting(t, no)
	t.CloseWrite()
}

// watch ends the stream of a stranger that does not become a member in its time. What goes over it is told why by its session.
func (s *Server) watch(ctx context.Context, m *served, c net.Conn, patience time.Duration) {
	tick := time.NewTicker(strangersLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch {
		case s.o.Roster.Member(m.from):
			s.gate.strangers.Leave(c)
			s.mu.Lock()
			m.patience = 0
			s.mu.Unlock()
			return
		case time.Since(m.since) >= patience:
			c.Close() // without a good-bye, which it could make last
			return
		}
	}
}

// keep greets, hands the stream over, and returns when it has ended.
func (s *Server) keep(m *served, taker Taker, shaken func()) {
	if err := writeGreeting(m.conn, nil); err != nil {
		return
	}
	if !m.from.IsZero() {
		m.conn.SetDeadline(time.Time{}) // from here on, of each read and write
	}
	shaken()
	done, err := taker.Accept(m.from, m.conn)
	if err != nil {
		if skipped, due := s.lines.Due(time.Now(), sourceOf(m.conn.RemoteAddr())); due { // joiners and strangers can cause it
			s.log.Warn("stream not attached", "error", err, "skipped", skipped)
		}
		m.conn.Close()
		return
	}
	<-done
}

// enter takes a place for a member's stream. The member's oldest gives way to it.
func (s *Server) enter(m *served) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var oldest *served
	members, count := 0, 0
	for c := range s.streams {
		if c.patience == 0 {
			members++ // strangers take no place of theirs
		}
		if c.from != m.from {
			continue
		}
		count++
		if oldest == nil || c.since.Before(oldest.since) {
			oldest = c
		}
	}
	if members >= maxStreams && m.patience == 0 {
		return fmt.Errorf("this anchor carries %d streams already", maxStreams)
	}
	if count >= maxPerMember {
		s.working.Go(func() { oldest.conn.Close() })
	}
	s.streams[m] = struct{}{}
	return nil
}

func (s *Server) leave(m *served) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, m)
}
