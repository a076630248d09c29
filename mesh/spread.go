package mesh

import (
	"crypto/sha256"
	"slices"
	"time"

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

// recentRecords is how many messages are remembered to drop their copies without a verification.
const recentRecords = 4096

// spreader is the queue of memberlist's gossip, and what was seen of it.
type spreader struct {
	queue *memberlist.TransmitLimitedQueue
	seen  *recent[[32]byte] // hashes of encoded records; owned by the run loop
}

// retransmits is memberlist's default for a LAN: each record is gossiped 4·log10(n+1) times by each member.
const retransmits = 4

func newSpreader(members func() int) *spreader {
	return &spreader{
		queue: &memberlist.TransmitLimitedQueue{NumNodes: members, RetransmitMult: retransmits},
		seen:  newRecent[[32]byte](recentRecords, 10*time.Minute),
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

// HandleMessage takes a message that another member sent with SendGossip. It never blocks. The payload is kept.
func (m *Mesh) HandleMessage(from identity.NodeID, payload []byte) {
	if len(payload) > 2 && payload[0] == straight {
		if m.heard(m.limits.records, from) {
			m.arrived(arrival{encoded: payload[2:], from: from, hops: min(payload[1], maxHops)})
		} else {
			m.drops.add("record: too many")
		}
		return
	}
	if err := checkPacket(payload); err != nil {
		m.drops.add("gossip: malformed")
		return
	}
	if !m.isMember(from) {
		m.drops.add("gossip: not from a member")
		return
	}
	if !m.heard(m.limits.messages, from) {
		m.drops.add("gossip: too many messages")
		return
	}
	if r := m.running.Load(); r == nil || !r.transport.deliver(from, payload) {
		m.drops.add("gossip: queue full")
	}
}

// arrived puts a record into the inbox.
func (m *Mesh) arrived(a arrival) {
	select {
	case m.inbox <- a:
	default:
		m.drops.add("record: queue full")
	}
}

// gossiped takes a record or a notice that memberlist brought. memberlist does not say from whom.
func (m *Mesh) gossiped(message []byte) {
	switch {
	case len(message) > 1 && message[0] == gossipAll:
		m.arrived(arrival{encoded: slices.Clone(message[1:])})
	case len(message) == noticeSize && message[0] == gossipKey:
		m.arrived(arrival{notice: parseEntries(message[1 : 1+entrySize])[0], from: identity.NodeID(message[1+entrySize:])})
	default:
		m.drops.add("gossip: malformed")
	}
}

// take verifies a batch of arrivals and reacts to what is new.
func (m *Mesh) take(batch []arrival) {
	now := time.Now()
	var came, notices []arrival
	var records []record.Signed
	for _, a := range batch {
		if a.encoded == nil {
			notices = append(notices, a)
			continue
		}
		hash := sha256.Sum256(a.encoded)
		if m.spread.seen.has(hash, now) {
			continue
		}
		m.spread.seen.add(hash, now)
		signed, err := record.Unmarshal(a.encoded)
		if err != nil {
			m.drops.add("record: malformed")
			continue
		}
		came, records = append(came, a), append(records, signed)
	}
	for i, n := range m.book.add(records, now) {
		m.countRefused(n.refused)
		m.react(n, came[i])
	}
	for _, a := range notices {
		if m.isMember(a.from) && m.lacks(a.notice) {
			m.asks.sync(a.from, noticeDelay)
		}
	}
	_ = m.flush()
}

func (m *Mesh) countRefused(refused []error) {
	for _, err := range refused {
		m.drops.add("record: " + roster.ReasonOf(err).String())
		m.log.Debug("record refused", "error", err)
	}
}

// react passes on what is new, tells those that are out why, and tells the user. a says how it came.
func (m *Mesh) react(n news, a arrival) {
	for i, signed := range n.fresh {
		if n.own && i == len(n.fresh)-1 {
			a = arrival{from: m.self, hops: maxHops} // our answer to a rival, not what came
		}
		m.pass(signed, a)
	}
	for _, d := range n.dropped {
		m.log.Info("member dropped", "id", d.ID.Short(), "reason", d.Text)
		for _, signed := range n.fresh {
			m.send(d.ID, signed, 0)
		}
	}
	if n.fatal != nil {
		m.fail(n.fatal)
	}
	if n.changed {
		m.changed()
	}
}

// pass sends a fresh record straight on as far as that is our turn, and gossips it.
func (m *Mesh) pass(signed record.Signed, a arrival) {
	d, err := signed.Decode()
	if err != nil {
		return
	}
	encoded, err := signed.Marshal()
	if err != nil {
		return
	}
	if a.hops > 0 && (a.from == m.self || m.isAnchor()) {
		hops := a.hops
		if a.from != m.self {
			hops--
		}
		for _, id := range m.sessions.Neighbours() {
			if id != a.from && (d.Node == nil || id != d.Node.ID) {
				_ = m.sessions.SendGossip(id, straightMessage(encoded, hops)) // gossip reaches whom this does not
			}
		}
	}
	message := append([]byte{gossipAll}, encoded...)
	if len(message) > maxGossiped {
		message = appendEntry([]byte{gossipKey}, roster.Entry{Key: d.Key, Version: d.Version})
		message = append(message, m.self[:]...)
	}
	m.spread.queue.QueueBroadcast(&broadcast{name: string(d.Key[:]), message: message})
}

// send sends one record straight to a member.
func (m *Mesh) send(to identity.NodeID, signed record.Signed, hops byte) {
	if encoded, err := signed.Marshal(); err == nil {
		_ = m.sessions.SendGossip(to, straightMessage(encoded, hops)) // best effort; its session ends with a reason too
	}
}

func straightMessage(encoded []byte, hops byte) []byte {
	return append([]byte{straight, hops}, encoded...)
}

// isAnchor reports whether others hang on this node.
func (m *Mesh) isAnchor() bool { return len(m.book.ownNode().Endpoints) > 0 }

// lacks reports whether a record is neither here, nor known to be refused.
func (m *Mesh) lacks(e roster.Entry) bool {
	return len(m.book.wanted([]roster.Entry{e}, time.Now())) > 0
}
