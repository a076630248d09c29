package mesh

import (
	"cmp"
	"crypto/x509"
	"net/netip"
	"slices"
	"sync/atomic"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// published is what of the book is read without its lock. Whoever changes the records publishes before it lets the lock go.
type published struct {
	// constant
	rootID  identity.KeyID
	prefix4 netip.Prefix
	domain  string

	names map[identity.KeyID]string // guarded by the book's lock: last names of nodes, those that are gone included

	// atomic
	view   atomic.Pointer[View]
	digest atomic.Pointer[[16]byte]
}

func newPublished(root *x509.Certificate) (*published, error) {
	terms, err := identity.RootTermsOf(root)
	if err != nil {
		return nil, err
	}
	return &published{rootID: identity.KeyIDOfCert(root), prefix4: terms.Prefix4, domain: terms.Zone(), names: make(map[identity.KeyID]string)}, nil
}

// publish makes digest and view anew. The book's lock is held, or nobody else knows the book yet.
func (p *published) publish(r *roster.Roster, conflict string) {
	digest := r.Digest()
	p.digest.Store(&digest)
	p.view.Store(p.newView(r, conflict))
}

// isMember reports whether a node has a place in the mesh. One that has left keeps it.
func (p *published) isMember(id identity.NodeID) bool {
	_, ok := p.view.Load().members[id]
	return ok
}

// nameOf returns a member's name, or the short ID of who has none here.
func (p *published) nameOf(id identity.NodeID) string {
	if member, ok := p.view.Load().Member(id); ok {
		return member.Name
	}
	return id.Short()
}

// newView reads the roster.
func (p *published) newView(r *roster.Roster, conflict string) *View {
	v := NewView(p.prefix4, r.Mesh().Prefix6(), r.Members()...)
	v.Records, v.Conflict, v.Domain = r.Len(), conflict, p.domain
	for _, member := range v.Members {
		p.names[identity.KeyID(member.ID)] = member.Name
	}
	for _, s := range r.Invites() {
		v.Invites = append(v.Invites, Invite{ID: s.KeyID, By: s.Issuer, Terms: s.Terms, Created: s.Created, Used: s.Used, Revoked: s.Revoked})
	}
	v.Admins = adminsOf(r, v)
	known := make(map[revokedKey]bool)
	for _, revoked := range r.Revoked() {
		key := revokedKey{revoked.Target, revoked.Scope}
		if known[key] {
			continue // revoked twice: the first one counts
		}
		known[key] = true
		if revoked.Scope == record.ScopeWhole {
			v.revoked[revoked.Target] = len(v.Revoked)
		}
		v.Revoked = append(v.Revoked, p.revocation(r, revoked))
	}
	return v
}

// adminsOf lists the admins among the members of a view, which has its invites already.
func adminsOf(r *roster.Roster, v *View) (out []Admin) {
	makers := make(map[identity.KeyID]identity.KeyID)
	for _, i := range v.Invites {
		makers[i.ID] = i.By
	}
	for _, m := range v.Members {
		if !m.Admin {
			continue
		}
		a := Admin{ID: m.ID, Since: m.Admitted}
		if cert := r.AdminCert(m.ID); cert != nil {
			a.By = identity.IssuerOf(cert)
			if a.Promoted = identity.RoleOf(cert) == identity.RolePromotion; a.Promoted {
				a.Since = cert.NotBefore.Add(identity.Skew) // it starts so much before it is made
			} else {
				a.By = cmp.Or(makers[a.By], a.By)
			}
		}
		out = append(out, a)
	}
	slices.SortStableFunc(out, func(a, b Admin) int { return a.Since.Compare(b.Since) })
	return out
}

// revokedKey is what may be revoked once.
type revokedKey struct {
	target identity.KeyID
	scope  record.Scope
}

// revocation puts a revocation into the view's terms. The book's lock is held.
func (p *published) revocation(r *roster.Roster, revoked roster.Revoked) Revocation {
	chain, name := r.Chain(revoked.Target), cmp.Or(p.names[revoked.Target], revoked.Name)
	invite := len(chain) > 0 && identity.RoleOf(chain[0]) == identity.RoleInvite
	if len(chain) == 0 { // its record is gone, or was never here; nodes are revoked by name
		invite = name == ""
	}
	return Revocation{
		Target: revoked.Target, Scope: revoked.Scope, Invite: invite, Name: name, Time: revoked.At(), By: revoked.Signer,
		ByName: p.signer(revoked.Signer), Reason: revoked.Reason, Key: revoked.Key,
	}
}

// signer returns a name for who signed something.
func (p *published) signer(id identity.KeyID) string {
	switch name := p.names[id]; {
	case id == p.rootID:
		return "the root"
	case name != "":
		return name
	}
	return id.Short()
}
