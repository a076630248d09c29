package roster

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"time"

	"warren/mesh/identity"
)

// maxVerified bounds the pairs of certificates whose signature is remembered as right.
const maxVerified = 4096

// VerifyChain decides on the certificates of a TLS handshake, leaf first, with or without the root at the end. It returns
// the ID of the node, or a *Refusal.
//
// A node of which there is no record here passes if its chain is right and nothing in it is revoked: otherwise two
// members that have never heard of each other could not meet. Its chain alone does not prove an admission, so
// until its record is in (see Member) it is to be given nothing and asked for that.
func (r *Roster) VerifyChain(chain []*x509.Certificate, now time.Time) (identity.NodeID, error) {
	if refusal := r.verifyChain(chain, now); refusal != nil {
		return identity.NodeID{}, refusal
	}
	return identity.NodeIDOfCert(chain[0]), nil
}

func (r *Roster) verifyChain(chain []*x509.Certificate, now time.Time) *Refusal {
	if len(chain) > 0 && bytes.Equal(chain[len(chain)-1].Raw, r.root.Raw) {
		chain = chain[:len(chain)-1]
	}
	if len(chain) == 0 || len(chain) >= identity.MaxChain {
		return refuse(ReasonMalformed, "chain of %d certificates below the root", len(chain))
	}
	for i, cert := range chain {
		if err := identity.CheckForm(cert); err != nil {
			return refuse(ReasonMalformed, "certificate %d of the chain: %v", i+1, err)
		}
		parent := r.root
		if i+1 < len(chain) {
			parent = chain[i+1]
		}
		if err := r.checkIssued(cert, parent); err != nil {
			return refuse(reasonOf(err), "certificate %d of the chain: %v", i+1, err)
		}
	}
	leaf := chain[0]
	id := identity.NodeIDOfCert(leaf)
	if role := identity.RoleOf(leaf); role != identity.RoleMember && role != identity.RoleAdmin {
		return refuse(ReasonNotAllowed, "certificate of a %s, want a node's", role)
	}
	if now.After(leaf.NotAfter) {
		return refuse(ReasonExpired, "node %s: its certificate expired %s", id.Short(), textTime(leaf.NotAfter))
	}
	if e := r.nodes[id]; e != nil {
		return r.whyOut(e)
	}
	for i, cert := range chain {
		if refusal := r.revokedText(identity.KeyIDOfCert(cert)); refusal != nil {
			if i > 0 {
				return refuse(ReasonIssuerRevoked, "node %s: above it, %s", id.Short(), refusal.Text)
			}
			return refusal
		}
	}
	for _, e := range r.aside {
		if e.Node != nil && e.Node.ID == id && e.refusal != nil {
			return e.refusal
		}
	}
	return nil
}

// checkIssued is CheckLink and CheckSignature, whose good results are remembered.
func (r *Roster) checkIssued(child, parent *x509.Certificate) error {
	if err := identity.CheckLink(child, parent); err != nil {
		return err
	}
	pair := sha256.Sum256(append(bytes.Clone(child.Raw), parent.RawSubjectPublicKeyInfo...))
	if _, ok := r.verified[pair]; ok {
		return nil
	}
	if err := identity.CheckSignature(child, parent); err != nil {
		return err
	}
	if len(r.verified) >= maxVerified {
		clear(r.verified)
	}
	r.verified[pair] = struct{}{}
	return nil
}
