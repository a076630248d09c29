package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"warren/mesh"
	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/node"
	"warren/mesh/place"
	"warren/mesh/report"
	"warren/mesh/verdict"
	"warren/mesh/zone"
	"warren/nat"
	"warren/nat/portal"
	"warren/nat/standing"
	"warren/nat/stream"
	"warren/nat/streams"
	"warren/tunnel"
	"warren/tunnel/bind"
	"warren/tunnel/echo"
	"warren/tunnel/osnet"
)

const (
	// measureTime bounds what a person waits for.
	measureTime = 3 * time.Second
	// pingTime is enough for the path machine to give up a path that carries nothing: 1 s until it is in doubt, 1 s of checks.
	pingTime = 2500 * time.Millisecond
	// burstTime is what the last answer of a burst may take beside three round trips, on a machine that is busy.
	burstTime = 300 * time.Millisecond
	// burstSize is of packets that every path carries, and above what a router may take for small.
	burstSize = 1200
)

const (
	// burstAnchors is how many anchors a netcheck sends bursts to.
	burstAnchors = 2
)

// look reads what the owners know, for a report.
func (a *agent) look() report.Agent {
	board := a.hub.Board()
	out := report.Agent{
		Now: time.Now(), Started: a.started, Version: a.o.Version, State: a.state(board), Interface: a.tunnel.Name(), Port: a.socket.Port(),
		PublicKey: a.public.String(), Warnings: slices.Concat(board.Warnings, a.remarks),
		Dropped: map[string]map[string]uint64{"socket": socketDrops(a.socket), "tunnel": a.tunnel.Dropped()},
	}
	out.Unsent = verdict.UnsentNow(out.Now, unsentOf(a.socket, nil))
	stats, err := a.tunnel.Snapshot()
	if err != nil {
		out.Warnings = append(out.Warnings, err.Error())
	}
	for _, s := range board.Settings.Static {
		out.Static = append(out.Static, report.Static{
			Name: s.Name, PublicKey: s.PublicKey.String(), AllowedIPs: s.AllowedIPs, Endpoint: s.Endpoint,
			Traffic: trafficOf(stats[s.PublicKey], identity.NodeID{}),
		})
		out.Static[len(out.Static)-1].Traffic.Flow = a.tally.see(out.Now, s.PublicKey, stats[s.PublicKey])
	}
	if text := a.tunnel.Trouble(); text != "" {
		out.Warnings = append(out.Warnings, text)
	}
	if a.parts == nil {
		return out
	}
	out.Mesh = a.parts.look(board)
	out.Mesh.Unsent = out.Unsent
	for _, m := range out.Mesh.Records.Members {
		t := trafficOf(stats[m.Record.WireGuardKey], m.ID)
		activity, way := a.tunnel.Activity(m.ID)
		t.Sent, t.Heard = activity.LastTx, activity.LastRx
		out.Mesh.Traffic[m.ID] = t
		out.Mesh.Vitals[m.ID] = a.parts.vital(m.ID)
		if _, stream := out.Mesh.Streams.Ends[m.ID]; stream {
			out.Mesh.Streams.Used[m.ID] = bind.IsStream(way.Addr())
		}
	}
	out.Warnings = append(out.Warnings, a.parts.unkept()...)
	if text := a.parts.network.trouble.Load(); text != nil {
		out.Warnings = append(out.Warnings, *text)
	}
	for part, counts := range a.parts.dropped() {
		out.Dropped[part] = counts
	}
	return out
}

// unkept says that this node runs from memory, and what that means.
func (p *parts) unkept() []string {
	if t := p.store.Trouble(); t != nil {
		return []string{fmt.Sprintf("nothing is kept on disk since %s: %s: %v; this node runs from memory, and admits nobody; a restart begins with what was on disk before, and fetches the rest from the others; "+
			"it writes again by itself when that can be done", t.Since.Format("2006-01-02 15:04:05"), p.state.Dir, t.Err)}
	}
	if err := p.contacts.Trouble(); err != nil {
		return []string{fmt.Sprintf("the addresses at which members are met are not kept on disk: %v; it is tried again", err)}
	}
	return nil
}

