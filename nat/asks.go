package nat

import (
	"net/netip"
	"time"

	"warren/mesh/identity"
	"warren/nat/path"
	"warren/nat/stunwire"
)

// The requests that this node sends, and what is remembered of them until their answers come.

// waiter is who gets the response of a transaction: an agent, a check, or else the prober.
type waiter struct {
	to    netip.AddrPort
	until time.Time
	agent *agentConn
	check bool
	punch string          // own ufrag, of a check that was sent beside ICE's
	peer  identity.NodeID // of a check
	id    uint64
	pwd   string // that the answer is signed with; empty: it is not, for it is the prober's
}

// expect registers who gets the answer to a request that is about to be sent.
func (x *mux) expect(id stunwire.ID, w waiter) {
	now := time.Now()
	w.until = now.Add(transactionTime)
	x.mu.Lock()
	defer x.mu.Unlock()
	for len(x.order) > 0 {
		oldest, ok := x.waiting[x.order[0]]
		if ok && now.Before(oldest.until) && len(x.order) < maxTransactions {
			break
		}
		delete(x.waiting, x.order[0])
		x.order = x.order[1:]
	}
	x.waiting[id] = w
	x.order = append(x.order, id)
}

// check sends one check of a path in use.
func (x *mux) check(peer identity.NodeID, c path.Check) error {
	raw, id, err := checkRequest(c.Own, c.Remote)
	if err != nil {
		return err
	}
	x.expect(id, waiter{to: c.To, check: true, peer: peer, id: c.ID, pwd: c.Remote.Pwd})
	x.write(raw, c.To)
	return nil
}

// punch sends a check of an attempt beside those of its agent: not for its answer, but for what the NATs on the way make
// of it.
func (x *mux) punch(own, remote path.Credentials, to netip.AddrPort) error {
	raw, id, err := checkRequest(own, remote)
	if err != nil {
		return err
	}
	x.expect(id, waiter{to: to, punch: own.Ufrag, pwd: remote.Pwd})
	x.write(raw, to)
	return nil
}

// probe asks a STUN server for our address.
func (x *mux) probe(server netip.AddrPort) stunwire.ID {
	id := stunwire.NewID()
	x.expect(id, waiter{to: server})
	x.write(stunwire.Probe(id), server)
	return id
}

// checkRequest builds a connectivity check between these credentials.
func checkRequest(own, remote path.Credentials) (raw []byte, id stunwire.ID, err error) {
	id = stunwire.NewID()
	raw, err = stunwire.Check(id, remote.Ufrag+":"+own.Ufrag, remote.Pwd)
	return raw, id, err
}
