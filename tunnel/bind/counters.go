package bind

import "sync/atomic"

// Drop is a reason for which a packet was dropped.
type Drop uint8

// The reasons, in the order of a packet's way in and then out.
const (
	// DropUnknown: received, of none of the protocols of this port.
	DropUnknown Drop = iota
	// DropMalformedSTUN: received STUN that could harm its parser.
	DropMalformedSTUN
	// DropTooLarge: received STUN or QUIC larger than any that we would send.
	DropTooLarge
	// DropSTUNQueue: the oldest packet of the full STUN lane.
	DropSTUNQueue
	// DropQUICQueue: the oldest packet of the full QUIC lane.
	DropQUICQueue
	// DropLetterQueue: received datagrams of letters, which nobody has read in time.
	DropLetterQueue
	// DropUnknownChannel: received ChannelData that is neither ours nor to be forwarded, or sent to a
	// channel that is closed.
	DropUnknownChannel
	// DropNested: ChannelData that carried something else than WireGuard or STUN.
	DropNested
	// DropStreamBroken: what came over a stream was no frame; the stream has ended.
	DropStreamBroken
	// DropStreamRefused: received over a stream that may carry only QUIC.
	DropStreamRefused
	// DropCrossed: a handshake initiation received while our own, which goes first, was under way, or the response to one
	// that was given up for another.
	DropCrossed
	// DropForwardQueue: to be relayed, but the uplink did not keep up.
	DropForwardQueue
	// DropForwardFailed: to be relayed, but the system refused to send it.
	DropForwardFailed
	// DropStreamQueue: packets that a stream could not send in time: the oldest of its full queue, or any that waited too long.
	DropStreamQueue
	// DropStreamGone: to be sent over a stream that has ended.
	DropStreamGone
	// DropNoPath: WireGuard wanted to send to a peer that has no path.
	DropNoPath
	// DropNotOurTurn: a handshake initiation without a path, on the side that leaves the first word to the peer.
	DropNotOurTurn
	// DropCarried: a handshake message that an introduction has brought, more than the device takes at once.
	DropCarried
	// DropSendFailed: the system refused to send (no route, no socket, no buffer).
	DropSendFailed

	dropReasons
)

var dropNames = [dropReasons]string{
	DropUnknown:        "unknown protocol",
	DropMalformedSTUN:  "malformed stun",
	DropTooLarge:       "too large",
	DropSTUNQueue:      "stun queue full",
	DropQUICQueue:      "quic queue full",
	DropLetterQueue:    "letter queue full",
	DropUnknownChannel: "unknown channel",
	DropNested:         "bad channel payload",
	DropStreamBroken:   "broken stream",
	DropStreamRefused:  "not for this stream",
	DropCrossed:        "handshakes crossed",
	DropForwardQueue:   "relay queue full",
	DropForwardFailed:  "relay send failed",
	DropStreamQueue:    "stream queue full",
	DropStreamGone:     "stream ended",
	DropNoPath:         "no path",
	DropNotOurTurn:     "not our turn",
	DropCarried:        "carried handshakes queue full",
	DropSendFailed:     "send failed",
}

// String returns the reason in words, as status and the metrics show it.
func (d Drop) String() string {
	if d >= dropReasons {
		return "invalid"
	}
	return dropNames[d]
}

// drops counts packets by reason.
type drops [dropReasons]atomic.Uint64

func (d *drops) add(reason Drop, n int) { d[reason].Add(uint64(n)) }

// Counters returns how many packets were dropped since New, for every reason, also those that never happened.
func (b *Bind) Counters() map[Drop]uint64 {
	counts := make(map[Drop]uint64, dropReasons)
	for reason := range b.drops {
		counts[Drop(reason)] = b.drops[reason].Load()
	}
	return counts
}
