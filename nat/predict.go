package nat

import (
	"net/netip"
	"slices"
	"time"

	"warren/nat/natkind"
	"warren/nat/path"
	"warren/nat/ranges"
)

/* Prediction of ports
 *
 * Behind a NAT that maps by destination the port towards a peer is another one than STUN servers see. If such a NAT gives
 * out ports in order, it can be found all the same: by a sample, which is the question for the own address from a socket
 * that has sent nothing before, so that the NAT makes a mapping for it. A sample, a check to the peer's mapping and another
 * sample, sent right after one another, put the port towards the peer between those of the samples.
 *
 *	sample ──▶ STUN server    40001
 *	check  ──▶ peer           40002   towards the peer: ICE, and later WireGuard, use the same mapping
 *	sample ──▶ STUN server    40003
 *
 * How the router gives out ports is learnt by three samples once in a network, unless the mapping is known not to depend
 * on the destination. Attempts that begin meanwhile take theirs too. Behind any but a NAT with sequential ports that is all
 * that is ever sent.
 */

const (
	learnSamples = 3
	learnTries   = 3
	learnRetry   = 30 * time.Second
	// maxSeries bounds the runs of samples under way. STUN servers answer 50 requests a second of one address.
	maxSeries = 16
	// maxEarlySeries bounds them while it is not known yet whether they are of any use.
	maxEarlySeries = 4
	// maxTargets bounds the peer's addresses for which the mapping is found: a peer that can be reached this way has one.
	maxTargets = 2
	// maxBarren is how many runs in a row may find no new mapping towards a peer until it is taken that the mapping does not
	// depend on the destination, though the ports are given out in order: then runs rest for barrenRest.
	maxBarren  = 5
	barrenRest = 10 * time.Minute
	// guessLife is how long a found mapping is believed to exist, through attempts that use it: NATs keep UDP mappings for
	// 30 s at least, mostly two minutes.
	guessLife = 2 * time.Minute
)

// predictor knows how the router gives out ports. It is pure: its owner sends for it.
type predictor struct {
	ports   natkind.Ports
	step    int
	first   natkind.Sample // of those that it was learnt from
	last    natkind.Sample // the newest, of whatever run
	network uint64         // counts the networks: answers of an earlier one are void
	tries   int            // to learn
	doubted bool           // one server has shown that nothing can be predicted
	next    time.Time
	series  int // runs of samples under way
	barren  int // runs in a row that found no new mapping
	rest    time.Time
}

// reset forgets what was learnt in another network.
func (p *predictor) reset() {
	*p = predictor{network: p.network + 1, series: p.series}
}

// learns reports whether to take samples now, to see how the router gives out ports.
func (p *predictor) learns(now time.Time, mapping natkind.Mapping) bool {
	return p.ports == natkind.PortsUnknown && (mapping == natkind.MappingUnknown || mapping.Dependent()) &&
		p.tries < learnTries && !now.Before(p.next) && p.series < maxSeries
}

// begun notes the start of a run to learn.
func (p *predictor) begun(now time.Time) {
	p.tries++
	p.next = now.Add(learnRetry)
}

// learnt takes the samples of a run to learn. That nothing can be predicted is believed when two servers have shown it, if another
// one can be asked.
func (p *predictor) learnt(now time.Time, samples []natkind.Sample, another bool) {
	kind, step := natkind.PortsOf(samples)
	switch {
	case kind == natkind.PortsUnknown:
	case kind != natkind.PortsSequential && another && !p.doubted:
		p.doubted, p.next = true, now
	default:
		p.ports, p.step, p.first, p.last = kind, step, samples[0], samples[len(samples)-1]
	}
}

// predicts reports whether an attempt that starts now is to find the mapping towards its peer: the ports are given out in
// order, or that is being learnt.
func (p *predictor) predicts(now time.Time, mapping natkind.Mapping) bool {
	switch {
	case now.Before(p.rest):
		return false
	case mapping != natkind.MappingUnknown && !mapping.Dependent():
		return false
	case p.ports == natkind.PortsSequential:
		return p.series < maxSeries
	}
	return p.ports == natkind.PortsUnknown && p.tries > 0 && p.series < maxEarlySeries
}

// found notes whether a run has found a new mapping.
func (p *predictor) found(now time.Time, fresh bool) {
	p.barren++
	if fresh {
		p.barren = 0
	}
	if p.barren == maxBarren {
		p.barren, p.rest = 0, now.Add(barrenRest)
	}
}

// guess is what is known of the mapping towards one address of a peer.
type guess struct {
	target  netip.AddrPort
	network uint64
	at      time.Time
	ports   path.Predicted
	assumed bool // nothing was seen of it but that it was there already
}

// guesses are those of one peer, newest last.
type guesses []guess

// between turns the samples around a check to target into ports. When they leave no room for a new mapping there was one
// already, which is perhaps known. If not, something else has made it: since the newest sample before, as when the attempt itself was
// faster; or WireGuard, whose packets went on when the router lost its state: then it lies shortly before the samples by which the ports
// were learnt anew. found is false for such a guess, which is kept: as long as the mapping lives there is no better one.
func (g *guesses) between(now time.Time, p *predictor, target netip.AddrPort, before, after natkind.Sample) (told path.Predicted, found, ok bool) {
	if p.ports != natkind.PortsSequential {
		return path.Predicted{}, false, false
	}
	*g = slices.DeleteFunc(*g, func(old guess) bool { return old.network != p.network || now.Sub(old.at) > guessLife })
	same := func(old guess) bool { return old.target == target }
	ports := natkind.Between(before, after, p.step, path.MaxPredicted)
	last := p.last
	p.last = after
	i := slices.IndexFunc(*g, same)
	if len(ports) == 0 && i >= 0 {
		(*g)[i].at = now
		return (*g)[i].ports, !(*g)[i].assumed, true
	}
	assumed := len(ports) == 0
	if assumed {
		ports = slices.Concat(natkind.Between(last, before, p.step, path.MaxPredicted), natkind.Before(p.first, p.step, path.MaxPredicted))
		ports = ports[:min(len(ports), path.MaxPredicted)]
	}
	if len(ports) == 0 {
		return path.Predicted{}, false, false
	}
	*g = slices.DeleteFunc(*g, same)
	fresh := guess{target: target, network: p.network, at: now, ports: path.Predicted{Addr: before.Mapped.Addr(), Ports: ports}, assumed: assumed}
	*g = append(*g, fresh)
	*g = (*g)[max(0, len(*g)-2*maxTargets):]
	return fresh.ports, !assumed, true
}

// targets returns the addresses among a peer's candidates towards which the router makes mappings.
func targets(candidates []path.Candidate) []netip.AddrPort {
	var list []netip.AddrPort
	for _, c := range candidates {
		if isInternet4(c.Addr.Addr()) && len(list) < maxTargets && !slices.Contains(list, c.Addr) {
			list = append(list, c.Addr)
		}
	}
	return list
}

// isInternet4 reports whether an address is one of the Internet over IPv4, beyond all NATs: neither private (RFC 1918) nor
// of a carrier (RFC 6598). IPv6 is not translated by port.
func isInternet4(a netip.Addr) bool {
	return a.Is4() && path.Usable(a) && ranges.IsPublic(a)
}
