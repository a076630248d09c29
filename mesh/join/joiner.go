package join

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

type certificate = *x509.Certificate

// Options is what a Joiner is made of.
type Options struct {
	Seed [32]byte           // of the invite's key, out of the token
	Key  ed25519.PrivateKey // the node's own
	// Own is the node's record as far as the node can fill it: names, keys, version, instance. Certificate and admission are
	// filled in here; the sequence becomes 1 when it is 0.
	Own record.Node
	// Cert is the certificate of an earlier attempt with these keys, nil for none: whoever admitted it says so again.
	Cert *x509.Certificate
	// Keep is given a new certificate before anybody is shown it, so that it can be Cert the next time; its error ends the join. May be nil.
	Keep func(*x509.Certificate) error
}

// Joiner is a node that wants in. It makes one certificate, however many members it asks and how often.
type Joiner struct {
	options Options
	invite  ed25519.PrivateKey
	making  chan struct{} // held by the one that makes the certificate

	mu     sync.Mutex
	cert   certificate
	unsure int // requests to which no answer came
}

// Result is what a successful join brings. All of it has been verified against the root.
type Result struct {
	Chain     []*x509.Certificate // the node's certificate first, the root last
	Admission record.Admission
	By        identity.NodeID // the member that admitted the node
	ByName    string          // its name
	Members   int             // members known from Records, this node included
	Records   []record.Signed // of the mesh, with this node's first one; to be put into its store
	Total     int             // records that the member has; those not in Records come by sync
	Ahead     time.Duration   // this machine's clock, of the member's, to a second; less than zero: behind
	Spread    bool            // the member has taken the first record; else mesh spreads it at the agent's start
}

// NewJoiner makes a Joiner.
func NewJoiner(o Options) *Joiner {
	return &Joiner{options: o, invite: ed25519.NewKeyFromSeed(o.Seed[:]), making: make(chan struct{}, 1), cert: o.Cert}
}

// Unsure reports whether a member may have admitted this node without its hearing of it: the answer was lost.
func (j *Joiner) Unsure() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.unsure > 0
}