// trafficOf is what the tunnel knows of a peer by its key, if the key is this one's here; a static peer has no ID.
func trafficOf(s tunnel.PeerStats, id identity.NodeID) report.Traffic {
	if s.ID != id {
		return report.Traffic{}
	}
	return report.Traffic{Endpoint: s.Endpoint, LastHandshake: s.LastHandshake, RxBytes: s.RxBytes, TxBytes: s.TxBytes, PathMTU: s.PathMTU}
}

func (a *agent) state(board *node.Board) string {
	switch {
	case a.stopping.Load():
		return api.StateStopping
	case board.Ready:
		return api.StateReady
	}
	return api.StateStarting
}

// unsentOf is what the system refuses to send by its own rules. That there is no way to an address is no refusal: members name addresses
// of networks that this machine does not have. But a route or a rule may say so in as many words, which looks the same to a program: with
// leaving, for who wants to know why, each address is asked for.
func unsentOf(socket *bind.Bind, leaving func(netip.Addr) (osnet.Leaving, error)) (out []verdict.Unsent) {
	by := map[bind.Refusal]verdict.Refuser{bind.Filtered: verdict.ByFirewall, bind.Prohibited: verdict.ByRouting, bind.Discarded: verdict.ByRouting}
	asked := make(map[netip.Addr]string)
	for _, u := range socket.Unsent() {
		who, refused := by[u.Reason]
		why, addr := "", u.To.Addr().Unmap()
		if leaving != nil && (u.Reason == bind.NoRoute || u.Reason == bind.NoHost || who == verdict.ByRouting) {
			known := false
			if why, known = asked[addr]; !known {
				if way, err := leaving(addr); err == nil && way.Refusal != "" {
					why = verdict.RoutedAway(way.Refusal, way.Table, way.Rule)
				}
				asked[addr] = why
			}
		}
		if why != "" {
			who, refused = verdict.ByRouting, true
		}
		if refused {
			out = append(out, verdict.Unsent{To: u.To, By: who, Why: why, Count: u.Count, First: u.First, Last: u.Last, Sent: u.Sent})
		}
	}
	return out
}

func socketDrops(socket *bind.Bind) map[string]uint64 {
	out := make(map[string]uint64)
	for reason, n := range socket.Counters() {
		out[reason.String()] = n
	}
	return out
}

// dropped are the counters of the owners, by the part whose they are.
func (p *parts) dropped() map[string]map[string]uint64 {
	named := make(map[string]uint64)
	for _, counts := range []map[string]uint64{p.inbound.Dropped(), p.courier.Dropped(), p.letters.Dropped(), p.standing.Dropped(), p.naming.dns.Dropped()} {
		for reason, n := range counts {
			named[reason] += n
		}
	}
	return map[string]map[string]uint64{
		"": named, "records": p.records.Dropped(), "sessions": p.sessions.Counters(), "paths": p.nat.Dropped(), "beacons": p.neighbours.Dropped(),
	}
}

