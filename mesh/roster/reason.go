package roster

import (
	"errors"
	"fmt"
)

// Reason says why a record, a certificate or a node does not count. Everything that is refused or dropped has one.
type Reason byte

// The reasons, from the outermost check to the innermost.
const (
	ReasonNone            Reason = iota
	ReasonMalformed              // it does not have the form of a record or of a certificate of ours
	ReasonSignature              // a signature is not by the key that it should be by
	ReasonNotOfMesh              // its chain does not lead to this mesh's root
	ReasonUnknownIssuer          // its issuer, admitting member or signer is not known (yet)
	ReasonNotAllowed             // its issuer had no right to issue it
	ReasonNotAdmin               // only admins and the root may sign it
	ReasonAdmission              // there is no valid countersignature of a member
	ReasonClock                  // two clocks are too far apart
	ReasonInviteExpired          // the admission is outside the time of the invite
	ReasonInviteUsed             // the invite's uses went to earlier admissions
	ReasonInviteRevoked          // the invite was revoked, and the node is not listed to stay
	ReasonRevoked                // the node's own key has been revoked
	ReasonIssuerRevoked          // it rests on a key that has been revoked, and is not listed to stay
	ReasonExpired                // the certificate has expired
	ReasonUnknownNode            // there is no record of the node
	ReasonAlreadyAdmitted        // the node is a member already, with another certificate
	ReasonFull                   // a bound on what is kept has been reached
	ReasonUnproven               // its record must be seen first: its chain alone shows nothing, for its invite admits nobody any more
)

var reasonNames = [...]string{
	ReasonNone: "none", ReasonMalformed: "malformed", ReasonSignature: "signature", ReasonNotOfMesh: "not of mesh",
	ReasonUnknownIssuer: "unknown issuer", ReasonNotAllowed: "not allowed", ReasonNotAdmin: "not admin", ReasonAdmission: "admission",
	ReasonClock: "clock", ReasonInviteExpired: "invite expired", ReasonInviteUsed: "invite used", ReasonInviteRevoked: "invite revoked",
	ReasonRevoked: "revoked", ReasonIssuerRevoked: "issuer revoked", ReasonExpired: "expired", ReasonUnknownNode: "unknown node",
	ReasonAlreadyAdmitted: "already admitted", ReasonFull: "full", ReasonUnproven: "unproven",
}

// String returns a short name for logs and metrics.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", byte(r))
}

// ErrRefused is wrapped by all refusals of this package. Use ReasonOf for the reason.
var ErrRefused = errors.New("refused")

// Refusal is the error of everything that this package refuses.
type Refusal struct {
	Reason Reason
	Text   string // a sentence for people, in lower case, without the reason's name
}

// Error returns the text.
func (r *Refusal) Error() string { return r.Text }

// Unwrap lets errors.Is find ErrRefused.
func (r *Refusal) Unwrap() error { return ErrRefused }

// ReasonOf returns the reason of a refusal anywhere in err, else ReasonNone.
func ReasonOf(err error) Reason {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return refusal.Reason
	}
	return ReasonNone
}

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Text: fmt.Sprintf(format, args...)}
}
