package report

import (
	"cmp"
	"slices"
	"time"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/mesh/verdict"
	"warren/nat/natkind"
	"warren/nat/path"
)

// skewedFor is how long a peer's clock is taken to be wrong after a signal of it was refused for that.
const skewedFor = 2 * time.Minute

// Inquiry is what is known of one member. Times are zero for never.
type Inquiry struct {
	Now      time.Time
	Mesh     *Mesh
	Target   identity.NodeID
	Port     uint16 // of this node's shared socket
	Here     natkind.Self
	HereAt   time.Time // when Here was seen
	There    Told
	Ping     Ping
	Bursts   verdict.Bursts
	Policy   verdict.Policy
	Evidence path.Evidence
	Attempts []verdict.Attempt // the latest, oldest first
}

// Told is what a peer has said of itself, and when it was heard at all.
type Told struct {
	NAT    natkind.Self
	At     time.Time // of NAT
	Heard  time.Time // its last introduction
	Skewed time.Time // when a signal of it was last refused because of its clock
}

// Ping is what came of asking the peer for an answer through the tunnel.
type Ping struct {
	Asked bool
	RTT   time.Duration // 0: no answer
	// Passages are what came of each of its overlay addresses.
	Passages []verdict.Passage
}

// Why says why a member is reached as it is.
func Why(in Inquiry) api.Why {
	m, names := in.Mesh, NamesOf(in.Mesh.Records.Members)
	target := m.member(in.Target)
	in.Here.UDPBlocked = m.Streams.UDP == verdict.UDPBlocked || m.Streams.UDP == verdict.UDPReturning
	vital := m.vital(in.Target)
	w := api.Why{
		Asked:  api.Asked{Pinged: in.Ping.Asked, PingMS: milliseconds(in.Ping.RTT), Silent: silent(in.Ping.Passages)},
		Schema: api.Schema, Time: in.Now, Gossip: vital.Life.String(), GossipAt: seen(vital.Since, in.Now),
	}
	var at verdict.Path
	w.Peer, at = m.peer(target, names, in.Now)
	w.Peer.Power = m.Records.powers()[target.ID]
	w.Here = standing(in.Here, in.HereAt, in.Now)
	w.Here.Name, w.Here.Version = names.Of(m.Self), m.member(m.Self).Record.Version
	w.There = standing(in.There.NAT, in.There.At, in.Now)
	w.There.Name, w.There.Version = target.Name, target.Record.Version
	if in.Bursts.Sent > 0 {
		w.Bursts = bursts(in.Bursts, target.Name)
	}
	e := in.Evidence
	w.Signals = api.Signals{
		Unanswered: e.Unanswered, Since: seen(e.Begun, in.Now), NoRoute: e.NoRoute, Refused: e.Refused, LastHeard: seen(in.There.Heard, in.Now), NextTry: seen(e.NextTry, in.Now),
	}
	if s, up := m.Sessions[in.Target]; up {
		w.Session = &api.Session{Address: s.Remote, LatencyMS: milliseconds(s.RTT)}
		if path.IsVirtual(s.Remote.Addr()) {
			w.Session = &api.Session{Transport: api.TransportTCP, LatencyMS: milliseconds(s.RTT)}
		}
	}
	for _, a := range slices.Backward(in.Attempts) {
		w.Attempts = append(w.Attempts, attempt(a, in.Now))
	}
	for _, c := range slices.Backward(e.Changes) {
		w.Changes = append(w.Changes, api.Change{Time: shown(c.At, in.Now), Reason: c.Reason.Words(names.Of), Path: formerPath(c.Path, names)})
	}
	for _, r := range relays(e) {
		w.Relays = append(w.Relays, api.RelayCheck{Name: names.Of(r.Anchor), Ready: r.Ready, InUse: inUse(e, r)})
	}
	return judged(w, verdict.Judge(in.evidence(at)), names)
}

// evidence is what of it is judged.
func (in *Inquiry) evidence(at verdict.Path) verdict.Evidence {
	m, found := in.Mesh, in.Evidence
	self, target := m.member(m.Self), m.member(in.Target)
	_, session := m.Sessions[in.Target]
	e := verdict.Evidence{
		Signs: m.signs(in.Target, in.Now), Path: at, Since: m.Paths[in.Target].Since, Life: m.vital(in.Target).Life, Session: session, Sessions: len(m.Sessions), Refusals: m.Refusals,
		Here:  verdict.Node{ID: m.Self, Port: in.Port, NAT: in.Here, Version: self.Record.Version, Unsent: m.Unsent},
		There: verdict.Node{ID: in.Target, NAT: in.There.NAT, Version: target.Record.Version, At: target.Record.Endpoints},
		Left:  target.State == roster.Left, NoTunnel: m.NoTunnel[in.Target], UDP: m.Streams.belief(),
		Ping: verdict.Ping{Asked: in.Ping.Asked, Answered: in.Ping.RTT > 0, Passages: in.Ping.Passages}, Bursts: in.Bursts, Policy: in.Policy,
		Signals: verdict.Signals{
			Unanswered: found.Unanswered, Since: found.Begun, NoRoute: found.NoRoute, Refused: found.Refused, Heard: in.There.Heard,
			Skewed: !never(in.There.Skewed) && in.Now.Sub(in.There.Skewed) < skewedFor,
		},
	}
	for _, a := range slices.Backward(in.Attempts) {
		e.Attempts = append(e.Attempts, a)
	}
	for _, mine := range m.Mapped {
		e.Mapped = append(e.Mapped, mine.Addr())
	}
	if best := relays(found); len(best) > 0 {
		e.Relay = best[0].Anchor
	}
	if why := m.Paths[in.Target].Reason; why != "" {
		e.Pathless = why
	}
	return e
}

