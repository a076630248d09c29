package roster

import (
	"crypto/x509"
	"maps"
	"slices"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// maxRecords bounds the set, and maxAside what is kept beside it, and what is hidden in it.
const (
	maxRecords = 100_000
	maxAside   = 256
)

// set is the records that stand, and beside it those that are parked or refused for now. It finds them by what they are and by what
// they rest on; which of them stand is for judge to say and for step to bring about. Of those that stand some are hidden (see hide):
// they are no part of the set for others.
type set struct {
	root identity.KeyID // constant

	records     map[record.Key]*entry
	nodes       map[identity.NodeID]*entry                    // of records
	invites     invites                                       // of records
	promotions  map[ref]*entry                                // of records
	promoted    map[identity.NodeID]map[*entry]bool           // of those, by the node that is an admin by them
	revocations map[identity.KeyID]map[*entry]bool            // of records, by signer
	grants      map[identity.NodeID]map[identity.KeyID]*entry // of records, by node and signer
	tallies     map[identity.KeyID]tally                      // of records, by who stands for them
	rooted      *reach                                        // what the root's revocations hit
	hidden      map[*entry]bool                               // of records
	buckets     buckets                                       // of records, without those that are hidden
	aside       []*entry                                      // parked and refused records, oldest first
	rests       map[ref]map[*entry]bool                       // what rests on a key, an invite or a promotion, in the set and aside
}

func newSet(root identity.KeyID) *set {
	s := &set{
		root:        root,
		records:     make(map[record.Key]*entry),
		nodes:       make(map[identity.NodeID]*entry),
		invites:     invites{records: make(map[ref]*entry), uses: make(map[ref]int)},
		promotions:  make(map[ref]*entry),
		promoted:    make(map[identity.NodeID]map[*entry]bool),
		revocations: make(map[identity.KeyID]map[*entry]bool),
		grants:      make(map[identity.NodeID]map[identity.KeyID]*entry),
		tallies:     make(map[identity.KeyID]tally),
		hidden:      make(map[*entry]bool),
		rests:       make(map[ref]map[*entry]bool),
	}
	s.rooted = newReach(s, layerRoot)
	return s
}

// size returns the number of records that are not hidden.
func (s *set) size() int { return len(s.records) - len(s.hidden) }

// get returns a record that is not hidden, or nil.
func (s *set) get(key record.Key) *entry {
	if e := s.records[key]; e != nil && !e.hidden {
		return e
	}
	return nil
}

// park takes an entry in beside the set.
func (s *set) park(e *entry) {
	for _, on := range [...]ref{e.parent, e.second()} {
		if on != (ref{}) {
			put(s.rests, on, e)
		}
	}
	s.aside = append(s.aside, e)
}

// forget drops an entry that is not in the set.
func (s *set) forget(e *entry) {
	for _, on := range [...]ref{e.parent, e.second()} {
		remove(s.rests, on, e)
	}
	s.dropAside(e)
}

// put and remove keep sets of entries by a key.
func put[K comparable](sets map[K]map[*entry]bool, key K, e *entry) {
	if sets[key] == nil {
		sets[key] = make(map[*entry]bool)
	}
	sets[key][e] = true
}

func remove[K comparable](sets map[K]map[*entry]bool, key K, e *entry) {
	delete(sets[key], e)
	if len(sets[key]) == 0 {
		delete(sets, key)
	}
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
	s.tallies[e.signedBy()] = s.tallies[e.signedBy()].with(e, 1)
	switch {
	case e.Node != nil:
		s.nodes[e.Node.ID] = e
		s.invites.use(e)
	case e.isInvite():
		s.invites.records[e.ref] = e
	case e.isPromotion():
		s.promotions[e.ref] = e
		put(s.promoted, identity.NodeID(e.keyID), e)
	case e.Revocation != nil:
		put(s.revocations, e.Signer, e)
		if e.byRoot() {
			s.rooted.add(e)
		}
	case e.Grant != nil:
		if s.grants[e.Grant.Node] == nil {
			s.grants[e.Grant.Node] = make(map[identity.KeyID]*entry)
		}
		s.grants[e.Grant.Node][e.Signer] = e
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
	e.in, e.hidden = false, false
	delete(s.hidden, e)
	delete(s.records, e.Key)
	if left := s.tallies[e.signedBy()].with(e, -1); left != (tally{}) {
		s.tallies[e.signedBy()] = left
	} else {
		delete(s.tallies, e.signedBy())
	}
	switch {
	case e.Node != nil:
		delete(s.nodes, e.Node.ID)
		s.invites.free(e)
	case e.isInvite():
		delete(s.invites.records, e.ref)
	case e.isPromotion():
		delete(s.promotions, e.ref)
		remove(s.promoted, identity.NodeID(e.keyID), e)
	case e.Revocation != nil:
		remove(s.revocations, e.Signer, e)
		if e.byRoot() {
			s.rooted.drop(e)
		}
	case e.Grant != nil:
		if delete(s.grants[e.Grant.Node], e.Signer); len(s.grants[e.Grant.Node]) == 0 {
			delete(s.grants, e.Grant.Node)
		}
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

// ground returns the record by which the key known by a ref may certify: that of an admin's node, or a promotion. Nil: it may not.
func (s *set) ground(on ref) *entry {
	if e := s.promotions[on]; e != nil {
		return e
	}
	if e := s.nodes[identity.NodeID(on)]; e != nil && identity.IsAdmin(e.Certificate) {
		return e
	}
	return nil
}

// grounds returns all by which a node of the set may be an admin, in their order.
func (s *set) grounds(id identity.NodeID) []*entry {
	grounds := slices.Collect(maps.Keys(s.promoted[id]))
	if own := s.ground(ref(id)); own != nil {
		grounds = append(grounds, own)
	}
	slices.SortFunc(grounds, (*entry).compare)
	return grounds
}

// isAdmin reports whether a node of the set is, or was, an admin: what revocations make of it is for standing to say.
func (s *set) isAdmin(e *entry) bool {
	return identity.IsAdmin(e.Certificate) || len(s.promoted[e.Node.ID]) > 0
}

// admitter returns the node that admitted a node of the set, nil when the root certified it.
func (s *set) admitter(e *entry) *entry { return s.nodes[e.Node.Admission.Signer] }

// users returns the nodes of the set that came by an invite, in the order of their admission.
func (s *set) users(invite ref) []identity.NodeID {
	var users []*entry
	for e := range s.rests[invite] {
		if e.in && e.Node != nil && !e.hidden {
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
