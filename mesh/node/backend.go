package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/place"
	"warren/mesh/report"
	"warren/mesh/roster"
)

// backend is the node as the local API sees it. Its methods run in the API's goroutines: they read snapshots and call
// owners, which are safe for that, and hand the loop what is the loop's.
type backend struct{ *node }

var _ api.Backend = (*backend)(nil)

func refused(format string, args ...any) error {
	return &api.Error{Code: api.CodeRefused, Message: fmt.Sprintf(format, args...)}
}

// inMesh returns the member, or says that there is none.
func (b *backend) inMesh() (*member, error) {
	if b.member == nil {
		return nil, &api.Error{Code: api.CodeRefused, Message: "this agent runs static peers only, without a mesh", Hint: "warren create NAME, or warren join TOKEN"}
	}
	return b.member, nil
}

// Ping probes a member through the tunnel.
func (b *backend) Ping(ctx context.Context, req api.PingRequest, reply func(api.PingReply)) error {
	m, err := b.inMesh()
	if err != nil {
		return err
	}
	target, err := m.find(req.Peer)
	if err != nil {
		return err
	}
	if target.ID == m.self {
		return refused("%s is this node", target.Name)
	}
	to := target.Addr6
	if asked, err := netip.ParseAddr(req.Peer); err == nil {
		to = asked
	} else if target.Addr4.IsValid() {
		to = target.Addr4
	}
	for seq := 1; seq <= req.Count; seq++ {
		next := time.NewTimer(time.Duration(req.IntervalMS) * time.Millisecond)
		answer := m.pingOne(ctx, seq, target.Name, to, time.Duration(req.TimeoutMS)*time.Millisecond)
		status, err := b.Status(ctx)
		if err != nil {
			return err
		}
		for _, p := range status.Peers {
			if p.ID != target.ID.String() {
				continue
			}
			answer.Path = p.Path
			if answer.Error != "" && p.Reason != "" {
				answer.Error += ": " + p.Reason
			}
		}
		reply(answer)
		if seq == req.Count {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next.C:
		}
	}
	return nil
}

// find looks a member up by name, overlay address or the start of its ID.
func (m *member) find(text string) (roster.Member, error) {
	return report.Find(m.mesh.View().Members, m.self, text)
}

// Invite makes an invite, spreads its certificate, and returns the token.
func (b *backend) Invite(_ context.Context, req api.InviteRequest) (api.Invite, error) {
	m, err := b.inMesh()
	if err != nil {
		return api.Invite{}, err
	}
	authority := identity.Authority{Cert: m.state.Chain[0], Key: m.state.Key}
	if !identity.IsAdmin(authority.Cert) {
		return api.Invite{}, &api.Error{Code: api.CodeRefused, Message: "only an admin can invite, and this node is none", Hint: "run warren invite on an admin: " + strings.Join(m.admins(), ", ")}
	}
	now := time.Now()
	terms := identity.InviteTerms{Uses: req.Uses, Expires: now.Add(time.Duration(req.ValidForMS) * time.Millisecond), Admin: req.Admin, Tags: req.Tags}
	seed, cert, err := identity.NewInvite(authority, terms, now)
	if err != nil {
		return api.Invite{}, &api.Error{Code: api.CodeBadRequest, Message: err.Error()}
	}
	if err := m.mesh.AddCertificate(cert); err != nil {
		return api.Invite{}, err
	}
	token := identity.Token{Mesh: m.meshID, Seed: seed, Anchors: m.tokenAnchors()}
	out := api.Invite{
		Schema: api.Schema, ID: identity.KeyIDOfCert(cert).String(), Token: token.Encode(), Uses: req.Uses, Expires: terms.Expires,
		Admin: req.Admin, Tags: append([]string{}, req.Tags...), Anchors: []string{},
	}
	for _, a := range token.Anchors {
		out.Anchors = append(out.Anchors, a.Addr.String())
	}
	return out, nil
}

