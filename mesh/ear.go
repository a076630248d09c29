package mesh

import "warren/mesh/identity"

// ear takes messages apart: records and notices go to intake, as many as their sender may send, whether they come by themselves or inside of
// a packet of memberlist's. It may be used concurrently and never blocks.
type ear struct {
	public *published
	limits *limits
	intake *intake
	drops  *drops
}

// message takes a message that by has brought, from itself or from another one, and returns what memberlist is to be given of it; nil: nothing.
func (e *ear) message(from, by identity.NodeID, payload []byte) (rest []byte) {
	switch {
	case len(payload) > 2 && payload[0] == straight:
		e.hear(arrival{encoded: payload[2:], from: from, hops: min(payload[1], maxHops)}, by)
		return nil
	case len(payload) > 1 && payload[0] == noticed:
		if entries := parseNotice(payload[1:]); entries != nil {
			e.hear(arrival{notice: entries, from: from}, by)
		} else {
			e.drops.add("notice: malformed")
		}
		return nil
	}
	rest, ours, err := openPacket(payload)
	switch {
	case err != nil:
		e.drops.add("gossip: malformed")
		return nil
	case !e.public.isMember(from):
		e.drops.add("gossip: not from a member")
		return nil
	case !e.limits.message(from, by):
		e.drops.add("gossip: too many messages")
		return nil
	}
	for _, message := range ours {
		if a, ok := readGossiped(message, from); ok {
			e.hear(a, by)
		} else {
			e.drops.add("gossip: malformed")
		}
	}
	return rest
}

// hear takes a record or a notice if its sender, or who has forwarded it, has not sent too many.
func (e *ear) hear(a arrival, by identity.NodeID) {
	if !e.limits.record(a.from, by) {
		e.drops.add("record: too many")
		return
	}
	e.intake.arrived(a)
}

// proof takes the records for which a node refuses this one.
func (e *ear) proof(from identity.NodeID, records [][]byte) {
	if !e.limits.proof(from) {
		e.drops.add("proof: too many")
		return
	}
	size := 0
	for _, encoded := range records {
		if size += len(encoded); size > MaxProof {
			e.drops.add("proof: too large")
			return
		}
		e.intake.arrived(arrival{encoded: encoded, from: from})
	}
}

// readGossiped reads a notice that came by gossip.
func readGossiped(message []byte, from identity.NodeID) (arrival, bool) {
	if len(message) != 1+entrySize || message[0] != gossipKey {
		return arrival{}, false
	}
	return arrival{notice: parseEntries(message[1:]), from: from}, true
}
