// Package join is the conversation in which a stranger with an invite becomes a member: the joiner proves that it holds the
// invite's key and its own, the member countersigns the joiner's certificate and hands it the records of the mesh, and
// the joiner gives its first record back, to be spread (wire.go draws the messages).
//
// It leaves the encrypted connection to mesh/session, which has also checked that the far side belongs to the mesh of
// the token; whether an invite still counts and what else the mesh knows to the Member, which mesh is; and keys and files
// to mesh/node. What a member answers is verified from the root up before any of it is used.
//
// Serve may be called concurrently, and so may Joiner.Join, with one Joiner and several members: all admissions are
// then for one certificate, and use the invite once.
package join

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"io"
	"strings"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// Conn is the connection of a joiner and a member: a reliable stream inside TLS 1.3.
type Conn interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
	// Export returns 32 bytes bound to this TLS connection and to label (RFC 8446, section 7.5), the same on both sides.
	Export(label string) ([]byte, error)
}

// Member is what Serve needs of the member that admits. Errors that are (or wrap) a *Refusal are told to the joiner; of
// others it hears only that there was one.
type Member interface {
	// InviteChain returns the certificates from the invite with that key to the root.
	InviteChain(id identity.KeyID) ([]*x509.Certificate, error)
	// Admit checks a joiner's certificate and countersigns it. Repeated with one certificate it gives one answer.
	Admit(cert *x509.Certificate) (record.Admission, error)
	// Bundle returns records for a new member, at most so many bytes in all: what proves this member's membership and
	// the invite first, then anchors, then others; and how many there are in all.
	Bundle(invite identity.KeyID, maxBytes int) (records []record.Signed, total int)
	// AddNode takes the first record of the node just admitted, verifies, keeps and spreads it.
	AddNode(first record.Signed) error
}

// Code says why a join was refused.
type Code byte

// The reasons to refuse.
const (
	CodeFailed        Code = iota + 1 // the member could not, for a reason of its own
	CodeVersion                       // the joiner speaks another version of this protocol
	CodeForged                        // a proof or certificate is not what it claims to be
	CodeUnknownInvite                 // the member knows no such invite
	CodeExpired                       // the invite is past its time
	CodeRevoked                       // the invite, or who made it, was revoked
	CodeUsed                          // all uses of the invite are taken
	CodeClock                         // the clocks of the two differ too much
	CodeBusy                          // too many admissions are pending
)

// Refusal is a member's no. Text is a full explanation in words, without names of types or packages.
type Refusal struct {
	Code Code
	Text string
}

// Error returns the explanation.
func (r *Refusal) Error() string { return r.Text }

// Final reports whether another member would say no too.
func (r *Refusal) Final() bool {
	switch r.Code {
	case CodeVersion, CodeForged, CodeExpired, CodeRevoked, CodeUsed:
		return true
	}
	return false
}

// Refuse makes a Refusal.
func Refuse(code Code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Text: fmt.Sprintf(format, args...)}
}

// maxText bounds the explanation that a far side may put into our terminal, in bytes.
const maxText = 400

// printable takes out of a text what could do more than be read.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0xfffd || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return -1
		}
		return r
	}, text)
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return text
}

// Timing and sizes. A join is a handful of round trips, so what takes longer than patience is stuck.
const (
	patience  = 20 * time.Second
	opening   = 3 * time.Second // for the joiner's hello, before which it is anybody
	maxBundle = 192 << 10       // records; the rest comes by sync
)

// The exporter labels of the two proofs (RFC 5705, section 4: private ones begin with EXPERIMENTAL or EXPORTER).
const (
	labelInvite = "EXPORTER-warren-join-invite"
	labelNode   = "EXPORTER-warren-join-node"
)

// proof signs the connection with a key, for the purpose that the label names: whoever records it can
// use it on no other connection.
func proof(c Conn, label string, key ed25519.PrivateKey) ([]byte, error) {
	exported, err := c.Export(label)
	if err != nil {
		return nil, err
	}
	return ed25519.Sign(key, append([]byte(label), exported...)), nil
}

func checkProof(c Conn, label string, public ed25519.PublicKey, signature []byte) (bool, error) {
	exported, err := c.Export(label)
	if err != nil {
		return false, err
	}
	return ed25519.Verify(public, append([]byte(label), exported...), signature), nil
}

// begin gives the conversation a deadline and ends it with ctx. The caller calls stop at the end.
func begin(ctx context.Context, c Conn, deadline time.Time) (stop func() bool, err error) {
	if err := c.SetDeadline(deadline); err != nil {
		return nil, err
	}
	return context.AfterFunc(ctx, func() { _ = c.Close() }), nil
}
