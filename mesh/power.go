package mesh

import (
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// Power is what this node signs as an admin, and what would come of it. Whether it is one, and by which certificate, the records say each time.
// All methods may be called concurrently.
type Power struct {
	// constant
	key    ed25519.PrivateKey
	self   identity.NodeID
	meshID identity.MeshID
	book   *book
	intake *intake
}

// ErrNoAdmin is wrapped by the errors of Power's methods that sign when this node is no admin.
var ErrNoAdmin = errors.New("this node is no admin")

// authority is what this node signs certificates with.
func (p *Power) authority() (identity.Authority, error) {
	p.book.mu.Lock()
	defer p.book.mu.Unlock()
	cert := p.book.roster.AdminCert(p.self)
	if cert == nil {
		return identity.Authority{}, ErrNoAdmin
	}
	return identity.Authority{Cert: cert, Key: p.key}, nil
}

// Check returns nil when this node is an admin, else an error that wraps ErrNoAdmin.
func (p *Power) Check() error {
	_, err := p.authority()
	return err
}

// Invite makes an invite on these terms. Its certificate is on disk and on its way when Invite returns; the seed goes into the token.
func (p *Power) Invite(terms identity.InviteTerms, now time.Time) (seed [32]byte, cert *x509.Certificate, err error) {
	by, err := p.authority()
	if err != nil {
		return seed, nil, err
	}
	if seed, cert, err = identity.NewInvite(by, terms, now); err != nil {
		return seed, nil, err
	}
	return seed, cert, p.put(record.NewCertificate(cert))
}

// Promote makes an admin of the node of a public key. It returns the key of the record, which is on disk and on its way.
func (p *Power) Promote(node ed25519.PublicKey, now time.Time) (record.Key, error) {
	by, err := p.authority()
	if err != nil {
		return record.Key{}, err
	}
	cert, err := identity.NewPromotion(by, node, now)
	if err != nil {
		return record.Key{}, err
	}
	return p.add(record.NewCertificate(cert))
}

// Revoke signs a revocation in this node's name. It returns the key of the record, which is on disk and on its way.
func (p *Power) Revoke(r record.Revocation) (record.Key, error) {
	if err := p.Check(); err != nil {
		return record.Key{}, err
	}
	signed, err := record.SignRevocation(p.meshID, r, p.key)
	if err != nil {
		return record.Key{}, fmt.Errorf("revoke %s: %w", r.Target.Short(), err)
	}
	return p.add(signed)
}

// Outlook is what would come of a revocation, if nobody were kept.
type Outlook struct {
	Below  []identity.NodeID // who would be out with the target, the target not among them
	Void   []Revocation      // those by the target that would have no effect any more
	Stands int               // those by the target on which the signer's word has no effect
}

// Outlook says what would come of a revocation by the root, or by this node.
func (p *Power) Outlook(byRoot bool, target identity.KeyID, scope record.Scope) Outlook {
	out, all := p.lookUp(target, scope)
	if len(out.Void) == 0 || byRoot {
		return out
	}
	stands := p.standing(record.Revocation{Target: target, Scope: scope, Time: time.Now().Unix(), Keep: prefixes(out.Below)}, all)
	before := len(out.Void)
	out.Void = slices.DeleteFunc(out.Void, func(r Revocation) bool { return stands[r.Key] })
	out.Stands = before - len(out.Void)
	return out
}

// lookUp returns who would be out, all revocations by the target, and all records if there are such.
func (p *Power) lookUp(target identity.KeyID, scope record.Scope) (out Outlook, all []record.Signed) {
	p.book.mu.Lock()
	defer p.book.mu.Unlock()
	out.Below = p.book.roster.Below(target, scope)
	for _, r := range append(p.book.roster.Revoked(), p.book.doubts()...) {
		if r.Signer == target {
			out.Void = append(out.Void, p.book.public.revocation(p.book.roster, r))
		}
	}
	if out.Void == nil {
		return out, nil
	}
	for _, signed := range p.book.roster.All() {
		all = append(all, signed)
	}
	return out, all
}

// standing returns which revocations count once this node has signed one more.
func (p *Power) standing(r record.Revocation, all []record.Signed) map[record.Key]bool {
	out := make(map[record.Key]bool)
	signed, err := record.SignRevocation(p.meshID, r, p.key)
	if err != nil {
		return out
	}
	for _, left := range reread(p.book.root, append(all, signed)).Revoked() {
		out[left.Key] = true
	}
	return out
}

// prefixes is a list of nodes as a revocation holds it.
func prefixes(ids []identity.NodeID) record.Prefixes {
	var out []record.Prefix
	for _, id := range ids {
		out = append(out, record.PrefixOf(id))
	}
	return record.NewPrefixes(out...)
}

func (p *Power) add(signed record.Signed) (record.Key, error) {
	key, err := signed.Key()
	if err != nil {
		return record.Key{}, err
	}
	return key, p.put(signed)
}

func (p *Power) put(signed record.Signed) error {
	if err := p.intake.put(signed); err != nil {
		return fmt.Errorf("add %s: %w", signed.Kind, err)
	}
	return nil
}
