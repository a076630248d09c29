package nat

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/nat/natkind"
	"warren/nat/path"
	"warren/nat/stunwire"
)

// sampleTimes are when a sample is asked for, until it is answered. A repetition uses the mapping that the first packet
// made. When the last has had no answer for sampleWait the run is given up: the mappings that it is about are as old.
var sampleTimes = [...]time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond}

const sampleWait = 400 * time.Millisecond

// series is a run of samples: sockets that have sent one question each, one after the other.
type series struct {
	network uint64
	server  netip.AddrPort
	sockets []net.PacketConn
	asked   []question

	// Of an attempt: the peer's address that was written to ahead of the last sample. Invalid: the run is to learn.
	target  netip.AddrPort
	peer    identity.NodeID
	attempt uint64
}

type question struct {
	raw []byte
	id  stunwire.ID
}

// sampled is what came of a series; samples is empty when not all questions were answered.
type sampled struct {
	*series
	samples []natkind.Sample
}

// prediction guesses the ports of this node's router, and punches those that peers predict of theirs. The run loop owns it.
type prediction struct {
	work      *work
	mux       *mux
	log       *slog.Logger
	sockets   Sockets // nil: ports are not predicted
	place     *place
	predictor predictor
	puncher   *puncher
}

// learn finds out how the router gives out ports, if that is of use.
func (q *prediction) learn(now time.Time) {
	server, ok := q.place.sampler(q.predictor.tries)
	if q.sockets == nil || !ok || q.place.public() || !q.predictor.learns(now, q.place.mapping()) {
		return
	}
	q.predictor.begun(now)
	q.sample(series{server: server}, learnSamples, nil)
}

// find makes the mappings towards an attempt's candidates between two samples each. It must do so before anything
// else is sent to them.
func (q *prediction) find(p *peer, candidates []path.Candidate) {
	server, ok := q.place.sampler(p.finds)
	if q.sockets == nil || !ok || q.place.public() {
		return
	}
	p.finds++
	s := p.attempt.start
	for _, target := range targets(candidates) {
		now := time.Now()
		if !q.predictor.predicts(now, q.place.mapping()) || q.mux.budget.check(now, p.id, target.Addr(), false, false) != granted {
			return
		}
		q.sample(series{server: server, target: target, peer: p.id, attempt: s.Attempt}, 2, func() {
			q.punch(p, target)
		})
	}
}

// sample sends the questions of a series, and calls ahead before the last. Without a socket or a network there is no answer,
// and nothing is predicted.
func (q *prediction) sample(s series, n int, ahead func()) {
	s.network = q.predictor.network
	for range n {
		c, err := q.sockets.Listen()
		if err != nil {
			break
		}
		s.sockets = append(s.sockets, c)
		id := stunwire.NewID()
		s.asked = append(s.asked, question{stunwire.Probe(id), id})
	}
	if len(s.asked) < n {
		s.close()
		if ahead != nil {
			ahead()
		}
		return
	}
	for i := range n {
		if i == n-1 && ahead != nil {
			ahead()
		}
		s.ask(i)
	}
	q.predictor.series++
	q.work.spawn(func(ctx context.Context) {
		done := sampled{series: &s, samples: s.collect(ctx)}
		q.work.submit(ctx, item{sampled: &done})
	})
}

func (s *series) ask(i int) {
	_, _ = s.sockets[i].WriteTo(s.asked[i].raw, net.UDPAddrFromAddrPort(s.server))
}

func (s *series) close() {
	for _, c := range s.sockets {
		_ = c.Close()
	}
}

// collect waits for all answers, and closes the sockets.
func (s *series) collect(ctx context.Context) []natkind.Sample {
	defer s.close()
	defer context.AfterFunc(ctx, s.close)()
	start := time.Now()
	var samples []natkind.Sample
	for i := range s.sockets {
		sample, ok := s.await(i, start)
		if !ok {
			return nil
		}
		samples = append(samples, sample)
	}
	return samples
}

// await waits for the answer to one question, and repeats it. The repetitions of all questions are due at the same times, so
// that a lost packet costs its wait once.
func (s *series) await(i int, start time.Time) (natkind.Sample, bool) {
	buf := make([]byte, 512)
	for try := range sampleTimes {
		until := start.Add(sampleTimes[len(sampleTimes)-1] + sampleWait)
		if try+1 < len(sampleTimes) {
			until = start.Add(sampleTimes[try+1])
		}
		if s.sockets[i].SetReadDeadline(until) != nil {
			return natkind.Sample{}, false
		}
		for {
			n, addr, err := s.sockets[i].ReadFrom(buf)
			if err != nil {
				break
			}
			if sample, ok := s.answer(i, buf[:n], addr); ok {
				return sample, true
			}
		}
		if try+1 < len(sampleTimes) {
			s.ask(i)
		}
	}
	return natkind.Sample{}, false
}

