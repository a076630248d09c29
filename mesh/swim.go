package mesh

import (
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"warren/mesh/identity"
)

// packetSize is the largest packet that memberlist makes. With its checksum, our type byte, a forwarding envelope and QUIC's
// framing it still is one datagram of 1,200 bytes.
const packetSize = 1050

// Timing of memberlist. Fresh records do not wait for it (they go straight to the neighbours), so an idle mesh can be quiet.
const (
	probeEvery    = 5 * time.Second
	probeTimeout  = 3 * time.Second
	pushPullEvery = time.Minute
	gossipEvery   = 500 * time.Millisecond
	gossipNodes   = 4
	streamTimeout = 10 * time.Second
	goodbye       = 2 * time.Second // bounds the wait for one other member to be told
)

// Liveness is what gossip thinks of a member.
type Liveness byte

// The states of Liveness.
const (
	Unknown Liveness = iota // nothing was heard of it
	Alive
	Dead // no answer, to us or to others
)

// String returns the state in lower case.
func (l Liveness) String() string {
	switch l {
	case Alive:
		return "alive"
	case Dead:
		return "dead"
	}
	return "unknown"
}

// liveness remembers memberlist's opinion. It is read without a lock; there is one writer at a time: memberlist, under its own.
type liveness struct {
	state sync.Map // identity.NodeID → lifeSign
	heard sync.Map // identity.NodeID → time.Time, of the last answer to a probe of ours
	alive atomic.Int64
}

type lifeSign struct {
	state Liveness
	since time.Time
}

func newLiveness() *liveness { return &liveness{} }

func (l *liveness) set(id identity.NodeID, state Liveness) {
	if old, _ := l.get(id); old == state {
		return
	} else if old == Alive {
		l.alive.Add(-1)
	}
	if state == Alive {
		l.alive.Add(1)
	}
	l.state.Store(id, lifeSign{state: state, since: time.Now()})
}

func (l *liveness) get(id identity.NodeID) (Liveness, time.Time) {
	s, _ := l.state.Load(id)
	sign, _ := s.(lifeSign)
	return sign.state, sign.since
}

// answered notes that a member has answered a probe of ours, directly or through others.
func (l *liveness) answered(id identity.NodeID) { l.heard.Store(id, time.Now()) }

func (l *liveness) lastAnswer(id identity.NodeID) time.Time {
	at, _ := l.heard.Load(id)
	t, _ := at.(time.Time)
	return t
}

// count returns the number of members thought alive, this one included.
func (l *liveness) count() int { return max(1, int(l.alive.Load())) }

// swim is memberlist's view of us: the delegate that it asks and tells. It does so under its locks, so that whoever waits here stops
// all of gossip. Its methods read what others publish (the view, the digest, liveness), and what they are told they leave in bounded
// queues (the inbox, asks, lines) for the run loop. The locks of asks, and of memberlist's own broadcast queue, are held for memory only.
type swim struct {
	// constant
	self   identity.NodeID
	public *published
	alive  *liveness
	asks   *asks
	spread *spreader
	lines  chan string            // of memberlist's log; drops the newest when full
	list   *memberlist.Memberlist // since start
	log    *slog.Logger
}

// maxLines is more than memberlist logs in one go.
const maxLines = 64

func newSwim(self identity.NodeID, i *intake, l *liveness) *swim {
	return &swim{self: self, public: i.book.public, alive: l, asks: i.asks, spread: i.spread, lines: make(chan string, maxLines), log: i.log}
}

// start makes memberlist, which starts its goroutines. Its lines are kept only if somebody reads them.
func (s *swim) start(t *transport, lines bool) error {
	c := memberlist.DefaultWANConfig()
	c.Name, c.Transport = s.self.String(), t
	c.BindAddr, c.BindPort = syntheticIP(s.self).String(), syntheticPort
	c.AdvertiseAddr, c.AdvertisePort = c.BindAddr, c.BindPort
	c.ProbeInterval, c.ProbeTimeout, c.PushPullInterval = probeEvery, probeTimeout, pushPullEvery
	c.GossipInterval, c.GossipNodes, c.TCPTimeout = gossipEvery, gossipNodes, streamTimeout
	c.RetransmitMult = retransmits
	c.UDPBufferSize, c.EnableCompression, c.RequireNodeNames = packetSize, false, true
	c.Delegate, c.Alive, c.Ping, c.Events = s, s, s, s
	c.Logger = log.New(lineWriter(s.lines), "", 0)
	if !lines {
		c.Logger.SetOutput(io.Discard)
	}
	list, err := memberlist.Create(c)
	if err != nil {
		return fmt.Errorf("start gossip: %w", err)
	}
	s.list = list
	return nil
}

