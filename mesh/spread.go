package mesh

import (
	"github.com/hashicorp/memberlist"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// How a fresh record travels. From its maker it goes straight to all neighbours; those of them that are anchors pass it straight
// on to theirs, once. So in a mesh whose members hang on a few anchors all have it after two hops. Whoever takes it in
// also puts it into memberlist's gossip, which reaches those that are further away, and digests find what was lost.
//
//	straight:  0x80, hops left (1 byte), record
//	gossiped:  1, record                              when it fits beside others in a packet
//	           2, key (32), version (16), holder (32) when it does not: whoever lacks it asks the holder
//
// memberlist's own packets start with a byte below 0x80 or with its label mark, which we do not use.
const (
	straight  = 0x80
	gossipAll = 1
	gossipKey = 2

	maxHops    = 1
	noticeSize = 1 + entrySize + 32
)

// maxGossiped is the largest record that is gossiped whole: two such fit in a packet.
const maxGossiped = packetSize/2 - 32

// spreader is the way of records out: straight to the neighbours, and by memberlist's gossip, whose queue it keeps.
type spreader struct {
	self     identity.NodeID
	sessions Sessions
	writer   *writer
	queue    *memberlist.TransmitLimitedQueue
}

// retransmits is memberlist's default for a LAN: each record is gossiped 4·log10(n+1) times by each member.
const retransmits = 4

func newSpreader(self identity.NodeID, s Sessions, w *writer, members func() int) *spreader {
	return &spreader{
		self: self, sessions: s, writer: w,
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

// pass sends a fresh record straight on as far as that is our turn, and gossips it.
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
		for _, id := range s.sessions.Neighbours() {
			if !s.writer.book.public.isMember(id) {
				continue // until its own record is in it is a stranger; a sync gives it what it has missed
			}
			if id != a.from && (d.Node == nil || id != d.Node.ID) {
				_ = s.sessions.SendGossip(id, straightMessage(encoded, hops)) // gossip reaches whom this does not
			}
		}
	}
	message := append([]byte{gossipAll}, encoded...)
	if len(message) > maxGossiped {
		message = appendEntry([]byte{gossipKey}, roster.Entry{Key: d.Key, Version: d.Version})
		message = append(message, s.self[:]...)
	}
	s.queue.QueueBroadcast(&broadcast{name: string(d.Key[:]), message: message})
}

// send sends one record straight to a member.
func (s *spreader) send(to identity.NodeID, signed record.Signed, hops byte) {
	if encoded, err := signed.Marshal(); err == nil {
		_ = s.sessions.SendGossip(to, straightMessage(encoded, hops)) // best effort; its session ends with a reason too
	}
}

func straightMessage(encoded []byte, hops byte) []byte {
	return append([]byte{straight, hops}, encoded...)
}

// isAnchor reports whether others hang on this node.
func (s *spreader) isAnchor() bool { return len(s.writer.ownNode().Endpoints) > 0 }
