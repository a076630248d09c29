package roster

import (
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
	overlay        bool                       // revocations, or what they act on, have changed
}

func newChange() *change {
	return &change{
		added: make(map[record.Key]bool), removed: make(map[record.Key]bool),
		touched: make(map[identity.NodeID]*entry), fresh: make(map[identity.NodeID]bool),
	}
}

// Add takes in one record, verifying it first: at most three signatures for a record that is new, one for a newer version
// of a known node. The error is a *Refusal. A record that is known already, or older than the known one, is no
// error.
//
// What rests on a record that is not known, or is refused because of others, is kept aside, up to a bound, and looked at again when
// that changes; so a refused record may still turn up later among Outcome.Added.
func (r *Roster) Add(rec record.Signed, now time.Time) (Outcome, error) {
	out, errs := r.AddAll([]record.Signed{rec}, now)
	return out, errs[0]
}

// AddAll takes in many records in any order, as from the store or a sync, and is much faster than Add for each. The errors
// belong to the records one by one, nil for those that are fine. Outcome.Key, Stored and Parked are those of the last record.
func (r *Roster) AddAll(recs []record.Signed, now time.Time) (Outcome, []error) {
	return r.AddBatch(Read(recs), now)
}

// addSome takes in the records of a batch from one up to another.
func (r *Roster) addSome(b *Batch, from, to int, now time.Time) (Outcome, []error) {
	r.step = b
	defer func() { r.step = nil }()
	c := newChange()
	r.advance(now, c)
	decoded, errs := b.records[from:to], slices.Clone(b.errs[from:to])
	placed := make([]*entry, len(decoded))
	var todo []int
	for i, err := range errs {
		if err == nil {
			todo = append(todo, i)
		}
	}
	// What rests on others waits here until they are in, so that a batch in any order needs no room aside.
	slices.SortStableFunc(todo, func(i, j int) int { return likelyTime(decoded[i]).Compare(likelyTime(decoded[j])) })
	for progress := true; progress; {
		progress = false
		todo = slices.DeleteFunc(todo, func(i int) bool {
			if !r.hasBasis(decoded[i]) {
				return false
			}
			placed[i], errs[i] = r.place(decoded[i], c)
			progress = true
			return true
		})
	}
	for _, i := range todo {
		placed[i], errs[i] = r.place(decoded[i], c)
	}
	out := r.report(c)
	for i, e := range placed {
		if e != nil && !e.in && e.refusal != nil {
			errs[i] = e.refusal
		}
	}
	if last := len(decoded) - 1; last >= 0 {
		out.Key = decoded[last].Key
		e := placed[last]
		out.Stored = e != nil && e.in && r.set[out.Key] == e && e.Version == decoded[last].Version
		out.Parked = e != nil && !e.in && e.refusal == nil
	}
	return out, errs
}

// likelyTime sorts a batch so that what rests on others mostly comes after them.
func likelyTime(d record.Decoded) time.Time {
	switch {
	case d.Node != nil:
		return d.Admitted()
	case d.Certificate != nil:
		return d.Certificate.NotBefore
	}
	return d.Revocation.At()
}

// hasBasis reports whether all that a record rests on is in the set.
func (r *Roster) hasBasis(d record.Decoded) bool {
	if d.Kind == record.KindRevocation {
		return d.Signer == r.rootID || r.nodes[identity.NodeID(d.Signer)] != nil
	}
	issuer := identity.IssuerOf(d.Certificate)
	if issuer == r.rootID {
		return true
	}
	if d.Kind == record.KindCertificate {
		return r.nodes[identity.NodeID(issuer)] != nil
	}
	return r.invites[inviteRef(issuer, d.Certificate.RawIssuer)] != nil && r.nodes[d.Node.Admission.Signer] != nil
}

// place puts a record where it belongs. It returns nil for one that brings nothing new.
func (r *Roster) place(d record.Decoded, c *change) (*entry, error) {
	known := r.set[d.Key]
	if known != nil && !d.Version.Newer(known.Version) {
		return nil, nil
	}
	for _, e := range r.aside {
		if e.Key == d.Key && (e.Version == d.Version || e.sameAdmission(d) && e.Version.Newer(d.Version)) {
			return e, nil
		}
	}
	if known == nil && len(r.set) >= maxRecords {
		return nil, refuse(ReasonFull, "%s: there are %d records already", d.Kind, maxRecords)
	}
	e, refusal := r.newEntry(d)
	if refusal != nil {
		return nil, refusal
	}
	if known != nil && known.sameAdmission(d) {
		// Only what the node says of itself is new: all decisions stay.
		known.Decoded = d
		r.noteIn(known, c)
		return known, nil
	}
	for _, other := range slices.Clone(r.aside) {
		if other.sameAdmission(d) {
			e.certOK, e.signedOK = other.certOK, other.signedOK
			r.unlink(other) // an older word of the same node
		}
	}
	r.link(e)
	r.aside = append(r.aside, e)
	if forgery := r.settle(c, e); forgery != nil {
		return nil, forgery
	}
	return e, nil
}

