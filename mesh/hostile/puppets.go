//go:build hostile

package hostile

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fxamacker/cbor/v2"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh"
	"warren/mesh/courier"
	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
	"warren/mesh/session"
	"warren/mesh/signal"
)

// puppet is a node that the attacker has made: its keys, and no agent.
type puppet struct {
	key       ed25519.PrivateKey
	id        identity.NodeID
	chain     []*x509.Certificate // its own first, the root last
	admission record.Admission
	wireGuard wgtypes.Key // private
	sealing   [32]byte    // private
	public    [32]byte    // of sealing
	name      string
	instance  [8]byte
	seq       atomic.Uint64

	mu  sync.Mutex
	raw []*raw // its connections
}

// invite is the authority that the token gives: the certificate of the invite that this node came by, and its key.
func (s *strike) invite() (identity.Authority, error) {
	token, err := identity.ParseToken(s.Token)
	if err != nil {
		return identity.Authority{}, err
	}
	key := ed25519.NewKeyFromSeed(token.Seed[:])
	cert := s.State.Chain[1]
	if identity.KeyIDOfCert(cert) != identity.KeyIDOf(key.Public().(ed25519.PublicKey)) {
		return identity.Authority{}, errors.New("the token is not that of this node's invite")
	}
	return identity.Authority{Cert: cert, Key: key}, nil
}

// make makes a node that this one admits at a time of its choice. small: with an ID that begins with a zero byte, so that it is
// controlling towards almost everybody.
func (s *strike) make(at time.Time, small bool) (*puppet, error) {
	invite, err := s.invite()
	if err != nil {
		return nil, err
	}
	p := &puppet{key: identity.GenerateKey(), instance: [8]byte(s.dice.noise(8))}
	for p.id = identity.NodeIDOf(p.key.Public().(ed25519.PublicKey)); small && p.id[0] != 0; p.id = identity.NodeIDOf(p.key.Public().(ed25519.PublicKey)) {
		p.key = identity.GenerateKey()
	}
	p.name = "sybil-" + p.id.Short()
	cert, err := identity.NewNode(invite, p.key.Public().(ed25519.PublicKey), identity.NodeTerms{NotBefore: at})
	if err != nil {
		return nil, err
	}
	p.chain = append([]*x509.Certificate{cert}, s.State.Chain[1:]...)
	p.admission = record.SignAdmission(s.State.MeshID(), cert.Raw, at, s.State.Key)
	if p.wireGuard, err = wgtypes.GeneratePrivateKey(); err != nil {
		return nil, err
	}
	if p.sealing, p.public, err = signal.GenerateSealingKey(); err != nil {
		return nil, err
	}
	s.mark(p.id)
	return p, nil
}

func (s *strike) mark(id identity.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marked[id] = true
}

// body is the content of a record, field by field.
type body map[int]any

// body is what a puppet says of itself, with the next sequence number.
func (s *strike) bodyOf(p *puppet) body {
	key := p.wireGuard.PublicKey()
	b := body{
		1: p.seq.Add(1), 2: p.chain[0].Raw, 3: []any{p.admission.Time, p.admission.Signer[:], p.admission.Signature}, 4: p.name, 5: key[:], 6: p.public[:],
		13: p.instance[:], 14: 1, 15: time.Now().Unix(), 16: time.Now().Unix(),
	}
	if proof := prove(s.State.MeshID(), p.id, p.wireGuard); proof != nil {
		b[19] = proof
	}
	return b
}

// own is what this node's agent says of itself, with a greater sequence number than any before.
func (s *strike) own() (body, error) {
	node := s.Records.Own()
	signed, err := record.SignNode(s.State.MeshID(), node, s.State.Key)
	if err != nil {
		return nil, err
	}
	b, err := decodeBody(signed.Body)
	if err != nil {
		return nil, err
	}
	s.ownSeq.CompareAndSwap(0, node.Seq+1000)
	b[1], b[16] = s.ownSeq.Add(1), time.Now().Unix()
	return b, nil
}

// sign makes a record of whatever it is given.
func (s *strike) sign(kind record.Kind, b body, key ed25519.PrivateKey) ([]byte, error) {
	content, err := record.Deterministic().Marshal(b)
	if err != nil {
		return nil, err
	}
	meshID := s.State.MeshID()
	signature := ed25519.Sign(key, bytes.Join([][]byte{[]byte("warren record v1"), meshID[:], {byte(kind)}, content}, nil))
	signed := record.Signed{Kind: kind, Body: content, Signature: signature}
	if kind != record.KindNode {
		signed.Signer = identity.KeyIDOf(key.Public().(ed25519.PublicKey))
	}
	return signed.Marshal()
}

