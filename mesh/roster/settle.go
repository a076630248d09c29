package roster

import (
	"container/heap"
	"math"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// change gathers what one call brings about.
type change struct {
	added, removed map[record.Key]bool
	touched        map[identity.NodeID]*entry // nodes to be looked at again, with the entry that was there before
	fresh          map[identity.NodeID]bool   // nodes with a new record
	overlay        bool                       // revocations, who may sign them, or what they act on, have changed
	granted        bool                       // grants have changed
}

func newChange() *change {
	return &change{
		added: make(map[record.Key]bool), removed: make(map[record.Key]bool),
		touched: make(map[identity.NodeID]*entry), fresh: make(map[identity.NodeID]bool),
	}
}

// enters notes that an entry is new in the set, or has new content.
func (c *change) enters(e *entry) {
	c.added[e.Key] = true
	delete(c.removed, e.Key)
	c.touch(e)
	if e.Node != nil {
		c.fresh[e.Node.ID] = true
	}
}

// leaves notes that nothing of an entry's key is in the set any more.
func (c *change) leaves(e *entry) {
	c.removed[e.Key] = true
	delete(c.added, e.Key)
	c.touch(e)
	c.overlay = true
}

func (c *change) touch(e *entry) {
	if e.Node != nil {
		c.touched[e.Node.ID] = e
	}
	switch {
	case e.Revocation != nil, e.isPromotion():
		c.overlay = true
	case e.Grant != nil:
		c.granted = true
	}
}

// step is one call that takes records in: it puts them where they belong, and settles what rests on them.
type step struct {
	set    *set
	judge  *judge
	change *change
}

// placeAll puts the records of a batch where they belong and returns their entries, nil for those that bring nothing new or have an error.
func (s *step) placeAll(b *Batch) ([]*entry, []error) {
	errs := slices.Clone(b.errs)
	placed := make([]*entry, len(b.records))
	var todo []int
	for i, err := range errs {
		if err == nil {
			todo = append(todo, i)
		}
	}
	// What rests on others waits here until they are in, so that a batch in any order needs no room aside.
	slices.SortStableFunc(todo, func(i, j int) int { return likelyTime(b.records[i]).Compare(likelyTime(b.records[j])) })
	for progress := true; progress; {
		progress = false
		todo = slices.DeleteFunc(todo, func(i int) bool {
			if !s.judge.hasBasis(b.records[i]) {
				return false
			}
			placed[i], errs[i] = s.place(b.records[i])
			progress = true
			return true
		})
	}
	for _, i := range todo {
		placed[i], errs[i] = s.place(b.records[i])
	}
	return placed, errs
}

// likelyTime sorts a batch so that what rests on others mostly comes after them.
func likelyTime(d record.Decoded) time.Time {
	switch {
	case d.Node != nil:
		return d.Admitted()
	case d.Certificate != nil:
		return d.Certificate.NotBefore
	case d.Revocation != nil:
		return d.Revocation.At()
	}
	return time.Unix(math.MaxUint32, 0) // a grant, on which nothing rests
}

// place puts a record where it belongs. It returns nil for one that brings nothing new.
func (s *step) place(d record.Decoded) (*entry, error) {
	known := s.set.records[d.Key]
	switch {
	case known == nil || d.Version.Newer(known.Version) || known.mayYieldTo(d):
	case known.hidden:
		return known, nil
	default:
		return nil, nil
	}
	for _, e := range s.set.aside {
		if e.Key == d.Key && (e.Version == d.Version || e.sameAdmission(d) && e.Version.Newer(d.Version)) {
			return e, nil
		}
	}
	e, refusal := s.judge.newEntry(d)
	if refusal != nil {
		return nil, refusal
	}
	if known != nil && known.sameAdmission(d) {
		// Only what the node says of itself is new: all decisions stay.
		known.Decoded = d
		s.noteIn(known)
		return known, nil
	}
	for _, other := range slices.Clone(s.set.aside) {
		if other.sameAdmission(d) {
			e.certOK, e.signedOK = other.certOK, other.signedOK
			s.set.forget(other) // an older word of the same node
		}
	}
	s.set.park(e)
	if forgery := s.settle(e); forgery != nil {
		return nil, forgery
	}
	return e, nil
}

// settle judges a record, and whatever rests on those that change, until all stands as judge says. As a record
// rests on earlier ones only, there is just one such state, whatever came first. It returns a refusal when the
// record is forged.
func (s *step) settle(first *entry) *Refusal {
	var forgery *Refusal
	work := worklist{}
	work.push(first)
	for e := work.pop(); e != nil; e = work.pop() {
		if !s.set.knows(e) {
			continue // replaced or evicted meanwhile
		}
		was, hits := e.in, e.hits[layerRoot]
		verdict, refusal := s.judge.rule(e)
		if verdict != stands || !e.hidden {
			e.refusal = refusal
		}
		switch {
		case verdict == forged:
			s.remove(e)
			s.set.forget(e)
			if e == first {
				forgery = refusal
			}
		case verdict == stands:
			s.insert(e, &work)
		default:
			s.remove(e)
		}
		switch {
		case e.in != was || e.in && !sameHits(e.hits[layerRoot], hits):
			s.disturb(e, &work)
		case e.in && e.Kind == record.KindCertificate: // its issuer may have another admission now
			s.disturb(e, &work)
		}
	}
	s.set.evict(first)
	return forgery
}

// insert puts an entry into the set unless a newer one of its key is there, and ends older ones.
func (s *step) insert(e *entry, work *worklist) {
	old := s.set.records[e.Key]
	if old == e {
		return
	}
	if old != nil {
		if !e.outranks(old) {
			s.set.forget(e)
			e.refusal = refuse(ReasonIssuerRevoked, "%s: it rests on what the root has revoked, and is known in another form", e.Kind)
			return
		}
		s.set.take(old)
		s.set.forget(old)
		s.disturb(old, work)
		s.change.overlay = true
	}
	s.set.enter(e)
	s.noteIn(e)
}

// noteIn notes that an entry is new in the set, or has new content.
func (s *step) noteIn(e *entry) {
	if e.hidden {
		return
	}
	s.set.buckets.note(e.Key, e.Version)
	s.change.enters(e)
}

// remove moves an entry of the set aside.
func (s *step) remove(e *entry) {
	if !e.in {
		return
	}
	s.set.putAside(e)
	s.set.buckets.drop(e.Key)
	s.change.leaves(e)
}

// disturb puts on the work list what may be judged differently now that e entered or left the set, or has another place.
func (s *step) disturb(e *entry, work *worklist) {
	if e.Revocation != nil && e.byRoot() {
		s.disturbTarget(e.Revocation.Target, work)
	}
	if e.ref == (ref{}) {
		return
	}
	for other := range s.set.rests[e.ref] {
		s.judge.place(other)
		work.push(other)
	}
	if !e.isPromotion() {
		return
	}
	for other := range s.set.rests[ref(e.keyID)] {
		if other.Certificate == nil { // a statement: it counts or not with its signer's being an admin
			work.push(other)
		}
	}
}

// disturbTarget does it for what the root has revoked, or no longer does.
func (s *step) disturbTarget(id identity.KeyID, work *worklist) {
	if e := s.set.nodes[identity.NodeID(id)]; e != nil {
		work.push(e)
		s.disturb(e, work)
		for promotion := range s.set.promoted[e.Node.ID] {
			s.disturb(promotion, work)
		}
	}
	for _, e := range s.set.invites.records {
		if e.keyID == id {
			s.disturb(e, work)
		}
	}
}

// worklist holds entries to be judged, earliest first, each once.
type worklist []*entry

func (w worklist) Len() int           { return len(w) }
func (w worklist) Less(i, j int) bool { return w[i].compare(w[j]) < 0 }
func (w worklist) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }
func (w *worklist) Push(e any)        { *w = append(*w, e.(*entry)) }

func (w *worklist) Pop() any {
	last := len(*w) - 1
	e := (*w)[last]
	*w = (*w)[:last]
	return e
}

func (w *worklist) push(e *entry) {
	if e.queued {
		return
	}
	e.queued = true
	heap.Push(w, e)
}

func (w *worklist) pop() *entry {
	if len(*w) == 0 {
		return nil
	}
	e := heap.Pop(w).(*entry)
	e.queued = false
	return e
}
