// Package node is one running member of a mesh: it makes and joins meshes on disk, and runs the agent that
// keeps tunnel, nat and mesh in step with the records and with this machine's settings.
//
// Sockets, paths and gossip are left to tunnel, nat and mesh; the config file is left to cmd/warren, which turns
// it into the Settings below.
//
// Create, Join and LeaveOffline work on the state directory while no agent runs; Run owns it afterwards.
// Run may be called once per state directory at a time.
package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/identity"
)

// DefaultPort is the UDP port of a node for which neither its settings nor its state name one.
const DefaultPort = 9277

// ErrName is wrapped by the errors of Create and Join about a mesh whose name is taken by something else.
var ErrName = errors.New("the name stands for something else")

// StaticMesh is what the agent without a mesh is called, so that no mesh can be.
const StaticMesh = "static"

// MaxName is the longest name of a mesh or node, in bytes: a DNS label (RFC 1035, section 2.3.4).
const MaxName = 63

// ErrFinal is wrapped by those errors of Run that no restart can cure: this node was revoked, its invite was used
// by an earlier admission, or its key lives on another machine.
var ErrFinal = errors.New("this node cannot go on in this mesh")

// ValidName says what is wrong with the name of a mesh or node: it has to be a DNS label in lower case, since
// it becomes a host name, a file name and a service name. Names that arrive from the network are checked too.
func ValidName(name string) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("name %q: want 1 to %d characters", name, MaxName)
	}
	for i, c := range []byte(name) {
		letterOrDigit := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		inner := c == '-' && i > 0 && i < len(name)-1
		if !letterOrDigit && !inner {
			return fmt.Errorf("name %q: want lower-case letters, digits and inner hyphens", name)
		}
	}
	return nil
}

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
	Port       uint16         // 0: the port kept in the state directory, else DefaultPort
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

// CreateOptions say how to make a mesh of which this machine is the founder.
type CreateOptions struct {
	Mesh      string       // a ValidName
	StateRoot string       // the state is made in StateRoot/Mesh, which must not exist
	Name      string       // of this node, a ValidName
	IPv4      netip.Prefix // zero: chosen from the mesh ID, clear of local routes
	NoIPv4    bool
	Endpoints []string // host:port, kept in the state directory
	Port      uint16   // 0: DefaultPort; kept in the state directory
	Version   string
	Logger    *slog.Logger
}

// Membership describes the place of this machine in a mesh, as Create and Join made it.
type Membership struct {
	Mesh       string
	MeshID     identity.MeshID
	StateDir   string
	ID         identity.NodeID
	Name       string
	Addr4      netip.Addr // zero: none
	Addr6      netip.Addr
	Prefix4    netip.Prefix // zero: none
	Prefix6    netip.Prefix
	AdmittedBy string // name of the member that admitted this node; "" for the founder
	Members    int    // known members, this node included
}

// JoinOptions say how to join a mesh with a token.
type JoinOptions struct {
	Token     string // as typed: may hold spaces and line breaks; never logged
	StateRoot string // the state is made in StateRoot/MESH, MESH being the name in the root certificate
	Name      string // wanted name of this node, a ValidName
	Endpoints []string
	Port      uint16 // 0: DefaultPort; kept in the state directory
	Version   string
	Logger    *slog.Logger
}

// JoinStage is a step of Join.
type JoinStage int

// The steps of Join, in order. StageContacting comes once for each address that is tried.
const (
	StageContacting JoinStage = iota + 1
	StageAdmitted
	StageSynced
	StageSeeking // in place of the first when the token names nobody: members on the local network are looked for
)

// JoinProgress tells a step that Join has reached.
type JoinProgress struct {
	Stage   JoinStage
	Anchor  netip.AddrPort // StageContacting: who is asked
	Mesh    string         // from StageAdmitted on
	By      string         // StageAdmitted: name of the member that admitted us
	Records int            // StageSynced: records received with the admission
}

// LeaveOptions say which state to remove.
type LeaveOptions struct {
	StateDir string // of the mesh
	Force    bool   // also when it holds the root key of the mesh, or is damaged
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
