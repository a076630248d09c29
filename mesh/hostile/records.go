//go:build hostile

package hostile

import (
	"context"
	"math"
	"net/netip"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
	"warren/mesh/session"
)

// Attacks by what is said in records.

// copyKey puts the WireGuard key of another member into this node's record, and into those of puppets.
func copyKey(ctx context.Context, s *strike) {
	defer s.restore()
	puppets := s.pool(2)
	pace(ctx, 2, func(i int) bool {
		m, ok := s.victim()
		if !ok {
			s.add("no victim", 1)
			return true
		}
		change := func(b body) { b[5] = m.Record.WireGuardKey[:] }
		s.tell(s.publishOwn(change))
		for _, p := range puppets {
			s.tell(s.publish(p, change))
		}
		return true
	})
	for _, p := range puppets {
		_ = s.publish(p, nil)
	}
}

// forgeRecords sends copies of everything that is known, revocations before all, with signatures that are wrong; and newer versions of
// records of others, which the attacker has signed itself.
func forgeRecords(ctx context.Context, s *strike) {
	var forged [][]byte
	var powerless [][]byte // revocations of everybody that this node has signed itself, which is no admin
	for _, m := range s.others() {
		signed, err := record.SignRevocation(s.State.MeshID(), record.Revocation{Target: identity.KeyID(m.ID), Time: time.Now().Unix(), Reason: "anything"}, s.State.Key)
		if err != nil {
			continue
		}
		if encoded, err := signed.Marshal(); err == nil {
			powerless = append(powerless, encoded)
		}
	}
	refresh := func() {
		forged = append([][]byte(nil), powerless...)
		items, err := s.Store.Load()
		if err != nil {
			return
		}
		for _, item := range items {
			signed, err := record.Unmarshal(item.Value)
			if err != nil || signed.Kind == record.KindCertificate {
				continue
			}
			signed.Signature = s.dice.noise(64)
			if encoded, err := signed.Marshal(); err == nil {
				if signed.Kind == record.KindRevocation {
					forged = append(append([][]byte(nil), encoded), forged...)
				} else {
					forged = append(forged, encoded)
				}
			}
			if node, err := signed.Node(); err == nil && node.ID != s.State.NodeID() {
				node.Seq += 1000
				node.Left = true
				if newer, err := record.SignNode(s.State.MeshID(), node, s.State.Key); err == nil {
					if encoded, err := newer.Marshal(); err == nil {
						forged = append(forged, encoded)
					}
				} else if b, err := decodeBody(signed.Body); err == nil { // the honest function does not sign what is another's
					b[1], b[12] = node.Seq, true
					if encoded, err := s.sign(record.KindNode, b, s.State.Key); err == nil {
						forged = append(forged, encoded)
					}
				}
			}
		}
	}
	refresh()
	last := time.Now()
	pace(ctx, fullSpeed, func(i int) bool {
		if time.Since(last) > 200*time.Millisecond { // revocations are forged as soon as they are known
			refresh()
			last = time.Now()
		}
		if len(forged) == 0 {
			return true
		}
		all := s.others()
		if len(all) == 0 {
			return true
		}
		to, encoded := all[i%len(all)], forged[(i/len(all))%len(forged)]
		payload := append([]byte{0x80, byte(i % 3)}, encoded...)
		if i%2 == 1 && len(encoded) < 4<<10 { // inside of gossip, where a packet has one message of a user
			payload = append([]byte{8, 1}, encoded...)
		}
		s.tell(s.Sessions.Send(to.ID, session.ProtoGossip, payload))
		return true
	})
}

