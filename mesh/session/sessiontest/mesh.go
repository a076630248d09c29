package sessiontest

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync"
	"time"

	"warren/mesh/identity"
)

// Mesh is a root and its revocations, enough to verify chains of nodes that the root, or an invite of it, has certified.
type Mesh struct {
	Root identity.Authority // constant

	mu      sync.Mutex // guards refused
	refused map[identity.NodeID]error
}

// Node is a node of a Mesh: its ID and what it presents in a handshake.
type Node struct {
	ID    identity.NodeID
	Key   ed25519.PrivateKey
	Chain []*x509.Certificate
}

// NewMesh makes a mesh.
func NewMesh() (*Mesh, error) {
	key := identity.GenerateKey()
	root, err := identity.NewRoot(key, identity.RootTerms{Name: "test"}, time.Now())
	if err != nil {
		return nil, err
	}
	return &Mesh{Root: identity.Authority{Cert: root, Key: key}, refused: make(map[identity.NodeID]error)}, nil
}

// NewNode makes a node that the root has certified.
func (m *Mesh) NewNode() (Node, error) { return m.NewNodeBy(m.Root) }

// NewInvite makes an invite that the root has certified.
func (m *Mesh) NewInvite() (identity.Authority, error) {
	now := time.Now()
	seed, cert, err := identity.NewInvite(m.Root, identity.InviteTerms{Uses: 1, Expires: now.Add(24 * time.Hour)}, now)
	return identity.Authority{Cert: cert, Key: ed25519.NewKeyFromSeed(seed[:])}, err
}

// NewNodeBy makes a node that the root, or an invite, has certified. Nobody has admitted it.
func (m *Mesh) NewNodeBy(by identity.Authority) (Node, error) {
	key := identity.GenerateKey()
	cert, err := identity.NewNode(by, key.Public().(ed25519.PublicKey), identity.NodeTerms{NotBefore: time.Now()})
	if err != nil {
		return Node{}, err
	}
	n := Node{ID: identity.NodeIDOfCert(cert), Key: key, Chain: []*x509.Certificate{cert, m.Root.Cert}}
	if by.Cert != m.Root.Cert {
		n.Chain = []*x509.Certificate{cert, by.Cert, m.Root.Cert}
	}
	return n, nil
}

// Credential returns the node's certificate chain and key.
func (n Node) Credential() tls.Certificate {
	cert := tls.Certificate{PrivateKey: n.Key, Leaf: n.Chain[0]}
	for _, c := range n.Chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert
}

// Member is a node in its mesh, as sessions have to know it.
type Member struct {
	Node
	*Mesh
}

// Refuse makes Verify refuse a node with err from now on, or accept it again when err is nil.
func (m *Mesh) Refuse(id identity.NodeID, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refused[id] = err
}

// Verify checks a chain as the roster of a real mesh would.
func (m *Mesh) Verify(chain []*x509.Certificate) (identity.NodeID, error) {
	if len(chain) < 2 || len(chain) > 3 || !chain[len(chain)-1].Equal(m.Root.Cert) {
		return identity.NodeID{}, fmt.Errorf("verify chain: not of this mesh")
	}
	for i, cert := range chain[:len(chain)-1] {
		if err := identity.CheckSignature(cert, chain[i+1]); err != nil {
			return identity.NodeID{}, fmt.Errorf("verify chain: %w", err)
		}
	}
	id := identity.NodeIDOfCert(chain[0])
	m.mu.Lock()
	defer m.mu.Unlock()
	return id, m.refused[id]
}