// lineWriter takes memberlist's lines, which the run loop logs at debug level: none of them is for a user, and most are written under
// memberlist's locks.
type lineWriter chan<- string

func (w lineWriter) Write(line []byte) (int, error) {
	select {
	case w <- strings.TrimSpace(string(line)):
	default:
	}
	return len(line), nil
}

// join introduces us to a member's memberlist, and us to all it knows, unless ours knows it already.
func (s *swim) join(id identity.NodeID) error {
	if state, _ := s.alive.get(id); state == Alive {
		return nil
	}
	_, err := s.list.Join([]string{joinAddress(id)})
	return err
}

// leave says good-bye, so that nobody probes this node any more.
func (s *swim) leave() {
	if err := s.list.Leave(goodbye); err != nil {
		s.log.Debug("gossip not left", "error", err)
	}
}

// NodeMeta is empty: the digest goes with acknowledgements and push/pull, where it is current.
func (s *swim) NodeMeta(int) []byte { return nil }

// NotifyMsg would be given what GetBroadcasts of another member returned, but that is taken out of the packets before: see openPacket.
func (s *swim) NotifyMsg([]byte) {}

// GetBroadcasts returns records that fit into the rest of a packet.
func (s *swim) GetBroadcasts(overhead, limit int) [][]byte {
	return s.spread.queue.GetBroadcasts(overhead, limit)
}

// LocalState is what goes with a push/pull: our ID and digest.
func (s *swim) LocalState(bool) []byte {
	state := append(make([]byte, 0, 48), s.self[:]...)
	return append(state, s.AckPayload()...)
}

// MergeRemoteState compares digests. It is the far side's word for its ID, but a lie only makes us compare with that one.
func (s *swim) MergeRemoteState(state []byte, _ bool) {
	if len(state) == 48 && s.public.isMember(identity.NodeID(state)) {
		s.asks.digest(identity.NodeID(state), [16]byte(state[32:]))
	}
}

// AckPayload goes with every answer to a probe, so that differing digests are noticed within seconds.
func (s *swim) AckPayload() []byte {
	digest := *s.public.digest.Load()
	return digest[:]
}

// NotifyPingComplete is told of an answer to our probe.
func (s *swim) NotifyPingComplete(other *memberlist.Node, _ time.Duration, payload []byte) {
	id, err := identity.ParseNodeID(other.Name)
	if err != nil {
		return
	}
	s.alive.answered(id)
	if len(payload) == 16 {
		s.asks.digest(id, [16]byte(payload))
	}
}

var errStranger = errors.New("name and address are not those of a member")

// NotifyAlive keeps everyone out who has no record, or whose address is not the one that follows from its name.
func (s *swim) NotifyAlive(node *memberlist.Node) error {
	id, err := identity.ParseNodeID(node.Name)
	if err != nil || node.Port != syntheticPort || !node.Addr.Equal(syntheticIP(id)) || len(node.Meta) > 0 {
		return errStranger
	}
	if id != s.self && !s.public.isMember(id) {
		return errStranger
	}
	return nil
}

// NotifyJoin is told of a node that is alive, or again.
func (s *swim) NotifyJoin(node *memberlist.Node) { s.note(node, Alive) }

// NotifyLeave is told of a node that is dead or has left.
func (s *swim) NotifyLeave(node *memberlist.Node) { s.note(node, Dead) }

// NotifyUpdate is told of new metadata; there is none.
func (s *swim) NotifyUpdate(*memberlist.Node) {}

func (s *swim) note(node *memberlist.Node, state Liveness) {
	if id, err := identity.ParseNodeID(node.Name); err == nil {
		s.alive.set(id, state)
	}
}