// tokenAnchors chooses where a joiner will ask.
func (m *member) tokenAnchors() []identity.TokenAnchor {
	f := place.TokenFacts{Self: m.self, Members: m.mesh.View().Members, Up: m.routes.Load().sessions}
	for _, addr := range m.hostAddresses() {
		f.Local = append(f.Local, netip.AddrPortFrom(addr, m.socket.Port()))
	}
	return place.TokenAnchors(f)
}

func (m *member) admins() (names []string) {
	for _, other := range m.mesh.View().Members {
		if other.Admin && other.State == roster.Active {
			names = append(names, other.Name)
		}
	}
	return names
}

// Revoke revokes a node or an invite, and waits for the others when asked to.
func (b *backend) Revoke(ctx context.Context, req api.RevokeRequest, confirm func(api.Confirmation)) error {
	m, err := b.inMesh()
	if err != nil {
		return err
	}
	if !identity.IsAdmin(m.state.Chain[0]) {
		return &api.Error{Code: api.CodeRefused, Message: "only an admin can revoke, and this node is none", Hint: "run warren revoke on an admin: " + strings.Join(m.admins(), ", ")}
	}
	target, name, err := m.revocable(req)
	if err != nil {
		return err
	}
	key, err := m.mesh.Revoke(target, req.Reason, req.Cascade)
	if err != nil {
		return err
	}
	waiting := make(map[identity.NodeID]string)
	for _, other := range m.mesh.View().Members {
		if other.ID != m.self && other.State == roster.Active {
			waiting[other.ID] = other.Name
		}
	}
	confirm(api.Confirmation{Target: name, ID: target.String(), Waiting: len(waiting)})
	for req.Wait && len(waiting) > 0 {
		for id, has := range m.mesh.Confirmed(ctx, key) {
			if member, open := waiting[id]; open && has {
				delete(waiting, id)
				confirm(api.Confirmation{Target: name, ID: target.String(), Member: member, Waiting: len(waiting)})
			}
		}
		if len(waiting) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return refused("%d members have not confirmed; they will have the revocation before they can talk to any that has", len(waiting))
		case <-time.After(500 * time.Millisecond): // members come and go: there is no event to wait for
		}
	}
	return nil
}

// revocable finds what is to be revoked and a name to call it by.
func (m *member) revocable(req api.RevokeRequest) (identity.KeyID, string, error) {
	if req.Invite != "" {
		var found []identity.KeyID
		for _, invite := range m.mesh.View().Invites {
			// One key may have been certified twice: revoking it ends both.
			if strings.HasPrefix(invite.ID.String(), strings.ToLower(req.Invite)) && !slices.Contains(found, invite.ID) {
				found = append(found, invite.ID)
			}
		}
		if len(found) != 1 {
			return identity.KeyID{}, "", &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("%d invites have IDs that start with %q, want one", len(found), req.Invite), Hint: "warren status --json lists the invites"}
		}
		return found[0], "invite " + found[0].Short(), nil
	}
	target, err := m.find(req.Node)
	if err != nil {
		return identity.KeyID{}, "", err
	}
	if target.ID == m.self {
		return identity.KeyID{}, "", &api.Error{Code: api.CodeRefused, Message: "a node does not revoke itself", Hint: "warren leave"}
	}
	return identity.KeyID(target.ID), target.Name, nil
}

// Leave tells the others and ends the agent.
func (b *backend) Leave(ctx context.Context, req api.LeaveRequest) error {
	m, err := b.inMesh()
	if err != nil {
		return err
	}
	if err := m.state.Expendable(); err != nil && !req.Force {
		return &api.Error{Code: api.CodeRefused, Message: err.Error(), Hint: "warren leave --force"}
	}
	if err := m.mesh.Leave(ctx); err != nil && !req.Force {
		return &api.Error{Code: api.CodeRefused, Message: "nobody could be told: " + err.Error(), Hint: "warren leave --force leaves all the same"}
	}
	b.leaving.Do(func() { close(b.leave) })
	return nil
}

// Reload has the loop read the settings again.
func (b *backend) Reload(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case b.status.reloads <- done:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		if err != nil {
			return &api.Error{Code: api.CodeBadConfig, Message: err.Error()}
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
