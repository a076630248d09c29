package node

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh"
	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/mesh/verdict"
	"warren/nat"
	"warren/nat/natkind"
	"warren/nat/path"
	"warren/tunnel/bind"
)

// pingTime is enough for the path machine to give up a path that carries nothing: 1 s until it is in doubt, 1 s of checks.
const pingTime = 2500 * time.Millisecond

// Why gathers what is known about one peer, and judges it. Where no direct path leads to it and this network has not been
// measured lately, that is done first.
func (b *backend) Why(ctx context.Context, req api.WhyRequest) (api.Why, error) {
	status, err := b.Status(ctx)
	if err != nil {
		return api.Why{}, err
	}
	if i := slices.IndexFunc(status.Peers, func(p api.Peer) bool { return p.Static && p.Name == req.Peer }); i >= 0 {
		return b.whyStatic(status, status.Peers[i]), nil
	}
	m, err := b.inMesh()
	if err != nil {
		return api.Why{}, err
	}
	target, err := m.find(req.Peer)
	if err != nil {
		if r, ok := revokedNode(status.Revoked, req.Peer); ok {
			return m.whyRevoked(status, r), nil
		}
		return api.Why{}, err
	}
	if target.ID == m.self {
		return api.Why{}, &api.Error{Code: api.CodeRefused, Message: target.Name + " is this node", Hint: "what its network does: warren netcheck"}
	}
	c := &inquiry{}
	b.look(ctx, c, target)
	m.gather(c, target)
	return judged(c.Why, verdict.Judge(c.evidence), m.nameOf), nil
}

// inquiry is what is known of one peer: what is shown, and what is judged.
type inquiry struct {
	api.Why
	evidence verdict.Evidence
}

// whyStatic judges a static peer.
func (b *backend) whyStatic(status api.Status, peer api.Peer) api.Why {
	return judged(api.Why{Schema: api.Schema, Time: status.Time, Peer: peer}, verdict.JudgeStatic(verdict.StaticPeer{
		Now: status.Time, Name: peer.Name, Endpoint: b.staticEndpoint(peer.Name), Addr: peer.Path.Address, LastHandshake: timeOf(peer.LastHandshake),
		RxBytes: peer.RxBytes, TxBytes: peer.TxBytes, Port: b.socket.Port(), PublicKey: status.Self.PublicKey,
	}), nil)
}

// whyRevoked judges a node that is a member no more.
func (m *member) whyRevoked(status api.Status, r api.Revoked) api.Why {
	name := cmp.Or(r.Name, r.ID[:min(10, len(r.ID))])
	return judged(api.Why{Schema: api.Schema, Time: status.Time, Peer: api.Peer{ID: r.ID, Name: name}, Revoked: &r},
		verdict.JudgeRevoked(verdict.RevokedNode{Name: name, By: r.By, At: r.Time, Reason: r.Reason}), nil)
}

// look finds out what is not known: whether the peer answers through the path that it has, and, without a direct one, what the
// NAT here does.
func (b *backend) look(ctx context.Context, c *inquiry, target roster.Member) {
	m := b.member
	b.row(c, target)
	path := c.evidence.Path.Kind
	if target.State == roster.Left {
		return
	}
	var tasks sync.WaitGroup
	defer tasks.Wait()
	if m.outlook.vague() && path != verdict.DirectPath {
		tasks.Go(func() { m.measure(ctx) })
	}
	if path == verdict.NoPath {
		return
	}
	c.Pinged = true
	rtt, err := probe(ctx, target.Addr6, pingTime)
	if err != nil {
		b.row(c, target) // it was traffic without an answer: an idle path that was dead is known to be so by now
		return
	}
	c.PingMS = milliseconds(rtt)
}

// row takes what status would show of the peer now.
func (b *backend) row(c *inquiry, target roster.Member) {
	m := b.member
	stats, _ := b.tunnel.Snapshot()
	c.Schema, c.Time = api.Schema, time.Now()
	c.Peer, c.evidence.Path = m.peerStatus(target, m.nat.Snapshot()[target.ID], stats[wgtypes.Key(target.Record.WireGuardKey)], m.names(), m.routes.Load().streams)
}

