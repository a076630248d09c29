package node

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/mesh/verdict"
	"warren/nat"
	"warren/tunnel"
	"warren/tunnel/bind"
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
	out := api.Status{
		Schema: api.Schema, Time: time.Now(), Version: b.version, State: state, Since: b.started,
		Peers: []api.Peer{}, Invites: []api.Invited{}, Revoked: []api.Revoked{}, Dropped: n.dropped(),
		Self: api.Self{Interface: n.tunnel.Name(), Port: n.socket.Port(), PublicKey: n.public.String(),
			Addresses: []netip.Addr{}, Tags: []string{}, Endpoints: []netip.AddrPort{}, Anchors: []string{}},
	}
	if n.member != nil {
		warnings = append(warnings, n.member.fillStatus(&out, f, stats)...)
	}
	for _, s := range f.settings.Static {
		out.Peers = append(out.Peers, staticStatus(s, stats[s.PublicKey]))
	}
	slices.Sort(warnings)
	out.Warnings = append([]string{}, warnings...)
	return out, nil
}

// dropped adds up what the owners dropped, under named reasons.
func (n *node) dropped() map[string]uint64 {
	out := make(map[string]uint64)
	for reason, count := range n.socket.Counters() {
		if count > 0 {
			out["socket: "+reason.String()] += count
		}
	}
	for reason, count := range n.tunnel.Dropped() {
		if count > 0 {
			out["tunnel: "+reason] += count
		}
	}
	if n.member != nil {
		n.member.dropped.into(out)
		for part, counts := range map[string]map[string]uint64{
			"records": n.member.mesh.Dropped(), "sessions": n.member.sessions.Counters(), "paths": n.member.nat.Dropped(),
			"beacons": n.member.lan.beacon.Dropped(),
		} {
			for reason, count := range counts {
				if count > 0 && reason != "forwarded" && reason != "spliced" {
					out[part+": "+reason] += count
				}
			}
		}
	}
	return out
}

func staticStatus(s StaticPeer, stats tunnel.PeerStats) api.Peer {
	p := api.Peer{
		Name: s.Name, Static: true, PublicKey: s.PublicKey.String(), Addresses: []netip.Addr{}, Routes: []netip.Prefix{}, Tags: []string{},
		State: api.PeerIdle, Path: api.Path{Kind: api.PathNone}, RxBytes: stats.RxBytes, TxBytes: stats.TxBytes, LastHandshake: moment(stats.LastHandshake),
	}
	for _, prefix := range s.AllowedIPs {
		if prefix.IsSingleIP() {
			p.Addresses = append(p.Addresses, prefix.Addr())
		} else {
			p.Routes = append(p.Routes, prefix)
		}
	}
	if stats.Endpoint.IsValid() {
		p.Path = api.Path{Kind: api.PathDirect, Address: stats.Endpoint}
	}
	switch {
	case time.Since(stats.LastHandshake) < verdict.IdleAfter:
		p.State = api.PeerUp
	case !stats.Endpoint.IsValid() && s.Endpoint != "":
		p.Reason = "the address of " + s.Endpoint + " is not known: the name does not resolve"
	case !stats.Endpoint.IsValid():
		p.Reason = "it has not called, and no endpoint is configured to call it at"
	case stats.LastHandshake.IsZero():
		p.Reason = "no handshake yet: it does not answer, or nothing was sent to it"
	default:
		p.Reason = "nothing was exchanged for a while"
	}
	return p
}

func moment(t time.Time) *time.Time {
	if t.IsZero() || t.Unix() == 0 {
		return nil
	}
	return &t
}

// fillStatus adds the mesh's part and returns its warnings.
func (m *member) fillStatus(out *api.Status, f facts, stats map[wgtypes.Key]tunnel.PeerStats) (warnings []string) {
	view := m.mesh.View()
	names, table := m.names(), m.routes.Load()
	out.Mesh = &api.Mesh{
		Name: m.state.Settings.Mesh, ID: m.meshID.String(), Prefix4: view.Prefix4, Prefix6: view.Prefix6,
		Records: view.Records, Syncing: view.Missing,
	}
	paths := m.nat.Snapshot()
	for _, other := range view.Members {
		if other.State == roster.Active {
			out.Mesh.Members++
		}
		if other.ID == m.self {
			out.Self.ID, out.Self.Name, out.Self.Admin, out.Self.Tags = other.ID.String(), other.Name, other.Admin, nonNil(other.Tags)
			out.Self.Addresses = addressesOf(other)
			out.Self.Anchor = len(other.Record.Endpoints) > 0
			continue
		}
		p, _ := m.peerStatus(other, paths[other.ID], stats[wgtypes.Key(other.Record.WireGuardKey)], names, table.streams)
		out.Peers = append(out.Peers, p)
	}
	slices.SortFunc(out.Peers, func(a, b api.Peer) int { return cmp.Compare(a.Name, b.Name) })
	out.Self.Endpoints = m.reachableAt()
	for _, id := range table.preferred[:min(len(table.preferred), wantedAnchors)] {
		out.Self.Anchors = append(out.Self.Anchors, shorten(names[id], id))
	}
	out.Relay = m.relayStatus(names)
	out.Invites, out.Revoked = m.invites(names), m.revocations(names)
	return append(warnings, m.warnings(table)...)
}

