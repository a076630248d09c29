// Package node is one running member of a mesh: the agent that keeps tunnel, nat and mesh in step with the records and
// with this machine's settings.
//
// Sockets, paths and gossip are left to tunnel, nat and mesh; the state directory, and how a machine comes into a mesh,
// to mesh/place; the config file to cmd/warren, which turns it into the Settings below.
//
// Run may be called once per state directory at a time: it holds the directory's lock.
package node

import (
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// ErrFinal is wrapped by those errors of Run that no restart can cure: this node was revoked, its invite was used
// by an earlier admission, or its key lives on another machine.
var ErrFinal = errors.New("this node cannot go on in this mesh")

// AnchorMode says whether this node may serve others as an anchor.
type AnchorMode string

// The anchor modes: by reachability, in any case, not at all.
const (
	AnchorAuto   AnchorMode = "auto"
	AnchorAlways AnchorMode = "always"
	AnchorNever  AnchorMode = "never"
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
}

// Settings are what a reload may change. They are already checked; names and public keys of Static are unique.
type Settings struct {
	Interface Interface
	Anchor    AnchorMode
	NoLAN     bool     // neither speak nor listen to members on the local network
	Endpoints []string // host:port of this node as others reach it; empty: those kept in the state directory
	Static    []StaticPeer

	// FallbackPorts are TCP ports on which streams are accepted too, beside that of the number of the UDP port.
	FallbackPorts []uint16
	RelayLimit    int // what is forwarded for other members at most, in bytes a second; 0: no limit
}

// Options are what the agent runs on.
type Options struct {
	Mesh     string                   // "": no mesh, only the static peers of the settings
	StateDir string                   // of this mesh; "" without a mesh
	Socket   string                   // path of the local API's socket
	Group    string                   // group that may read over the socket; "" or unknown to the system: root only
	Version  string                   // of this program, for the node record and status
	Load     func() (Settings, error) // reads the settings afresh; called at the start and at each reload
	Reload   <-chan struct{}          // each value asks for a reload, as the API's does; may be nil
	Ready    func()                   // called once, when the interface is up and the API answers; may be nil
	Logger   *slog.Logger
}