// judged adds the verdict.
func judged(w api.Why, v verdict.Verdict, names verdict.Names) api.Why {
	text := v.Words(names)
	w.Verdict, w.Conclusion, w.Cause, w.Fix = v.Kind.String(), text.Conclusion, text.Cause, text.Fix
	return w
}

// staticEndpoint is the endpoint of a static peer as configured.
func (b *backend) staticEndpoint(name string) string {
	b.status.mu.Lock()
	defer b.status.mu.Unlock()
	for _, s := range b.status.facts.settings.Static {
		if s.Name == name {
			return s.Endpoint
		}
	}
	return ""
}

// revokedNode finds a node that is a member no more by its last name or the start of its ID.
func revokedNode(revoked []api.Revoked, text string) (api.Revoked, bool) {
	for _, r := range revoked {
		if r.Kind == "node" && (r.Name == text || len(text) >= 4 && strings.HasPrefix(r.ID, strings.ToLower(text))) {
			return r, true
		}
	}
	return api.Revoked{}, false
}

// gather collects what the owners know of a member.
func (m *member) gather(c *inquiry, target roster.Member) {
	table := m.routes.Load()
	e := &c.evidence
	e.Now, e.Left = c.Time, target.State == roster.Left
	e.Since, e.LastHandshake = timeOf(c.Peer.Since), timeOf(c.Peer.LastHandshake)
	e.Ping = verdict.Ping{Asked: c.Pinged, Answered: c.PingMS > 0}
	e.Sessions, e.Refusals = len(table.sessions), m.refusals()

	here, at := m.standing()
	e.Here = verdict.Node{ID: m.self, Port: m.socket.Port(), NAT: here, Version: m.ownVersion()}
	c.Here = standingOf(here, at)
	c.Here.Name, c.Here.Version = m.nameOf(m.self), e.Here.Version
	told := m.outlook.of(target.ID)
	e.There = verdict.Node{ID: target.ID, NAT: told.nat, Version: target.Record.Version}
	c.There = standingOf(told.nat, told.at)
	c.There.Name, c.There.Version = target.Name, target.Record.Version
	e.Signals.Heard, e.Signals.Skewed = told.heard, !told.skewed.IsZero() && c.Time.Sub(told.skewed) < 2*time.Minute
	c.Signals.LastHeard = moment(told.heard)
	lastTx, _ := m.activity(target.ID)
	e.Sending = c.Time.Sub(lastTx) < 10*time.Second

	life, since := m.mesh.Alive(target.ID)
	e.Life = lifeOf(life)
	c.Gossip, c.GossipAt = e.Life.String(), moment(since)
	if remote, up := m.sessions.Remote(target.ID); up {
		s := api.Session{Address: remote}
		if bind.IsVirtual(remote.Addr()) {
			s = api.Session{Transport: api.TransportTCP}
		}
		if rtt, ok := m.sessions.RTT(target.ID); ok {
			s.LatencyMS = milliseconds(rtt)
		}
		c.Session, e.Session = &s, true
	}
	for _, mine := range m.nat.Mapped() {
		e.Mapped = append(e.Mapped, mine.Addr())
	}
	if found, ok := m.nat.Evidence(target.ID); ok {
		m.introduced(c, found)
	}
	if c.Peer.Reason != "" {
		e.Pathless = verdict.Plain(c.Peer.Reason)
	}
}