// settle judges a record, and whatever rests on those that change, until all stands as judge says. As a record
// rests on earlier ones only, there is just one such state, whatever came first. It returns a refusal when the
// record is forged.
func (r *Roster) settle(c *change, first *entry) *Refusal {
	var forgery *Refusal
	work := worklist{}
	work.push(first)
	for e := work.pop(); e != nil; e = work.pop() {
		if !r.linked(e) {
			continue // replaced or evicted meanwhile
		}
		was := e.in
		verdict, refusal := r.judge(e)
		e.refusal = refusal
		switch {
		case verdict == forged:
			r.remove(e, c)
			r.unlink(e)
			if e == first {
				forgery = refusal
			}
		case verdict == stands:
			r.insert(e, c, &work)
		default:
			r.remove(e, c)
		}
		if e.in != was || e.in && e.Kind == record.KindCertificate { // an invite's issuer may have another admission now
			r.disturb(e, &work)
		}
	}
	r.evict(first)
	return forgery
}

// insert puts an entry into the set unless a newer one of its key is there, and ends older ones.
func (r *Roster) insert(e *entry, c *change, work *worklist) {
	old := r.set[e.Key]
	if old == e {
		return
	}
	if old != nil {
		if !e.Version.Newer(old.Version) {
			r.unlink(e)
			return
		}
		r.take(old)
		r.unlink(old)
		r.disturb(old, work)
		c.overlay = true
	}
	e.in = true
	r.set[e.Key] = e
	switch e.Kind {
	case record.KindNode:
		r.nodes[e.Node.ID] = e
		if !e.byRoot() {
			r.uses[e.parent]++
		}
		delete(r.pending, e.Node.ID)
	case record.KindCertificate:
		r.invites[e.ref] = e
	}
	r.dropAside(func(other *entry) bool { return other == e })
	for _, other := range slices.Clone(r.aside) {
		if other.Key == e.Key && !other.Version.Newer(e.Version) {
			r.unlink(other)
		}
	}
	r.noteIn(e, c)
}

// noteIn notes that an entry is new in the set, or has new content.
func (r *Roster) noteIn(e *entry, c *change) {
	r.buckets[e.Key[0]].note(e.Key)
	c.added[e.Key] = true
	delete(c.removed, e.Key)
	c.touch(e)
	if e.Node != nil {
		c.fresh[e.Node.ID] = true
	}
}

// remove moves an entry of the set aside.
func (r *Roster) remove(e *entry, c *change) {
	if !e.in {
		return
	}
	r.take(e)
	r.buckets[e.Key[0]].drop(e.Key)
	c.removed[e.Key] = true
	delete(c.added, e.Key)
	c.touch(e)
	c.overlay = true
	r.aside = append(r.aside, e)
}

// take takes an entry out of the set's maps.
func (r *Roster) take(e *entry) {
	e.in = false
	delete(r.set, e.Key)
	switch e.Kind {
	case record.KindNode:
		delete(r.nodes, e.Node.ID)
		if !e.byRoot() {
			if r.uses[e.parent]--; r.uses[e.parent] == 0 {
				delete(r.uses, e.parent)
			}
		}
	case record.KindCertificate:
		delete(r.invites, e.ref)
	}
}

// disturb puts on the work list what may be judged differently now that e entered or left the set.
func (r *Roster) disturb(e *entry, work *worklist) {
	if e.ref != (ref{}) {
		for other := range r.rests[e.ref] {
			if other.Node == nil {
				other.issuer = r.nodes[identity.NodeID(other.parent)] // decides its place in the order
			}
			work.push(other)
		}
	}
	if e.Node == nil || e.byRoot() {
		return
	}
	invite := r.invites[e.parent]
	if e.in && (invite == nil || r.uses[e.parent] <= invite.terms.Uses) {
		return // there is room for all
	}
	for other := range r.rests[e.parent] {
		if other.Node != nil && e.earlier(other) {
			work.push(other)
		}
	}
}

// evict keeps what is aside within its bound, the oldest going first.
func (r *Roster) evict(keep *entry) {
	for i := 0; len(r.aside) > maxAside && i < len(r.aside); {
		if r.aside[i] == keep {
			i++
			continue
		}
		r.unlink(r.aside[i])
	}
}

// link makes an entry found by what it rests on.
func (r *Roster) link(e *entry) {
	for _, on := range [...]ref{e.parent, e.signer()} {
		if on == (ref{}) {
			continue
		}
		if r.rests[on] == nil {
			r.rests[on] = make(map[*entry]bool)
		}
		r.rests[on][e] = true
	}
}

// unlink forgets an entry that is not in the set.
func (r *Roster) unlink(e *entry) {
	for _, on := range [...]ref{e.parent, e.signer()} {
		delete(r.rests[on], e)
		if len(r.rests[on]) == 0 {
			delete(r.rests, on)
		}
	}
	r.dropAside(func(other *entry) bool { return other == e })
}

// linked reports whether an entry is in the set or aside.
func (r *Roster) linked(e *entry) bool {
	return e.in || slices.Contains(r.aside, e)
}

func (r *Roster) dropAside(which func(*entry) bool) { r.aside = slices.DeleteFunc(r.aside, which) }

func (c *change) touch(e *entry) {
	if e.Node != nil {
		c.touched[e.Node.ID] = e
	}
	if e.Revocation != nil {
		c.overlay = true
	}
}

// worklist holds entries to be judged, earliest first, each once.
type worklist []*entry

func (w *worklist) push(e *entry) {
	if e.queued {
		return
	}
	e.queued = true
	at, _ := slices.BinarySearchFunc(*w, e, (*entry).compare)
	*w = slices.Insert(*w, at, e)
}

func (w *worklist) pop() *entry {
	if len(*w) == 0 {
		return nil
	}
	e := (*w)[0]
	*w = (*w)[1:]
	e.queued = false
	return e
}