// Renew reports whether to ask the same member once more after the error of a Join: it takes no certificate as old as the one of an earlier
// attempt, which it has not admitted. The next Join makes another one.
func (j *Joiner) Renew(err error) bool {
	var no *Refusal
	if !errors.As(err, &no) || no.Code != CodeClock {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.cert == nil || time.Since(j.cert.NotBefore) < identity.Skew/2 {
		return false
	}
	j.cert = nil
	return true
}

// waits notes that a request has gone out, or that its answer has come.
func (j *Joiner) waits(n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.unsure += n
}

// Join asks the member at the far end of c to be admitted to the mesh of root, and closes c. A no is a *Refusal, with an
// explanation for the user; another member may answer differently unless it is Final.
func (j *Joiner) Join(ctx context.Context, c Conn, root *x509.Certificate) (*Result, error) {
	defer func() { _ = c.Close() }()
	stop, err := begin(ctx, c, time.Now().Add(patience))
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	defer stop()
	result, err := j.join(c, root)
	var no *Refusal
	switch {
	case err == nil:
		return result, nil
	case errors.As(err, &no):
		return nil, no
	case ctx.Err() != nil:
		err = ctx.Err()
	}
	return nil, fmt.Errorf("join: %w", err)
}

func (j *Joiner) join(c Conn, root certificate) (*Result, error) {
	if err := identity.CheckRoot(root); err != nil {
		return nil, err
	}
	invites, clock, err := j.askChain(c, root)
	if err != nil {
		return nil, err
	}
	ahead := time.Since(clock).Round(time.Second)
	cert, err := j.certificate(invites[0], clock)
	if err != nil {
		return nil, err
	}
	answer, err := j.askAdmission(c, cert)
	if err != nil {
		return nil, withClock(err, clock)
	}
	result, first, err := j.verify(answer, append([]*x509.Certificate{cert}, invites...))
	if err != nil {
		return nil, err
	}
	result.Ahead = ahead
	// From here on the node is a member, whatever becomes of this connection.
	if write(c, message{First: first}) != nil {
		return result, nil
	}
	m, err := read(c, maxFromMember)
	if err == nil && m.Refusal != nil {
		return nil, refusalOf(m)
	}
	result.Spread = err == nil && m.Done
	return result, nil
}

// refusalOf makes what the far side says fit for a terminal.
func refusalOf(m message) *Refusal {
	return &Refusal{Code: m.Refusal.Code, Text: printable(m.Refusal.Text)}
}

// withClock adds to a refusal over clocks by how much they differ, which only this side can see.
func withClock(err error, clock time.Time) error {
	var no *Refusal
	if !errors.As(err, &no) || no.Code != CodeClock {
		return err
	}
	ahead := time.Since(clock).Round(time.Second)
	switch {
	case ahead > time.Second:
		return Refuse(CodeClock, "this machine's clock is %s ahead of the member's, and %s is allowed: set the clock that is wrong", ahead, identity.Skew)
	case ahead < -time.Second:
		return Refuse(CodeClock, "this machine's clock is %s behind the member's, and %s is allowed: set the clock that is wrong", -ahead, identity.Skew)
	}
	return no
}

// askChain proves the invite and returns its chain, the invite first and the root last, and the member's clock.
func (j *Joiner) askChain(c Conn, root certificate) ([]*x509.Certificate, time.Time, error) {
	signature, err := proof(c, labelInvite, j.invite)
	if err != nil {
		return nil, time.Time{}, err
	}
	public := j.invite.Public().(ed25519.PublicKey)
	if err := write(c, message{Hello: &hello{Version: protocolVersion, Invite: public, Proof: signature}}); err != nil {
		return nil, time.Time{}, err
	}
	m, err := read(c, maxFromMember)
	switch {
	case err != nil:
		return nil, time.Time{}, err
	case m.Refusal != nil:
		return nil, time.Time{}, refusalOf(m)
	case m.Chain == nil:
		return nil, time.Time{}, errMessage
	}
	certs, err := parseChain(m.Chain.Certs, root)
	if err != nil {
		return nil, time.Time{}, err
	}
	if identity.KeyIDOfCert(certs[0]) != identity.KeyIDOf(public) {
		return nil, time.Time{}, fmt.Errorf("the member answered with another invite: %w", errMessage)
	}
	return certs, time.Unix(m.Chain.Clock, 0), nil
}

// parseChain reads certificates from an invite to root and checks each step.
func parseChain(raw [][]byte, root certificate) ([]*x509.Certificate, error) {
	if len(raw) < 2 || len(raw) > identity.MaxChain {
		return nil, fmt.Errorf("chain of %d certificates: %w", len(raw), errMessage)
	}
	certs := make([]*x509.Certificate, len(raw))
	for i, der := range raw {
		cert, err := identity.ParseCert(der)
		if err != nil {
			return nil, err
		}
		certs[i] = cert
	}
	if !bytes.Equal(certs[len(certs)-1].Raw, root.Raw) {
		return nil, fmt.Errorf("chain of another mesh: %w", errMessage)
	}
	for i, parent := range certs[1:] {
		if err := identity.CheckLink(certs[i], parent); err != nil {
			return nil, err
		}
		if err := identity.CheckSignature(certs[i], parent); err != nil {
			return nil, err
		}
	}
	if identity.RoleOf(certs[0]) != identity.RoleInvite {
		return nil, fmt.Errorf("chain that does not begin with an invite: %w", errMessage)
	}
	return certs, nil
}

// certificate makes the node's certificate, once: all members asked countersign the same one. It is kept before anybody sees it.
func (j *Joiner) certificate(invite certificate, clock time.Time) (certificate, error) {
	j.making <- struct{}{}
	defer func() { <-j.making }()
	if cert := j.made(); cert != nil && bytes.Equal(cert.RawIssuer, invite.RawSubject) {
		return cert, nil
	}
	now := time.Now()
	terms, err := identity.TermsOf(invite)
	if err != nil {
		return nil, err
	}
	switch {
	case now.After(terms.Expires) && clock.Before(terms.Expires):
		return nil, withClock(Refuse(CodeClock, "this machine's clock says that the invite has expired, and the member's that it has not: set the one that is wrong"), clock)
	case now.After(terms.Expires):
		return nil, Refuse(CodeExpired, "the invite expired on %s: ask for a new one", terms.Expires.Local().Format("2 January 2006 at 15:04"))
	}
	issuer := identity.Authority{Cert: invite, Key: j.invite}
	cert, err := identity.NewNode(issuer, j.options.Key.Public().(ed25519.PublicKey), identity.NodeTerms{Admin: terms.Admin, NotBefore: now})
	if err == nil && j.options.Keep != nil {
		err = j.options.Keep(cert)
	}
	if err != nil {
		return nil, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.cert = cert
	return cert, nil
}

// made is the certificate, nil when there is none yet.
func (j *Joiner) made() certificate {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.cert
}

// askAdmission proves the node's key and returns what the member answers.
func (j *Joiner) askAdmission(c Conn, cert certificate) (*admitted, error) {
	signature, err := proof(c, labelNode, j.options.Key)
	if err != nil {
		return nil, err
	}
	j.waits(1)
	if err := write(c, message{Request: &request{Cert: cert.Raw, Proof: signature}}); err != nil {
		return nil, err
	}
	m, err := read(c, maxFromMember)
	switch {
	case err != nil:
		return nil, err
	case m.Refusal != nil:
		j.waits(-1)
		return nil, refusalOf(m)
	case m.Admitted == nil:
		return nil, errMessage
	}
	return m.Admitted, nil
}

// verify builds the mesh from the root and the records that came, and sees whether this node is a member of it. It
// returns the node's encoded first record too.
func (j *Joiner) verify(answer *admitted, chain []*x509.Certificate) (*Result, []byte, error) {
	result := &Result{Chain: chain, Total: int(answer.Total)}
	result.Admission = record.Admission{Time: answer.Time, Signer: identity.NodeID(answer.Signer), Signature: answer.Signature}
	result.By = result.Admission.Signer

	known := roster.New(chain[len(chain)-1])
	records := make([]record.Signed, 0, len(answer.Records)+len(chain))
	for _, cert := range chain[1 : len(chain)-1] {
		if role := identity.RoleOf(cert); role == identity.RoleInvite || role == identity.RolePromotion {
			records = append(records, record.NewCertificate(cert))
		}
	}
	for _, encoded := range answer.Records {
		r, err := record.Unmarshal(encoded)
		if err != nil {
			return nil, nil, err
		}
		records = append(records, r)
	}
	now := time.Now()
	known.AddAll(records, now)
	id := identity.NodeIDOfCert(chain[0])
	own := j.options.Own
	own.Certificate, own.Admission = chain[0].Raw, result.Admission
	own.Seq = max(own.Seq, 1)
	own.Updated = now.Unix()
	if before, ok := known.Member(id); ok { // this node has asked before, and the answer was lost
		own.Seq = max(own.Seq, before.Record.Seq+1)
	}
	signed, err := record.SignNode(known.Mesh(), own, j.options.Key)
	if err != nil {
		return nil, nil, err
	}
	if _, err := known.Add(signed, now); err != nil {
		return nil, nil, fmt.Errorf("the member's admission does not hold: %w", err)
	}
	if err := known.Standing(id); err != nil {
		return nil, nil, fmt.Errorf("the member's admission does not hold: %w", err)
	}
	for _, r := range known.All() {
		result.Records = append(result.Records, r)
	}
	by, _ := known.Member(result.By)
	result.ByName, result.Members = by.Name, len(known.Members())
	first, err := signed.Marshal()
	return result, first, err
}
