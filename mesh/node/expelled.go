package node

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/mesh/session"
	"warren/nat/fallback"
)

// codeNotMember is told to a node that was a member, or had an invite, and is none for good.
const codeNotMember = session.CodeFirstFree

// finalReasons are those that no record still to come, and no clock set right, can cure.
var finalReasons = []roster.Reason{
	roster.ReasonRevoked, roster.ReasonIssuerRevoked, roster.ReasonInviteRevoked, roster.ReasonInviteUsed,
}

// refusal is why a member did not accept this node's session.
type refusal struct {
	code   uint64
	reason string
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

// refuse keeps why a member wants no session. Whether this node is out is for mesh to say.
func (m *member) refuse(e sessionEvent) {
	if e.Code == codeNotMember {
		m.mesh.Refused(e.ID, e.Reason)
	}
	if before, known := m.refused[e.ID]; known && before.code == e.Code {
		return
	}
	m.refused[e.ID] = refusal{code: e.Code, reason: e.Reason}
	m.log.Warn("session refused", "peer", m.nameOf(e.ID), "reason", e.Reason)
}

// refusals puts the refusals into words, for status.
func (m *member) refusals() (out []string) {
	table := m.routes.Load()
	for id, r := range table.refused {
		out = append(out, fmt.Sprintf("%s refuses a control session: %s", m.nameOf(id), r.reason))
	}
	return out
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
