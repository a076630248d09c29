package mesh

import (
	"crypto/x509"
	"time"

	"warren/mesh/identity"
)

// Nothing that anybody says ends an agent: neither a session that is closed, nor refused, nor all of them together. It ends by the records
// (Fatal), which whoever refuses it hands over: Proof on the one side, HandleProof on the other.

// Proof returns the records, encoded, that put the node out which has shown this chain, leaf first; MaxProof bytes at most. It is nil when there
// are none, and when too many nodes want to know. What a node was not shown as a member is not among them.
func (m *Mesh) Proof(chain []*x509.Certificate) [][]byte {
	if len(chain) == 0 {
		return nil
	}
	return m.evidence.shown(identity.NodeIDOfCert(chain[0]), chain, time.Now())
}

// HandleProof takes the records that a node gave which refuses this one: they are verified like all others, and if they put this node out, Fatal
// says so. It never blocks. The records are kept.
func (m *Mesh) HandleProof(from identity.NodeID, records [][]byte) { m.ear.proof(from, records) }
