package mesh

import (
	"time"

	"github.com/hashicorp/memberlist"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// How a fresh record travels. From its maker it goes straight to all neighbours; those of them that are anchors pass it straight
// on to theirs, once. So in a mesh whose members hang on a few anchors all have it after two hops. Whoever takes it in
// otherwise tells its neighbours by a notice (see notices). It is in memberlist's gossip too, which reaches those that are further away, and
// digests find what was lost.
//
//	straight:  0x80, hops left (1 byte), record
//	gossiped:  1, record                 when it fits beside others in a packet
//	           2, key (32), version (16) when it does not: whoever lacks it asks the sender
//
// memberlist's own packets start with a byte below 0x80 or with its label mark, which we do not use.
const (
	straight  = 0x80
	gossipAll = 1
	gossipKey = 2

	maxHops = 1
)

// maxGossiped is the largest record that is gossiped whole: two such fit in a packet.
const maxGossiped = packetSize/2 - 32

// spreader is the way of records out: straight to the neighbours, and by memberlist's gossip, whose queue it keeps.
type spreader struct {
	self     identity.NodeID
	sessions Sessions
	public   *published
	writer   *writer
	notices  *notices
	arrivals arrivals
	queue    *memberlist.TransmitLimitedQueue
}

// retransmits is memberlist's default for a LAN: each record is gossiped 4·log10(n+1) times by each member.
const retransmits = 4

func newSpreader(self identity.NodeID, s Sessions, w *writer, members func() int) *spreader {
	return &spreader{
		self: self, sessions: s, public: w.book.public, writer: w, notices: newNotices(s, w.book.public.isMember),
		queue: &memberlist.TransmitLimitedQueue{NumNodes: members, RetransmitMult: retransmits},
	}
}

// broadcast is one record in the queue; a newer version of it takes its place.
type broadcast struct {
	name    string
	message []byte
}

func (b *broadcast) Name() string    { return b.name }
func (b *broadcast) Message() []byte { return b.message }
func (b *broadcast) Finished()       {}
func (b *broadcast) Invalidates(other memberlist.Broadcast) bool {
	o, ok := other.(*broadcast)
	return ok && o.name == b.name
}

// pass sends a fresh record straight on as far as that is our turn, or has the neighbours told of it, and gossips it. Nothing goes to those
// that are no members here, session or not.
func (s *spreader) pass(signed record.Signed, a arrival) {
	d, err := signed.Decode()
	if err != nil {
		return
	}
	encoded, err := signed.Marshal()
	if err != nil {
		return
	}
	if a.hops > 0 && (a.from == s.self || s.isAnchor()) {
		hops := a.hops
		if a.from != s.self {
			hops--
		}
		var first [][]byte
		if d.Node != nil && a.from == d.Node.ID && a.from != s.self {
			first = s.arrivals.note(time.Now(), d.Node, encoded, func() [][]byte { return s.writer.book.basisOfNode(d.Node.ID) })
		}
		for _, id := range s.sessions.Neighbours() {
			if id != a.from && (d.Node == nil || id != d.Node.ID) && s.public.isMember(id) {
				for _, rests := range first {
					s.sendEncoded(id, rests, 0)
				}
				_ = s.sessions.SendGossip(id, straightMessage(encoded, hops)) // gossip reaches whom this does not
			}
		}
	} else {
		s.notices.add(roster.Entry{Key: d.Key, Version: d.Version}, a.from)
	}
	message := append([]byte{gossipAll}, encoded...)
	if len(message) > maxGossiped {
		message = appendEntry([]byte{gossipKey}, roster.Entry{Key: d.Key, Version: d.Version})
	}
	s.queue.QueueBroadcast(&broadcast{name: string(d.Key[:]), message: message})
}

// greet sends this node's own record to one with which there is a session now, as far as that one may see it: see sides.
func (s *spreader) greet(id identity.NodeID, dialled bool) {
	if s.public.isMember(id) || dialled && s.writer.ownNode().LANSecret == [16]byte{} {
		s.send(id, s.writer.ownSigned(), maxHops)
	}
	if s.public.isMember(id) && !dialled && s.isAnchor() {
		for _, encoded := range s.arrivals.others(time.Now(), id) {
			s.sendEncoded(id, encoded, 0)
		}
	}
}

// notify has the neighbours told of records that a member has brought, and that are too many to gossip.
func (s *spreader) notify(records []record.Signed, from identity.NodeID) {
	for _, signed := range records[:min(len(records), maxNoticing)] {
		if d, err := signed.Decode(); err == nil {
			s.notices.add(roster.Entry{Key: d.Key, Version: d.Version}, from)
		}
	}
}

// send sends one record straight to a member.
func (s *spreader) send(to identity.NodeID, signed record.Signed, hops byte) {
	if encoded, err := signed.Marshal(); err == nil {
		s.sendEncoded(to, encoded, hops)
	}
}

func (s *spreader) sendEncoded(to identity.NodeID, encoded []byte, hops byte) {
	_ = s.sessions.SendGossip(to, straightMessage(encoded, hops)) // best effort: digests find what was lost
}

func straightMessage(encoded []byte, hops byte) []byte {
	return append([]byte{straight, hops}, encoded...)
}

// isAnchor reports whether others hang on this node.
func (s *spreader) isAnchor() bool { return len(s.writer.ownNode().Endpoints) > 0 }