// backdate makes nodes that this one says to have admitted long ago: right after it came itself, and before that, more than its invite
// has uses. They take the names and addresses of others, and have sessions.
func backdate(ctx context.Context, s *strike) {
	own := time.Unix(s.State.Settings.Admission.Time, 0)
	invite := s.State.Chain[1].NotBefore
	times := []time.Time{own, own.Add(-time.Second), invite.Add(time.Second), invite, time.Now().Add(-time.Minute), time.Now()}
	pace(ctx, 15, func(i int) bool {
		at := own.Add(time.Second)
		if i%2 == 1 {
			at = times[i/2%len(times)]
		}
		p, err := s.make(at, i%2 == 0)
		if err != nil {
			s.tell(err)
			return true
		}
		all := s.others()
		if len(all) == 0 {
			return true
		}
		like := all[i%len(all)]
		err = s.publish(p, func(b body) {
			b[4] = like.Name
			if like.Addr4.IsValid() {
				b[7] = like.Addr4.AsSlice()
			}
		})
		s.tell(err)
		for _, m := range s.reachable() {
			if _, err := p.dial(ctx, s, m); err == nil {
				s.add("sessions", 1)
			}
			// Who has nobody left that carries its records brings them by itself.
			if r, err := p.dial(ctx, s, m); err == nil {
				if encoded, err := s.sign(record.KindNode, s.bodyOf(p), p.key); err == nil {
					s.tell(r.push(direct(session.ProtoGossip, append([]byte{0x80, 1}, encoded...))))
				}
			}
		}
		s.mu.Lock()
		s.puppets = append(s.puppets, p)
		s.mu.Unlock()
		return i < 60
	})
}

// claim says that this node has another's address, name and routes, and those of a static peer that another hosts; routes larger and
// smaller than these, and the whole of the overlay.
func claim(ctx context.Context, s *strike) {
	defer s.restore()
	puppets := s.pool(2)
	mesh := s.Records.View()
	pace(ctx, 5, func(i int) bool {
		m, ok := s.victim()
		if !ok {
			s.add("no victim", 1)
			return true
		}
		var routes []any
		wanted := append([]netip.Prefix(nil), s.Routes...)
		if m.Addr4.IsValid() {
			wanted = append(wanted, netip.PrefixFrom(m.Addr4, 32))
		}
		wanted = append(wanted, netip.PrefixFrom(m.Addr6, 128), mesh.Prefix6)
		for _, r := range s.Routes {
			for _, bits := range []int{r.Bits() - 4, r.Bits() - 1} {
				if wider, err := r.Addr().Prefix(max(1, bits)); err == nil {
					wanted = append(wanted, wider)
				}
			}
		}
		if mesh.Prefix4.IsValid() {
			if half, err := mesh.Prefix4.Addr().Prefix(mesh.Prefix4.Bits() + 1); err == nil {
				wanted = append(wanted, half)
			}
		}
		for _, r := range wanted {
			routes = append(routes, route(r))
		}
		change := func(b body) {
			b[4] = m.Record.Name
			if i%2 == 1 && s.Name != "" {
				b[4] = s.Name
			}
			if m.Addr4.IsValid() {
				b[7] = m.Addr4.AsSlice()
			}
			if i%3 == 2 && s.Address.Is4() {
				b[7] = s.Address.AsSlice()
			}
			b[8] = routes
		}
		s.tell(s.publishOwn(change))
		for _, p := range puppets {
			s.tell(s.publish(p, change))
		}
		s.grant(m, routes, i)
		return true
	})
	for _, p := range puppets {
		_ = s.publish(p, nil)
	}
}

// kindGrant is the word of an admin on what a member may have.
const kindGrant record.Kind = 5

// grant grants to this node what another has, by its own word, which is no admin's.
func (s *strike) grant(m roster.Member, routes []any, version int) {
	self := s.State.NodeID()
	b := body{1: self[:], 2: 1, 3: version, 4: m.Record.Name, 5: m.Record.Name, 7: routes}
	if m.Addr4.IsValid() {
		b[6] = m.Addr4.AsSlice()
	}
	encoded, err := s.sign(kindGrant, b, s.State.Key)
	if err != nil {
		s.tell(err)
		return
	}
	s.straight(s.others(), encoded)
}

// floodRecords signs fifty new versions of this node's own record a second, and of each of some puppets, as large as a record may be.
func floodRecords(ctx context.Context, s *strike) {
	defer s.restore()
	puppets := s.pool(4)
	pace(ctx, 50, func(i int) bool {
		fill := func(b body) { b[99] = s.dice.noise(2800) }
		s.tell(s.publishOwn(fill))
		p := puppets
		if len(p) > 0 {
			s.tell(s.publish(p[i%len(p)], fill))
		}
		// And by gossip, several in a packet's place.
		b, err := s.own()
		if err != nil {
			return true
		}
		b[99] = s.dice.noise(64)
		encoded, err := s.sign(record.KindNode, b, s.State.Key)
		if err != nil {
			return true
		}
		s.send(s.others(), session.ProtoGossip, append([]byte{8, 1}, encoded...))
		return true
	})
}

