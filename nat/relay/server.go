package relay

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"warren/mesh/identity"
)

// Linger is how long a channel outlives its control stream: longer than a session takes to notice its death (40 s)
// and dial again.
const Linger = time.Minute

// requestTimeout bounds how long a stream may take to say what it wants.
const requestTimeout = 5 * time.Second

// ServerOptions are what a relay needs from its node. All but Limit, Fill and Logger are required; none of the functions
// may block.
type ServerOptions struct {
	Self identity.NodeID
	// Forward installs one direction of a relayed path in the socket and returns what it has carried so far; nil if it
	// cannot be installed. Unforward removes it.
	Forward   func(from, to Half) func() Traffic
	Unforward func(from Half)
	// Remote returns the address that a member's control session comes from: its data comes from there too.
	Remote func(identity.NodeID) (netip.AddrPort, bool)
	// Member reports whether an ID is an active member.
	Member func(identity.NodeID) bool
	// Enabled reports whether this node relays at present.
	Enabled func() bool
	// Limit is what may be forwarded in bytes a second, 0 for no limit; Fill how full the socket's queue has been since
	// the last call, between 0 and 1. They make the load; nil: none.
	Limit  func() int
	Fill   func() float64
	Logger *slog.Logger
}

// Server hands out channels to members and joins them in pairs.
type Server struct {
	options ServerOptions

	mu sync.Mutex
	// channels by who asked, then by the peer it is for. Guarded by mu, as is everything in a channel.
	channels map[identity.NodeID]map[identity.NodeID]*channel
	count    int // of channels
	accounts map[identity.NodeID]*account
	load     uint8         // as told
	retold   chan struct{} // closed and replaced when load is another
	stir     chan struct{} // a value when there is something to measure
}

// channel is one member's half of a relayed path.
type channel struct {
	half   Half
	joined bool           // both directions stand in the socket's table
	load   func() Traffic // sent by the member; nil: never joined
	holder net.Conn       // the control stream that holds it; nil while it lingers
	linger *time.Timer    // runs while holder is nil
}

// NewServer returns a relay without channels.
func NewServer(options ServerOptions) *Server {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	options.Logger = options.Logger.With("part", "relay")
	if options.Limit == nil {
		options.Limit = func() int { return 0 }
	}
	if options.Fill == nil {
		options.Fill = func() float64 { return 0 }
	}
	return &Server{
		options: options, channels: make(map[identity.NodeID]map[identity.NodeID]*channel), accounts: make(map[identity.NodeID]*account),
		retold: make(chan struct{}), stir: make(chan struct{}, 1),
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
		number, status = s.open(from, peer, c)
	}
	if err := writeReply(c, status, number); err != nil || status != granted {
		s.end(from, peer, c, false)
		return
	}
	c.SetReadDeadline(time.Time{})
	var word [1]byte
	n, _ := c.Read(word[:])
	s.end(from, peer, c, n == 1 && word[0] == bye)
}

