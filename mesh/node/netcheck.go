package node

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/mesh/verdict"
	"warren/nat/fallback"
	"warren/nat/natkind"
	"warren/nat/portmap"
	"warren/nat/ranges"
	"warren/nat/reach"
)

// maxAnchorChecks bounds the anchors that a netcheck lists and connects to.
const maxAnchorChecks = 8

// Netcheck measures what this network does with UDP, and what else would lead to the anchors.
func (b *backend) Netcheck(ctx context.Context) (api.Netcheck, error) {
	m, err := b.inMesh()
	if err != nil {
		return api.Netcheck{}, err
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, measureTime)
	defer cancel()
	m.nat.Probe() // of the shared socket
	var tasks sync.WaitGroup
	tasks.Go(func() { m.measure(ctx) })
	anchors := m.anchorChecks()
	looks := make([]verdict.Look, len(anchors))
	for i, a := range anchors {
		if ranges.IsPublic(a.address.Addr()) {
			tasks.Go(func() { looks[i] = lookTCP(ctx, m.verify, a.id, a.address) })
		}
	}
	tasks.Wait()

	facts4, facts6 := m.familyFacts(true), m.familyFacts(false)
	network := verdict.Network{Port: m.socket.Port(), IPv4: facts4, IPv6: facts6, Looks: looks}
	out := api.Netcheck{Schema: api.Schema, Time: start, Name: m.nameOf(m.self), Port: network.Port, IPv4: m.familyCheck(facts4), IPv6: m.familyCheck(facts6)}
	out.Routers, network.Routers = m.routerChecks()
	table := m.routes.Load()
	for _, r := range table.reach {
		out.Reachable = append(out.Reachable, api.Reachable{Address: r.Addr, State: string(r.State)})
		if r.State == reach.Reachable && !network.Open.IsValid() {
			network.Open = r.Addr
		}
	}
	network.Streams = table.blocked != ""
	out.Fallback = api.Fallback{State: table.udp.state.String(), InUse: network.Streams, Since: moment(table.udp.since), Reason: table.udp.reason}
	if table.udp.state == fallback.Open {
		out.Fallback.Reason = ""
	}
	for i, a := range anchors {
		check := a.check
		check.TCP = looks[i].TCP.String()
		check.STUNMS = m.stunTime(a.id)
		out.Anchors = append(out.Anchors, check)
	}
	network.Portal = portalOf(ctx, network, anchors)
	out.Portal = api.Portal(network.Portal)
	v := verdict.JudgeNetwork(network)
	out.Verdict = v.Kind.String()
	out.Conclusion, out.Advice = v.Words()
	out.TookMS = float64(time.Since(start).Microseconds()) / 1000
	return out, nil
}

// anchorSeen is one anchor, before it is asked.
type anchorSeen struct {
	id      identity.NodeID
	address netip.AddrPort
	check   api.AnchorCheck
}

