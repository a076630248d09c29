package natkind

import "net/netip"

// Ports says how a NAT chooses the outside port of a new mapping (RFC 4787, section 4.2).
type Ports uint8

// The kinds of port assignment.
const (
	PortsUnknown    Ports = 0
	PortsKept       Ports = 1 // the inside port, where it is free
	PortsSequential Ports = 2 // a little above, or below, that of the mapping before
	PortsRandom     Ports = 3 // no order to be seen
)

// String returns the word that people are shown.
func (p Ports) String() string {
	switch p {
	case PortsKept:
		return "kept"
	case PortsSequential:
		return "sequential"
	case PortsRandom:
		return "random"
	}
	return "unknown"
}

// maxStep is the largest difference of two ports in a row that passes for an order. Steps of 1 and 2 are what NATs make;
// the rest is room for what others behind the same NAT open meanwhile. Three random ports look like an order once in eight
// million times.
const maxStep = 16

// Sample is how a STUN server saw a socket that had sent nothing before.
type Sample struct {
	Local  uint16 // the port inside
	Mapped netip.AddrPort
}

// PortsOf judges by three or more samples in the order in which their sockets sent, right after one another. step is the
// smallest difference between two in a row, with its sign; 0 unless the ports are sequential.
//
// A NAT that gives out several addresses, and one that goes back and forth, count as random.
func PortsOf(samples []Sample) (kind Ports, step int) {
	if len(samples) < 3 {
		return PortsUnknown, 0
	}
	for i, s := range samples {
		if s.Mapped.Port() == s.Local {
			return PortsKept, 0
		}
		if i == 0 {
			continue
		}
		before := samples[i-1].Mapped
		d := int(s.Mapped.Port()) - int(before.Port())
		if s.Mapped.Addr() != before.Addr() || d == 0 || abs(d) > maxStep || step*d < 0 {
			return PortsRandom, 0
		}
		if step == 0 || abs(d) < abs(step) {
			step = d
		}
	}
	return PortsSequential, step
}

// Between returns the ports, at most limit, that a NAT with sequential ports can have given to a mapping that was made
// after the sample before and ahead of the sample after: the most likely first. There are none when the two samples leave
// no room for a mapping, or so much that limit ports would be a guess.
//
// Ports below 1024 are left out: no NAT gives them to a socket above (RFC 4787, section 4.2.1).
func Between(before, after Sample, step, limit int) []uint16 {
	from, to := int(before.Mapped.Port()), int(after.Mapped.Port())
	if step == 0 || before.Mapped.Addr() != after.Mapped.Addr() || (to-from)/step < 2 || (to-from)/step-1 > limit {
		return nil
	}
	var on, off []uint16 // what is whole steps away, and what is not: the step may have been measured too large
	sign := step / abs(step)
	for p := from + sign; p != to; p += sign {
		switch {
		case p < 1024:
		case (p-from)%step == 0:
			on = append(on, uint16(p))
		default:
			off = append(off, uint16(p))
		}
	}
	all := append(on, off...)
	return all[:min(len(all), limit)]
}

// Before returns the limit ports, nearest first, that a NAT with sequential ports gave to the mappings made before a sample.
func Before(s Sample, step, limit int) []uint16 {
	if step == 0 {
		return nil
	}
	var ports []uint16
	for p := int(s.Mapped.Port()) - step; p >= 1024 && p <= 65535 && len(ports) < limit; p -= step {
		ports = append(ports, uint16(p))
	}
	return ports
}

func abs(n int) int { return max(n, -n) }
