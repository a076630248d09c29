package mesh

import (
	"bytes"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// How a fresh record travels. From its maker it goes straight to all neighbours; those of them that are anchors pass it straight
// on to theirs, once; all but revocations, to an anchor, only if that has no session with who sent it, and two of them. So in a mesh whose
// members hang on a few anchors all have it after two hops. Whoever takes it in
// otherwise tells its neighbours by a notice (see notices). Its name is in memberlist's gossip too, which reaches those that are further away, and
// digests find what was lost.
//
//	straight:  0x80, hops left (1 byte), record
//	gossiped:  2, key (32), version (16): whoever lacks it asks the sender
//
// memberlist's own packets start with a byte below 0x80 or with its label mark, which we do not use.
const (
	straight  = 0x80
	gossipKey = 2

	maxHops = 1
)

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

const (
	// retransmits is memberlist's default for a LAN: who is alive is gossiped 4·log10(n+1) times by each member.
	retransmits = 4
	// retransmitsOfRecords is the same for records: these come along the sessions, and gossip only makes that faster where sessions are few.
	retransmitsOfRecords = 2
)

func newSpreader(self identity.NodeID, s Sessions, w *writer, members func() int) *spreader {
	return &spreader{
		self: self, sessions: s, public: w.book.public, writer: w, notices: newNotices(s, w.book.public.isMember),
		queue: &memberlist.TransmitLimitedQueue{NumNodes: members, RetransmitMult: retransmitsOfRecords},
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
	entry := roster.Entry{Key: d.Key, Version: d.Version}
	if a.hops > 0 && (a.from == s.self || s.isAnchor()) {
		hops := a.hops
		if a.from != s.self {
			hops--
		}
		var first [][]byte
		if d.Node != nil && a.from == d.Node.ID && a.from != s.self {
			first = s.arrivals.note(time.Now(), d.Node, encoded, func() [][]byte { return s.writer.book.basisOfNode(d.Node.ID) })
		}
		var sent, left []identity.NodeID
		for _, id := range s.sessions.Neighbours() {
			switch {
			case id == a.from || d.Node != nil && id == d.Node.ID || !s.public.isMember(id):
				sent = append(sent, id)
			case a.from != s.self && d.Revocation == nil && !s.between(a.from, id):
				left = append(left, id)
			default:
				sent = append(sent, id)
				s.sendBasis(id, first)
				_ = s.sessions.SendGossip(id, straightMessage(encoded, hops)) // gossip reaches whom this does not
			}
		}
		if len(left) > 0 {
			s.notices.add(entry, a.from)
			for _, id := range sent {
				s.notices.has(entry, id)
			}
		}
	} else {
		s.notices.add(entry, a.from)
	}
	s.queue.QueueBroadcast(&broadcast{name: string(d.Key[:]), message: appendEntry([]byte{gossipKey}, entry)})
}

// between reports whether this anchor is to pass on to another what a third has sent straight: not if those two keep a session, and else if it
// is the first that stands between them. All anchors know who that is. The other ones name the record to it, should it not have come.
func (s *spreader) between(from, to identity.NodeID) bool {
	all := s.public.view.Load().Rings()
	if !all.Has(s.self) || !all.Has(from) || !all.Has(to) {
		return true
	}
	next := all.Neighbours(from)
	if slices.Contains(next, to) {
		return false
	}
	for _, id := range all.Neighbours(to) {
		if id == s.self || slices.Contains(next, id) {
			return id == s.self
		}
	}
	return true
}

// greet sends this node's own record to one with which there is a session now, as far as that one may see it: see sides.
func (s *spreader) greet(id identity.NodeID, dialled bool) {
	if s.public.isMember(id) || dialled && s.writer.ownNode().LANSecret == [16]byte{} {
		s.send(id, s.writer.ownSigned(), maxHops)
	}
	if s.public.isMember(id) && !dialled && s.isAnchor() {
		for _, one := range s.arrivals.others(time.Now(), id) {
			s.sendBasis(id, one.basis)
			s.sendEncoded(id, one.record, 0)
		}
	}
}

// sendBasis sends the certificates on which a record rests that comes next, but for those on which the receiver rests itself.
func (s *spreader) sendBasis(to identity.NodeID, basis [][]byte) {
	if len(basis) == 0 {
		return
	}
	own := s.writer.book.basisOfNode(to)
	for _, encoded := range basis {
		if !slices.ContainsFunc(own, func(has []byte) bool { return bytes.Equal(has, encoded) }) {
			s.sendEncoded(to, encoded, 0)
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
