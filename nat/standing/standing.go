// Package standing finds out where this node stands, and who can reach it: this host's addresses, what its routers map, which of
// these addresses strangers can reach, and what the NATs and firewalls before it do. It helps other members to find out the same.
//
// What an address is announced for, who is asked, and what a person is told are decided above; package reach says which address
// is tested when, natkind judges what was seen, natprobe measures. Files in the order of the work: run.go (the loop), candidates.go
// (addresses, and having them tested), measure.go, self.go (what peers are told), help.go (for others), wire.go.
//
// All methods may be called concurrently, with Run or before it; none but Run and Measure blocks.
package standing

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session"
	"warren/nat/nat64"
	"warren/nat/natkind"
	"warren/nat/natprobe"
	"warren/nat/portmap"
	"warren/nat/reach"
)

// Sessions carries messages to members.
type Sessions interface {
	// Send must not block. An error says that there is no way to the member now.
	Send(to identity.NodeID, p session.Proto, payload []byte) error
}

// Members knows who may ask for help. It is called from where Asked is called, and must not block.
type Members interface {
	Member(id identity.NodeID) bool // it is an active member
}

// STUN is the shared socket, as nat has it. Its methods must not block.
type STUN interface {
	// Expect has a bare Binding request with this transaction told (to Arrived) if it comes in before until.
	Expect(id [12]byte, until time.Time)
	Sightings() []natkind.Sighting
	Ports() natkind.Ports
	Probe() // asks all servers anew
}

// Mapper keeps ports open on routers: a *portmap.Mapper. Its methods must not block.
type Mapper interface {
	Set(portmap.Wanted)
	Changed()
	Snapshot() portmap.Status
	TCPMappings() []portmap.Mapping
	Events() <-chan struct{}
}

// Host is this machine.
type Host interface {
	// Addresses returns the addresses that may be offered to peers, best first. An error says that the system cannot be asked now.
	Addresses() ([]netip.Addr, error)
	// NAT64 returns the prefix by which this host reaches IPv4, if it has none of its own.
	NAT64() nat64.Prefix
	// Listen opens a fresh UDP socket of one family.
	Listen(v4 bool) (net.PacketConn, error)
}

// Options is what New takes. All but Network and Logger are needed.
type Options struct {
	Sessions Sessions
	Members  Members
	STUN     STUN
	Mapper   Mapper
	Host     Host
	// Network brings a value after each change of the network or of the shared port. It may be closed.
	Network <-chan struct{}
	Logger  *slog.Logger
}

// Mode says whether this node may serve others as an anchor.
type Mode uint8

// The modes.
const (
	Auto   Mode = iota // if strangers reach it
	Always             // as configured: all its addresses are announced, tested or not
	Never              // no address is announced or tested, and no router is asked
)

// String returns the word of the settings.
func (m Mode) String() string {
	switch m {
	case Always:
		return "always"
	case Never:
		return "never"
	}
	return "auto"
}

// The words of packages natprobe and reach in which Desired speaks.
type (
	Server = natprobe.Server
	Helper = reach.Helper
)

// Desired is what Set takes.
type Desired struct {
	Mode      Mode
	Endpoints []netip.AddrPort // where this node is to be reached, as configured
	Port      uint16           // of the shared socket; 0: not open
	Overlay   []netip.Prefix   // of the mesh: nobody is helped to send there
	// Servers are the addresses on the Internet of the other active members that are anchors, best member first, of both
	// families. Of each member and family the first that is none of this host's is measured with.
	Servers []Server
	// Helpers are the active members with a session by UDP, and where it comes from. The order does not matter.
	Helpers    []Helper
	UDPBlocked bool // UDP from here to the Internet gets no answer, as introductions say
	MapTCP     bool // the TCP port of the same number is wanted on the routers too
}

// Measurement is what was found out about the NATs on the way for one address family.
type Measurement struct {
	Report natprobe.Report // empty when this host has no address of the family
	Err    error           // no socket could be opened
	At     time.Time       // when it began; zero: none counts
}

// Taken is a port of this host that something behind it has mapped to itself: this host is a router, and a machine behind it was there
// first. What comes for the port goes to that machine, as far as it has written to the sender. The zero value: nothing of the kind.
type Taken struct {
	Port uint16         // of the shared socket
	Seen netip.AddrPort // where anchors see it instead
}

