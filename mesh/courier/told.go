package courier

import (
	"errors"
	"time"

	"warren/mesh/identity"
	"warren/mesh/signal"
	"warren/nat/natkind"
)

// Told is what a peer has said of itself, and when it was heard at all.
type Told struct {
	NAT    natkind.Self
	At     time.Time // of NAT; zero: it has not said
	Heard  time.Time // when its last introduction came
	Skewed time.Time // when a signal of it was last refused because of its clock; zero: not since one was taken
}

// Told returns what is known from a peer's introductions; zero when there was none.
func (c *Courier) Told(id identity.NodeID) Told {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.told[id]
}

// heard notes a verified introduction; packed is where the peer says that it stands, 0 when it does not say.
func (c *Courier) heard(id identity.NodeID, packed uint32) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.told[id]
	t.Heard, t.Skewed = now, time.Time{}
	if packed != 0 {
		t.NAT, t.At = natkind.Unpack(packed), now
	}
	c.told[id] = t
}

// refused notes a signal that could not be taken. Only what a proven sender has caused is remembered.
func (c *Courier) refused(id identity.NodeID, err error) {
	if !errors.Is(err, signal.ErrClockSkew) {
		return
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.told[id]
	t.Skewed = now
	c.told[id] = t
}
