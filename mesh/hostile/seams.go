//go:build hostile

package hostile

import (
	"context"
	"crypto/x509"
	"encoding/binary"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"warren/mesh/identity"
	"warren/mesh/session"
	"warren/nat/stunwire"
)

// What the attacker puts around the parts of its agent. While it is not told to do anything, all of it passes everything on as it is.

// Members is the agent's word on who is a member, which can turn into a lie.
func (a *Attacker) Members(m session.Members) session.Members { return members{m, a} }

type members struct {
	session.Members
	a *Attacker
}

func (m members) Verify(chain []*x509.Certificate) (identity.NodeID, error) {
	id, err := m.Members.Verify(chain)
	switch text := m.a.refuseWith.Load(); {
	case m.a.refusing.Load():
		m.a.did("refused", 1)
		return id, &session.Refusal{Code: 0x100, Reason: "anything"}
	case text != nil && err != nil:
		return id, &session.Refusal{Code: 0x100, Reason: *text}
	}
	return id, err
}

// did counts for the attack that uses a seam.
func (a *Attacker) did(what string, n int) {
	if c := a.counters.Load(); c != nil {
		c.add(what, n)
	}
}

// Inbound takes what comes by sessions, and lies when a member asks to be dialled back.
func (a *Attacker) Inbound(in session.Inbound) session.Inbound { return inbound{in, a} }

type inbound struct {
	session.Inbound
	a *Attacker
}

// Message answers asks of protocol 6 without doing what they ask for: that it cannot, or by a port that nothing came from.
func (in inbound) Message(from, by identity.NodeID, p session.Proto, payload []byte) {
	if p != session.ProtoAsk || !in.a.lying.Load() || len(payload) < 13 || payload[0] > 2 {
		in.Inbound.Message(from, by, p, payload)
		return
	}
	answer := append([]byte{4}, payload[1:13]...)
	if payload[0] == 2 {
		answer = binary.BigEndian.AppendUint16(append([]byte{3}, payload[1:13]...), 4242)
	}
	if parts := in.a.parts.Load(); parts != nil && parts.Sessions.Send(from, session.ProtoAsk, answer) == nil {
		in.a.did("sent", 1)
		in.a.did("wrong answers to asks", 1)
	}
}

// Socket is the agent's sockets, out of which other things can come than the agent has sent.
func (a *Attacker) Socket(inner conn.Bind) conn.Bind { return &socket{inner, a} }

type socket struct {
	conn.Bind
	a *Attacker
}

// Exact is not conn.Bind's: see tunnel/sockets.
func (b *socket) Exact(on bool) {
	if inner, ok := b.Bind.(interface{ Exact(bool) }); ok {
		inner.Exact(on)
	}
}

