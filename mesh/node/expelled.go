package node

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/mesh/session"
	"warren/nat/fallback"
)

// codeNotMember is told to a node that was a member, or had an invite, and is none for good.
const codeNotMember = session.CodeFirstFree

// believeRefusals is how long a node that nobody takes in waits for one that does, before it believes the others.
const believeRefusals = 10 * time.Second

// finalReasons are those that no record still to come, and no clock set right, can cure.
var finalReasons = []roster.Reason{
	roster.ReasonRevoked, roster.ReasonIssuerRevoked, roster.ReasonInviteRevoked, roster.ReasonInviteUsed,
}

// refusal is why a member did not accept this node's session.
type refusal struct {
	code   uint64
	reason string
	at     time.Time
}

// verify is session's question whether a chain is a member's.
func (m *member) verify(chain []*x509.Certificate) (identity.NodeID, error) {
	id, err := m.mesh.VerifyChain(chain)
	if err != nil && slices.Contains(finalReasons, roster.ReasonOf(err)) {
		return id, &session.Refusal{Code: codeNotMember, Reason: err.Error()}
	}
	return id, err
}

// verifyStream is the same question of the server of streams.
func (m *member) verifyStream(chain []*x509.Certificate) (identity.NodeID, error) {
	id, err := m.verify(chain)
	if no, ok := errors.AsType[*session.Refusal](err); ok {
		err = &fallback.Refusal{Code: uint16(no.Code), Reason: no.Reason}
	}
	return id, err
}

// refuse keeps why a member wants no session.
func (m *member) refuse(e sessionEvent) {
	if before, known := m.refused[e.ID]; known && before.code == e.Code {
		return
	}
	m.refused[e.ID] = refusal{code: e.Code, reason: e.Reason, at: time.Now()}
	m.log.Warn("session refused", "peer", m.nameOf(e.ID), "reason", e.Reason)
}

// expelled reports that this node is out. One member's word proves nothing, and the records that would prove it
// may not reach a node that is out: so it is believed when some say so and nobody at all takes this node in.
func (m *member) expelled() error {
	if len(m.up) > 0 {
		return nil
	}
	for id, r := range m.refused {
		if r.code == codeNotMember && time.Since(r.at) > believeRefusals {
			return fmt.Errorf("%s says: %s", m.nameOf(id), r.reason)
		}
	}
	return nil
}

// partReason says why a node is a member no longer.
func (m *member) partReason(id identity.NodeID) string {
	err := m.mesh.Standing(id)
	var refused *roster.Refusal
	switch {
	case err == nil:
		return "left the mesh"
	case errors.As(err, &refused):
		return refused.Text
	}
	return err.Error()
}
