package place

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"warren/mesh/identity"
	"warren/tunnel/osnet"
)

// ErrOverlap is wrapped by the error of Join, and of Create with a network that was asked for, when this machine reaches a part of the
// overlay's networks by other interfaces already.
var ErrOverlap = errors.New("this machine reaches it already")

// unfit is why a mesh cannot be on this machine, whichever member is asked.
type unfit struct{ error }

func (u unfit) Unwrap() error { return u.error }

// fits says why a mesh cannot be joined on this machine. It is asked before the member is, so that no use of the invite is spent. The
// error, if any, is an unfit.
func (o JoinOptions) fits(root *x509.Certificate, mesh identity.MeshID) error {
	terms, err := identity.RootTermsOf(root)
	if err != nil {
		return unfit{fmt.Errorf("join: %w", err)}
	}
	if err := ValidName(terms.Name); err != nil || terms.Name == StaticMesh {
		return unfit{fmt.Errorf("join: the mesh is called %q, which cannot be kept here: %w", terms.Name, errors.Join(err, ErrName))}
	}
	dir := filepath.Join(o.StateRoot, terms.Name)
	if _, err := os.Lstat(dir); err == nil {
		return unfit{fmt.Errorf("join mesh %s: %s is there already, of another mesh with that name: leave that mesh first, or use another state directory: %w", terms.Name, dir, os.ErrExist)}
	}
	routes, err := routesBeside(o.Claims, terms.Prefix4, mesh.Prefix6())
	if err != nil {
		return unfit{fmt.Errorf("join mesh %s: %w", terms.Name, err)}
	}
	if o.NoIPv4 {
		terms.Prefix4 = netip.Prefix{}
	}
	if r, hit := collision(terms.Prefix4, routes); hit {
		return unfit{fmt.Errorf("join mesh %s: its IPv4 network %v overlaps %v on %s: %w; join with --no-ipv4 to reach the mesh by IPv6 alone",
			terms.Name, terms.Prefix4, r.Prefix, r.Interface, ErrOverlap)}
	}
	if r, hit := collision(mesh.Prefix6(), routes); hit {
		return unfit{fmt.Errorf("join mesh %s: its IPv6 network %v overlaps %v on %s: %w", terms.Name, mesh.Prefix6(), r.Prefix, r.Interface, ErrOverlap)}
	}
	return nil
}

// collision returns the first route that an overlay network, zero for none, collides with.
func collision(overlay netip.Prefix, routes []osnet.Route) (osnet.Route, bool) {
	for _, r := range routes {
		if overlay.IsValid() && r.Collides(overlay, netip.Addr{}) {
			return r, true
		}
	}
	return osnet.Route{}, false
}
