package mesh

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// add takes in a record of this node's own making, puts it on disk, then spreads it.
func (m *Mesh) add(signed record.Signed) error {
	n := m.book.add([]record.Signed{signed}, time.Now())[0]
	if err := errors.Join(n.refused...); err != nil {
		return err
	}
	if err := m.flush(); err != nil {
		return err
	}
	m.react(n, arrival{from: m.self, hops: 1})
	return nil
}

// Add takes in a record that this node has made, a revocation for example. When it returns the record is on disk and on its way.
func (m *Mesh) Add(signed record.Signed) error {
	if err := m.add(signed); err != nil {
		return fmt.Errorf("add %s: %w", signed.Kind, err)
	}
	return nil
}

// AddCertificate is Add for the certificate of an invite that this node has made.
func (m *Mesh) AddCertificate(invite *x509.Certificate) error {
	return m.Add(record.NewCertificate(invite))
}

// Revoke revokes the key of a node or an invite in this node's name and returns the key of the revocation's record. With cascade
// all nodes below the key are put out too.
func (m *Mesh) Revoke(target identity.KeyID, reason string, cascade bool) (record.Key, error) {
	var name string // while it is known: the target's record goes when the revocation comes
	if member, ok := m.View().Member(identity.NodeID(target)); ok {
		name = member.Name[:min(len(member.Name), record.MaxName)]
	}
	signed, err := record.SignRevocation(m.meshID, record.Revocation{
		Target: target, Time: time.Now().Unix(), Reason: reason, Cascade: cascade, Name: name,
	}, m.key)
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
	signed, changed, err := m.book.update(f, time.Now())
	if err != nil {
		return fmt.Errorf("update own record: %w", err)
	}
	if !changed {
		return nil
	}
	if err := m.flush(); err != nil {
		return fmt.Errorf("update own record: %w", err)
	}
	m.react(news{fresh: []record.Signed{signed}, own: true, changed: true}, arrival{from: m.self, hops: 1})
	return nil
}
