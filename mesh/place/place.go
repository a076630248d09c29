// Package place is the place of this machine in a mesh, as it lies on disk: it makes meshes, joins and leaves them, and
// reads and keeps the state directory that comes of it. Which files those are, and what to do when one is damaged, is
// in files.go.
//
// No agent runs in it: what a node does in its mesh is left to mesh/node, the content of records.db to mesh/store and
// mesh. Which directory is meant, and what the config file says, is left to cmd/warren.
//
// Create, Join and LeaveOffline work on a state directory that no agent holds; the agent takes Lock and has it for
// itself afterwards. A State does not change once it is loaded and may be read by all. Contacts may be used by several
// goroutines at once.
package place

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"time"

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
	Interface  string // "" where the system chooses
	Port       uint16
	Members    int           // known members, this node included
	Ahead      time.Duration // of Join: this machine's clock, of that of the member that admitted it; less than zero: behind
	Already    bool          // Join has found it as it is: this machine was in the mesh before
}

// membership describes the place that the state gives this machine.
func (s *State) membership() Membership {
	terms, _ := identity.RootTermsOf(s.Root())
	out := Membership{
		Mesh: s.Settings.Mesh, MeshID: s.MeshID(), StateDir: s.Dir, ID: s.NodeID(), Name: s.Settings.Name,
		Interface: cmp.Or(s.Settings.Interface, defaultInterface(0)), Port: s.Settings.port(), Prefix4: terms.Prefix4, Prefix6: s.MeshID().Prefix6(), Addr6: identity.Addr6(s.MeshID(), s.NodeID()),
	}
	if terms.Prefix4.IsValid() && !s.Settings.NoIPv4 {
		out.Addr4 = identity.Addr4(terms.Prefix4, s.NodeID(), 0)
	}
	return out
}
