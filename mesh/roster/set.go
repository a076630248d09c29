package roster

import (
	"crypto/x509"
	"slices"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// maxRecords bounds the set, and maxAside what is kept beside it.
const (
	maxRecords = 100_000
	maxAside   = 256
)

// set is the records that stand, and beside it those that are parked or refused for now. It finds them by what they are and by what
// they rest on; which of them stand is for judge to say and for step to bring about.
type set struct {
	records map[record.Key]*entry
	nodes   map[identity.NodeID]*entry // of records
	invites invites                    // of records
	buckets buckets                    // of records
	aside   []*entry                   // parked and refused records, oldest first
	rests   map[ref]map[*entry]bool    // what rests on a key or an invite, in the set and aside
}

func newSet() *set {
	return &set{
		records: make(map[record.Key]*entry),
		nodes:   make(map[identity.NodeID]*entry),
		invites: invites{records: make(map[ref]*entry), uses: make(map[ref]int)},
		rests:   make(map[ref]map[*entry]bool),
	}
}

// park takes an entry in beside the set.
func (s *set) park(e *entry) {
	for _, on := range [...]ref{e.parent, e.signer()} {
		if on == (ref{}) {
			continue
		}
		if s.rests[on] == nil {
			s.rests[on] = make(map[*entry]bool)
		}
		s.rests[on][e] = true
	}
	s.aside = append(s.aside, e)
}

// forget drops an entry that is not in the set.
func (s *set) forget(e *entry) {
	for _, on := range [...]ref{e.parent, e.signer()} {
		delete(s.rests[on], e)
		if len(s.rests[on]) == 0 {
			delete(s.rests, on)
		}
	}
	s.dropAside(e)
}

func (s *set) dropAside(e *entry) {
	s.aside = slices.DeleteFunc(s.aside, func(other *entry) bool { return other == e })
}

// knows reports whether an entry is in the set or aside.
func (s *set) knows(e *entry) bool {
	return e.in || slices.Contains(s.aside, e)
}

// enter puts an entry from aside into the set, where nothing has its key, and forgets older ones of that key.
func (s *set) enter(e *entry) {
	e.in = true
	s.records[e.Key] = e
	switch e.Kind {
	case record.KindNode:
		s.nodes[e.Node.ID] = e
		s.invites.use(e)
	case record.KindCertificate:
		s.invites.records[e.ref] = e
	}
	s.dropAside(e)
	for _, other := range slices.Clone(s.aside) {
		if other.Key == e.Key && !other.Version.Newer(e.Version) {
			s.forget(other)
		}
	}
}

// take takes an entry out of the set; it is to be forgotten then, or put aside.
func (s *set) take(e *entry) {
	e.in = false
	delete(s.records, e.Key)
	switch e.Kind {
	case record.KindNode:
		delete(s.nodes, e.Node.ID)
		s.invites.free(e)
	case record.KindCertificate:
		delete(s.invites.records, e.ref)
	}
}

// putAside takes an entry out of the set and keeps it beside it.
func (s *set) putAside(e *entry) {
	s.take(e)
	s.aside = append(s.aside, e)
}

// evict keeps what is aside within its bound, the oldest going first.
func (s *set) evict(keep *entry) {
	for i := 0; len(s.aside) > maxAside && i < len(s.aside); {
		if s.aside[i] == keep {
			i++
			continue
		}
		s.forget(s.aside[i])
	}
}

// users returns the nodes of the set that came by an invite, in the order of their admission.
func (s *set) users(invite ref) []identity.NodeID {
	var users []*entry
	for e := range s.rests[invite] {
		if e.in && e.Node != nil {
			users = append(users, e)
		}
	}
	slices.SortFunc(users, (*entry).compare)
	ids := make([]identity.NodeID, len(users))
	for i, e := range users {
		ids[i] = e.Node.ID
	}
	return ids
}

// usesBeside counts the nodes of the set, other than id, that came by an invite.
func (s *set) usesBeside(id identity.NodeID, invite ref) int {
	uses := s.invites.uses[invite]
	if own := s.nodes[id]; own != nil && own.parent == invite {
		uses--
	}
	return uses
}

// invites are the invites of a set, and how often each is used in it.
type invites struct {
	records map[ref]*entry
	uses    map[ref]int // nodes of the set
}

// of returns the invite with which a node's certificate was made, nil when it is not in the set.
func (i *invites) of(cert *x509.Certificate) *entry {
	return i.records[inviteRef(identity.IssuerOf(cert), cert.RawIssuer)]
}

// first returns the invite of a key, of several the one that sorts first.
func (i *invites) first(id identity.KeyID) *entry {
	var found *entry
	for _, e := range i.records {
		if e.keyID == id && (found == nil || e.compare(found) < 0) {
			found = e
		}
	}
	return found
}

// use counts a node that enters the set.
func (i *invites) use(e *entry) {
	if !e.byRoot() {
		i.uses[e.parent]++
	}
}

// free takes back what use did.
func (i *invites) free(e *entry) {
	if e.byRoot() {
		return
	}
	if i.uses[e.parent]--; i.uses[e.parent] == 0 {
		delete(i.uses, e.parent)
	}
}