// look reads the mesh's part.
func (p *parts) look(board *node.Board) *report.Mesh {
	view, udp := p.records.View(), p.streams.Snapshot()
	out := &report.Mesh{
		Self: p.state.NodeID(), ID: p.state.MeshID(), Name: p.state.Settings.Mesh, Records: recordsOf(view, p.power()), Expires: p.state.Chain[0].NotAfter,
		Traffic: make(map[identity.NodeID]report.Traffic), Vitals: make(map[identity.NodeID]report.Vital), Paths: p.nat.Snapshot(), Mapped: p.nat.Mapped(), Sessions: make(map[identity.NodeID]report.Session),
		Clocks: p.courier.Clocks(time.Now()), NoIPv4: board.NoIPv4, NoTunnel: board.NoTunnel, Streams: streamsOf(udp), RootKey: report.RootKey(place.RootKeyOf(p.state.Dir)),
	}
	preferred := p.sessions.Preferred()
	out.Introducers = preferred[:min(len(preferred), node.WantedAnchors)]
	for _, id := range preferred {
		remote, up := p.sessions.Remote(id)
		if !up {
			continue
		}
		rtt, _ := p.sessions.RTT(id)
		out.Sessions[id] = report.Session{Remote: remote, RTT: rtt, Heard: p.sessions.Heard(id)}
	}
	for _, id := range slices.SortedFunc(maps.Keys(board.Refusals), identity.NodeID.Compare) {
		out.Refusals = append(out.Refusals, verdict.Refusal{By: id, Reason: board.Refusals[id].Reason, Since: board.Refusals[id].Since})
	}
	served, told := p.naming.dns.Snapshot(), p.naming.resolver.Snapshot()
	out.Naming = report.Naming{Domain: view.Domain, Using: told.Using, Why: told.Why, Served: served.Addrs, Trouble: served.Trouble}
	out.Relay.Pairs, out.Relay.Members = p.relays.server.Snapshot()
	out.Relay.Load, out.Relay.Limit = p.relays.server.Load(), board.Settings.RelayLimit
	return out
}

// vital is what gossip and introductions show of a member.
func (p *parts) vital(id identity.NodeID) report.Vital {
	life, since := p.records.Alive(id)
	return report.Vital{
		Life:  map[mesh.Liveness]verdict.Life{mesh.Unknown: verdict.LifeUnknown, mesh.Alive: verdict.Alive, mesh.Dead: verdict.Dead}[life],
		Since: since, Answered: p.records.LastAnswer(id), Told: p.courier.Told(id).Heard,
	}
}

func recordsOf(view *mesh.View, p power) report.Records {
	out := report.Records{
		Root: identity.KeyIDOfCert(p.state.Root()), Members: view.Members, Prefix4: view.Prefix4, Prefix6: view.Prefix6, Count: view.Records,
		Missing: p.records.Missing(), Conflict: view.Conflict,
	}
	for _, i := range view.Invites {
		out.Invites = append(out.Invites, report.Invite{ID: i.ID, By: i.By, Terms: i.Terms, Used: len(i.Used), Revoked: i.Revoked})
	}
	for _, r := range view.Revoked {
		out.Revoked = append(out.Revoked, revocationOf(r))
	}
	for _, a := range view.Admins {
		out.Admins = append(out.Admins, report.Admin(a))
	}
	return out
}

func revocationOf(r mesh.Revocation) report.Revocation {
	return report.Revocation{Target: r.Target, Scope: r.Scope, Invite: r.Invite, Name: r.Name, Time: r.Time, By: r.By, ByName: r.ByName, Reason: r.Reason}
}

func streamsOf(s streams.Snapshot) report.Streams {
	out := report.Streams{
		UDP: map[streams.State]verdict.UDPState{
			streams.Open: verdict.UDPUsed, streams.Trying: verdict.UDPInDoubt, streams.Blocked: verdict.UDPBlocked, streams.Returning: verdict.UDPReturning,
		}[s.State], State: s.State.String(), Since: s.Since, Reason: s.Reason, Ends: make(map[identity.NodeID]netip.AddrPort), Used: make(map[identity.NodeID]bool),
		Blocked: s.Blocked, CutOff: s.CutOff, Counts: report.StreamCounts(s.Counts),
	}
	for id, end := range s.Ends {
		out.Ends[id] = end.Remote
	}
	for _, port := range s.Ports {
		out.Ports = append(out.Ports, report.StreamPort(port))
	}
	return out
}

// Status returns a snapshot for the API.
func (b *backend) Status(context.Context) (api.Status, error) { return report.Status(b.look()), nil }