// open finds or makes the channel of (from, peer), hands it to the stream c, and joins it with the peer's half.
func (s *Server) open(from, peer identity.NodeID, c net.Conn) (uint16, status) {
	addr, ok := s.options.Remote(from)
	switch {
	case !s.options.Enabled():
		return 0, refusedOff
	case !ok || from == peer || !s.options.Member(from) || !s.options.Member(peer):
		return 0, refusedNotMember
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	mine := s.channels[from]
	switch {
	case !s.account(from).ask(time.Now()):
		return 0, refusedBusy
	case mine[peer] == nil && (len(mine) >= maxOfMember || s.count >= maxChannels):
		return 0, refusedFull
	}
	if mine == nil {
		mine = make(map[identity.NodeID]*channel)
		s.channels[from] = mine
	}
	ch := mine[peer]
	if ch == nil {
		number := s.freeNumber(from, peer, mine)
		if number == 0 {
			return 0, refusedFull
		}
		ch = &channel{half: Half{Addr: addr, Channel: number}}
		mine[peer] = ch
		s.count++
	}
	if ch.linger != nil {
		ch.linger.Stop()
		ch.linger = nil
	}
	ch.holder = c
	s.place(from, peer, ch, addr)
	return ch.half.Channel, granted
}

// freeNumber returns a channel number that a member does not use, 0 when it has them all. It is the peer's as long as no other
// has taken it: so a relay that was restarted gives the number again that the member still uses, in whatever order its
// channels are asked for.
func (s *Server) freeNumber(client, peer identity.NodeID, mine map[identity.NodeID]*channel) uint16 {
	used := make(map[uint16]bool, len(mine))
	for _, ch := range mine {
		used[ch.half.Channel] = true
	}
	first, count := uint16(firstChannel), uint16(middleChannel-firstChannel)
	if s.options.Self.Compare(client) > 0 {
		first, count = middleChannel, lastChannel-middleChannel+1
	}
	at := binary.BigEndian.Uint16(peer[:])
	for n := range count {
		if number := first + (at%count+n)%count; !used[number] {
			return number
		}
	}
	return 0
}

// place moves a half to addr and writes both directions into the socket's table if the peer's half is there.
// The caller holds mu.
func (s *Server) place(from, peer identity.NodeID, ch *channel, addr netip.AddrPort) {
	if ch.joined && ch.half.Addr != addr {
		s.options.Unforward(ch.half)
		s.retire(from, ch)
	}
	ch.half.Addr = addr
	other := s.channels[peer][from]
	if other == nil {
		return
	}
	if load := s.options.Forward(ch.half, other.half); load != nil {
		ch.load = load
	}
	if load := s.options.Forward(other.half, ch.half); load != nil {
		other.load = load
	}
	if !ch.joined {
		s.options.Logger.Info("relaying", "peer", from.Short(), "with", peer.Short())
	}
	ch.joined, other.joined = true, true
	select {
	case s.stir <- struct{}{}:
	default:
	}
}

// end is called when the stream c is over. Another stream that took the channel over keeps it.
func (s *Server) end(from, peer identity.NodeID, c net.Conn, now bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := s.channels[from][peer]
	if ch == nil || ch.holder != c {
		return
	}
	ch.holder = nil
	if now {
		s.remove(from, peer)
		return
	}
	ch.linger = time.AfterFunc(Linger, func() { s.expire(from, peer, ch) })
}

func (s *Server) expire(from, peer identity.NodeID, ch *channel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.channels[from][peer] == ch && ch.holder == nil {
		s.remove(from, peer)
	}
}

// remove takes a channel away and both directions with it. The caller holds mu.
func (s *Server) remove(from, peer identity.NodeID) {
	ch := s.channels[from][peer]
	if ch == nil {
		return
	}
	if ch.linger != nil {
		ch.linger.Stop()
	}
	delete(s.channels[from], peer)
	s.count--
	s.retire(from, ch)
	if len(s.channels[from]) == 0 {
		delete(s.channels, from)
	}
	if !ch.joined {
		return
	}
	s.options.Unforward(ch.half)
	if other := s.channels[peer][from]; other != nil {
		s.options.Unforward(other.half)
		other.joined = false
		s.retire(peer, other)
	}
}

// Moved tells the relay that a member's session, and so its data, now comes from another address.
func (s *Server) Moved(id identity.NodeID, addr netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for peer, ch := range s.channels[id] {
		if ch.half.Addr != addr {
			s.place(id, peer, ch, addr)
		}
	}
}

// Drop takes away every channel of and towards a member, at once: it was revoked or left.
func (s *Server) Drop(id identity.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for peer := range s.channels[id] {
		s.remove(id, peer)
	}
	for from, peers := range s.channels {
		if peers[id] != nil {
			s.remove(from, id)
		}
	}
	delete(s.accounts, id)
}
