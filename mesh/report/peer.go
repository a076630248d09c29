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
func (m *Mesh) peer(other roster.Member, names Names) (api.Peer, verdict.Path) {
	way, traffic := m.Paths[other.ID], m.Traffic[other.ID]
	p := api.Peer{
		ID: other.ID.String(), Name: other.Name, Addresses: addresses(other), Routes: other.Routes,
		PublicKey: base64.StdEncoding.EncodeToString(other.Record.WireGuardKey[:]), Path: api.Path{Kind: api.PathNone}, Version: other.Record.Version,
		Admin: other.Admin, Anchor: len(other.Record.Endpoints) > 0, Tags: other.Tags, Origin: api.Origin{AdmittedBy: names[other.AdmittedBy]},
		RxBytes: traffic.RxBytes, TxBytes: traffic.TxBytes, LastHandshake: moment(traffic.LastHandshake), Since: moment(way.Since), PathMTU: traffic.PathMTU,
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
	at := m.Path(other.ID)
	p.Path = m.shown(other.ID, at, names)
	rtt, reason := way.RTT, way.Reason.Words(names.Of)
	if at.Kind == verdict.DirectPath && at.TCP {
		rtt, reason = m.Sessions[other.ID].RTT, "UDP does not get through"
	}
	switch {
	case at.Kind == verdict.NoPath && way.Attempts > 2:
		p.State, p.Reason = api.PeerDown, reason
	case at.Kind == verdict.NoPath:
		p.State, p.Reason = api.PeerConnecting, reason
	case p.LastHandshake == nil:
		p.State, p.Reason, p.LatencyMS = api.PeerConnecting, "a path is there; the WireGuard handshake is not done yet", milliseconds(rtt)
	default:
		p.State, p.Reason, p.LatencyMS = api.PeerUp, reason, milliseconds(rtt)
	}
	return p, at
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
func staticPeer(s Static, now time.Time) api.Peer {
	t := s.Traffic
	p := api.Peer{
		Name: s.Name, Static: true, PublicKey: s.PublicKey, State: api.PeerIdle, Path: api.Path{Kind: api.PathNone},
		RxBytes: t.RxBytes, TxBytes: t.TxBytes, LastHandshake: moment(t.LastHandshake),
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
	switch {
	case now.Sub(t.LastHandshake) < verdict.IdleAfter:
		p.State = api.PeerUp
	case !t.Endpoint.IsValid() && s.Endpoint != "":
		p.Reason = "the address of " + s.Endpoint + " is not known: the name does not resolve"
	case !t.Endpoint.IsValid():
		p.Reason = "it has not called, and no endpoint is configured to call it at"
	case never(t.LastHandshake):
		p.Reason = "no handshake yet: it does not answer, or nothing was sent to it"
	default:
		p.Reason = "nothing was exchanged for a while"
	}
	return p
}
