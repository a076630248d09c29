package agent

import (
	"context"
	"net/netip"
	"strconv"
	"time"

	"warren/mesh"
	"warren/mesh/api"
	"warren/mesh/report"
	"warren/mesh/verdict"
	"warren/tunnel/filter"
)

// Denials implements api.Backend.
func (b *backend) Denials(context.Context) (api.Denials, error) {
	out := api.Denials{Time: time.Now(), Dropped: b.filter.Dropped()}
	named := make(map[netip.Addr]string)
	if b.parts != nil {
		members := b.parts.records.View().Members
		names := report.NamesOf(members)
		for _, m := range members {
			named[m.Addr4], named[m.Addr6] = names.Of(m.ID), names.Of(m.ID)
		}
	}
	delete(named, netip.Addr{})
	name := func(a netip.Addr) string {
		if n := named[a]; n != "" {
			return n
		}
		return a.String()
	}
	born := b.filter.Born()
	for _, d := range b.filter.Denied() {
		one := api.Denied{
			From: name(d.From), To: name(d.To), Source: d.From, Target: d.To, Protocol: protocolName(d.Protocol), Port: d.Port, Direction: api.DeniedIn,
			Reason: d.Reason.String(), Count: d.Count, First: born.Add(d.First), Last: born.Add(d.Last),
		}
		if d.Direction == filter.Out {
			one.Direction = api.DeniedOut
		}
		out.Denied = append(out.Denied, one)
	}
	return out, nil
}

func protocolName(n uint8) string {
	switch n {
	case 1, 58:
		return "icmp"
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 132:
		return "sctp"
	}
	return strconv.Itoa(int(n))
}

// policy is what the policy says of this node and a member.
func (b *backend) policy(m mesh.Member) verdict.Policy {
	self, _ := b.parts.records.View().Member(b.parts.state.NodeID())
	return verdict.Policy{Bars: !b.filter.Permits(self.Addr6, m.Addr6), BarsBack: !b.filter.Permits(m.Addr6, self.Addr6)}
}

// forbids says in words that the policy lets nothing of this machine reach a member; "": it lets something.
func (b *backend) forbids(m mesh.Member) string {
	p := b.policy(m)
	if !p.Bars {
		return ""
	}
	return verdict.Forbidden{Peer: m.ID, Back: p.BarsBack}.Words(report.NamesOf([]mesh.Member{m}).Of)
}
