package report

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/mesh/verdict"
	"warren/nat/natkind"
	"warren/nat/natprobe"
	"warren/nat/portmap"
	"warren/nat/ranges"
	"warren/nat/reach"
)

// maxAnchors bounds the anchors that a netcheck lists and connects to.
const maxAnchors = 8

// webPort is where a captive portal answers in everybody's place.
const webPort = 80

// Network is this node's network as it was just measured.
type Network struct {
	Started time.Time
	Took    time.Duration
	Name    string // of this node
	Port    uint16 // of the shared socket
	Hosts   []netip.Addr
	IPv4    Measurement
	IPv6    Measurement
	Routers []portmap.RouterStatus // none when they are not asked, as configured
	Reach   []reach.Candidate
	Anchors []Anchor
	Streams Streams
	Unsent  []verdict.Unsent
	Bursts  map[identity.NodeID]verdict.Bursts // to anchors
	Page    string                             // what a look for a web page at PageAt has found; "" for nothing
}

// Measurement is what was found out about one address family.
type Measurement struct {
	Report natprobe.Report
	Err    error // no socket could be opened
	Seen   []netip.AddrPort
}

// Anchor is one anchor as seen from here.
type Anchor struct {
	ID      identity.NodeID
	Name    string
	Address netip.AddrPort // at which it is looked for, a public one where it has one
	Session bool           // a control session is up
	RTT     time.Duration  // of the session; 0: not known
	Look    verdict.Look   // by TCP
}