// clocks sends records of other times: own ones that are from tomorrow and from yesterday, nodes admitted then, nodes whose
// admission is of another node, by another node, of another certificate, and the last sequence number that there is.
func clocks(ctx context.Context, s *strike) {
	defer s.restore()
	day := 24 * time.Hour
	pace(ctx, 10, func(i int) bool {
		shift := []time.Duration{day, -day, 365 * day, -365 * day, 6 * time.Minute}[i%5]
		then := time.Now().Add(shift)
		s.tell(s.publishOwn(func(b body) { b[15], b[16], b[14] = then.Unix(), then.Unix(), uint64(math.MaxUint32) }))
		p, err := s.make(time.Now(), false)
		if err != nil {
			s.tell(err)
			return true
		}
		all := s.others()
		if len(all) == 0 {
			return true
		}
		other := all[i%len(all)]
		s.tell(s.publish(p, func(b body) {
			a := p.admission
			switch i % 4 {
			case 0: // its time is another one than was signed
				a.Time = then.Unix()
			case 1: // another is said to have admitted it
				a.Signer = other.ID
			case 2: // really then
				a = record.SignAdmission(s.State.MeshID(), p.chain[0].Raw, then, s.State.Key)
			case 3: // by itself
				a = record.SignAdmission(s.State.MeshID(), p.chain[0].Raw, time.Now(), p.key)
			}
			b[3] = []any{a.Time, a.Signer[:], a.Signature}
		}))
		return true
	})
}

// texts sends names that are like others' and like IDs, and what a terminal would obey wherever a text can stand.
func texts(ctx context.Context, s *strike) {
	defer s.restore()
	puppets := s.pool(4)
	s.refuseWith.Store(&controls)
	defer s.refuseWith.Store(nil)
	names := func(i int) string {
		all := s.others()
		if len(all) == 0 {
			return "x"
		}
		m := all[i%len(all)]
		return []string{
			m.ID.Short(), m.ID.String(), m.Record.Name, m.Record.Name + "-2", "xn--" + m.Record.Name, m.Name + "\x1b[2J", "a\nb", "\u202eevil", m.ID.String()[:4], "localhost",
		}[(i/len(all))%10]
	}
	pace(ctx, 5, func(i int) bool {
		change := func(b body) {
			b[4] = names(i)
			if i%3 == 0 {
				b[11] = controls
			}
		}
		s.tell(s.publishOwn(change))
		for j, p := range puppets { // each by another name
			s.tell(s.publish(p, func(b body) {
				change(b)
				b[4] = names(i + (j+1)*len(s.others()))
			}))
		}
		all := s.reachable()
		if len(all) == 0 {
			return true
		}
		// Reasons of a close, by a member and by a stranger.
		for _, p := range puppets {
			if r, err := p.dial(ctx, s, all[i%len(all)]); err == nil {
				r.close(0x100+uint64(i%8), controls)
				s.tell(nil)
			}
		}
		if r, err := s.stranger(ctx, all[i%len(all)].Record.Endpoints[0]); err == nil {
			r.close(0x100, controls)
			s.tell(nil)
		}
		// A revocation that is none, with a reason.
		target := identity.KeyID(all[i%len(all)].ID)
		if signed, err := record.SignRevocation(s.State.MeshID(), record.Revocation{Target: target, Time: time.Now().Unix(), Reason: "\u009b2J\u202e"}, s.State.Key); err == nil {
			if encoded, err := signed.Marshal(); err == nil {
				s.straight(s.others(), encoded)
			}
		}
		return true
	})
	for _, p := range puppets {
		_ = s.publish(p, nil)
	}
}

// controls is a text for those that show it as it is.
var controls = "\x1b[2J\x1b]0;owned\x07\u009b31m\u202eevil\r\nroot"
