package courier

import (
	"crypto/ed25519"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/mesh/roster"
)

// members is a roster in memory.
type members map[identity.NodeID]roster.Member

func (m members) Member(id identity.NodeID) (roster.Member, bool) {
	other, ok := m[id]
	return other, ok
}

func TestKeysOfActiveMembers(t *testing.T) {
	root := identity.GenerateKey()
	cert, err := identity.NewRoot(root, identity.RootTerms{Name: "home"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	public := identity.GenerateKey().Public().(ed25519.PublicKey)
	node, err := identity.NewNode(identity.Authority{Cert: cert, Key: root}, public, identity.NodeTerms{NotBefore: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	id := identity.NodeIDOf(public)
	other := roster.Member{ID: id}
	other.Record.Certificate, other.Record.SealingKey = node.Raw, [32]byte{5}
	known := members{id: other}
	ring := NewKeyring(known)
	for range 2 { // from the certificate, and remembered
		got, ok := ring.Keys(id)
		if !ok || !got.Signing.Equal(public) || got.Sealing != [32]byte{5} {
			t.Errorf("got %+v, %v, want the keys of its record", got, ok)
		}
	}
	other.Record.SealingKey = [32]byte{6} // which a new record may bring
	known[id] = other
	if got, ok := ring.Keys(id); !ok || got.Sealing != [32]byte{6} {
		t.Errorf("got sealing key %x, %v, want the new one", got.Sealing[:1], ok)
	}
	other.State = roster.Left
	known[id] = other
	if _, ok := ring.Keys(id); ok {
		t.Error("got keys of a member that has left")
	}
	if _, ok := ring.Keys(identity.NodeID{1}); ok {
		t.Error("got keys of nobody")
	}
	broken := roster.Member{ID: identity.NodeID{2}}
	broken.Record.Certificate = []byte("noise")
	known[broken.ID] = broken
	if _, ok := ring.Keys(broken.ID); ok {
		t.Error("got keys out of noise")
	}
}