// Snapshot is what is known. It is not to be changed: all readers share it.
type Snapshot struct {
	Settled   bool              // what Set said is taken account of: before that, Usable is nobody's word
	Network   uint64            // counts the networks that this node was in: another value, another network. 0: Run has not begun
	NAT64     nat64.Prefix      // by which this host reaches IPv4, of which it has none of its own
	Taken     Taken             // the shared port is another one outside, though no router stands before this host
	Hosts     []netip.Addr      // this host's addresses, best first; those of before while the system cannot be asked
	Trouble   string            // why they are those of before; empty: they are not
	External  []netip.AddrPort  // where routers map the shared port to, as far as the Internet can reach it
	TCPMapped []portmap.Mapping // of the TCP port

	Usable []netip.AddrPort  // where strangers can reach this node, to be announced
	Reach  []reach.Candidate // what is known of each address that is tested

	Routers     []portmap.RouterStatus // none when they are not asked, as configured
	PortMapping natkind.PortMapping    // what they do, in sum: the best counts
	IPv4, IPv6  Measurement            // the last ones, while they count
}

// Measured returns the last measurement of a family, if it counts still: it was made in this network, less than ten minutes ago.
func (s *Snapshot) Measured(v4 bool) (m Measurement, ok bool) {
	m = s.IPv6
	if v4 {
		m = s.IPv4
	}
	return m, !m.At.IsZero()
}

// Mapping is what the last measurement says of IPv4, which sees with one anchor what STUN answers do not.
func (s *Snapshot) Mapping() natkind.Mapping {
	if m, ok := s.Measured(true); ok && m.Report.Works() {
		return m.Report.Mapping
	}
	return natkind.MappingUnknown
}

// Queues between the callers' goroutines and the loop. What does not fit in arrived and unable is lost: the test is made again.
// Orders of others that do not fit are dropped and counted.
const (
	newsQueue  = 16
	orderQueue = helpsAtOnce
)

// Standing is the owner. See New.
type Standing struct {
	// Constant after New.
	o       Options
	log     *slog.Logger
	events  chan struct{}
	poke    chan struct{} // the loop has something to look at
	arrived chan [12]byte
	unable  chan refusal
	orders  chan order
	ended   chan struct{} // closed when Run ends
	aid     aid

	// Atomic.
	desired  atomic.Pointer[Desired] // nil: Set was not called
	snapshot atomic.Pointer[Snapshot]
	told     atomic.Pointer[told]
	dropped  counters

	// Guarded by mu.
	mu      sync.Mutex
	wanted  chan struct{} // closed when the measurement that is wanted or under way has ended; nil: there is none
	waiting map[[12]byte]asked
}

// New makes a Standing that does nothing until Run.
func New(o Options) (*Standing, error) {
	if o.Sessions == nil || o.Members == nil || o.STUN == nil || o.Mapper == nil || o.Host == nil {
		return nil, errors.New("standing: an option is missing")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Standing{
		o: o, log: o.Logger.With("part", "standing"), events: make(chan struct{}, 1), poke: make(chan struct{}, 1),
		arrived: make(chan [12]byte, newsQueue), unable: make(chan refusal, newsQueue), orders: make(chan order, orderQueue),
		ended: make(chan struct{}), aid: newAid(), waiting: make(map[[12]byte]asked),
	}
	s.snapshot.Store(&Snapshot{})
	return s, nil
}

// Set says what this node is and whom it can ask. It may be repeated, and never blocks. What d refers to is not changed any more.
func (s *Standing) Set(d Desired) {
	d.Helpers = slices.SortedFunc(slices.Values(d.Helpers), func(a, b reach.Helper) int { return a.ID.Compare(b.ID) })
	s.desired.Store(&d)
	s.look()
}

// look has the loop look at what was asked for.
func (s *Standing) look() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// Events returns a channel that gets a value, coalesced, when Snapshot is another one.
func (s *Standing) Events() <-chan struct{} { return s.events }

// Snapshot returns what is known now.
func (s *Standing) Snapshot() *Snapshot { return s.snapshot.Load() }

// Want has the NATs measured if what is known of them is vague or old; see Vague. It does not wait.
func (s *Standing) Want() {
	if s.Vague() {
		s.begin()
	}
}

// Measure has the NATs measured for both families, and the shared socket looked at anew. It returns when that is done, after three
// seconds or so, or when ctx ends; a measurement that is under way in this network will do. The outcome is in Snapshot.
func (s *Standing) Measure(ctx context.Context) {
	s.o.STUN.Probe()
	select {
	case <-s.begin():
	case <-ctx.Done():
	case <-s.ended:
	}
}

// begin asks the loop for a measurement.
func (s *Standing) begin() <-chan struct{} {
	s.mu.Lock()
	if s.wanted == nil {
		s.wanted = make(chan struct{})
	}
	done := s.wanted
	s.mu.Unlock()
	s.look()
	return done
}

// Arrived says that a bare Binding request that was expected came in to the shared socket.
func (s *Standing) Arrived(id [12]byte) {
	select {
	case s.arrived <- id:
	default:
	}
}