func bursts(b verdict.Bursts, name string) *api.Bursts {
	return &api.Bursts{Name: name, Size: b.Size, Sent: b.Sent, Singles: b.Singles, Batched: b.Batched, Lost: b.Vanish()}
}

// vital is what others say of a member. Without a session this node hears nobody, and what it thinks of others is its own silence.
func (m *Mesh) vital(id identity.NodeID) Vital {
	v := m.Vitals[id]
	if len(m.Sessions) == 0 {
		v.Life, v.Since = verdict.LifeUnknown, time.Time{}
	}
	return v
}

// belief is what is believed of UDP here.
func (s Streams) belief() verdict.Belief { return verdict.Belief{State: s.UDP, Reason: s.Reason} }

// silent are the addresses that did not answer.
func silent(passages []verdict.Passage) (out []string) {
	for _, p := range passages {
		if !p.Answered {
			out = append(out, p.To.String())
		}
	}
	return out
}

// WhyStatic says why a static peer is reached as it is.
func WhyStatic(a Agent, s Static) api.Why {
	return judged(api.Why{Schema: api.Schema, Time: a.Now, Peer: staticPeer(a, s)}, verdict.JudgeStatic(s.judged(a)), nil)
}

// WhyRevoked says why a node is no member any more.
func WhyRevoked(now time.Time, r Revocation, names Names) api.Why {
	name := cmp.Or(r.Name, r.Target.Short())
	shown := r.show(names)
	w := api.Why{Schema: api.Schema, Time: now, Peer: api.Peer{ID: shown.ID, Name: name}, Revoked: &shown}
	return judged(w, verdict.JudgeRevoked(verdict.RevokedNode{Name: name, By: r.ByName, At: r.Time, Reason: r.Reason}), nil)
}

// judged adds the verdict.
func judged(w api.Why, v verdict.Verdict, names Names) api.Why {
	text := v.Words(names.Of)
	w.Verdict, w.Conclusion, w.Cause, w.Fix = v.Kind.String(), text.Conclusion, text.Cause, text.Fix
	return w
}

// standing puts a node's own word into the API's.
func standing(s natkind.Self, at, now time.Time) api.Standing {
	return api.Standing{
		Known: s != (natkind.Self{}), Time: seen(at, now), Mapping: s.Mapping.String(), Filtering: s.Filtering.String(), PortMapping: s.PortMapping.String(), Ports: s.Ports.String(), UDPBlocked: s.UDPBlocked,
	}
}

func attempt(a verdict.Attempt, now time.Time) api.Attempt {
	out := api.Attempt{Started: shown(a.Started, now), Ended: seen(a.Ended, now), More: a.More, Result: a.Result()}
	for _, p := range a.Ranked() {
		out.Pairs = append(out.Pairs, api.Pair{Remote: p.Remote, Type: p.Type, Sent: p.Sent, Answered: p.Answered, Heard: p.Heard, Result: a.Tell(p)})
	}
	return out
}

// formerPath puts a former path into the API's words; the address of a relay that is gone is not known any more.
func formerPath(p path.Path, names Names) api.Path {
	switch p.Kind {
	case path.Direct:
		return api.Path{Kind: api.PathDirect, Address: p.Addr}
	case path.Relayed:
		return api.Path{Kind: api.PathRelay, Via: names.Of(p.Via)}
	}
	return api.Path{Kind: api.PathNone}
}

func inUse(e path.Evidence, r path.Beside) bool {
	return e.Path.Kind == path.Relayed && e.Path.Via == r.Anchor
}

// relays lists the one in use first, then those that stand by.
func relays(e path.Evidence) []path.Beside {
	rank := func(r path.Beside) int {
		switch {
		case inUse(e, r):
			return 0
		case r.Ready:
			return 1
		}
		return 2
	}
	return slices.SortedStableFunc(slices.Values(e.Relays), func(a, b path.Beside) int { return cmp.Compare(rank(a), rank(b)) })
}
