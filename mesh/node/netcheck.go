package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/nat/natkind"
	"warren/nat/natprobe"
	"warren/nat/ranges"
	"warren/nat/streams"
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
	looks := make([]tcpLook, len(anchors))
	for i, a := range anchors {
		if ranges.IsPublic(a.address.Addr()) {
			tasks.Go(func() { looks[i] = lookTCP(ctx, m.verify, a.id, a.address) })
		}
	}
	tasks.Wait()

	out := api.Netcheck{
		Schema: api.Schema, Time: start, Name: m.nameOf(m.self), Port: m.socket.Port(),
		IPv4: m.familyCheck(true), IPv6: m.familyCheck(false), Routers: m.routerChecks(),
	}
	table := m.routes.Load()
	for _, r := range table.reach {
		out.Reachable = append(out.Reachable, api.Reachable{Address: r.Addr, State: string(r.State)})
	}
	out.Fallback = api.Fallback{State: table.udp.state.String(), InUse: table.blocked != "", Since: moment(table.udp.since), Reason: table.udp.reason}
	if table.udp.state == streams.Open {
		out.Fallback.Reason = ""
	}
	for i, a := range anchors {
		check := a.check
		check.TCP = looks[i].state
		check.STUNMS = m.stunTime(a.id)
		out.Anchors = append(out.Anchors, check)
	}
	out.Portal = portalOf(ctx, out, anchors, looks)
	concludeNet(&out)
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

// familyCheck puts the last measurement of a family into the API's words.
func (m *member) familyCheck(v4 bool) api.Family {
	name, got := familyName(v4), measurement{}
	got, _ = m.outlook.latest(v4)
	f := api.Family{Mapping: natkind.MappingUnknown.String(), Filtering: natkind.FilteringUnknown.String(), Asked: len(got.report.Answers)}
	for _, addr := range m.hostAddresses() {
		if addr.Is4() == v4 {
			f.Addresses = append(f.Addresses, addr)
		}
	}
	for _, a := range got.report.Answers {
		if a.Mapped.IsValid() {
			f.Answered++
		}
	}
	switch {
	case len(f.Addresses) == 0:
		f.UDP, f.Reason = api.UDPUnused, "this host has no "+name+" address"
		return f
	case got.err != nil:
		f.UDP, f.Reason = api.UDPUnsure, got.err.Error()
		return f
	case f.Asked == 0:
		f.UDP, f.Reason = api.UDPUnsure, "no other anchor has a public "+name+" address"
		return f
	case f.Answered == 0:
		f.UDP, f.Reason = api.UDPSilent, "no anchor answers by UDP"
		return f
	}
	f.UDP, f.Mapping, f.Filtering = api.UDPWorks, got.report.Mapping.String(), got.report.Filtering.String()
	for _, s := range m.sightings(v4) {
		if !slices.Contains(f.Seen, s.Mapped) {
			f.Seen = append(f.Seen, s.Mapped)
		}
	}
	kept := got.report.PortKept()
	f.PortKept = &kept
	if got.report.Hairpin != natkind.Untested {
		works := got.report.Hairpin == natkind.Arrived
		f.Hairpin = &works
	}
	f.Reason = unknownReason(got.report, f)
	return f
}

func familyName(v4 bool) string {
	if v4 {
		return "IPv4"
	}
	return "IPv6"
}

// unknownReason says what is missing for a kind that is not known.
func unknownReason(r natprobe.Report, f api.Family) string {
	switch {
	case r.Mapping == natkind.MappingUnknown:
		return fmt.Sprintf("needs two anchors at different addresses, and %d of %d answers", f.Answered, f.Asked)
	case r.Filtering == natkind.FilteringUnknown:
		return "no anchor has helped to find out how packets are filtered"
	}
	return ""
}

// routerChecks puts what routers said into the API's words.
func (m *member) routerChecks() (out []api.Router) {
	if !m.relaying() {
		return nil // as configured, none is asked
	}
	for _, r := range m.mapper.Snapshot().Routers {
		router := api.Router{Gateway: r.Gateway, Remark: r.Remark}
		for _, p := range r.Protocols {
			router.Protocols = append(router.Protocols, api.RouterProtocol{Name: p.Name, State: string(p.State), Reason: p.Reason})
		}
		if r.Mapping != nil {
			router.Mapping = &api.PortMapping{Protocol: r.Mapping.Protocol, External: r.Mapping.External, Public: r.Mapping.Public(), Expires: moment(r.Mapping.Expires)}
		}
		out = append(out, router)
	}
	return out
}

// portalOf judges whether something answers in the anchors' place.
func portalOf(ctx context.Context, n api.Netcheck, anchors []anchorSeen, looks []tcpLook) api.Portal {
	asked := n.IPv4.Asked + n.IPv6.Asked
	switch {
	case n.IPv4.Answered+n.IPv6.Answered > 0:
		return api.Portal{Reason: "anchors answer by UDP"}
	case slices.ContainsFunc(looks, func(l tcpLook) bool { return l.state == api.TCPOpen }):
		return api.Portal{Reason: "anchors answer by TCP with the mesh's certificates"}
	case asked == 0:
		return api.Portal{Reason: "there is no anchor to ask"}
	}
	for _, look := range looks {
		if look.state == api.TCPForeign {
			return api.Portal{Suspected: true, Reason: look.detail}
		}
	}
	for _, a := range anchors {
		if ranges.IsPublic(a.address.Addr()) {
			if detail := lookHTTP(ctx, netip.AddrPortFrom(a.address.Addr(), 80)); detail != "" {
				return api.Portal{Suspected: true, Reason: detail}
			}
			break // one is enough, and the time is short
		}
	}
	return api.Portal{Reason: "nothing answers in the anchors' place"}
}
