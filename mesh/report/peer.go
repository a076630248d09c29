package report

import (
	"encoding/base64"
	"time"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/mesh/verdict"
	"warren/nat/path"
)

// Path is how the packets to a member go.
func (m *Mesh) Path(id identity.NodeID) verdict.Path {
	way := m.Paths[id].Path
	_, stream := m.Streams.Ends[id]
	switch {
	case stream && m.Streams.Used[id]:
		return verdict.Path{Kind: verdict.DirectPath, TCP: true}
	case way.Kind == path.Direct:
		return verdict.Path{Kind: verdict.DirectPath}
	case way.Kind == path.Relayed:
		return verdict.Path{Kind: verdict.RelayedPath, Via: way.Via, TCP: path.IsVirtual(m.Sessions[way.Via].Remote.Addr())}
	}
	return verdict.Path{}
}

// peer says how a member is reached, or why not: for people, and for a verdict.
func (m *Mesh) peer(other roster.Member, names Names, now time.Time) (api.Peer, verdict.Path) {
	way, traffic := m.Paths[other.ID], m.Traffic[other.ID]
	p := api.Peer{
		ID: other.ID.String(), Name: other.Name, Addresses: addresses(other), Routes: other.Routes,
		PublicKey: base64.StdEncoding.EncodeToString(other.Record.WireGuardKey[:]), Path: api.Path{Kind: api.PathNone}, Version: other.Record.Version,
		Admin: other.Admin, Anchor: len(other.Record.Endpoints) > 0, Tags: other.Tags, Origin: api.Origin{AdmittedBy: names[other.AdmittedBy]},
		RxBytes: traffic.RxBytes, TxBytes: traffic.TxBytes, PathMTU: traffic.PathMTU,
		Life: api.Life{LastHandshake: seen(traffic.LastHandshake, now), Since: seen(way.Since, now)},
	}
	if !other.Invite.IsZero() {
		p.Invite = other.Invite.String()
	}
	if other.State == roster.Left {
		p.State, p.Reason = api.PeerLeft, "left the mesh"
		return p, verdict.Path{}
	}
	if why, untied := m.NoTunnel[other.ID]; untied {
		p.State, p.Reason = api.PeerDown, why
		return p, verdict.Path{}
	}
	at, signs := m.Path(other.ID), m.signs(other.ID, now)
	p.Path, p.LastHeard, p.State = m.shown(other.ID, at, names), seen(signs.LastHeard(), now), signs.Contact().String()
	rtt, reason := way.RTT, way.Reason.Words(names.Of)
	if at.Kind == verdict.DirectPath && at.TCP {
		rtt, reason = m.Sessions[other.ID].RTT, "UDP does not get through"
	}
	if at.Kind != verdict.NoPath {
		p.LatencyMS = milliseconds(rtt)
	} else {
		p.PathMTU = 0
	}
	switch {
	case p.State == api.PeerSilent:
		reason = signs.Silence().Words(names.Of)
	case at.Kind == verdict.NoPath && signs.Keyed.After(way.Since) && !way.Since.IsZero():
		// Introductions have carried it; of one that was done by a path that is gone nothing is said.
		reason += "; the WireGuard handshake is done"
	case p.State == api.PeerConnecting && at.Kind != verdict.NoPath:
		reason = "a path is there; the WireGuard handshake is not done yet"
	}
	p.Reason = reason
	return p, at
}

// signs are those of a member, for whoever judges whether it is there.
func (m *Mesh) signs(id identity.NodeID, now time.Time) verdict.Signs {
	way, traffic, vital := m.Paths[id], m.Traffic[id], m.vital(id)
	at := m.Path(id)
	byStream := at.Kind == verdict.DirectPath && at.TCP // nat watches the path beside it, which is not used
	s := verdict.Signs{
		Now: now, Way: at.Kind != verdict.NoPath, Pathless: way.Since, Sent: traffic.Sent, Heard: traffic.Heard, Proved: way.Proved,
		Watched: !byStream, Overdue: !byStream && way.Overdue(now),
	}
	if !never(traffic.LastHandshake) {
		s.Keyed = traffic.LastHandshake
	}
	for _, t := range []time.Time{m.Sessions[id].Heard, vital.Answered, vital.Told} {
		if t.After(s.Beside) {
			s.Beside = t
		}
	}
	if vital.Life == verdict.Dead {
		s.Missed = vital.Since
	}
	return s
}

// shown is the present path to a member in the API's words.
func (m *Mesh) shown(id identity.NodeID, at verdict.Path, names Names) api.Path {
	way := m.Paths[id]
	out := api.Path{Kind: api.PathNone}
	switch at.Kind {
	case verdict.DirectPath:
		out.Kind, out.Address = api.PathDirect, way.Path.Addr
		if at.TCP {
			out.Address = m.Streams.Ends[id]
		}
	case verdict.RelayedPath:
		out.Kind, out.Address, out.Via = api.PathRelay, m.Sessions[at.Via].Remote, names.Of(at.Via)
		if at.TCP {
			out.Address = m.Streams.Ends[at.Via]
		}
		if !way.Standby.IsZero() {
			out.Standby = names.Of(way.Standby)
		}
	}
	if at.TCP {
		out.Transport = api.TransportTCP
	}
	return out
}

// staticPeer says how a static peer is reached, or why not.
func staticPeer(a Agent, s Static) api.Peer {
	t, judged := s.Traffic, s.judged(a)
	p := api.Peer{
		Name: s.Name, Static: true, PublicKey: s.PublicKey, State: judged.Contact().String(), Path: api.Path{Kind: api.PathNone},
		RxBytes: t.RxBytes, TxBytes: t.TxBytes, Life: api.Life{LastHandshake: seen(t.LastHandshake, a.Now), LastHeard: seen(judged.LastHeard(), a.Now)},
	}
	for _, prefix := range s.AllowedIPs {
		if prefix.IsSingleIP() {
			p.Addresses = append(p.Addresses, prefix.Addr())
		} else {
			p.Routes = append(p.Routes, prefix)
		}
	}
	if t.Endpoint.IsValid() {
		p.Path = api.Path{Kind: api.PathDirect, Address: t.Endpoint}
	}
	if p.State != api.PeerUp {
		p.Reason = verdict.JudgeStatic(judged).Words(nil).Cause
	}
	return p
}

// judged is what a verdict about a static peer rests on.
func (s Static) judged(a Agent) verdict.StaticPeer {
	p := verdict.StaticPeer{
		Now: a.Now, Name: s.Name, Endpoint: s.Endpoint, Addr: s.Traffic.Endpoint, RxBytes: s.Traffic.RxBytes, TxBytes: s.Traffic.TxBytes,
		Port: a.Port, PublicKey: a.PublicKey, Heard: s.Traffic.Heard, Unanswered: s.Traffic.Unanswered,
	}
	if shaken := s.Traffic.LastHandshake; !never(shaken) {
		p.LastHandshake = shaken
	}
	return p
}
