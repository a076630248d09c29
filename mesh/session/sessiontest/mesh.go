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

// Mesh is a root and its revocations, enough to verify chains of nodes that the root has certified itself.
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

// NewNode makes a node and its certificate.
func (m *Mesh) NewNode() (Node, error) {
	key := identity.GenerateKey()
	cert, err := identity.NewNode(m.Root, key.Public().(ed25519.PublicKey), identity.NodeTerms{NotBefore: time.Now()})
	if err != nil {
		return Node{}, err
	}
	return Node{ID: identity.NodeIDOfCert(cert), Key: key, Chain: []*x509.Certificate{cert, m.Root.Cert}}, nil
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
	if len(chain) != 2 || !chain[1].Equal(m.Root.Cert) {
		return identity.NodeID{}, fmt.Errorf("verify chain: not of this mesh")
	}
	if err := identity.CheckSignature(chain[0], m.Root.Cert); err != nil {
		return identity.NodeID{}, fmt.Errorf("verify chain: %w", err)
	}
	id := identity.NodeIDOfCert(chain[0])
	m.mu.Lock()
	defer m.mu.Unlock()
	return id, m.refused[id]
}
