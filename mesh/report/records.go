package report

import (
	"time"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
	"warren/nat/relay"
)

// invites lists those that can still be used, and those that were used more often than they allow.
func invites(all []Invite, names Names, now time.Time) (out []api.Invited) {
	for _, i := range all {
		closed := i.Used == i.Terms.Uses || i.Used < i.Terms.Uses && now.After(i.Terms.Expires)
		if i.Revoked || closed {
			continue
		}
		out = append(out, api.Invited{
			ID: i.ID.String(), Uses: i.Terms.Uses, Used: i.Used, Expires: moment(i.Terms.Expires), Admin: i.Terms.Admin, Tags: i.Terms.Tags,
			By: names[identity.NodeID(i.By)],
		})
	}
	return out
}

// admins lists who may invite, revoke and promote.
func (r *Records) admins(names Names) (out []api.Admin) {
	members := make(map[identity.NodeID]roster.Member, len(r.Members))
	for _, m := range r.Members {
		members[m.ID] = m
	}
	for _, a := range r.Admins {
		m, ok := members[a.ID]
		if !ok {
			continue
		}
		shown := api.Admin{ID: a.ID.String(), Name: m.Name, Since: a.Since, By: r.signer(a.By, names), Left: m.State == roster.Left}
		if addrs := addresses(m); len(addrs) > 0 {
			shown.Address = addrs[0]
		}
		if a.Promoted {
			shown.Power = api.PowerPromoted
		}
		out = append(out, shown)
	}
	return out
}

// signer is what the holder of an admin's key, or of the root's, is called.
func (r *Records) signer(key identity.KeyID, names Names) string {
	if key == r.Root {
		return theRoot
	}
	return names.Of(identity.NodeID(key))
}

// powers says what has become of members since they came, of those who are not what they came as.
func (r *Records) powers() map[identity.NodeID]string {
	out := make(map[identity.NodeID]string)
	for _, a := range r.Admins {
		if a.Promoted {
			out[a.ID] = api.PowerPromoted
		}
	}
	for _, revoked := range r.Revoked {
		if revoked.Scope == record.ScopePower {
			out[identity.NodeID(revoked.Target)] = api.PowerDemoted
		}
	}
	return out
}

// show says where the root key is; nil where it is not and never was.
func (k RootKey) show() *api.RootKey {
	if k == (RootKey{}) {
		return nil
	}
	return &api.RootKey{Here: k.Here, Exported: moment(k.Exported)}
}

// revocations lists what was revoked.
func revocations(all []Revocation, names Names) (out []api.Revoked) {
	for _, r := range all {
		out = append(out, r.show(names))
	}
	return out
}

func (r Revocation) show(names Names) api.Revoked {
	kind := "node"
	if r.Invite {
		kind = "invite"
	}
	scope := api.ScopeWhole
	if r.Scope == record.ScopePower {
		scope = api.ScopePower
	}
	return api.Revoked{ID: r.Target.String(), Kind: kind, Scope: scope, Name: r.Name, Time: r.Time, By: names[identity.NodeID(r.By)], Reason: r.Reason}
}

// show says what is forwarded for others; nil when nothing is or was.
func (r Relay) show(names Names, now time.Time) *api.Relay {
	if len(r.Pairs)+len(r.Members) == 0 {
		return nil
	}
	out := &api.Relay{Load: int(r.Load), LimitBPS: 8 * uint64(r.Limit), Pairs: []api.RelayPair{}, Members: []api.RelayMember{}}
	for _, p := range r.Pairs {
		out.Pairs = append(out.Pairs, api.RelayPair{A: names.Of(p.A), B: names.Of(p.B), Joined: p.Joined, FromA: relayed(p.FromA, now), FromB: relayed(p.FromB, now)})
	}
	for _, m := range r.Members {
		out.Members = append(out.Members, api.RelayMember{Name: names.Of(m.ID), Channels: m.Channels, Sent: relayed(m.Sent, now)})
	}
	return out
}

func relayed(t relay.Traffic, now time.Time) api.Relayed {
	return api.Relayed{Packets: t.Packets, Bytes: t.Bytes, Dropped: t.Dropped, Last: seen(t.Last, now)}
}

// show says what has become of connections; nil when there was none.
func (c StreamCounts) show() *api.Streams {
	if c == (StreamCounts{}) {
		return nil
	}
	return &api.Streams{Accepted: c.Accepted, Joins: c.Joins, Refused: c.Refused, Limited: c.Limited, Failed: c.Failed}
}
