//go:build hostile

package hostile

import (
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/identity"
)

// prove returns the proof that a node's record gives for its WireGuard key; nil if there can be none.
func prove(mesh identity.MeshID, node identity.NodeID, private wgtypes.Key) []byte {
	proof, err := identity.ProveKey(mesh, node, private)
	if err != nil {
		return nil
	}
	return proof[:]
}