// Netcheck measures what this network does with UDP, and what else would lead to the anchors.
func (b *backend) Netcheck(ctx context.Context) (api.Netcheck, error) {
	p, err := b.inMesh()
	if err != nil {
		return api.Netcheck{}, err
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, measureTime)
	defer cancel()
	seen := b.look()
	n := report.Network{Started: start, Name: report.NamesOf(seen.Mesh.Records.Members).Of(seen.Mesh.Self), Port: seen.Port, Anchors: seen.Mesh.Anchors()}
	var tasks sync.WaitGroup
	tasks.Go(func() { p.standing.Measure(ctx) })
	for i, anchor := range n.Anchors {
		if anchor.Public() {
			tasks.Go(func() {
				n.Anchors[i].Look = lookOf(portal.TCP(ctx, p.members.Verify, anchor.ID, anchor.Address.Addr(), anchor.Address.Port(), stream.AlternatePort))
			})
		}
	}
	var bursts [burstAnchors]verdict.Bursts
	for i := range min(burstAnchors, len(n.Anchors)) {
		id := n.Anchors[i].ID
		if at := seen.Mesh.Path(id); at.Kind == verdict.DirectPath && !at.TCP {
			tasks.Go(func() { bursts[i] = p.burstTo(ctx, seen, id) })
		}
	}
	tasks.Wait()
	n.Bursts = make(map[identity.NodeID]verdict.Bursts)
	for i := range min(burstAnchors, len(n.Anchors)) {
		n.Bursts[n.Anchors[i].ID] = bursts[i]
	}
	found := p.standing.Snapshot()
	n.Unsent = verdict.UnsentNow(time.Now(), unsentOf(b.socket, osnet.LeavingFor))
	n.Hosts, n.Routers, n.Reach, n.Streams = found.Hosts, found.Routers, found.Reach, streamsOf(p.streams.Snapshot())
	n.IPv4, n.IPv6 = p.measured(found, true), p.measured(found, false)
	if at, worthwhile := n.PageAt(); worthwhile {
		n.Page = portal.HTTP(ctx, at)
	}
	n.Took = time.Since(start)
	return report.Netcheck(n), nil
}

func (p *parts) measured(found *standing.Snapshot, v4 bool) report.Measurement {
	m, _ := found.Measured(v4)
	out := report.Measurement{Report: m.Report, Err: m.Err}
	for _, s := range p.standing.Sightings(v4) {
		out.Seen = append(out.Seen, s.Mapped)
	}
	return out
}

func lookOf(l portal.Look) verdict.Look {
	return verdict.Look{TCP: map[portal.State]verdict.TCP{
		portal.Silent: verdict.TCPSilent, portal.Closed: verdict.TCPClosed, portal.Foreign: verdict.TCPForeign, portal.Open: verdict.TCPOpen,
	}[l.State], Detail: l.Detail}
}

// Why gathers what is known about one peer, and judges it. Where no direct path leads to it and this network has not been
// measured lately, that is done first.
func (b *backend) Why(ctx context.Context, req api.WhyRequest) (api.Why, error) {
	seen := b.look()
	if seen.Mesh != nil {
		req.Peer = zone.Short(seen.Mesh.Naming.Domain, req.Peer)
	}
	static, err := seen.FindStatic(req.Peer)
	switch {
	case err != nil:
		return api.Why{}, err
	case static != nil:
		return report.WhyStatic(seen, *static), nil
	}
	p, err := b.inMesh()
	if err != nil {
		return api.Why{}, err
	}
	records := seen.Mesh.Records
	target, err := report.Find(records.Members, seen.Mesh.Self, req.Peer)
	if no, ok := errors.AsType[*api.Error](err); ok && no.Code == api.CodeNotFound {
		r, several := report.FindRevoked(records.Revoked, req.Peer)
		switch {
		case several != nil:
			return api.Why{}, several
		case r != nil:
			return report.WhyRevoked(seen.Now, *r, report.NamesOf(records.Members)), nil
		}
	}
	if err != nil {
		return api.Why{}, err
	}
	if target.ID == seen.Mesh.Self {
		return api.Why{}, &api.Error{Code: api.CodeRefused, Message: target.Name + " is this node", Hint: "what its network does: warren netcheck"}
	}
	var got findings
	if target.State == mesh.Active {
		// What was asked is evidence, and it is traffic too: all is judged as it is now, and nothing as it was before. By a path that has come
		// meanwhile nobody was asked.
		for range 2 {
			got = b.find(ctx, seen, target)
			seen = b.look()
			if got.ping.Asked || seen.Mesh.Path(target.ID).Kind == verdict.NoPath {
				break
			}
		}
	}
	seen.Mesh.Unsent = verdict.UnsentNow(seen.Now, unsentOf(b.socket, osnet.LeavingFor))
	in := p.inquire(seen, target.ID, got)
	if target.State == mesh.Active {
		in.Policy = b.policy(target)
	}
	return report.Why(in), nil
}

