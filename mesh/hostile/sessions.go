//go:build hostile

package hostile

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"sync"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session"
)

// Attacks by sessions and streams, of members and of those that a token makes.

// madeUp makes a key and a chain for it that ends in the root: the token is all that it takes.
func (s *strike) madeUp() (ed25519.PrivateKey, []*x509.Certificate, error) {
	invite, err := s.invite()
	if err != nil {
		return nil, nil, err
	}
	key := identity.GenerateKey()
	cert, err := identity.NewNode(invite, key.Public().(ed25519.PublicKey), identity.NodeTerms{NotBefore: time.Now()})
	if err != nil {
		return nil, nil, err
	}
	return key, append([]*x509.Certificate{cert}, s.State.Chain[1:]...), nil
}

// hold keeps connections open until ctx ends: up to most at once, the oldest goes when there are more.
type hold struct {
	mu   sync.Mutex
	list []func()
	most int
}

func (h *hold) add(end func()) {
	h.mu.Lock()
	h.list = append(h.list, end)
	var oldest func()
	if len(h.list) > h.most {
		oldest, h.list = h.list[0], h.list[1:]
	}
	h.mu.Unlock()
	if oldest != nil {
		oldest()
	}
}

func (h *hold) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, end := range h.list {
		end()
	}
	h.list = nil
}

// workers runs f in so many goroutines until ctx ends.
func workers(ctx context.Context, n int, f func(worker int)) {
	var all sync.WaitGroup
	for w := range n {
		all.Go(func() {
			for ctx.Err() == nil {
				f(w)
			}
		})
	}
	all.Wait()
}

// rest waits, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// strangers have sessions with everybody who can be reached: one identity after the other, each of which stays.
func strangers(ctx context.Context, s *strike) {
	h := &hold{most: 600}
	defer h.end()
	workers(ctx, 6, func(w int) {
		all := s.reachable()
		if len(all) == 0 {
			rest(ctx, 100*time.Millisecond)
			return
		}
		m := all[s.dice.upto(len(all))]
		s.add("sent", 1)
		r, err := s.stranger(ctx, m.Record.Endpoints[0])
		if err != nil {
			s.add("refused", 1)
			rest(ctx, 20*time.Millisecond)
			return
		}
		s.add("accepted", 1)
		h.add(func() { r.close(0, "") })
		_ = r.push(direct(session.ProtoAsk, append([]byte{1}, s.dice.noise(18)...)))
	})
}

// floodSync opens as many conversations as there is room for, as a member and as a stranger: some say as much as they may at once, some a
// frame now and then, none ends.
func floodSync(ctx context.Context, s *strike) {
	h := &hold{most: 1000}
	defer h.end()
	puppets := s.pool(2)
	workers(ctx, 4, func(w int) {
		all := s.reachable()
		if len(all) == 0 {
			rest(ctx, 100*time.Millisecond)
			return
		}
		m := all[s.dice.upto(len(all))]
		var r *raw
		var err error
		if w%2 == 0 && len(puppets) > 0 {
			r, err = puppets[s.dice.upto(len(puppets))].dial(ctx, s, m)
		} else if r, err = s.stranger(ctx, m.Record.Endpoints[0]); err == nil {
			h.add(func() { r.close(0, "") })
		}
		if err != nil {
			s.add("no session", 1)
			rest(ctx, 100*time.Millisecond)
			return
		}
		for range 60 {
			if ctx.Err() != nil || s.conversation(ctx, r, w > 1) != nil {
				break
			}
		}
		rest(ctx, 100*time.Millisecond)
	})
}

// conversation begins one of sync, and goes on with it until ctx ends.
func (s *strike) conversation(ctx context.Context, r *raw, slow bool) error {
	st, err := r.open(ctx, session.ProtoSync)
	if err != nil {
		s.add("no stream", 1)
		return err
	}
	context.AfterFunc(ctx, func() { st.CancelRead(0); st.CancelWrite(0) })
	st.SetDeadline(time.Now().Add(10 * time.Minute))
	say := func(kind byte, payload []byte) error {
		_, err := st.Write(syncFrame(kind, payload))
		if err == nil {
			s.add("sent", 1)
		}
		return err
	}
	if err := say(1, append([]byte{1}, s.dice.noise(16)...)); err != nil {
		return err
	}
	everything := make([]byte, 32)
	for i := range everything {
		everything[i] = 0xff
	}
	if err := say(4, everything); err != nil {
		return err
	}
	go func() {
		for i := range 260 { // 128 × 1,000 entries, 128 × 1,000 wants
			kind, unit := byte(5), 48*600
			if i%2 == 1 {
				kind, unit = 6, 32*1000
			}
			st.SetWriteDeadline(time.Now().Add(30 * time.Second))
			if say(kind, s.dice.noise(unit)) != nil || ctx.Err() != nil {
				return
			}
			if slow {
				rest(ctx, 500*time.Millisecond)
			}
		}
	}()
	return nil
}

