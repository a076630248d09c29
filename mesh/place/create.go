package place

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/disk"
	"warren/mesh/identity"
	"warren/mesh/signal"
	"warren/nat/ranges"
)

// CreateOptions say how to make a mesh of which this machine is the founder.
type CreateOptions struct {
	Mesh      string       // a ValidName
	StateRoot string       // the state is made in StateRoot/Mesh, which must not exist
	Name      string       // of this node, a ValidName
	IPv4      netip.Prefix // zero: chosen from the mesh ID, clear of local routes
	NoIPv4    bool
	Domain    string   // see identity.CheckDomain; "": the mesh's name below .internal
	Endpoints []string // host:port, kept in the state directory
	Port      uint16   // 0: the first free one from DefaultPort on; kept in the state directory, as is the name of the interface
	Claims    []Claim  // what is taken on this machine beside what Claims finds: by config files

	disk disk.Disk
}

// Create makes the keys, the root certificate and the first node of a new mesh. Nothing is left behind when
// it fails. The error wraps os.ErrExist when there already is such a mesh.
func Create(o CreateOptions) (Membership, error) {
	for _, name := range []string{o.Mesh, o.Name} {
		if err := ValidName(name); err != nil {
			return Membership{}, err
		}
	}
	if o.Mesh == StaticMesh {
		return Membership{}, fmt.Errorf("create mesh %q: that is what the agent without a mesh is called: %w", o.Mesh, ErrName)
	}
	dir := filepath.Join(o.StateRoot, o.Mesh)
	if _, err := os.Lstat(dir); err == nil {
		return Membership{}, fmt.Errorf("create mesh %s: %s is there already: %w", o.Mesh, dir, os.ErrExist)
	}
	ctx, cancel := context.WithTimeout(context.Background(), createWait)
	defer cancel()
	unlock, err := lockRoot(ctx, o.disk, o.StateRoot, func() {})
	if err != nil {
		return Membership{}, err
	}
	defer unlock()
	_, rootKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Membership{}, fmt.Errorf("make root key: %w", err)
	}
	claims := append(Claims(o.StateRoot), o.Claims...)
	ifname, port, err := settle(claims, o.Port)
	if err != nil {
		return Membership{}, fmt.Errorf("create mesh %s: %w", o.Mesh, err)
	}
	prefix4, err := choosePrefix4(o, claims, identity.MeshIDOf(rootKey.Public().(ed25519.PublicKey)))
	if err != nil {
		return Membership{}, err
	}
	now := time.Now()
	root, err := identity.NewRoot(rootKey, identity.RootTerms{Name: o.Mesh, Prefix4: prefix4, Domain: o.Domain}, now)
	if err != nil {
		return Membership{}, err
	}
	s, err := newState()
	if err != nil {
		return Membership{}, err
	}
	leaf, err := identity.NewNode(identity.Authority{Cert: root, Key: rootKey}, s.Key.Public().(ed25519.PublicKey), identity.NodeTerms{Admin: true, NotBefore: now})
	if err != nil {
		return Membership{}, err
	}
	s.Chain = []*x509.Certificate{leaf, root}
	s.Settings = Settings{Schema: storedSchema, Mesh: o.Mesh, Name: o.Name, Interface: ifname, Port: port, Endpoints: o.Endpoints}
	encoded, err := identity.EncodePrivateKey(rootKey)
	if err != nil {
		return Membership{}, err
	}
	keepRoot := func(dir string) error {
		return o.disk.Write(filepath.Join(dir, fileRootKey), encoded, 0o600)
	}
	if err := s.make(o.disk, dir, keepRoot); err != nil {
		return Membership{}, err
	}
	out := s.membership()
	out.Members = 1
	return out, nil
}

// createWait is how long Create waits for another one, or a join, on this machine.
const createWait = 5 * time.Second

// choosePrefix4 picks the mesh's IPv4 range: wanted, none, or one that no local route overlaps.
func choosePrefix4(o CreateOptions, claims []Claim, mesh identity.MeshID) (netip.Prefix, error) {
	switch {
	case o.NoIPv4:
		return netip.Prefix{}, nil
	case o.IPv4.IsValid():
		if err := identity.CheckPrefix4(o.IPv4); err != nil {
			return netip.Prefix{}, err
		}
	}
	routes, err := routesBeside(claims, ranges.Carrier, o.IPv4)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("look for a free IPv4 range: %w", err)
	}
	if r, hit := collision(o.IPv4, routes); hit {
		return netip.Prefix{}, fmt.Errorf("IPv4 range %s overlaps %s on %s: %w; choose another one, or let one be chosen", o.IPv4, r.Prefix, r.Interface, ErrOverlap)
	}
	if o.IPv4.IsValid() {
		return o.IPv4, nil
	}
	var local []netip.Prefix
	for _, r := range routes {
		local = append(local, r.Prefix)
	}
	return identity.Prefix4(mesh, local), nil
}

// newState makes the keys of a node.
func newState() (*State, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make node key: %w", err)
	}
	wireGuard, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return nil, fmt.Errorf("make WireGuard key: %w", err)
	}
	sealing, _, err := signal.GenerateSealingKey()
	if err != nil {
		return nil, err
	}
	return &State{Key: key, WireGuard: wireGuard, Sealing: sealing}, nil
}