// anchorChecks lists the anchors, those with a session first, with what is known of them.
func (m *member) anchorChecks() (out []anchorSeen) {
	table := m.routes.Load()
	for _, other := range m.mesh.View().Members {
		if other.ID == m.self || other.State != roster.Active || len(other.Record.Endpoints) == 0 {
			continue
		}
		a := anchorSeen{id: other.ID, address: other.Record.Endpoints[0], check: api.AnchorCheck{Name: other.Name, Session: table.sessions[other.ID]}}
		if public := ranges.PublicOf(other.Record.Endpoints); len(public) > 0 {
			a.address = public[0]
		}
		a.check.Address = a.address
		if rtt, up := m.sessions.RTT(other.ID); up {
			a.check.SessionMS = milliseconds(rtt)
		}
		out = append(out, a)
	}
	slices.SortStableFunc(out, func(a, b anchorSeen) int {
		switch {
		case a.check.Session != b.check.Session && a.check.Session:
			return -1
		case a.check.Session != b.check.Session:
			return 1
		}
		return strings.Compare(a.check.Name, b.check.Name)
	})
	return out[:min(len(out), maxAnchorChecks)]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// stunTime is the round trip of the last measurement to an anchor, the shorter of both families; 0: no answer.
func (m *member) stunTime(id identity.NodeID) (ms float64) {
	for _, v4 := range []bool{true, false} {
		got, _ := m.outlook.latest(v4)
		for _, a := range got.report.Answers {
			if a.Server.ID == id && a.Mapped.IsValid() && (ms == 0 || milliseconds(a.RTT) < ms) {
				ms = milliseconds(a.RTT)
			}
		}
	}
	return ms
}

// familyFacts is what the last measurement of a family found out.
func (m *member) familyFacts(v4 bool) verdict.Family {
	got, _ := m.outlook.latest(v4)
	f := verdict.Family{V4: v4, Asked: len(got.report.Answers), Mapping: got.report.Mapping, Filtering: got.report.Filtering}
	f.Present = slices.ContainsFunc(m.hostAddresses(), func(a netip.Addr) bool { return a.Is4() == v4 })
	if got.err != nil {
		f.Trouble = got.err.Error()
	}
	for _, a := range got.report.Answers {
		if a.Mapped.IsValid() {
			f.Answered++
		}
	}
	return f
}

// familyCheck puts what was found out into the API's words.
func (m *member) familyCheck(facts verdict.Family) api.Family {
	f := api.Family{
		UDP: facts.UDP().String(), Mapping: natkind.MappingUnknown.String(), Filtering: natkind.FilteringUnknown.String(), Asked: facts.Asked, Answered: facts.Answered,
	}
	for _, addr := range m.hostAddresses() {
		if addr.Is4() == facts.V4 {
			f.Addresses = append(f.Addresses, addr)
		}
	}
	if lack := facts.Lack(); lack != nil {
		f.Reason = lack.Words(m.nameOf)
	}
	if facts.UDP() != verdict.UDPWorks {
		return f
	}
	f.Mapping, f.Filtering = facts.Mapping.String(), facts.Filtering.String()
	for _, s := range m.sightings(facts.V4) {
		if !slices.Contains(f.Seen, s.Mapped) {
			f.Seen = append(f.Seen, s.Mapped)
		}
	}
	got, _ := m.outlook.latest(facts.V4)
	kept := got.report.PortKept()
	f.PortKept = &kept
	if got.report.Hairpin != natkind.Untested {
		works := got.report.Hairpin == natkind.Arrived
		f.Hairpin = &works
	}
	return f
}

// routerChecks puts what routers said into the API's words, and into a verdict's.
func (m *member) routerChecks() (out []api.Router, judged []verdict.Router) {
	if !m.relaying() {
		return nil, nil // as configured, none is asked
	}
	for _, r := range m.mapper.Snapshot().Routers {
		router, facts := api.Router{Gateway: r.Gateway, Remark: r.Remark}, verdict.Router{Gateway: r.Gateway}
		for _, p := range r.Protocols {
			if p.State == portmap.Refused && facts.RefusedBy == "" {
				facts.RefusedBy, facts.Reason = p.Name, p.Reason
			}
			router.Protocols = append(router.Protocols, api.RouterProtocol{Name: p.Name, State: string(p.State), Reason: p.Reason})
		}
		if r.Mapping != nil {
			router.Mapping = &api.PortMapping{Protocol: r.Mapping.Protocol, External: r.Mapping.External, Public: r.Mapping.Public(), Expires: moment(r.Mapping.Expires)}
			facts.Mapped, facts.External, facts.Public = true, r.Mapping.External, r.Mapping.Public()
		}
		out, judged = append(out, router), append(judged, facts)
	}
	return out, judged
}

// portalOf judges whether something answers in the anchors' place.
func portalOf(ctx context.Context, n verdict.Network, anchors []anchorSeen) verdict.Portal {
	portal, sure := verdict.JudgePortal(n)
	if sure {
		return portal
	}
	for _, a := range anchors {
		if ranges.IsPublic(a.address.Addr()) { // one is enough, and the time is short
			return portal.PageAt(lookHTTP(ctx, netip.AddrPortFrom(a.address.Addr(), 80)))
		}
	}
	return portal
}