// straight sends a record to members, as its maker does.
func (s *strike) straight(to []roster.Member, encoded []byte) {
	s.send(to, session.ProtoGossip, append([]byte{0x80, 1}, encoded...))
}

// publishOwn sends a changed own record to everybody.
func (s *strike) publishOwn(change func(body)) error {
	b, err := s.own()
	if err != nil {
		return err
	}
	if change != nil {
		change(b)
	}
	encoded, err := s.sign(record.KindNode, b, s.State.Key)
	if err != nil {
		return err
	}
	s.straight(s.others(), encoded)
	return nil
}

// restore has the others read again what the agent says.
func (s *strike) restore() {
	if err := s.publishOwn(nil); err != nil {
		s.Log.Warn("own record not restored", "error", err)
	}
}

// publish sends a puppet's record to everybody, and gives it to this node's own agent, which others ask.
func (s *strike) publish(p *puppet, change func(body)) error {
	b := s.bodyOf(p)
	if change != nil {
		change(b)
	}
	encoded, err := s.sign(record.KindNode, b, p.key)
	if err != nil {
		return err
	}
	if signed, err := record.Unmarshal(encoded); err == nil {
		_ = s.Records.Add(signed) // its own agent is no fool
	}
	s.straight(s.others(), encoded)
	return nil
}

// pool returns so many puppets that are members, as far as there can be so many: those that there are, and new ones that this node has
// admitted in good order, now.
func (s *strike) pool(n int) (members []*puppet) {
	for made := 0; ; made++ {
		s.mu.Lock()
		all := append([]*puppet(nil), s.puppets...)
		s.mu.Unlock()
		members = members[:0]
		for _, p := range all {
			if m, ok := s.Records.View().Member(p.id); ok && m.State == mesh.Active && len(members) < n {
				members = append(members, p)
			}
		}
		if len(members) == n || made == n {
			return members
		}
		p, err := s.make(time.Now(), true)
		if err == nil {
			err = s.publish(p, nil)
		}
		if err != nil {
			s.add("no puppet", 1)
			return members
		}
		s.mu.Lock()
		s.puppets = append(s.puppets, p)
		s.mu.Unlock()
	}
}

// sealer seals signals in a puppet's name.
func (s *strike) sealer(p *puppet) (*signal.Sealer, error) {
	return signal.New(signal.Options{Mesh: s.State.MeshID(), Self: p.id, Signing: p.key, Sealing: p.sealing, Members: courier.NewKeyring(s.Records.View())})
}

func (p *puppet) keep(r *raw) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.raw = append(p.raw, r)
}

// farewell is longer than a node that is refused may be told why in the connection that it has made, and be shown what proves it.
const farewell = 5 * time.Second

// sessions lists the connections that stand, but for those in which the node may be hearing that it is refused.
func (p *puppet) sessions() (list []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.raw {
		if r.conn.Context().Err() == nil && time.Since(r.since) > farewell {
			list = append(list, fmt.Sprintf("%s with %s for %.1f s", p.name, r.to.Short(), time.Since(r.since).Seconds()))
		}
	}
	return list
}

// dial returns a session of the puppet with a member, the one that stands or a new one.
func (p *puppet) dial(ctx context.Context, s *strike, m roster.Member) (*raw, error) {
	p.mu.Lock()
	for _, r := range p.raw {
		if r.to == m.ID && r.conn.Context().Err() == nil {
			p.mu.Unlock()
			return r, nil
		}
	}
	p.mu.Unlock()
	r, err := s.dial(ctx, m.Record.Endpoints[0], credential(p.key, p.chain), alpnMember)
	if err != nil {
		return nil, err
	}
	r.to = m.ID
	if err := r.hello(ctx, p.instance); err != nil {
		r.close(0, "")
		return nil, fmt.Errorf("say hello: %w", err)
	}
	p.keep(r)
	return r, nil
}

// route encodes a route as records have it.
func route(p netip.Prefix) []byte { return append(p.Addr().AsSlice(), byte(p.Bits())) }

// decodeBody reads the content of a record, field by field.
func decodeBody(raw []byte) (body, error) {
	fields := make(map[int]cbor.RawMessage)
	if err := cbor.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	b := make(body)
	for k, v := range fields {
		b[k] = v
	}
	return b, nil
}
