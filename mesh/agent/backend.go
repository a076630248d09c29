package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"warren/mesh"
	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/place"
	"warren/mesh/report"
	"warren/tunnel/echo"
)

// backend is the node as the local API sees it. Its methods run in the API's goroutines: they read snapshots and call
// owners, which are safe for that, and hand the loop what is the loop's.
type backend struct{ *agent }

var _ api.Backend = (*backend)(nil)

func refused(format string, args ...any) error {
	return &api.Error{Code: api.CodeRefused, Message: fmt.Sprintf(format, args...)}
}

// inMesh returns the owners of the mesh, or says that there is none.
func (b *backend) inMesh() (*parts, error) {
	if b.parts == nil {
		return nil, &api.Error{Code: api.CodeRefused, Message: "this agent runs static peers only, without a mesh", Hint: "warren create NAME, or warren join TOKEN"}
	}
	return b.parts, nil
}

// Ping probes a member through the tunnel.
func (b *backend) Ping(ctx context.Context, req api.PingRequest, reply func(api.PingReply)) error {
	p, err := b.inMesh()
	if err != nil {
		return err
	}
	target, err := report.Find(p.records.View().Members, p.state.NodeID(), req.Peer)
	if err != nil {
		return err
	}
	if target.ID == p.state.NodeID() {
		return refused("%s is this node", target.Name)
	}
	to := target.Addr6
	if asked, err := netip.ParseAddr(req.Peer); err == nil {
		to = asked
	} else if target.Addr4.IsValid() && !b.hub.Board().NoIPv4 {
		to = target.Addr4
	}
	for seq := 1; seq <= req.Count; seq++ {
		next := time.NewTimer(time.Duration(req.IntervalMS) * time.Millisecond)
		answer := pingOne(ctx, seq, target.Name, to, time.Duration(req.TimeoutMS)*time.Millisecond)
		status, err := b.Status(ctx)
		if err != nil {
			return err
		}
		for _, peer := range status.Peers {
			if peer.ID != target.ID.String() {
				continue
			}
			answer.Path = peer.Path
			if answer.Error != "" && peer.Reason != "" {
				answer.Error += ": " + peer.Reason
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

// pingOne pings a member once and puts the result into words.
func pingOne(ctx context.Context, seq int, name string, to netip.Addr, timeout time.Duration) api.PingReply {
	reply := api.PingReply{Seq: seq, Name: name, Address: to}
	rtt, err := echo.Ask(ctx, to, timeout)
	switch {
	case errors.Is(err, echo.ErrNoAnswer):
		reply.Error = fmt.Sprintf("no answer within %s", timeout)
	case err != nil:
		reply.Error = err.Error()
	default:
		reply.LatencyMS = float64(rtt.Microseconds()) / 1000
	}
	return reply
}

// Invite makes an invite, spreads its certificate, and returns the token.
func (b *backend) Invite(_ context.Context, req api.InviteRequest) (api.Invite, error) {
	p, err := b.inMesh()
	if err != nil {
		return api.Invite{}, err
	}
	authority := identity.Authority{Cert: p.state.Chain[0], Key: p.state.Key}
	if !identity.IsAdmin(authority.Cert) {
		return api.Invite{}, &api.Error{Code: api.CodeRefused, Message: "only an admin can invite, and this node is none", Hint: "run warren invite on an admin: " + strings.Join(p.admins(), ", ")}
	}
	now := time.Now()
	terms := identity.InviteTerms{Uses: req.Uses, Expires: now.Add(time.Duration(req.ValidForMS) * time.Millisecond), Admin: req.Admin, Tags: req.Tags}
	seed, cert, err := identity.NewInvite(authority, terms, now)
	if err != nil {
		return api.Invite{}, &api.Error{Code: api.CodeBadRequest, Message: err.Error()}
	}
	if err := p.records.AddCertificate(cert); err != nil {
		return api.Invite{}, err
	}
	token := identity.Token{Mesh: p.state.MeshID(), Seed: seed, Anchors: place.TokenAnchors(p.tokenFacts(b.socket.Port()))}
	out := api.Invite{
		Schema: api.Schema, ID: identity.KeyIDOfCert(cert).String(), Token: token.Encode(), Uses: req.Uses, Expires: terms.Expires,
		Admin: req.Admin, Tags: append([]string{}, req.Tags...), Anchors: []string{},
	}
	for _, a := range token.Anchors {
		out.Anchors = append(out.Anchors, a.Addr.String())
	}
	return out, nil
}

// tokenFacts are what the anchors of a token are chosen from.
func (p *parts) tokenFacts(port uint16) place.TokenFacts {
	f := place.TokenFacts{Self: p.state.NodeID(), Members: p.records.View().Members, Up: make(map[identity.NodeID]bool)}
	for _, id := range p.sessions.Preferred() {
		f.Up[id] = true
	}
	// Asked anew: a token without an address that came a moment ago would be of no use to whoever has no other family.
	hosts, err := p.host.Addresses()
	if err != nil {
		hosts = p.standing.Snapshot().Hosts
	}
	for _, addr := range hosts {
		f.Local = append(f.Local, netip.AddrPortFrom(addr, port))
	}
	return f
}

// admins are the names of those who may invite and revoke.
func (p *parts) admins() (names []string) {
	for _, other := range p.records.View().Members {
		if other.Admin && other.State == mesh.Active {
			names = append(names, other.Name)
		}
	}
	return names
}

// Revoke revokes a node or an invite, and waits for the others when asked to.
func (b *backend) Revoke(ctx context.Context, req api.RevokeRequest, confirm func(api.Confirmation)) error {
	p, err := b.inMesh()
	if err != nil {
		return err
	}
	if !identity.IsAdmin(p.state.Chain[0]) {
		return &api.Error{Code: api.CodeRefused, Message: "only an admin can revoke, and this node is none", Hint: "run warren revoke on an admin: " + strings.Join(p.admins(), ", ")}
	}
	target, name, err := p.revocable(req)
	if err != nil {
		return err
	}
	key, err := p.records.Revoke(target, req.Reason, req.Cascade)
	if err != nil {
		return err
	}
	waiting := make(map[identity.NodeID]string)
	for _, other := range p.records.View().Members {
		if other.ID != p.state.NodeID() && other.State == mesh.Active {
			waiting[other.ID] = other.Name
		}
	}
	confirm(api.Confirmation{Target: name, ID: target.String(), Waiting: len(waiting)})
	for req.Wait && len(waiting) > 0 {
		for id, has := range p.records.Confirmed(ctx, key) {
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
func (p *parts) revocable(req api.RevokeRequest) (identity.KeyID, string, error) {
	if req.Invite != "" {
		var found []identity.KeyID
		for _, invite := range p.records.View().Invites {
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
	target, err := report.Find(p.records.View().Members, p.state.NodeID(), req.Node)
	if err != nil {
		return identity.KeyID{}, "", err
	}
	if target.ID == p.state.NodeID() {
		return identity.KeyID{}, "", &api.Error{Code: api.CodeRefused, Message: "a node does not revoke itself", Hint: "warren leave"}
	}
	return identity.KeyID(target.ID), target.Name, nil
}

// Leave tells the others and ends the agent.
func (b *backend) Leave(ctx context.Context, req api.LeaveRequest) error {
	p, err := b.inMesh()
	if err != nil {
		return err
	}
	if err := p.state.Expendable(); err != nil && !req.Force {
		return &api.Error{Code: api.CodeRefused, Message: err.Error(), Hint: "warren leave --force"}
	}
	if err := p.records.Leave(ctx); err != nil && !req.Force {
		return &api.Error{Code: api.CodeRefused, Message: "nobody could be told: " + err.Error(), Hint: "warren leave --force leaves all the same"}
	}
	b.hub.Leave()
	return nil
}

// Reload has the settings read again.
func (b *backend) Reload(ctx context.Context) error {
	err := b.hub.Reload(ctx)
	if err != nil && ctx.Err() == nil {
		return &api.Error{Code: api.CodeBadConfig, Message: err.Error()}
	}
	return err
}