// findings are what came of asking a peer.
type findings struct {
	ping   report.Ping
	bursts verdict.Bursts
}

// find finds out what is not known: whether the peer answers through the path that it has, whether batches get there as single packets do,
// and, without a direct path, what the NAT here does.
func (b *backend) find(ctx context.Context, seen report.Agent, target mesh.Member) (out findings) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	at := seen.Mesh.Path(target.ID)
	if at.Kind != verdict.DirectPath && b.parts.standing.Vague() {
		tasks.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, measureTime)
			defer cancel()
			b.parts.standing.Measure(ctx)
		})
	}
	if at.Kind == verdict.NoPath {
		return out
	}
	out.ping.Asked = true
	out.ping.Passages, out.ping.RTT = b.kernel().passages(ctx, target, overlayOf(target, seen.Mesh.NoIPv4))
	if out.ping.RTT > 0 && !at.TCP {
		out.bursts = burst(ctx, target.Addr6, seen.Mesh.Traffic[target.ID].PathMTU, out.ping.RTT)
	}
	return out
}

// burstTo is burst for a member that answers a ping.
func (p *parts) burstTo(ctx context.Context, seen report.Agent, id identity.NodeID) verdict.Bursts {
	other, known := p.records.View().Member(id)
	if !known {
		return verdict.Bursts{}
	}
	rtt, err := echo.Ask(ctx, other.Addr6, burstTime)
	if err != nil {
		return verdict.Bursts{}
	}
	return burst(ctx, other.Addr6, seen.Mesh.Traffic[id].PathMTU, rtt)
}

// burst finds out whether batches of packets get to a member. What cannot be tried is not known.
func burst(ctx context.Context, to netip.Addr, pathMTU int, rtt time.Duration) verdict.Bursts {
	size := burstSize
	if pathMTU > 0 {
		size = min(size, pathMTU)
	}
	var out verdict.Bursts
	for wait := burstTime + 3*rtt; ; wait *= 4 {
		b, err := echo.Burst(ctx, to, size, wait)
		if err != nil || b.Singles == 0 { // a member of an older version answers none
			return verdict.Bursts{}
		}
		again := out.Vanish()
		// Answers that come late look like none: what seems lost is asked once more, with patience.
		if out = verdict.Bursts(b); again || !out.Vanish() {
			return out
		}
	}
}

// inquire gathers what the owners know of a member.
func (p *parts) inquire(seen report.Agent, target identity.NodeID, f findings) report.Inquiry {
	in := report.Inquiry{
		Now: seen.Now, Mesh: seen.Mesh, Target: target, Port: seen.Port, There: report.Told(p.courier.Told(target)), Ping: f.ping, Bursts: f.bursts,
	}
	in.Here, in.HereAt = p.standing.Self()
	if found, ok := p.nat.Evidence(target); ok {
		in.Evidence = found.Evidence
		for _, trial := range found.Trials {
			in.Attempts = append(in.Attempts, attemptOf(trial))
		}
	}
	return in
}

func attemptOf(t nat.Attempt) verdict.Attempt {
	out := verdict.Attempt{Started: t.Started, Ended: t.Ended, Nominated: t.Nominated, More: t.More}
	for _, p := range t.Pairs {
		out.Pairs = append(out.Pairs, verdict.Pair(p))
	}
	return out
}