// silentJoiners hold the places of those who join: connections that say nothing, or the first byte.
func silentJoiners(ctx context.Context, s *strike) {
	h := &hold{most: 400}
	defer h.end()
	workers(ctx, 4, func(w int) {
		all := s.reachable()
		if len(all) == 0 {
			rest(ctx, 100*time.Millisecond)
			return
		}
		m := all[s.dice.upto(len(all))]
		s.add("sent", 1)
		if w == 3 { // by TCP
			if c, err := s.tcp(ctx, m.Record.Endpoints[0], nil, alpnTCPJoin); err == nil {
				s.add("accepted by TCP", 1)
				h.add(func() { c.Close() })
			}
			rest(ctx, 20*time.Millisecond)
			return
		}
		r, err := s.dial(ctx, m.Record.Endpoints[0], nil, alpnJoin)
		if err != nil {
			s.add("refused", 1)
			rest(ctx, 20*time.Millisecond)
			return
		}
		s.add("accepted", 1)
		h.add(func() { r.close(0, "") })
		if st, err := r.conn.OpenStream(); err == nil && w%2 == 0 {
			_, _ = st.Write([]byte{6})
		}
	})
}

// forward has others pass on what is said to come from somebody else, with all numbers of hops, to everybody and to nobody.
func forward(ctx context.Context, s *strike) {
	puppets := s.pool(2)
	pace(ctx, fullSpeed, func(i int) bool {
		anchors, all := s.reachable(), s.others()
		if len(anchors) == 0 || len(all) < 2 || len(puppets) == 0 {
			return true
		}
		p, by := puppets[i%len(puppets)], anchors[i%len(anchors)]
		r, err := p.dial(ctx, s, by)
		if err != nil {
			s.add("no session", 1)
			return true
		}
		from, to := all[s.dice.upto(len(all))].ID, all[s.dice.upto(len(all))].ID
		switch i % 7 {
		case 1:
			to = by.ID
		case 2:
			from = by.ID
		case 3:
			to = identity.NodeID(s.dice.noise(32)) // to nobody: it may be kept until that one comes
		case 4:
			from = p.id
		}
		proto := []session.Proto{session.ProtoSignal, session.ProtoGossip, session.ProtoAsk, 77}[s.dice.upto(4)]
		frame := envelope(byte(s.dice.upto(5)), to, from, proto, s.dice.noise(40+s.dice.upto(800)))
		if i%50 == 49 { // a stream in another's name
			if st, err := r.conn.OpenStream(); err == nil {
				_, err = st.Write(envelope(byte(s.dice.upto(3)), to, from, session.ProtoSync, nil))
				s.tell(err)
				st.CancelRead(0)
			}
			return true
		}
		s.tell(r.push(frame))
		return true
	})
}

// streams takes all streams and all places of TCP connections that there are, and lets them stand.
func streams(ctx context.Context, s *strike) {
	h := &hold{most: 900}
	defer h.end()
	puppets := s.pool(2)
	workers(ctx, 6, func(w int) {
		all := s.reachable()
		if len(all) == 0 {
			rest(ctx, 100*time.Millisecond)
			return
		}
		m := all[s.dice.upto(len(all))]
		at := m.Record.Endpoints[0]
		switch w {
		case 0: // streams of a session
			if len(puppets) == 0 {
				rest(ctx, time.Second)
				return
			}
			r, err := puppets[s.dice.upto(len(puppets))].dial(ctx, s, m)
			if err != nil {
				rest(ctx, 100*time.Millisecond)
				return
			}
			st, err := r.conn.OpenStream()
			if err != nil {
				s.add("no stream", 1)
				rest(ctx, 100*time.Millisecond)
				return
			}
			_, err = st.Write([]byte{1, byte(1 + s.dice.upto(6))}[:1+s.dice.upto(2)])
			s.tell(err)
			h.add(func() { st.CancelRead(0); st.CancelWrite(0) })
		case 1, 2: // connections that say nothing
			c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", at.String())
			s.tell(err)
			if err == nil {
				h.add(func() { c.Close() })
			}
		default: // streams of nodes that the token has made
			key, chain, err := s.madeUp()
			if err != nil {
				rest(ctx, time.Second)
				return
			}
			c, err := s.tcp(ctx, at, credential(key, chain), alpnTCP)
			s.tell(err)
			if err == nil {
				h.add(func() { c.Close() })
			}
		}
		rest(ctx, 10*time.Millisecond)
	})
}

// tcp makes a TLS connection to the TCP port with the number of a UDP one.
func (s *strike) tcp(ctx context.Context, at netip.AddrPort, c *tls.Certificate, alpn string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	return (&tls.Dialer{Config: tlsFor(c, alpn)}).DialContext(ctx, "tcp", at.String())
}
