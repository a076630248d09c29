package report

import (
	"cmp"
	"net/netip"
	"slices"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/roster"
)

// Status is the agent as `warren status` shows it.
func Status(a Agent) api.Status {
	out := api.Status{
		Schema: api.Schema, Time: a.Now, Version: a.Version, State: a.State, Since: shown(a.Started, a.Now), Dropped: dropped(a.Dropped),
		Self: api.Self{Interface: a.Interface, Port: a.Port, PublicKey: a.PublicKey}, Warnings: slices.Clone(a.Warnings),
	}
	if a.Mesh != nil {
		a.Mesh.fill(&out, a)
	}
	for _, s := range a.Static {
		out.Peers = append(out.Peers, staticPeer(a, s))
	}
	slices.Sort(out.Warnings)
	return out
}

// dropped puts the counters into one list of named reasons.
func dropped(parts map[string]map[string]uint64) map[string]uint64 {
	out := make(map[string]uint64)
	for part, counts := range parts {
		for reason, n := range counts {
			switch {
			case n == 0:
			case part == "":
				out[reason] += n
			case part == "sessions" && (reason == "forwarded" || reason == "spliced"): // done, not dropped
			default:
				out[part+": "+reason] += n
			}
		}
	}
	return out
}

// fill adds the mesh's part.
func (m *Mesh) fill(out *api.Status, a Agent) {
	r, names, powers := &m.Records, NamesOf(m.Records.Members), m.Records.powers()
	out.Mesh = &api.Mesh{Name: m.Name, ID: m.ID.String(), Prefix4: r.Prefix4, Prefix6: r.Prefix6, Records: r.Count, Syncing: r.Missing}
	out.Mesh.Domain, out.Names = m.Naming.Domain, m.Naming.show()
	for _, other := range r.Members {
		if other.State == roster.Active {
			out.Mesh.Members++
		}
		if other.ID != m.Self {
			p, _ := m.peer(other, names, a.Now)
			p.Power = powers[other.ID]
			out.Peers = append(out.Peers, p)
			continue
		}
		s := &out.Self
		s.ID, s.Name, s.Admin, s.Tags, s.Addresses = other.ID.String(), other.Name, other.Admin, other.Tags, addresses(other)
		if m.NoIPv4 {
			s.Addresses = slices.DeleteFunc(s.Addresses, netip.Addr.Is4)
		}
		s.Power = powers[other.ID]
		s.Anchor, s.Endpoints = len(other.Record.Endpoints) > 0, other.Record.Endpoints
	}
	slices.SortFunc(out.Peers, func(a, b api.Peer) int { return cmp.Compare(a.Name, b.Name) })
	out.Self.Endpoints = m.seenAt(out.Self.Endpoints)
	for _, id := range m.Introducers {
		out.Self.Anchors = append(out.Self.Anchors, names.Of(id))
	}
	out.Relay, out.Streams = m.Relay.show(names, a.Now), m.Streams.Counts.show()
	out.Admins, out.RootKey = r.admins(names), m.RootKey.show()
	out.Invites, out.Revoked = invites(r.Invites, names, a.Now), revocations(r.Revoked, names)
	out.Warnings = append(out.Warnings, m.warnings(names, a.Now)...)
}

// seenAt are the underlay addresses under which this node is seen: those that it announces, then those that NATs make.
func (m *Mesh) seenAt(announced []netip.AddrPort) []netip.AddrPort {
	out := slices.Clone(announced)
	for _, addr := range m.Mapped {
		if !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

func addresses(m roster.Member) (out []netip.Addr) {
	for _, addr := range []netip.Addr{m.Addr4, m.Addr6} {
		if addr.IsValid() {
			out = append(out, addr)
		}
	}
	return out
}

// member returns a member by its ID; a zero one when there is none.
func (m *Mesh) member(id identity.NodeID) roster.Member {
	for _, other := range m.Records.Members {
		if other.ID == id {
			return other
		}
	}
	return roster.Member{}
}
