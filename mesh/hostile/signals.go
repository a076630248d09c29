//go:build hostile

package hostile

import (
	"context"
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"warren/mesh/roster"
	"warren/mesh/session"
	"warren/mesh/signal"
	"warren/nat/path"
)

// Attacks by introductions.

// offerTo seals an offer of a puppet.
func (s *strike) offerTo(p *puppet, sealer *signal.Sealer, m roster.Member, candidates []string, attempt uint64) ([]byte, error) {
	message := path.Message{
		Kind: path.KindOffer, Attempt: attempt, Instance: p.instance, Ufrag: "abcdefgh", Pwd: "abcdefghijklmnopqrstuvwxyz", Candidates: candidates,
	}
	payload, err := message.Encode()
	if err != nil {
		return nil, err
	}
	garbage := make([]byte, 148) // a handshake that nobody has made
	garbage[0] = 1
	binary.LittleEndian.PutUint64(garbage[8:], attempt)
	sealed, _, err := sealer.Seal(time.Now(), m.ID, signal.Message{Role: signal.Offer, Attempt: attempt, Payload: payload, Handshake: garbage})
	return sealed, err
}

// introduce offers everybody sixteen candidates that are all of a bystander, ten times a second, in the name of each puppet, and of one
// that stays the same.
func introduce(ctx context.Context, s *strike) {
	puppets := s.pool(4)
	var sealers []*signal.Sealer
	for _, p := range puppets {
		sealer, err := s.sealer(p)
		if err != nil {
			s.tell(err)
			return
		}
		sealers = append(sealers, sealer)
	}
	pace(ctx, 10, func(i int) bool {
		var lines []string
		for port := range path.MaxCandidates {
			lines = append(lines, path.NewCandidate(path.Host, netip.AddrPortFrom(s.At, uint16(20000+port)), port).String())
		}
		for j, p := range puppets {
			for _, m := range s.others() {
				sealed, err := s.offerTo(p, sealers[j], m, lines, uint64(time.Now().UnixNano()))
				if err != nil {
					s.tell(err)
					continue
				}
				s.send([]roster.Member{m}, session.ProtoSignal, sealed)
			}
		}
		return true
	})
}

// errands has everybody send to a bystander: as where puppets are reached, by UDP and by TCP, on other ports each time, and by asks to
// dial back.
func errands(ctx context.Context, s *strike) {
	puppets := s.pool(4)
	at := s.At.AsSlice()
	pace(ctx, 20, func(i int) bool {
		ask := append([]byte{1}, s.dice.noise(12)...)
		ask = binary.BigEndian.AppendUint16(ask, uint16(20000+s.dice.upto(1000)))
		s.send(s.others(), session.ProtoAsk, append(ask, at...))
		if i%20 > 0 || len(puppets) == 0 {
			return true
		}
		for _, p := range puppets {
			var endpoints []any
			for range 8 {
				endpoints = append(endpoints, binary.BigEndian.AppendUint16(append([]byte(nil), at...), uint16(20000+s.dice.upto(1000))))
			}
			s.tell(s.publish(p, func(b body) { b[9], b[18] = endpoints, endpoints }))
		}
		return true
	})
	for _, p := range puppets {
		_ = s.publish(p, nil)
	}
}

// floodSignals sends garbage as fast as it goes, by the agent and by sessions of puppets and of strangers; and in between offers that
// are in order, each of them again and again.
func floodSignals(ctx context.Context, s *strike) {
	puppets := s.pool(2)
	var old [][2]any // receiver, sealed
	var outside []*raw
	for _, p := range puppets {
		sealer, err := s.sealer(p)
		if err != nil {
			continue
		}
		for _, m := range s.others() {
			for range 4 {
				lines := []string{path.NewCandidate(path.Host, netip.AddrPortFrom(s.At, 9), 0).String()}
				if sealed, err := s.offerTo(p, sealer, m, lines, uint64(time.Now().UnixNano())); err == nil {
					old = append(old, [2]any{m, sealed})
				}
			}
		}
	}
	var mu sync.Mutex
	dialled := make(chan struct{})
	go func() { // a stranger may have to wait for its answer
		defer close(dialled)
		for _, m := range s.reachable() {
			if r, err := s.stranger(ctx, m.Record.Endpoints[0]); err == nil {
				mu.Lock()
				outside = append(outside, r)
				mu.Unlock()
			}
		}
	}()
	pace(ctx, 2*fullSpeed, func(i int) bool {
		all := s.others()
		if len(all) == 0 {
			return true
		}
		switch i % 4 {
		case 0:
			if len(old) > 0 {
				again := old[(i/4)%len(old)]
				s.add("replays", 1)
				s.send([]roster.Member{again[0].(roster.Member)}, session.ProtoSignal, again[1].([]byte))
			}
		case 1:
			mu.Lock()
			strangers := outside
			mu.Unlock()
			if len(strangers) > 0 {
				s.tell(strangers[(i/4)%len(strangers)].push(direct(session.ProtoSignal, s.dice.noise(200))))
			}
		case 2:
			if near := s.reachable(); len(near) > 0 && len(puppets) > 0 {
				if r, err := puppets[(i/4)%len(puppets)].dial(ctx, s, near[(i/8)%len(near)]); err == nil {
					s.tell(r.push(direct(session.ProtoSignal, s.dice.noise(200))))
				}
			}
		default:
			size := 200
			if i%64 == 3 {
				size = 12 << 10
			}
			s.send(all[(i/4)%len(all):(i/4)%len(all)+1], session.ProtoSignal, s.dice.noise(size))
		}
		return true
	})
	<-dialled
	for _, r := range outside {
		r.close(0, "")
	}
}
