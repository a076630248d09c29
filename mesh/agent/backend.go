package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/place"
	"warren/mesh/record"
	"warren/mesh/report"
	"warren/mesh/zone"
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
	view := p.records.View()
	req.Peer = zone.Short(view.Domain, req.Peer)
	target, err := report.Find(view.Members, p.state.NodeID(), req.Peer)
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
	barred := sync.OnceValue(func() string { return b.barred(ctx, target, to) })
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
			answer.Path, answer.Forbidden = peer.Path, b.forbids(target)
			switch {
			case answer.Error == "":
			case peer.Path.Kind != api.PathNone && barred() != "":
				answer.Error += ": " + barred()
			case peer.Reason != "":
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
	if err := p.power().mayNot("invite"); err != nil {
		return api.Invite{}, err
	}
	now := time.Now()
	terms := identity.InviteTerms{Uses: req.Uses, Expires: now.Add(time.Duration(req.ValidForMS) * time.Millisecond), Admin: req.Admin, Tags: req.Tags}
	seed, cert, err := p.records.Power().Invite(terms, now)
	if err != nil {
		return api.Invite{}, &api.Error{Code: api.CodeBadRequest, Message: err.Error()}
	}
	facts := p.tokenFacts(b.socket.Port(), b.hub.Board().Settings.Endpoints)
	token := identity.Token{Mesh: p.state.MeshID(), Seed: seed, Anchors: place.TokenAnchors(facts)}
	out := api.Invite{
		Schema: api.Schema, ID: identity.KeyIDOfCert(cert).String(), Token: token.Encode(), Uses: req.Uses, Expires: terms.Expires,
		Admin: req.Admin, Tags: append([]string{}, req.Tags...), Anchors: []string{}, Reach: report.TokenReach(token.Anchors, facts.Members),
	}
	for _, a := range token.Anchors {
		out.Anchors = append(out.Anchors, a.String())
	}
	return out, nil
}

// tokenFacts are what the anchors of a token are chosen from. endpoints are those of the settings.
func (p *parts) tokenFacts(port uint16, endpoints []string) place.TokenFacts {
	f := place.TokenFacts{Self: p.state.NodeID(), Members: p.records.View().Members, Up: make(map[identity.NodeID]bool), Endpoints: endpoints}
	if len(endpoints) == 0 {
		f.Endpoints = p.state.Settings.Endpoints
	}
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

// Rename has this node's record say another name. What it is granted follows.
func (b *backend) Rename(_ context.Context, req api.RenameRequest) error {
	p, err := b.inMesh()
	if err != nil {
		return err
	}
	if err := place.ValidName(req.Name); err != nil {
		return &api.Error{Code: api.CodeBadRequest, Message: err.Error()}
	}
	if err := p.state.KeepName(req.Name); err != nil {
		return err
	}
	return p.records.Update(func(own *record.Node) { own.Name = req.Name })
}

// Reload has the settings read again.
func (b *backend) Reload(ctx context.Context) (api.Reloaded, error) {
	pending, err := b.hub.Reload(ctx)
	if err != nil && ctx.Err() == nil {
		return api.Reloaded{}, &api.Error{Code: api.CodeBadConfig, Message: err.Error()}
	}
	return api.Reloaded{Schema: api.Schema, Pending: append([]string{}, pending...)}, err
}
