package node

import (
	"errors"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/nat/standing"
)

// ErrFinal is wrapped by those errors of Run that no restart can cure: this node was revoked, its invite was used
// by an earlier admission, or its key lives on another machine.
var ErrFinal = errors.New("this node cannot go on in this mesh")

// AnchorMode says whether this node may serve others as an anchor.
type AnchorMode = standing.Mode

// The anchor modes: by reachability, in any case, not at all.
const (
	AnchorAuto   = standing.Auto
	AnchorAlways = standing.Always
	AnchorNever  = standing.Never
)

// Interface is what this machine's settings say about the tunnel interface. Zero fields mean the default.
type Interface struct {
	Name       string         // "": warren0 or the next free one; utun on macOS
	Port       uint16         // 0: the port kept in the state directory, else place.DefaultPort
	MTU        int            // 0: the tunnel chooses, and makes it larger where jumbo frames pass
	Addresses  []netip.Prefix // further addresses of the interface, beside the overlay's; all of them without a mesh
	PrivateKey wgtypes.Key    // zero: the WireGuard key in the state directory; always set without a mesh
}

// StaticPeer is a plain WireGuard peer.
type StaticPeer struct {
	Name         string
	PublicKey    wgtypes.Key
	PresharedKey wgtypes.Key // zero: none
	AllowedIPs   []netip.Prefix
	Endpoint     string        // host:port, the host a name or an address; "": the peer calls us
	Keepalive    time.Duration // 0: none
	Share        bool          // the other members may reach AllowedIPs through this node
	Device       bool          // it is hosted: kept in the state directory, with a name for all members
	Tags         []string      // of a device
}

// Settings are what a reload may change. They are already checked; names and public keys of Static are unique.
type Settings struct {
	Interface  Interface
	Anchor     AnchorMode
	IPv4       *bool    // whether the overlay has IPv4 on this machine; nil: as create or join settled
	NoIncoming bool     // no new flows of others, whatever the policy says
	NoLAN      bool     // neither speak nor listen to members on the local network
	Endpoints  []string // host:port of this node as others reach it; empty: those kept in the state directory
	Static     []StaticPeer

	// StreamPorts are TCP ports on which streams are accepted too, beside that of the number of the UDP port.
	StreamPorts []uint16
	Names       string // how this machine's resolver learns the mesh's names: a mode of tunnel/osnames
	RelayLimit  int    // what is forwarded for other members at most, in bytes a second; 0: no limit
}
