package verdict

import "warren/mesh/identity"

// Policy is what the policy of the mesh lets begin between the two nodes.
type Policy struct {
	Bars     bool // nothing from here to the peer
	BarsBack bool // nothing from the peer to here
}

// Forbidden is a peer that is there, and that nothing of this machine may reach.
type Forbidden struct {
	Peer identity.NodeID
	Back bool // nor anything of it this machine
}

// Words says so.
func (c Forbidden) Words(names Names) string {
	peer := names(c.Peer)
	if c.Back {
		return "the policy of the mesh allows nothing between this node and " + peer + ", in either direction; only the pings of warren pass"
	}
	return "the policy of the mesh allows nothing from this node to " + peer + "; only the pings of warren pass, and what " + peer + " begins"
}

// ChangePolicy is the remedy of who may change it.
const ChangePolicy Plain = "if that is not what is meant, an admin changes the policy: warren policy edit; what was stopped: warren policy log"
