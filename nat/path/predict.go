package path

import (
	"fmt"
	"net/netip"
	"slices"
)

/* Predicted ports
 *
 * Behind a NAT that maps by destination and gives out ports in order, a node knows within a few ports where the mapping
 * towards its peer lies, but cannot be reached there by a peer whose own NAT lets only those in that were written to, port
 * by port. It tells the peer these ports; the peer sends a check to each, which opens its NAT for the one that is right.
 *
 *	predicting node                                    its peer, with one mapping for all destinations
 *	  check to the peer's mapping  ──X                 not let in yet; but now its own mapping is there
 *	  candidates: predicted address, ports  ──signal─▶
 *	                                        ◀─ Punch ─ checks to all of these ports
 *	  ICE's checks ──────────────────────────────────▶ let in; from here on plain ICE
 */

// MaxPredicted bounds the predicted ports of one attempt.
const MaxPredicted = 32

// minPredicted is the lowest port that is punched: no NAT maps a socket above 1024 to a port below (RFC 4787, section
// 4.2.1), and behind those below 1024 stand other people's servers.
const minPredicted = 1024

// Predicted are ports, the most likely first, of one address at which the sender's NAT may let its peer in. None: nothing
// is predicted.
type Predicted struct {
	Addr  netip.Addr
	Ports []uint16
}

type predictedWire struct {
	Addr  []byte   `cbor:"1,keyasint"`
	Ports []uint16 `cbor:"2,keyasint"`
}

func (p Predicted) wire() *predictedWire {
	if len(p.Ports) == 0 {
		return nil
	}
	return &predictedWire{Addr: p.Addr.AsSlice(), Ports: p.Ports}
}

func (w *predictedWire) predicted() (Predicted, error) {
	if w == nil {
		return Predicted{}, nil
	}
	addr, ok := netip.AddrFromSlice(w.Addr)
	if !ok || addr.Is4In6() || len(w.Ports) == 0 {
		return Predicted{}, fmt.Errorf("%d ports predicted at an address of %d bytes: %w", len(w.Ports), len(w.Addr), ErrMalformed)
	}
	return Predicted{Addr: addr, Ports: w.Ports}, nil
}

// prediction is what an attempt knows of predicted ports.
type prediction struct {
	own     Predicted
	punched []netip.AddrPort // of the peer's, at most MaxPredicted
}

// predict takes the ports of this node; true when they are for the attempt that runs, and the peer is to be told.
func (a *attempt) predict(in OwnPredicted) bool {
	if !a.runs(in.Attempt) || len(in.Predicted.Ports) == 0 {
		return false
	}
	a.ports.own = Predicted{Addr: in.Predicted.Addr, Ports: slices.Clone(in.Predicted.Ports[:min(len(in.Predicted.Ports), MaxPredicted)])}
	return true
}

// punch has checks sent to the peer's predicted ports. They must be at an address that the peer has told as a candidate of
// this attempt, and so has ICE's checks sent to anyway: a prediction adds ports, bounded for each attempt, but no target. A
// NAT is not at a private address, where this node's own router or printer may be.
func (a *attempt) punch(p Predicted) {
	if p.Addr.IsPrivate() || !slices.ContainsFunc(a.remote, func(c Candidate) bool { return c.Addr.Addr() == p.Addr }) {
		return
	}
	if to := a.ports.take(p); len(to) > 0 {
		a.emit(Punch{Attempt: a.number, To: to})
	}
}

// take notes the ports that are new and may be punched, and returns them.
func (s *prediction) take(p Predicted) (to []netip.AddrPort) {
	for _, port := range p.Ports {
		addr := netip.AddrPortFrom(p.Addr, port)
		if port < minPredicted || len(s.punched) == MaxPredicted || slices.Contains(s.punched, addr) {
			continue
		}
		s.punched = append(s.punched, addr)
		to = append(to, addr)
	}
	return to
}
