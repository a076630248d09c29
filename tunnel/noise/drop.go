package noise

// Drop is a reason why a message went no further.
type Drop uint8

// The reasons. Kept is none.
const (
	Kept            Drop = iota
	DropMalformed        // no message, or of a wrong length
	DropMAC              // not made for this node's key
	DropLoad             // under load: a cookie was sent back, or the address is over its rate
	DropIndex            // for a session or a handshake that is not, or no longer, there
	DropForged           // it does not open: forged, damaged, or the preshared keys differ
	DropStranger         // of a key that is no peer's
	DropStale            // an initiation with a stamp that is not later than the last one: a copy, or the peer's calendar has gone back
	DropFlood            // an initiation that follows another one too closely
	DropReplay           // a packet that was there before, or is older than the window
	DropExpired          // for a session that is too old
	DropNoHandshake      // a cookie to which no message of ours belongs
	drops
)

var dropNames = [drops]string{
	"kept", "malformed", "not for this key", "under load", "unknown index", "does not open", "unknown peer", "stale initiation",
	"too many initiations", "replayed", "session expired", "cookie for nothing",
}

// String returns the reason in words.
func (d Drop) String() string {
	if d >= drops {
		return "unknown"
	}
	return dropNames[d]
}
