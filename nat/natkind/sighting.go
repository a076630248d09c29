package natkind

import (
	"net/netip"
	"time"
)

// Sighting is the latest answer of one STUN server about the shared socket.
type Sighting struct {
	Server, Mapped netip.AddrPort
	At             time.Time
}
