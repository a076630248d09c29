package agent

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"strings"
	"time"

	"warren/mesh"
	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/place"
	"warren/mesh/record"
	"warren/mesh/report"
	"warren/mesh/zone"
)

// power is what an admin, or whoever has the root key, can do to others: by the records alone, without a network.
type power struct {
	state   *place.State
	records *mesh.Mesh
}

func (p *parts) power() power { return power{p.state, p.records} }

// Consequences says who and what goes with an act.
func (b *backend) Consequences(_ context.Context, act api.Act) (api.Consequences, error) {
	p, err := b.inMesh()
	if err != nil {
		return api.Consequences{}, err
	}
	_, found, err := p.power().foresee(act)
	return found, err
}

// Commit does what was shown, and waits for the others when asked to.
func (b *backend) Commit(ctx context.Context, req api.Commit, confirm func(api.Confirmation)) error {
	p, err := b.inMesh()
	if err != nil {
		return err
	}
	return p.power().commit(ctx, req, confirm)
}

// mayNot says why this node may not do something, as no admin; nil when it is one.
func (p power) mayNot(verb string) error {
	if p.records.Power().Check() == nil {
		return nil
	}
	view := p.records.View()
	no := &api.Error{Code: api.CodeRefused, Message: fmt.Sprintf("only an admin can %s, and this node is none", verb)}
	for _, r := range view.Revoked {
		if r.Target == identity.KeyID(p.state.NodeID()) && r.Scope == record.ScopePower {
			no.Message = fmt.Sprintf("only an admin can %s, and this node is none any more: %s", verb, r.Text())
		}
	}
	var admins []string
	for _, other := range view.Members {
		if other.Admin && other.State == mesh.Active {
			admins = append(admins, other.Name)
		}
	}
	no.Hint = "say it on an admin: " + strings.Join(admins, ", ")
	if len(admins) == 0 {
		no.Hint = "no admin is left; whoever has the root key can make one: sudo warren admin promote NODE --root-key FILE"
	} else if verb != "invite" {
		no.Hint += "; or sign with the root key: --root-key FILE"
	}
	return no
}

// foresee finds what an act is about, and what would come of it now.
func (p power) foresee(act api.Act) (aim report.Aim, found api.Consequences, err error) {
	if !act.Root {
		if err := p.mayNot(act.Kind); err != nil {
			return aim, found, err
		}
	}
	self, view := p.state.NodeID(), p.records.View()
	act.Node = zone.Short(view.Domain, act.Node)
	seen := &report.Mesh{Self: self, Records: recordsOf(view, p)}
	if aim, err = seen.Records.Take(act, self); err != nil {
		return aim, found, err
	}
	var key ed25519.PublicKey
	if member, ok := view.Member(identity.NodeID(aim.Target)); ok {
		key = keyOf(member)
	}
	return aim, report.Consequences(aim, p.outlook(aim), seen, key, time.Now()), nil
}

// keyOf is the public key of a member.
func keyOf(m mesh.Member) ed25519.PublicKey {
	cert, err := identity.ParseCert(m.Record.Certificate)
	if err != nil {
		return nil
	}
	return cert.PublicKey.(ed25519.PublicKey)
}

// outlook asks the records what would come of an act.
func (p power) outlook(aim report.Aim) (out report.Outlook) {
	if aim.Act.Kind == api.ActPromote {
		return out
	}
	look := p.records.Power().Outlook(aim.Act.Root, aim.Target, aim.Scope)
	out.Below, out.Stands = look.Below, look.Stands
	for _, r := range look.Void {
		out.Void = append(out.Void, revocationOf(r))
	}
	if !aim.Came.IsZero() {
		out.CameBelow = p.records.Power().Outlook(aim.Act.Root, aim.Came, record.ScopeWhole).Below
	}
	return out
}

// commit does what was shown, if it is so still.
func (p power) commit(ctx context.Context, req api.Commit, confirm func(api.Confirmation)) error {
	aim, found, err := p.foresee(req.Act)
	if err != nil {
		return err
	}
	if found.Shown != req.Shown {
		return &api.Error{Code: api.CodeChanged, Message: "something else would come of it now than what was shown"}
	}
	keys, err := p.sign(aim, found, req)
	if err != nil {
		return err
	}
	name := found.Target.Name
	if name == "" {
		name = "invite " + aim.Target.Short()
	}
	return p.await(ctx, keys, api.Confirmation{Target: name, ID: aim.Target.String()}, req.Wait, confirm)
}

// sign makes the records of an act and takes them in, or takes those that the holder of the root key has made. It returns their keys.
func (p power) sign(aim report.Aim, found api.Consequences, req api.Commit) (keys []record.Key, err error) {
	add := func(key record.Key, err error) error {
		keys = append(keys, key)
		return err
	}
	switch {
	case req.Act.Root:
		for _, encoded := range req.Signed {
			if err := add(p.take(encoded)); err != nil {
				return nil, err
			}
		}
		return keys, nil
	case req.Act.Kind == api.ActPromote:
		return keys, add(p.records.Power().Promote(found.Key, time.Now()))
	}
	orders, err := report.Orders(found, req, time.Now())
	if err != nil {
		return nil, err
	}
	for _, order := range orders {
		if err := add(p.records.Power().Revoke(order)); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// take takes in a record that was signed with the root key. Like any other it is verified first.
func (p power) take(encoded []byte) (record.Key, error) {
	signed, err := record.Unmarshal(encoded)
	if err != nil {
		return record.Key{}, &api.Error{Code: api.CodeBadRequest, Message: "signed record: " + err.Error()}
	}
	key, err := signed.Key()
	if err != nil {
		return record.Key{}, &api.Error{Code: api.CodeBadRequest, Message: "signed record: " + err.Error()}
	}
	return key, p.records.Add(signed)
}

// await tells that an act is done and, if that is wanted, which members have all of its records.
func (p power) await(ctx context.Context, keys []record.Key, done api.Confirmation, wait bool, confirm func(api.Confirmation)) error {
	waiting := make(map[identity.NodeID]string)
	for _, other := range p.records.View().Members {
		if other.ID != p.state.NodeID() && other.State == mesh.Active {
			waiting[other.ID] = other.Name
		}
	}
	done.Waiting = len(waiting)
	confirm(done)
	lacks := make(map[identity.NodeID]int, len(waiting)) // the first of the records that it is not known to have
	for wait && len(waiting) > 0 {
		for i, key := range keys {
			for id, has := range p.records.Confirmed(ctx, key) {
				if _, open := waiting[id]; open && has && lacks[id] == i {
					lacks[id]++
				}
			}
		}
		for id, name := range waiting {
			if lacks[id] == len(keys) {
				delete(waiting, id)
				done.Member, done.Waiting = name, len(waiting)
				confirm(done)
			}
		}
		if len(waiting) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return refused("%d members have not confirmed; they will hear of it before they can talk to any that has", len(waiting))
		case <-time.After(500 * time.Millisecond): // members come and go: there is no event to wait for
		}
	}
	return nil
}
