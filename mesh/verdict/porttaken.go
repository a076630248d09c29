package verdict

import (
	"fmt"

	"warren/mesh/identity"
)

// HasPort is why a router that is a member itself is not reached: a machine behind it has its port.
type HasPort struct {
	Router identity.NodeID
	Port   uint16
}

// Words says what becomes of the packets.
func (c HasPort) Words(names Names) string {
	return fmt.Sprintf("%s is a router, and a machine behind it uses UDP port %d too: what is sent to %s goes to that machine", names(c.Router), c.Port, names(c.Router))
}

// OtherPort is the remedy.
type OtherPort struct {
	Router identity.NodeID
	Port   uint16
}

// Words says where.
func (f OtherPort) Words(names Names) string {
	return fmt.Sprintf("give %s another port: port = %d in [interface] of its configuration", names(f.Router), f.Port+1)
}

// portTaken judges a node that has lost its port to one behind it.
func portTaken(n Node) Verdict {
	return Verdict{Kind: PortTaken, Cause: HasPort{n.ID, n.Port}, Fix: OtherPort{n.ID, n.Port}}
}
