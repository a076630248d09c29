package signal

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/sha256"
	"fmt"
	"time"

	"warren/mesh/identity"
)

func x25519() ecdh.Curve { return ecdh.X25519() }

// lock returns the state of a peer, locked, with everything that is too old removed. The caller unlocks it.
func (s *Sealer) lock(now time.Time, id identity.NodeID) *peerState {
	s.mu.Lock()
	p := s.peers[id]
	if p == nil {
		p = &peerState{seen: make(map[[16]byte]time.Time), offered: make(map[uint64]*offered), heard: make(map[uint64]*heard)}
		s.peers[id] = p
	}
	s.mu.Unlock()
	p.mu.Lock()
	for attempt, o := range p.offered {
		if now.Sub(o.at) > agreementLife {
			delete(p.offered, attempt)
		}
	}
	for attempt, h := range p.heard {
		if now.Sub(h.at) > agreementLife {
			delete(p.heard, attempt)
		}
	}
	return p
}

// Forget drops all that is remembered of a peer that is no member any more.
func (s *Sealer) Forget(id identity.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.peers, id)
}

// fresh refuses a nonce that was seen within the window. A nonce outlives the window on both sides of now, so a
// signal that was dated ahead cannot be replayed either.
func (s *Sealer) fresh(now time.Time, from identity.NodeID, nonce [16]byte) error {
	p := s.lock(now, from)
	defer p.mu.Unlock()
	if _, ok := p.seen[nonce]; ok {
		return ErrReplayed
	}
	if len(p.seen) >= seenPerPeer {
		for old, at := range p.seen {
			if now.Sub(at) > 2*Window {
				delete(p.seen, old)
			}
		}
		if len(p.seen) >= seenPerPeer {
			return ErrTooMany
		}
	}
	p.seen[nonce] = now
	return nil
}

// Runs notes which run of a peer its last message came from.
func (s *Sealer) Runs(now time.Time, id identity.NodeID, instance [8]byte) {
	p := s.lock(now, id)
	defer p.mu.Unlock()
	p.instance = instance
}

// instance returns the run of a peer that it was heard of last, by its record or by a message.
func (s *Sealer) instance(now time.Time, id identity.NodeID, recorded [8]byte) [8]byte {
	p := s.lock(now, id)
	defer p.mu.Unlock()
	if p.recorded != recorded {
		p.instance, p.recorded = recorded, recorded
	}
	return p.instance
}

// earlier reports whether a signal was made for an earlier run of this node, whose nonces are gone. One that names another run, but was
// made since this one began, is not: its sender has not heard of this run yet. So a signal can be replayed only if it was made, by its
// sender's clock, after this run began by ours.
func (s *Sealer) earlier(in body) bool {
	return len(in.To) > 0 && [8]byte(in.To) != s.options.Instance && in.Millis < s.options.Started.UnixMilli()
}

// offer returns the public key of the attempt, made at the first call.
func (s *Sealer) offer(now time.Time, to identity.NodeID, attempt uint64) ([]byte, error) {
	p := s.lock(now, to)
	defer p.mu.Unlock()
	o := p.offered[attempt]
	if o == nil {
		key, err := hpke.MLKEM768X25519().GenerateKey()
		if err != nil {
			return nil, fmt.Errorf("generate key for the offer: %w", err)
		}
		o = &offered{at: now, key: key}
		p.offered[attempt] = o
	}
	return o.key.PublicKey().Bytes(), nil
}

// heardOffer keeps the offered key for the answer. A different key under the number of an attempt that was
// heard before is refused: the answer in flight belongs to the first.
func (s *Sealer) heardOffer(now time.Time, from identity.NodeID, in body) error {
	hash := sha256.Sum256(in.KEM)
	p := s.lock(now, from)
	defer p.mu.Unlock()
	if h := p.heard[in.Attempt]; h != nil {
		if h.key != hash {
			return fmt.Errorf("second key for attempt %d: %w", in.Attempt, ErrMalformed)
		}
		if in.Millis >= h.millis {
			h.handshake, h.millis = in.Handshake, in.Millis
		}
		return nil
	}
	public, err := hpke.MLKEM768X25519().NewPublicKey(in.KEM)
	if err != nil {
		return fmt.Errorf("read offered key: %w", ErrMalformed)
	}
	p.heard[in.Attempt] = &heard{at: now, key: hash, public: public, handshake: in.Handshake, millis: in.Millis}
	return nil
}

// answer encapsulates a secret to the offered key, once for each attempt, and returns the initiation that came with the key.
func (s *Sealer) answer(now time.Time, to identity.NodeID, attempt uint64) (enc []byte, psk *PSK, initiation []byte, err error) {
	p := s.lock(now, to)
	defer p.mu.Unlock()
	h := p.heard[attempt]
	if h == nil {
		return nil, nil, nil, ErrNoOffer
	}
	if h.enc == nil {
		context := s.agreementContext(to, s.options.Self, attempt, h.public.Bytes())
		enc, sender, err := hpke.NewSender(h.public, hpke.HKDFSHA256(), hpke.ExportOnly(), context)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("encapsulate to the offered key: %w", err)
		}
		secret, err := sender.Export(pskInfo, len(PSK{}))
		if err != nil {
			return nil, nil, nil, fmt.Errorf("derive preshared key: %w", err)
		}
		h.enc, h.psk = enc, PSK(secret)
	}
	key := h.psk
	return h.enc, &key, h.handshake, nil
}

// heardAnswer derives the preshared key from the encapsulated secret. The first answer to an attempt counts. One that was
// overtaken by the answer to a newer attempt is refused: the peer has left its key behind.
func (s *Sealer) heardAnswer(now time.Time, from identity.NodeID, in body) (*PSK, error) {
	hash := sha256.Sum256(in.KEM)
	p := s.lock(now, from)
	defer p.mu.Unlock()
	o := p.offered[in.Attempt]
	if o == nil || in.Attempt < p.answered {
		return nil, ErrNoOffer
	}
	if o.psk == nil {
		context := s.agreementContext(s.options.Self, from, in.Attempt, o.key.PublicKey().Bytes())
		recipient, err := hpke.NewRecipient(in.KEM, o.key, hpke.HKDFSHA256(), hpke.ExportOnly(), context)
		if err != nil {
			return nil, fmt.Errorf("read encapsulated secret: %w", ErrMalformed)
		}
		secret, err := recipient.Export(pskInfo, len(PSK{}))
		if err != nil {
			return nil, fmt.Errorf("derive preshared key: %w", err)
		}
		psk := PSK(secret)
		o.psk, o.from = &psk, hash
	} else if o.from != hash {
		return nil, fmt.Errorf("second answer to attempt %d: %w", in.Attempt, ErrMalformed)
	}
	p.answered = in.Attempt
	psk := *o.psk
	return &psk, nil
}
