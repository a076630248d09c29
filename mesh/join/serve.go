package join

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// Serve answers one joiner and returns the ID of the node that was admitted. It closes c. The error of a refusal that
// the joiner was told is a *Refusal; any other means that the conversation broke off. The ID is set from the admission on, also
// when the node's first record never came: that node is still free to bring it to any member.
func Serve(ctx context.Context, c Conn, member Member) (identity.NodeID, error) {
	defer func() { _ = c.Close() }()
	began := time.Now()
	stop, err := begin(ctx, c, began.Add(opening))
	if err != nil {
		return identity.NodeID{}, fmt.Errorf("serve join: %w", err)
	}
	defer stop()
	id, err := serve(c, member, began.Add(patience))
	if err == nil {
		return id, nil
	}
	no := &Refusal{Code: CodeFailed, Text: "the member that was asked could not admit this node for a reason of its own: ask another"}
	told := errors.As(err, &no)
	if wrote := write(c, message{Refusal: &refusal{Code: no.Code, Text: no.Text}}); wrote != nil || !told {
		return id, fmt.Errorf("serve join: %w", err)
	}
	return id, no
}

func serve(c Conn, member Member, deadline time.Time) (id identity.NodeID, err error) {
	if err := serveHello(c, member, deadline); err != nil {
		return id, err
	}
	cert, admission, err := serveRequest(c, member)
	if err != nil {
		return id, err
	}
	id = identity.NodeIDOfCert(cert)
	records, total := member.Bundle(identity.IssuerOf(cert), maxBundle)
	answer := &admitted{Time: admission.Time, Signer: admission.Signer[:], Signature: admission.Signature, Total: uint32(total)}
	for _, r := range records {
		encoded, err := r.Marshal()
		if err != nil {
			return id, err
		}
		answer.Records = append(answer.Records, encoded)
	}
	if err := write(c, message{Admitted: answer}); err != nil {
		return id, err
	}
	m, err := read(c, maxFromJoiner)
	if err != nil {
		return id, err
	}
	first, err := record.Unmarshal(m.First)
	if err != nil {
		return id, Refuse(CodeForged, "the node's first record is malformed")
	}
	if node, err := first.Node(); err != nil || node.ID != id {
		return id, Refuse(CodeForged, "the first record is not that of the node just admitted")
	}
	if err := member.AddNode(first); err != nil {
		return id, err
	}
	return id, write(c, message{Done: true})
}

// serveHello checks that the joiner holds the key of an invite, and answers with the invite's chain. The proof comes before
// the look-up: who holds no invite learns nothing about which there are.
func serveHello(c Conn, member Member, deadline time.Time) error {
	m, err := read(c, maxFromJoiner)
	if err == nil {
		err = c.SetDeadline(deadline)
	}
	if err != nil {
		return err
	}
	switch {
	case m.Hello == nil:
		return errMessage
	case m.Hello.Version != protocolVersion:
		return Refuse(CodeVersion, "the joiner speaks version %d of the join protocol and the member version %d: install the same release on both", m.Hello.Version, protocolVersion)
	}
	public := ed25519.PublicKey(m.Hello.Invite)
	ok, err := checkProof(c, labelInvite, public, m.Hello.Proof)
	if err != nil {
		return err
	}
	if !ok {
		return Refuse(CodeForged, "the token was not proven: its key and its signature do not belong together")
	}
	certs, err := member.InviteChain(identity.KeyIDOf(public))
	if err != nil {
		return err
	}
	answer := &chain{Clock: time.Now().Unix()}
	for _, cert := range certs {
		answer.Certs = append(answer.Certs, cert.Raw)
	}
	return write(c, message{Chain: answer})
}

// serveRequest checks that the joiner holds the key of the certificate that it made, and has the member admit it.
func serveRequest(c Conn, member Member) (cert certificate, admission record.Admission, err error) {
	m, err := read(c, maxFromJoiner)
	if err != nil {
		return nil, admission, err
	}
	if m.Request == nil {
		return nil, admission, errMessage
	}
	cert, err = identity.ParseCert(m.Request.Cert)
	if err != nil {
		return nil, admission, Refuse(CodeForged, "the joiner's certificate is malformed")
	}
	if role := identity.RoleOf(cert); role != identity.RoleMember && role != identity.RoleAdmin {
		return nil, admission, Refuse(CodeForged, "the joiner's certificate is not that of a node")
	}
	ok, err := checkProof(c, labelNode, cert.PublicKey.(ed25519.PublicKey), m.Request.Proof)
	if err != nil {
		return nil, admission, err
	}
	if !ok {
		return nil, admission, Refuse(CodeForged, "the joiner does not hold the key of its certificate")
	}
	admission, err = member.Admit(cert)
	return cert, admission, err
}