// answer reads the answer to one question.
func (s *series) answer(i int, raw []byte, addr net.Addr) (natkind.Sample, bool) {
	from, isUDP := addr.(*net.UDPAddr)
	local, ok := s.sockets[i].LocalAddr().(*net.UDPAddr)
	p, sound := stunwire.Inspect(raw)
	if !isUDP || !ok || !sound || p.Class != stunwire.Success || p.ID != s.asked[i].id {
		return natkind.Sample{}, false
	}
	if at := from.AddrPort(); netip.AddrPortFrom(at.Addr().Unmap(), at.Port()) != s.server {
		return natkind.Sample{}, false
	}
	mapped, ok := p.Mapped()
	return natkind.Sample{Local: local.AddrPort().Port(), Mapped: mapped}, ok && path.Usable(mapped.Addr())
}

// sampled takes what came of a series: knowledge of the router, or ports that the peer is told.
func (l *loop) sampled(now time.Time, s sampled) {
	l.prediction.predictor.series--
	switch p := l.peers[s.peer]; {
	case s.network != l.prediction.predictor.network || len(s.samples) == 0:
	case !s.target.IsValid():
		l.prediction.predictor.learnt(now, s.samples, l.place.samplers() > 1)
		l.publishMapped()
		l.prediction.learn(now)
		l.log.Debug("port assignment", "kind", l.prediction.predictor.ports, "step", l.prediction.predictor.step)
	case p != nil:
		ports, fresh, ok := p.guesses.between(now, &l.prediction.predictor, s.target, s.samples[0], s.samples[1])
		if fresh || !slices.Contains(l.place.servers, s.target) { // that there is a mapping towards a server says nothing
			l.prediction.predictor.found(now, fresh)
		}
		if ok {
			l.step(now, p, path.OwnPredicted{Attempt: s.attempt, Predicted: ports})
		}
	}
}

// punch sends one check beside ICE's.
func (q *prediction) punch(p *peer, to netip.AddrPort) {
	s := p.attempt.start
	p.attempt.mux.trial.sent(to)
	if err := q.mux.punch(s.Local, s.Remote, to); err != nil {
		q.log.Warn("check not sent", "id", p.id.Short(), "error", err)
	}
}

// told takes the ports that a peer has predicted. A NAT of our own that maps by destination would send to each from
// another port, and none of them where the peer sends to: then nothing is tried.
func (q *prediction) told(now time.Time, peers map[identity.NodeID]*peer, p *peer, o path.Punch) {
	if p.attempt == nil || p.attempt.start.Attempt != o.Attempt || q.place.mapping().Dependent() {
		return
	}
	if len(o.To) == 0 || !q.mux.budget.ports(now, o.To[0].Addr(), len(o.To)) || !q.puncher.add(now, p.id, o) {
		q.log.Debug("punching paused", "id", p.id.Short())
		return
	}
	q.punchDue(now, peers)
}

// punchDue sends the checks to predicted ports that are due, unless the peer has shown itself: ICE does the rest.
func (q *prediction) punchDue(now time.Time, peers map[identity.NodeID]*peer) {
	for id, to := range q.puncher.due(now) {
		p := peers[id]
		if p == nil || p.attempt == nil || q.mux.shown(p.attempt.start.Local.Ufrag) {
			q.puncher.stop(id)
			continue
		}
		for _, addr := range to {
			q.punch(p, addr)
		}
	}
}

// mapping says how the NATs on the way map the shared socket over IPv4, as far as STUN servers on the Internet show it, or a
// measurement did.
func (p *place) mapping() natkind.Mapping {
	var seen []natkind.Seen
	for _, s := range p.prober.sightings() {
		if isInternet4(s.Server.Addr()) {
			seen = append(seen, natkind.Seen{Server: s.Server, Mapped: s.Mapped})
		}
	}
	kind := natkind.MappingOf(seen, func(a netip.Addr) bool {
		return slices.ContainsFunc(p.hosts, func(h netip.AddrPort) bool { return h.Addr() == a })
	})
	if kind == natkind.MappingUnknown {
		return p.own.Mapping
	}
	return kind
}

// public reports whether this host has an IPv4 address of the Internet itself.
func (p *place) public() bool {
	return slices.ContainsFunc(p.hosts, func(h netip.AddrPort) bool { return isInternet4(h.Addr()) })
}

// sampler returns the STUN server that samples are asked of: one on the Internet, over IPv4, the best one for turn 0, and another
// one for each turn: none is to be believed for ever.
func (p *place) sampler(turn int) (netip.AddrPort, bool) {
	n := p.samplers()
	for _, s := range p.servers {
		if isInternet4(s.Addr()) {
			if turn%n == 0 {
				return s, true
			}
			turn--
		}
	}
	return netip.AddrPort{}, false
}

// samplers counts them.
func (p *place) samplers() (n int) {
	for _, s := range p.servers {
		if isInternet4(s.Addr()) {
			n++
		}
	}
	return n
}