// Anchors lists the anchors that are to be looked at, those with a session first.
func (m *Mesh) Anchors() (out []Anchor) {
	for _, other := range m.Records.Members {
		if other.ID == m.Self || other.State != roster.Active || len(other.Record.Endpoints) == 0 {
			continue
		}
		a := Anchor{ID: other.ID, Name: other.Name, Address: other.Record.Endpoints[0]}
		if public := ranges.PublicOf(other.Record.Endpoints); len(public) > 0 {
			a.Address = public[0]
		}
		s, up := m.Sessions[other.ID]
		a.Session, a.RTT = up, s.RTT
		out = append(out, a)
	}
	slices.SortStableFunc(out, func(a, b Anchor) int {
		switch {
		case a.Session != b.Session && a.Session:
			return -1
		case a.Session != b.Session:
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out[:min(len(out), maxAnchors)]
}

// Public reports whether the anchor is on the Internet: only such a one is looked at by TCP, and for web pages.
func (a Anchor) Public() bool { return ranges.IsPublic(a.Address.Addr()) }

// PageAt is where a web page is to be looked for before Netcheck is called; false when that would tell nothing.
func (n Network) PageAt() (netip.AddrPort, bool) {
	if _, sure := verdict.JudgePortal(n.facts()); sure {
		return netip.AddrPort{}, false
	}
	i := slices.IndexFunc(n.Anchors, Anchor.Public) // one is enough, and the time is short
	if i < 0 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(n.Anchors[i].Address.Addr(), webPort), true
}

// Netcheck is the network as `warren netcheck` shows it.
func Netcheck(n Network) api.Netcheck {
	facts := n.facts()
	facts.Portal, _ = verdict.JudgePortal(facts)
	if _, unsure := n.PageAt(); unsure {
		facts.Portal = facts.Portal.PageAt(n.Page)
	}
	v := verdict.JudgeNetwork(facts)
	out := api.Netcheck{
		Schema: api.Schema, Time: n.Started, TookMS: milliseconds(n.Took), Name: n.Name, Port: n.Port, Verdict: v.Kind.String(),
		IPv4: n.IPv4.show(facts.IPv4, n.Hosts), IPv6: n.IPv6.show(facts.IPv6, n.Hosts), Portal: api.Portal(facts.Portal),
		Streams: api.StreamUse{State: n.Streams.State, InUse: facts.Streams, Since: moment(n.Streams.Since), Reason: n.Streams.Reason},
	}
	out.Conclusion, out.Advice = v.Words()
	if n.Streams.UDP == verdict.UDPUsed {
		out.Streams.Reason = ""
	}
	for _, a := range n.Anchors {
		if b := n.Bursts[a.ID]; b.Sent > 0 {
			out.Bursts = append(out.Bursts, *bursts(b, a.Name))
		}
	}
	for _, r := range n.Routers {
		out.Routers = append(out.Routers, router(r))
	}
	for _, r := range n.Reach {
		out.Reachable = append(out.Reachable, api.Reachable{Address: r.Addr, State: string(r.State)})
	}
	for _, a := range n.Anchors {
		out.Anchors = append(out.Anchors, api.AnchorCheck{
			Name: a.Name, Address: a.Address, Session: a.Session, SessionMS: milliseconds(a.RTT), STUNMS: milliseconds(n.stunTime(a.ID)), TCP: a.Look.TCP.String(),
		})
	}
	return out
}

// facts is what of it is judged.
func (n *Network) facts() verdict.Network {
	f := verdict.Network{Port: n.Port, IPv4: n.IPv4.facts(true, n.Hosts), IPv6: n.IPv6.facts(false, n.Hosts), Streams: n.Streams.Blocked != ""}
	var anchors []netip.AddrPort
	for _, a := range n.Anchors {
		anchors = append(anchors, a.Address)
	}
	if f.Unsent = verdict.Filtered(n.Unsent); len(f.Unsent) == 0 {
		f.Unsent = verdict.RefusedTo(n.Unsent, anchors...)
	}
	if i := slices.IndexFunc(n.Reach, func(c reach.Candidate) bool { return c.State == reach.Reachable }); i >= 0 {
		f.Open = n.Reach[i].Addr
	}
	for _, b := range n.Bursts {
		f.Batches = f.Batches || b.Vanish()
	}
	for _, r := range n.Routers {
		f.Routers = append(f.Routers, routerFacts(r))
	}
	for _, a := range n.Anchors {
		f.Looks = append(f.Looks, a.Look)
	}
	return f
}

// stunTime is the round trip of the measurement to an anchor, the shorter of both families; 0: no answer.
func (n *Network) stunTime(id identity.NodeID) (rtt time.Duration) {
	for _, m := range []Measurement{n.IPv4, n.IPv6} {
		for _, a := range m.Report.Answers {
			if a.Server.ID == id && a.Mapped.IsValid() && (rtt == 0 || a.RTT < rtt) {
				rtt = a.RTT
			}
		}
	}
	return rtt
}

func (m Measurement) facts(v4 bool, hosts []netip.Addr) verdict.Family {
	f := verdict.Family{V4: v4, Asked: len(m.Report.Answers), Mapping: m.Report.Mapping, Filtering: m.Report.Filtering}
	f.Present = slices.ContainsFunc(hosts, func(a netip.Addr) bool { return a.Is4() == v4 })
	if m.Err != nil {
		f.Trouble = m.Err.Error()
	}
	for _, a := range m.Report.Answers {
		if a.Mapped.IsValid() {
			f.Answered++
		}
	}
	return f
}

// show puts a family into the API's words.
func (m Measurement) show(facts verdict.Family, hosts []netip.Addr) api.Family {
	f := api.Family{
		UDP: facts.UDP().String(), Mapping: natkind.MappingUnknown.String(), Filtering: natkind.FilteringUnknown.String(),
		Asked: facts.Asked, Answered: facts.Answered, Reason: say(facts.Lack(), nil),
	}
	for _, addr := range hosts {
		if addr.Is4() == facts.V4 {
			f.Addresses = append(f.Addresses, addr)
		}
	}
	if facts.UDP() != verdict.UDPWorks {
		return f
	}
	f.Mapping, f.Filtering = facts.Mapping.String(), facts.Filtering.String()
	for _, addr := range m.Seen {
		if !slices.Contains(f.Seen, addr) {
			f.Seen = append(f.Seen, addr)
		}
	}
	kept := m.Report.PortKept()
	f.PortKept = &kept
	if m.Report.Hairpin != natkind.Untested {
		works := m.Report.Hairpin == natkind.Arrived
		f.Hairpin = &works
	}
	return f
}

// router puts what a router said into the API's words.
func router(r portmap.RouterStatus) api.Router {
	out := api.Router{Gateway: r.Gateway, Remark: r.Remark}
	for _, p := range r.Protocols {
		out.Protocols = append(out.Protocols, api.RouterProtocol{Name: p.Name, State: string(p.State), Reason: p.Reason})
	}
	if m := r.Mapping; m != nil {
		out.Mapping = &api.PortMapping{Protocol: m.Protocol, External: m.External, Public: m.Public(), Expires: moment(m.Expires)}
	}
	return out
}

func routerFacts(r portmap.RouterStatus) verdict.Router {
	f := verdict.Router{Gateway: r.Gateway}
	if m := r.Mapping; m != nil {
		f.Mapped, f.External, f.Public = true, m.External, m.Public()
	}
	if i := slices.IndexFunc(r.Protocols, func(p portmap.ProtocolStatus) bool { return p.State == portmap.Refused }); i >= 0 {
		f.RefusedBy, f.Reason = r.Protocols[i].Name, r.Protocols[i].Reason
	}
	return f
}
