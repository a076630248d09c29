package nat

import (
	"net/netip"
	"sync"
	"time"

	"warren/mesh/identity"
	"warren/nat/path"
	"warren/nat/stunwire"
)

// The requests that this node sends, and what is remembered of them until their answers come.

// Bounds of the transactions that wait for an answer: pion forgets its own after four seconds.
const (
	transactionTime = 4 * time.Second
	maxTransactions = 1 << 15
)

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

// transactions are the requests of this node that wait for an answer.
type transactions struct {
	mu      sync.Mutex // guards the rest
	waiting map[stunwire.ID]waiter
	order   []stunwire.ID // of waiting, oldest first; may name some that are gone
}

// expect registers who gets the answer to a request that is about to be sent.
func (t *transactions) expect(id stunwire.ID, w waiter) {
	now := time.Now()
	w.until = now.Add(transactionTime)
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.order) > 0 {
		oldest, ok := t.waiting[t.order[0]]
		if ok && now.Before(oldest.until) && len(t.order) < maxTransactions {
			break
		}
		delete(t.waiting, t.order[0])
		t.order = t.order[1:]
	}
	t.waiting[id] = w
	t.order = append(t.order, id)
}

// asked returns who waits for the response, which must come from where the request went: another source means a NAT that no
// pair could use (RFC 8445, section 7.2.5.2.1), or a forger.
func (t *transactions) asked(id stunwire.ID, from netip.AddrPort) (w waiter, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w, known := t.waiting[id]
	return w, known && w.to == from && !time.Now().After(w.until)
}

// done forgets a transaction: its answer has come.
func (t *transactions) done(id stunwire.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.waiting, id)
}

// check sends one check of a path in use.
func (x *mux) check(peer identity.NodeID, c path.Check) error {
	raw, id, err := checkRequest(c.Own, c.Remote)
	if err != nil {
		return err
	}
	x.asks.expect(id, waiter{to: c.To, check: true, peer: peer, id: c.ID, pwd: c.Remote.Pwd})
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
	x.asks.expect(id, waiter{to: to, punch: own.Ufrag, pwd: remote.Pwd})
	x.write(raw, to)
	return nil
}

// probe asks a STUN server for our address.
func (x *mux) probe(server netip.AddrPort) stunwire.ID {
	id := stunwire.NewID()
	x.asks.expect(id, waiter{to: server})
	x.write(stunwire.Probe(id), server)
	return id
}

// checkRequest builds a connectivity check between these credentials.
func checkRequest(own, remote path.Credentials) (raw []byte, id stunwire.ID, err error) {
	id = stunwire.NewID()
	raw, err = stunwire.Check(id, remote.Ufrag+":"+own.Ufrag, remote.Pwd)
	return raw, id, err
}
