package relay

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"warren/mesh/identity"
)

// Linger is how long a channel outlives its control stream: longer than a session takes to notice its death (40 s)
// and dial again.
const Linger = time.Minute

// requestTimeout bounds how long a stream may take to say what it wants.
const requestTimeout = 5 * time.Second

// Forwarder is the data path of a relay. Its methods are called by the server's loop and must not block.
type Forwarder interface {
	// Forward installs one direction of a relayed path, or moves it, and returns what counts its packets.
	Forward(from, to Half) (Counter, error)
	Unforward(from Half)
	// Fill is how full the queue has been since the last call, between 0 and 1.
	Fill() float64
}

// Counter says what one direction has carried so far. It may be called concurrently.
type Counter interface{ Traffic() Traffic }

// Members tells who is served. It may be called concurrently, and must not block.
type Members interface {
	// Remote returns the address that a member's control session comes from: its data comes from there too.
	Remote(identity.NodeID) (netip.AddrPort, bool)
	// Member reports whether an ID is an active member.
	Member(identity.NodeID) bool
}

// ServerOptions are what a relay needs from its node. All but Logger are required.
type ServerOptions struct {
	Self    identity.NodeID
	Socket  Forwarder
	Members Members
	Logger  *slog.Logger
}

// Terms are what a relay does for others.
type Terms struct {
	Enabled bool // it relays at present
	Limit   int  // bytes a second that may be forwarded, of which the load is a share; 0: no limit
}

// Server hands out channels to members and joins them in pairs.
type Server struct {
	// Constant after NewServer.
	options ServerOptions
	tasks   chan func()   // for the loop
	poke    chan struct{} // a value when there are orders
	ended   chan struct{} // closed when Run returns

	// Owned by the loop, that is by Run.
	table     table
	gauge     gauge
	measuring bool
	relays    bool // as members were told

	// Guarded by mu, under which nothing is called.
	mu      sync.Mutex
	moved   map[identity.NodeID]netip.AddrPort // that the loop is to move
	dropped map[identity.NodeID]bool           // that the loop is to drop, before it does anything else

	// Atomic.
	terms     atomic.Pointer[Terms]
	told      atomic.Pointer[told]
	published atomic.Pointer[ledger]
}

// told is the load as members know it.
type told struct {
	load  uint8
	other chan struct{} // closed when another one is told
}

// NewServer returns a relay without channels, which serves once Run runs, as soon as Set enables it.
func NewServer(options ServerOptions) *Server {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	options.Logger = options.Logger.With("part", "relay")
	s := &Server{
		options: options, tasks: make(chan func()), poke: make(chan struct{}, 1), ended: make(chan struct{}),
		table: table{
			self: options.Self, socket: options.Socket, log: options.Logger,
			channels: make(map[identity.NodeID]map[identity.NodeID]*channel), accounts: make(map[identity.NodeID]*account),
		},
		moved: make(map[identity.NodeID]netip.AddrPort), dropped: make(map[identity.NodeID]bool),
	}
	s.terms.Store(&Terms{})
	s.told.Store(&told{load: full, other: make(chan struct{})})
	s.published.Store(&ledger{})
	return s
}

// Set says what the relay does for others. It never blocks. Channels that are there stay.
func (s *Server) Set(t Terms) {
	s.terms.Store(&t)
	s.rouse()
}

// Run hands out channels, and measures the load while any are joined. It returns when ctx ends.
func (s *Server) Run(ctx context.Context) error {
	defer close(s.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	tick := time.NewTicker(loadEvery)
	tick.Stop()
	for {
		if s.table.dirty {
			s.table.dirty = false
			s.published.Store(s.table.ledger())
		}
		if s.table.stirred && !s.measuring {
			s.measuring = true
			tick.Reset(loadEvery)
		}
		s.table.stirred = false
		timer.Reset(time.Until(s.table.wake()))
		select {
		case <-ctx.Done():
			tick.Stop()
			return ctx.Err()
		case task := <-s.tasks:
			s.obey() // what was ordered before the task was given
			task()
		case <-s.poke:
			s.obey()
		case <-timer.C:
			s.table.expire(time.Now())
		case <-tick.C:
			if s.measuring = s.measure(time.Now()); !s.measuring {
				tick.Stop()
			}
		}
	}
}

// do has the loop do something and waits for it; false when the loop has ended.
func (s *Server) do(task func()) bool {
	done := make(chan struct{})
	select {
	case s.tasks <- func() { defer close(done); task() }:
		<-done
		return true
	case <-s.ended:
		return false
	}
}

// obey does what Moved and Drop have asked for.
func (s *Server) obey() {
	s.mu.Lock()
	moved, dropped := s.moved, s.dropped
	s.moved, s.dropped = make(map[identity.NodeID]netip.AddrPort), make(map[identity.NodeID]bool)
	s.mu.Unlock()
	if on := s.terms.Load().Enabled; on != s.relays {
		s.relays = on
		s.announce(uint8(s.gauge.load * 255))
	}
	for id := range dropped {
		s.table.drop(id)
	}
	for id, addr := range moved {
		s.table.move(id, addr)
	}
}

// rouse has the loop look at its orders.
func (s *Server) rouse() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// Serve answers one control stream of a member and returns when the stream ends or ctx does. It closes c.
func (s *Server) Serve(ctx context.Context, from identity.NodeID, c net.Conn) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(requestTimeout))
	peer, status, err := readRequest(c)
	if err != nil {
		return
	}
	if status == granted && peer.IsZero() {
		s.tell(from, c)
		return
	}
	var number uint16
	if status == granted {
		number, status = s.grant(from, peer, c)
	}
	if err := writeReply(c, status, number); err != nil || status != granted {
		s.do(func() { s.table.end(from, peer, c, false) })
		return
	}
	c.SetReadDeadline(time.Time{})
	var word [1]byte
	n, _ := c.Read(word[:])
	s.do(func() { s.table.end(from, peer, c, n == 1 && word[0] == bye) })
}

// grant has the loop open a channel for a member that may have one.
func (s *Server) grant(from, peer identity.NodeID, c net.Conn) (number uint16, st status) {
	m := s.options.Members
	addr, ok := m.Remote(from)
	switch {
	case !s.terms.Load().Enabled:
		return 0, refusedOff
	case !ok || from == peer || !m.Member(from) || !m.Member(peer):
		return 0, refusedNotMember
	}
	if !s.do(func() { number, st = s.table.open(from, peer, addr, c) }) {
		return 0, refusedOff
	}
	return number, st
}

// Moved tells the relay that a member's session, and so its data, now comes from another address. It never blocks.
func (s *Server) Moved(id identity.NodeID, addr netip.AddrPort) {
	s.mu.Lock()
	s.moved[id] = addr
	s.mu.Unlock()
	s.rouse()
}

// Drop takes away every channel of and towards a member, at once: it was revoked or left. It never blocks.
func (s *Server) Drop(id identity.NodeID) {
	s.mu.Lock()
	s.dropped[id] = true
	s.mu.Unlock()
	s.rouse()
}
