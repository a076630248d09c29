package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"warren/mesh"
	"warren/mesh/api"
	"warren/mesh/report"
	"warren/mesh/roster"
	"warren/mesh/verdict"
)

// pingTime is enough for the path machine to give up a path that carries nothing: 1 s until it is in doubt, 1 s of checks.
const pingTime = 2500 * time.Millisecond

// Why gathers what is known about one peer, and judges it. Where no direct path leads to it and this network has not been
// measured lately, that is done first.
func (b *backend) Why(ctx context.Context, req api.WhyRequest) (api.Why, error) {
	agent := b.report()
	if i := slices.IndexFunc(agent.Static, func(s report.Static) bool { return s.Name == req.Peer }); i >= 0 {
		return report.WhyStatic(agent, agent.Static[i]), nil
	}
	m, err := b.inMesh()
	if err != nil {
		return api.Why{}, err
	}
	members := agent.Mesh.Records.Members
	target, err := report.Find(members, m.self, req.Peer)
	if err != nil {
		if r, ok := report.FindRevoked(agent.Mesh.Records.Revoked, req.Peer); ok {
			return report.WhyRevoked(agent.Now, r, report.NamesOf(members)), nil
		}
		return api.Why{}, err
	}
	if target.ID == m.self {
		return api.Why{}, &api.Error{Code: api.CodeRefused, Message: target.Name + " is this node", Hint: "what its network does: warren netcheck"}
	}
	in := report.Inquiry{Target: target.ID, Ping: b.look(ctx, agent.Mesh.Path(target.ID), target)}
	agent = b.report() // a ping was traffic: an idle path that was dead is known to be so by now
	in.Now, in.Mesh, in.Port = agent.Now, agent.Mesh, agent.Port
	m.gather(&in)
	return report.Why(in), nil
}

// look finds out what is not known: whether the peer answers through the path that it has, and, without a direct one, what the
// NAT here does.
func (b *backend) look(ctx context.Context, path verdict.Path, target roster.Member) (ping report.Ping) {
	m := b.member
	if target.State == roster.Left {
		return ping
	}
	var tasks sync.WaitGroup
	defer tasks.Wait()
	if m.outlook.vague() && path.Kind != verdict.DirectPath {
		tasks.Go(func() { m.measure(ctx) })
	}
	if path.Kind == verdict.NoPath {
		return ping
	}
	ping.Asked = true
	if rtt, err := probe(ctx, target.Addr6, pingTime); err == nil {
		ping.RTT = rtt
	}
	return ping
}

// gather collects what the owners know of a member.
func (m *member) gather(in *report.Inquiry) {
	in.Here, in.HereAt = m.standing()
	told := m.outlook.of(in.Target)
	in.There = report.Told{NAT: told.nat, At: told.at, Heard: told.heard, Skewed: told.skewed}
	in.Sent, _ = m.activity(in.Target)
	life, since := m.mesh.Alive(in.Target)
	in.Life, in.LifeSince = lifeOf(life), since
	found, _ := m.nat.Evidence(in.Target)
	in.Evidence = found.Evidence
	for _, t := range found.Trials {
		a := verdict.Attempt{Started: t.Started, Ended: t.Ended, Nominated: t.Nominated, More: t.More}
		for _, p := range t.Pairs {
			a.Pairs = append(a.Pairs, verdict.Pair(p))
		}
		in.Attempts = append(in.Attempts, a)
	}
}

func lifeOf(l mesh.Liveness) verdict.Life {
	switch l {
	case mesh.Alive:
		return verdict.Alive
	case mesh.Dead:
		return verdict.Dead
	}
	return verdict.LifeUnknown
}
