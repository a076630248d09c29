package mesh

import (
	"context"
	"fmt"

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

// Update changes this node's own record with f, which must not keep its argument nor call a method of m. What identifies the node
// and this run stays as it is. Nothing happens when f changes nothing; else the new record is on its way when Update
// returns, and on disk soon.
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