func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func addressesOf(m roster.Member) []netip.Addr {
	out := []netip.Addr{}
	for _, addr := range []netip.Addr{m.Addr4, m.Addr6} {
		if addr.IsValid() {
			out = append(out, addr)
		}
	}
	return out
}

// peerStatus says how a member is reached, or why not: for people, and for a verdict.
func (m *member) peerStatus(other roster.Member, way nat.PeerStatus, stats tunnel.PeerStats, names map[identity.NodeID]string, streams map[identity.NodeID]streamEnd) (p api.Peer, path verdict.Path) {
	p = api.Peer{
		ID: other.ID.String(), Name: other.Name, Addresses: addressesOf(other), Routes: nonNil(other.Record.Routes),
		PublicKey: wgtypes.Key(other.Record.WireGuardKey).String(), Path: api.Path{Kind: api.PathNone}, Version: other.Record.Version,
		Admin: other.Admin, Anchor: len(other.Record.Endpoints) > 0, Tags: nonNil(other.Tags), AdmittedBy: names[other.AdmittedBy],
		RxBytes: stats.RxBytes, TxBytes: stats.TxBytes, LastHandshake: moment(stats.LastHandshake), Since: moment(way.Since), PathMTU: stats.PathMTU,
	}
	if other.State == roster.Left {
		p.State, p.Reason = api.PeerLeft, "left the mesh"
		return p, path
	}
	reason := way.Reason.Words(m.nameOf)
	switch way.Path.Kind {
	case nat.Direct:
		p.Path, path.Kind = api.Path{Kind: api.PathDirect, Address: way.Path.Addr}, verdict.DirectPath
	case nat.Relayed:
		relay, _ := m.sessions.Remote(way.Path.Via)
		p.Path = api.Path{Kind: api.PathRelay, Address: relay, Via: shorten(names[way.Path.Via], way.Path.Via)}
		path.Kind, path.Via = verdict.RelayedPath, way.Path.Via
		if bind.IsStream(relay.Addr()) {
			p.Path.Address, p.Path.Transport, path.TCP = streams[way.Path.Via].remote, api.TransportTCP, true
		}
		if !way.Standby.IsZero() {
			p.Path.Standby = shorten(names[way.Standby], way.Standby)
		}
	}
	if end, ok := streams[other.ID]; ok && m.usesStream(other.ID) {
		p.Path = api.Path{Kind: api.PathDirect, Address: end.remote, Transport: api.TransportTCP}
		path = verdict.Path{Kind: verdict.DirectPath, TCP: true}
		way.RTT, _ = m.sessions.RTT(other.ID)
		reason = "UDP does not get through"
	}
	p.LatencyMS = float64(way.RTT.Microseconds()) / 1000
	switch {
	case path.Kind == verdict.NoPath:
		p.State, p.Reason, p.LatencyMS = api.PeerConnecting, reason, 0
		if way.Attempts > 2 {
			p.State = api.PeerDown
		}
	case p.LastHandshake == nil:
		p.State, p.Reason = api.PeerConnecting, "a path is there; the WireGuard handshake is not done yet"
	default:
		p.State, p.Reason = api.PeerUp, reason
	}
	return p, path
}

// names are the names of the members, this node and those that have left included.
func (m *member) names() map[identity.NodeID]string {
	view := m.mesh.View()
	names := make(map[identity.NodeID]string, len(view.Members))
	for _, other := range view.Members {
		names[other.ID] = other.Name
	}
	return names
}

// reachableAt lists the underlay addresses under which this node is seen: announced, then mapped by NATs.
func (m *member) reachableAt() []netip.AddrPort {
	out := []netip.AddrPort{}
	if self, ok := m.mesh.View().Member(m.self); ok {
		out = append(out, self.Record.Endpoints...)
	}
	for _, addr := range m.nat.Mapped() {
		if !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}
