package mesh

import (
	"crypto/x509"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
	"warren/mesh/store"
)

// Ending is what records say of a node that does not run.
type Ending struct {
	Left    bool        // it has left its mesh
	Out     *FatalError // it is no member any more; nil: it is one
	Doubted bool        // Out rests on the word of admins, which the root may have undone since: a start asks the others
}

// EndingOf reads in the records of a node's store, by its chain (leaf first, root last), how its place has ended. Nothing is verified twice or
// kept.
func EndingOf(chain []*x509.Certificate, items []store.Item) (e Ending) {
	self, root := identity.NodeIDOfCert(chain[0]), chain[len(chain)-1]
	var all, sure []record.Signed
	for _, cert := range chain {
		if role := identity.RoleOf(cert); role == identity.RoleInvite || role == identity.RolePromotion {
			all = append(all, record.NewCertificate(cert))
		}
	}
	for _, item := range items {
		if signed, err := record.Unmarshal(item.Value); err == nil {
			all = append(all, signed)
		}
	}
	known := roster.New(root)
	known.AddAll(all, time.Now())
	if own, ok := known.Member(self); ok {
		e.Left = own.Record.Left
	}
	if e.Out = outBy(known.Standing(self)); e.Out == nil {
		return e
	}
	rootID := identity.KeyIDOfCert(root)
	for _, signed := range all {
		if signed.Kind != record.KindRevocation || signed.Signer == rootID {
			sure = append(sure, signed)
		}
	}
	without := roster.New(root)
	without.AddAll(sure, time.Now())
	e.Doubted = outBy(without.Standing(self)) == nil
	return e
}
