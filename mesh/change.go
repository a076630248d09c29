package mesh

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// Add takes in a record that this node has made, a revocation for example. When it returns the record is on disk and on its way.
func (m *Mesh) Add(signed record.Signed) error {
	if err := m.intake.put(signed); err != nil {
		return fmt.Errorf("add %s: %w", signed.Kind, err)
	}
	return nil
}

// AddCertificate is Add for the certificate of an invite that this node has made.
func (m *Mesh) AddCertificate(invite *x509.Certificate) error {
	return m.Add(record.NewCertificate(invite))
}

// Revoke revokes the key of a node or an invite in this node's name and returns the key of the revocation's record. Those that rest on the key,
// as far as they are known here, stay; with cascade they are put out too.
func (m *Mesh) Revoke(target identity.KeyID, reason string, cascade bool) (record.Key, error) {
	var name string // while it is known: the target's record goes when the revocation comes
	if member, ok := m.View().Member(identity.NodeID(target)); ok {
		name = member.Name[:min(len(member.Name), record.MaxName)]
	}
	revocation := record.Revocation{Target: target, Time: time.Now().Unix(), Reason: reason, Name: name}
	if !cascade {
		revocation.Keep = m.book.below(target)
	}
	signed, err := record.SignRevocation(m.meshID, revocation, m.key)
	if err != nil {
		return record.Key{}, fmt.Errorf("revoke %s: %w", target.Short(), err)
	}
	key, err := signed.Key()
	if err != nil {
		return record.Key{}, fmt.Errorf("revoke %s: %w", target.Short(), err)
	}
	return key, m.Add(signed)
}

// Update changes this node's own record with f, which must not keep its argument nor call a method of m. What identifies the node
// and this run stays as it is. Nothing happens when f changes nothing; else the new record is on disk and on its way when Update
// returns.
func (m *Mesh) Update(f func(*record.Node)) error {
	if err := m.intake.update(f); err != nil {
		return fmt.Errorf("update own record: %w", err)
	}
	return nil
}

// Confirmed asks each active member whether it has the record of a key, in the version that is here or a newer one, and returns the answers of
// those that could be asked before ctx ended.
func (m *Mesh) Confirmed(ctx context.Context, key record.Key) map[identity.NodeID]bool {
	return m.syncer.confirmed(ctx, key, m.View().others(m.self))
}
