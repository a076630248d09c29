package roster

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"sync"

	"warren/mesh/identity"
)

// maxVerified bounds the pairs of certificates whose signature is remembered as right.
const maxVerified = 4096

// Chains checks chains of certificates up to a mesh's root: that part of a decision on them which rests on no record, and takes
// the time. It remembers good signatures. All methods may be called concurrently, and beside those of a Roster.
type Chains struct {
	root *x509.Certificate // constant

	mu       sync.Mutex
	verified map[[32]byte]struct{} // pairs of child and parent certificate whose signature is right
}

// NewChains returns what checks the chains of the mesh of a root, which must have passed identity.CheckRoot.
func NewChains(root *x509.Certificate) *Chains {
	return &Chains{root: root, verified: make(map[[32]byte]struct{})}
}

// Check checks form, links and signatures of the certificates of a TLS handshake, leaf first, with or without the root at the
// end. It returns nil or a *Refusal. Whether the node has a place in the mesh is for JudgeChain.
func (c *Chains) Check(chain []*x509.Certificate) error {
	if refusal := c.check(chain); refusal != nil {
		return refusal
	}
	return nil
}

func (c *Chains) check(chain []*x509.Certificate) *Refusal {
	chain = c.below(chain)
	if len(chain) == 0 || len(chain) >= identity.MaxChain {
		return refuse(ReasonMalformed, "chain of %d certificates below the root", len(chain))
	}
	for i, cert := range chain {
		if err := identity.CheckForm(cert); err != nil {
			return refuse(ReasonMalformed, "certificate %d of the chain: %v", i+1, err)
		}
		parent := c.root
		if i+1 < len(chain) {
			parent = chain[i+1]
		}
		if err := c.checkIssued(cert, parent); err != nil {
			return refuse(reasonOf(err), "certificate %d of the chain: %v", i+1, err)
		}
	}
	return nil
}

// below returns a chain without the root.
func (c *Chains) below(chain []*x509.Certificate) []*x509.Certificate {
	if len(chain) > 0 && bytes.Equal(chain[len(chain)-1].Raw, c.root.Raw) {
		chain = chain[:len(chain)-1]
	}
	return chain
}

// CheckJoiner checks that a joiner's certificate was made with an invite, as CheckAdmission does: after it a Roster finds the
// signature verified. It returns nil or a *Refusal.
func (c *Chains) CheckJoiner(cert, invite *x509.Certificate) error {
	if refusal := c.checkJoiner(cert, invite); refusal != nil {
		return refusal
	}
	return nil
}

func (c *Chains) checkJoiner(cert, invite *x509.Certificate) *Refusal {
	if err := c.checkIssued(cert, invite); err != nil {
		return refuse(reasonOf(err), "node %s: %v", identity.NodeIDOfCert(cert).Short(), err)
	}
	return nil
}

// checkIssued is CheckLink and CheckSignature, whose good results are remembered.
func (c *Chains) checkIssued(child, parent *x509.Certificate) error {
	if err := identity.CheckLink(child, parent); err != nil {
		return err
	}
	pair := sha256.Sum256(append(bytes.Clone(child.Raw), parent.RawSubjectPublicKeyInfo...))
	if c.isVerified(pair) {
		return nil
	}
	if err := identity.CheckSignature(child, parent); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.verified) >= maxVerified {
		clear(c.verified)
	}
	c.verified[pair] = struct{}{}
	return nil
}

func (c *Chains) isVerified(pair [32]byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.verified[pair]
	return ok
}