// Send sends what is relayed as the mode says, and answers of STUN with a wrong address.
func (b *socket) Send(bufs [][]byte, ep conn.Endpoint) error {
	mode := mangling(b.a.mangling.Load())
	if mode == honest && !b.a.lying.Load() {
		return b.Bind.Send(bufs, ep)
	}
	var out [][]byte
	for _, p := range bufs {
		switch {
		case mode != honest && isChannelData(p):
			b.a.did("sent", 1)
			b.a.did(mode.String(), 1)
			out = append(out, b.mangled(mode, p, ep)...)
		case b.a.lying.Load() && isAnswer(p):
			b.a.did("sent", 1)
			b.a.did("wrong STUN answers", 1)
			out = append(out, wrongAnswer(p))
		default:
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return nil
	}
	// One by one: the bind below joins the packets of a batch in place, which needs them to be as they came.
	var first error
	for _, p := range out {
		if err := b.Bind.Send([][]byte{p}, ep); first == nil {
			first = err
		}
	}
	return first
}

// mangling is what a relay does to what it relays.
type mangling int32

const (
	honest mangling = iota
	repeat
	delay
	corrupt
	drop
)

func (m mangling) String() string {
	return [...]string{"relayed", "repeated", "delayed", "corrupted", "dropped"}[m]
}

// mangled returns what is to be sent at once.
func (b *socket) mangled(mode mangling, p []byte, ep conn.Endpoint) [][]byte {
	switch mode {
	case repeat:
		return [][]byte{p, p, p}
	case delay:
		late := append([]byte(nil), p...)
		time.AfterFunc(400*time.Millisecond, func() { _ = b.Bind.Send([][]byte{late}, ep) })
		return nil
	case corrupt:
		wrong := append([]byte(nil), p...)
		for i := 4 + 8; i < len(wrong); i += 7 {
			wrong[i] ^= 0x55
		}
		return [][]byte{wrong}
	case drop:
		return nil
	}
	return [][]byte{p}
}

func isChannelData(p []byte) bool {
	return len(p) > 8 && p[0]&0xF0 == 0x40 && int(binary.BigEndian.Uint16(p[2:]))+4 <= len(p)
}

// isAnswer reports whether a packet is an answer to a bare request: no integrity.
func isAnswer(p []byte) bool {
	return stunwire.Is(p) && binary.BigEndian.Uint16(p) == uint16(stunwire.Success) && mappedAt(p) > 0
}

// mappedAt is where the address stands in an answer without integrity; 0: it is none.
func mappedAt(p []byte) (at int) {
	for i := 20; i+4 <= len(p); {
		kind, size := binary.BigEndian.Uint16(p[i:]), int(binary.BigEndian.Uint16(p[i+2:]))
		switch kind {
		case 0x0008:
			return 0
		case 0x0020:
			if size >= 8 && i+4+size <= len(p) {
				at = i + 4
			}
		}
		i += 4 + (size+3)&^3
	}
	return at
}

// wrongAnswer has another port and another host.
func wrongAnswer(p []byte) []byte {
	out := append([]byte(nil), p...)
	at := mappedAt(out)
	out[at+2] ^= 0x11
	out[at+7] ^= 0x1F
	return out
}

// bomb closes all sessions with the code of a revocation, and refuses everybody.
func bomb(ctx context.Context, s *strike) {
	s.useSeams()
	s.refusing.Store(true)
	defer s.refusing.Store(false)
	for _, m := range s.Records.View().Members {
		if m.ID != s.State.NodeID() {
			s.Sessions.Drop(m.ID, 0x100, "anything")
			s.tell(nil)
		}
	}
	// Strangers, and puppets, say so too.
	puppets := s.pool(2)
	pace(ctx, 2, func(i int) bool {
		for _, m := range s.reachable() {
			if r, err := s.stranger(ctx, m.Record.Endpoints[0]); err == nil {
				r.close(0x100, "revoked by "+m.Name)
				s.tell(nil)
			}
			for _, p := range puppets {
				if r, err := p.dial(ctx, s, m); err == nil {
					r.close(0x100, "anything")
					s.tell(nil)
				}
			}
		}
		return true
	})
}

// useSeams makes the strike's counters those of the seams.
func (s *strike) useSeams() { s.Attacker.counters.Store(&s.counters) }

// mangle relays badly: repeated, late, corrupted, not at all, each for a part of the time.
func mangle(ctx context.Context, s *strike) {
	s.useSeams()
	defer s.Attacker.mangling.Store(int32(honest))
	for _, turn := range []struct {
		mode  mangling
		share time.Duration // of the whole, in percent
	}{{repeat, 15}, {delay, 15}, {corrupt, 50}, {drop, 20}} { // who has lost its packets goes elsewhere: that comes last
		s.Attacker.mangling.Store(int32(turn.mode))
		rest(ctx, s.For*turn.share/100)
	}
	<-ctx.Done()
}

// lie tells others wrong addresses of theirs, and that they cannot be reached.
func lie(ctx context.Context, s *strike) {
	s.useSeams()
	s.lying.Store(true)
	defer s.lying.Store(false)
	// Answers to what nobody has asked.
	pace(ctx, 100, func(i int) bool {
		all := s.others()
		if len(all) == 0 {
			return true
		}
		kind := []byte{3, 4}[i%2]
		answer := append([]byte{kind}, s.dice.noise(12)...)
		if kind == 3 {
			answer = append(answer, 1, 2)
		}
		s.send(all[i%len(all):i%len(all)+1], session.ProtoAsk, answer)
		return true
	})
}

// stranger is a session of a node that the token has made and nobody has admitted.
func (s *strike) stranger(ctx context.Context, at netip.AddrPort) (*raw, error) {
	key, chain, err := s.madeUp()
	if err != nil {
		return nil, err
	}
	r, err := s.dial(ctx, at, credential(key, chain), alpnMember)
	if err != nil {
		return nil, err
	}
	if err := r.hello(ctx, [8]byte(s.dice.noise(8))); err != nil {
		r.close(0, "")
		return nil, err
	}
	return r, nil
}
