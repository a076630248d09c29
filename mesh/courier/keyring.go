package courier

import (
	"crypto/ed25519"
	"sync"

	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/mesh/signal"
)

// Roster tells what the records say of a member. It does not block.
type Roster interface {
	Member(id identity.NodeID) (roster.Member, bool)
}

// Keyring reads the keys of members from their records. Its methods may be called concurrently.
type Keyring struct {
	roster Roster
	public sync.Map // identity.NodeID → ed25519.PublicKey: an ID is the hash of its key, which is why that can be remembered
}

// NewKeyring returns the keys of the members of a roster.
func NewKeyring(r Roster) *Keyring { return &Keyring{roster: r} }

// Keys implements Members.
func (k *Keyring) Keys(id identity.NodeID) (signal.Keys, bool) {
	member, ok := k.roster.Member(id)
	if !ok || member.State != roster.Active {
		return signal.Keys{}, false
	}
	public, ok := k.publicKey(member)
	return signal.Keys{Signing: public, Sealing: member.Record.SealingKey, Instance: member.Record.Instance}, ok
}

func (k *Keyring) publicKey(member roster.Member) (ed25519.PublicKey, bool) {
	if known, ok := k.public.Load(member.ID); ok {
		return known.(ed25519.PublicKey), true
	}
	cert, err := identity.ParseCert(member.Record.Certificate)
	if err != nil {
		return nil, false
	}
	public, ok := cert.PublicKey.(ed25519.PublicKey)
	if ok {
		k.public.Store(member.ID, public)
	}
	return public, ok
}