// introduced takes what nat knows.
func (m *member) introduced(c *inquiry, found nat.Evidence) {
	s := &c.evidence.Signals
	s.Unanswered, s.NoRoute, s.Refused, s.Since = found.Unanswered, found.NoRoute, found.Refused, found.Begun
	c.Signals.Unanswered, c.Signals.NoRoute, c.Signals.Refused = found.Unanswered, found.NoRoute, found.Refused
	c.Signals.Since, c.Signals.NextTry = moment(found.Begun), moment(found.NextTry)
	for _, trial := range slices.Backward(found.Trials) {
		a := trialOf(trial)
		c.evidence.Attempts = append(c.evidence.Attempts, a)
		c.Attempts = append(c.Attempts, attemptOf(a))
	}
	for _, one := range slices.Backward(found.Changes) {
		c.Changes = append(c.Changes, api.Change{Time: one.At, Reason: one.Reason.Words(m.nameOf), Path: pathOf(one.Path, m.nameOf)})
	}
	inUse := func(r path.Beside) bool { return found.Path.Kind == nat.Relayed && found.Path.Via == r.Anchor }
	slices.SortStableFunc(found.Relays, func(a, b path.Beside) int {
		switch {
		case inUse(a) != inUse(b) && inUse(a), inUse(a) == inUse(b) && a.Ready && !b.Ready:
			return -1
		case inUse(a) != inUse(b), b.Ready && !a.Ready:
			return 1
		}
		return 0
	})
	for i, r := range found.Relays {
		c.Relays = append(c.Relays, api.RelayCheck{Name: m.nameOf(r.Anchor), Ready: r.Ready, InUse: inUse(r)})
		if i == 0 {
			c.evidence.Relay = r.Anchor
		}
	}
}

// pathOf puts a former path into the API's words; the address of a relay that is gone is not known any more.
func pathOf(p nat.Path, names func(identity.NodeID) string) api.Path {
	switch p.Kind {
	case nat.Direct:
		return api.Path{Kind: api.PathDirect, Address: p.Addr}
	case nat.Relayed:
		return api.Path{Kind: api.PathRelay, Via: names(p.Via)}
	}
	return api.Path{Kind: api.PathNone}
}

// trialOf is an attempt of nat's for a verdict.
func trialOf(t nat.Attempt) verdict.Attempt {
	a := verdict.Attempt{Started: t.Started, Ended: t.Ended, Nominated: t.Nominated, More: t.More}
	for _, p := range t.Pairs {
		a.Pairs = append(a.Pairs, verdict.Pair(p))
	}
	return a
}

func attemptOf(t verdict.Attempt) api.Attempt {
	a := api.Attempt{Started: t.Started, Ended: moment(t.Ended), More: t.More, Result: t.Result()}
	for _, p := range t.Ranked() {
		a.Pairs = append(a.Pairs, api.Pair{Remote: p.Remote, Type: p.Type, Sent: p.Sent, Answered: p.Answered, Heard: p.Heard, Result: t.Tell(p)})
	}
	return a
}

// standingOf puts a node's own word into the API's.
func standingOf(s natkind.Self, at time.Time) api.Standing {
	return api.Standing{
		Known: s != (natkind.Self{}), Time: moment(at), Mapping: s.Mapping.String(), Filtering: s.Filtering.String(), PortMapping: s.PortMapping.String(), Ports: s.Ports.String(), UDPBlocked: s.UDPBlocked,
	}
}

func lifeOf(l mesh.Liveness) verdict.Life {
	switch l {
	case mesh.Alive:
		return verdict.Alive
	case mesh.Dead:
		return verdict.Dead
	}
	return verdict.LifeUnknown
}

// timeOf is the reverse of moment.
func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// ownVersion is the version in this node's own record, as the others see it.
func (m *member) ownVersion() string {
	self, _ := m.mesh.View().Member(m.self)
	return self.Record.Version
}

// near lists up to three names that the text may have been meant for.
func near(text string, names []string) (out []string) {
	type guess struct {
		name string
		far  int
	}
	var guesses []guess
	text = strings.ToLower(text)
	for _, name := range names {
		far := distance(text, name)
		if len(text) > 1 && (strings.HasPrefix(name, text) || strings.HasPrefix(text, name)) {
			far = min(far, 1)
		}
		if far <= min(2, max(1, len(text)/2)) {
			guesses = append(guesses, guess{name, far})
		}
	}
	slices.SortFunc(guesses, func(a, b guess) int { return cmp.Or(cmp.Compare(a.far, b.far), cmp.Compare(a.name, b.name)) })
	for _, g := range guesses[:min(3, len(guesses))] {
		out = append(out, g.name)
	}
	return out
}

// distance is Levenshtein's: the least number of bytes to insert, remove or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
