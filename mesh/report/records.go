package report

import (
	"time"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/nat/relay"
)

// invites lists those that can still be used.
func invites(all []Invite, names Names, now time.Time) (out []api.Invited) {
	for _, i := range all {
		if i.Revoked || i.Used >= i.Terms.Uses || now.After(i.Terms.Expires) {
			continue
		}
		out = append(out, api.Invited{
			ID: i.ID.String(), Uses: i.Terms.Uses, Used: i.Used, Expires: moment(i.Terms.Expires), Admin: i.Terms.Admin, Tags: i.Terms.Tags,
			By: names[identity.NodeID(i.By)],
		})
	}
	return out
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
	return api.Revoked{ID: r.Target.String(), Kind: kind, Name: r.Name, Time: r.Time, By: names[identity.NodeID(r.By)], Reason: r.Reason}
}

// show says what is forwarded for others; nil when nothing is or was.
func (r Relay) show(names Names) *api.Relay {
	if len(r.Pairs)+len(r.Members) == 0 {
		return nil
	}
	out := &api.Relay{Load: int(r.Load), LimitBPS: 8 * uint64(r.Limit), Pairs: []api.RelayPair{}, Members: []api.RelayMember{}}
	for _, p := range r.Pairs {
		out.Pairs = append(out.Pairs, api.RelayPair{A: names.Of(p.A), B: names.Of(p.B), Joined: p.Joined, FromA: relayed(p.FromA), FromB: relayed(p.FromB)})
	}
	for _, m := range r.Members {
		out.Members = append(out.Members, api.RelayMember{Name: names.Of(m.ID), Channels: m.Channels, Sent: relayed(m.Sent)})
	}
	return out
}

func relayed(t relay.Traffic) api.Relayed {
	return api.Relayed{Packets: t.Packets, Bytes: t.Bytes, Dropped: t.Dropped, Last: moment(t.Last)}
}

// show says what has become of connections; nil when there was none.
func (c StreamCounts) show() *api.Streams {
	if c == (StreamCounts{}) {
		return nil
	}
	return &api.Streams{Accepted: c.Accepted, Joins: c.Joins, Refused: c.Refused, Limited: c.Limited, Failed: c.Failed}
}
