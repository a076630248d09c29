package node

import (
	"net/netip"
	"slices"
	"sync"

	"warren/nat/netwatch"
)

// hosted knows this host's underlay addresses. When the system cannot be asked for a moment, what it said before holds: an
// address that is gone costs a check that fails, one that is missing costs the path, or the join by a token without it.
type hosted struct {
	look func() ([]netip.Addr, error)
	say  func(error) // is told of a failure, and with nil of its end

	mu     sync.Mutex
	last   []netip.Addr
	failed bool
}

func newHosted(n *node) *hosted {
	say := func(err error) {
		if err == nil {
			n.status.warn("addresses", "")
			return
		}
		n.log.Warn("own addresses not known, those of before are used", "error", err)
		n.status.warn("addresses", "this host's addresses cannot be looked at, those of before are used: "+err.Error())
	}
	return &hosted{look: func() ([]netip.Addr, error) { return netwatch.Addresses(n.foreign) }, say: say}
}

// addresses returns the addresses that may be offered to peers, best first.
func (h *hosted) addresses() []netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	list, err := h.look()
	if err != nil {
		if !h.failed {
			h.say(err)
		}
		h.failed = true
		return slices.Clone(h.last)
	}
	if h.failed {
		h.say(nil)
	}
	h.last, h.failed = list, false
	return slices.Clone(list)
}
