package mesh

import (
	"slices"
	"sync"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

/* Who has just come
 *
 * Two that start at the same time and have an anchor in common each show it their record, and it passes that on to those with which it has a
 * session at that moment: one of the two may be a moment too late for that of the other, and a sync takes two round trips. So an anchor keeps
 * in mind whose records have just come from themselves, and shows them to who comes next. A receiver that was never told of the maker may
 * lack what the record rests on, and could not take it in: the certificates of its invite go before the first record of a process.
 */

const (
	// freshFor is how long a record is shown to those with which a session comes up: longer than two handshakes that began together differ.
	freshFor = 2 * time.Second
	maxFresh = 4 // of them, the latest: who comes among many has them by its sync
)

// arrivals are the members whose records have just come from themselves.
type arrivals struct {
	mu   sync.Mutex
	last []newcomer // the latest last
}

// newcomer is one of them.
type newcomer struct {
	id       identity.NodeID
	instance [8]byte
	at       time.Time
	basis    [][]byte // what its record rests on
	record   []byte
}

// note keeps the record of a member that has come from itself, and reports whether it is the first one of its process: basis, which is asked for
// then only, is what it rests on.
func (a *arrivals) note(now time.Time, n *record.Node, encoded []byte, basis func() [][]byte) (first [][]byte) {
	if !a.renew(now, n, encoded) {
		return nil
	}
	first = basis()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = append(a.last, newcomer{n.ID, n.Instance, now, first, encoded})
	a.last = slices.Delete(a.last, 0, max(0, len(a.last)-maxFresh))
	return first
}

// renew takes a later record of the same process, and reports whether there was none.
func (a *arrivals) renew(now time.Time, n *record.Node, encoded []byte) (none bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.last {
		if one := &a.last[i]; one.id == n.ID && one.instance == n.Instance {
			one.record = encoded
			return false
		}
	}
	a.last = slices.DeleteFunc(a.last, func(one newcomer) bool { return one.id == n.ID || now.Sub(one.at) >= freshFor })
	return true
}

// others lists those whose records one that comes now is shown.
func (a *arrivals) others(now time.Time, id identity.NodeID) (all []newcomer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, one := range a.last {
		if one.id != id && now.Sub(one.at) < freshFor {
			all = append(all, one)
		}
	}
	return all
}

// basisOfNode are the certificates on which a node's record rests, encoded, the one that rests on no other first.
func (b *book) basisOfNode(id identity.NodeID) (all [][]byte) {
	chain := b.chain(identity.KeyID(id))
	for _, cert := range slices.Backward(chain[min(1, len(chain)):]) {
		if role := identity.RoleOf(cert); role != identity.RoleInvite && role != identity.RolePromotion {
			continue
		}
		if encoded, err := record.NewCertificate(cert).Marshal(); err == nil {
			all = append(all, encoded)
		}
	}
	return all
}
