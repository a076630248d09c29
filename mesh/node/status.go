package node

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh"
	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/report"
	"warren/mesh/verdict"
	"warren/nat/fallback"
	"warren/tunnel"
)

// statusBoard collects what status shows: the loop pins its facts to it, the API reads.
type statusBoard struct {
	version string
	started time.Time
	reloads chan chan error

	mu       sync.Mutex
	state    string
	facts    facts
	warnings map[string]string // by subject
	failing  string            // what the last reconcile could not do
}

func newStatusBoard(o Options, started time.Time) *statusBoard {
	return &statusBoard{
		version: o.Version, started: started, state: api.StateStarting, warnings: make(map[string]string), reloads: make(chan chan error),
	}
}

// warn sets the warning about a subject; empty text takes it back.
func (b *statusBoard) warn(subject, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if text == "" {
		delete(b.warnings, subject)
		return
	}
	b.warnings[subject] = text
}

func (b *statusBoard) reconciled(f facts, failed error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.facts, b.state, b.failing = f, api.StateReady, ""
	if failed != nil {
		b.failing = failed.Error()
	}
}

func (b *statusBoard) stopping() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state = api.StateStopping
}

// Status returns a snapshot for the API.
func (n *node) Status(context.Context) (api.Status, error) {
	return report.Status(n.report()), nil
}

// report is what the owners say now.
func (n *node) report() report.Agent {
	b := n.status
	b.mu.Lock()
	f, state, failing := b.facts, b.state, b.failing
	warnings := slices.Collect(maps.Values(b.warnings))
	b.mu.Unlock()
	if failing != "" {
		warnings = append(warnings, "not everything is in place: "+failing)
	}
	stats, err := n.tunnel.Snapshot()
	if err != nil {
		warnings = append(warnings, err.Error())
	}
	out := report.Agent{
		Now: time.Now(), Started: b.started, Version: b.version, State: state, Interface: n.tunnel.Name(), Port: n.socket.Port(),
		PublicKey: n.public.String(), Warnings: warnings, Dropped: n.dropped(),
	}
	for _, s := range f.settings.Static {
		out.Static = append(out.Static, report.Static{
			Name: s.Name, PublicKey: s.PublicKey.String(), AllowedIPs: s.AllowedIPs, Endpoint: s.Endpoint, Traffic: report.Traffic(stats[s.PublicKey]),
		})
	}
	if n.member != nil {
		out.Mesh = n.member.report(stats)
	}
	return out
}

// dropped are the counters of the owners, by part and reason.
func (n *node) dropped() map[string]map[string]uint64 {
	out := map[string]map[string]uint64{"socket": {}, "tunnel": n.tunnel.Dropped()}
	for reason, count := range n.socket.Counters() {
		out["socket"][reason.String()] = count
	}
	if m := n.member; m != nil {
		out[""], out["records"], out["sessions"] = m.dropped.all(), m.mesh.Dropped(), m.sessions.Counters()
		out["paths"], out["beacons"] = m.nat.Dropped(), m.lan.beacon.Dropped()
	}
	return out
}

// report is what the owners of the mesh side say now.
func (m *member) report(stats map[wgtypes.Key]tunnel.PeerStats) *report.Mesh {
	view, table := m.mesh.View(), m.routes.Load()
	out := &report.Mesh{
		Self: m.self, ID: m.meshID, Name: m.state.Settings.Mesh, Records: recordsOf(view), Expires: m.state.Chain[0].NotAfter,
		Traffic: make(map[identity.NodeID]report.Traffic), Paths: m.nat.Snapshot(), Mapped: m.nat.Mapped(), Sessions: make(map[identity.NodeID]report.Session),
		Introducers: table.preferred[:min(len(table.preferred), wantedAnchors)], Streams: m.reportStreams(table),
		Relay: report.Relay{Load: m.relays.Load(), Limit: int(m.share.limit.Load())},
	}
	out.Relay.Pairs, out.Relay.Members = m.relays.Snapshot()
	for id, r := range table.refused {
		out.Refusals = append(out.Refusals, verdict.Refusal{By: id, Reason: r.reason})
	}
	for _, other := range view.Members {
		out.Traffic[other.ID] = report.Traffic(stats[wgtypes.Key(other.Record.WireGuardKey)])
	}
	for id := range table.sessions {
		if remote, up := m.sessions.Remote(id); up {
			rtt, _ := m.sessions.RTT(id)
			out.Sessions[id] = report.Session{Remote: remote, RTT: rtt}
		}
	}
	return out
}

func recordsOf(view *mesh.View) report.Records {
	out := report.Records{
		Members: view.Members, Prefix4: view.Prefix4, Prefix6: view.Prefix6, Count: view.Records, Missing: view.Missing, Conflict: view.Conflict,
	}
	for _, i := range view.Invites {
		out.Invites = append(out.Invites, report.Invite{ID: i.ID, By: i.By, Terms: i.Terms, Used: len(i.Used), Revoked: i.Revoked})
	}
	for _, r := range view.Revoked {
		out.Revoked = append(out.Revoked, report.Revocation{Target: r.Target, Invite: r.Invite, Name: r.Name, Time: r.Time, By: r.By, ByName: r.ByName, Reason: r.Reason})
	}
	return out
}

func (m *member) reportStreams(table *routes) report.Streams {
	out := report.Streams{
		Open: table.udp.state == fallback.Open, State: table.udp.state.String(), Since: table.udp.since, Reason: table.udp.reason,
		Ends: make(map[identity.NodeID]netip.AddrPort), Used: make(map[identity.NodeID]bool), Blocked: table.blocked, CutOff: table.cutOff,
		Counts: report.StreamCounts(m.streams.server.Counts()),
	}
	for id, end := range table.streams {
		out.Ends[id], out.Used[id] = end.remote, m.usesStream(id)
	}
	for _, p := range m.streams.server.Ports() {
		out.Ports = append(out.Ports, report.StreamPort(p))
	}
	return out
}
