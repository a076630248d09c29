package node

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"warren/mesh"
	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/place"
	"warren/mesh/roster"
	"warren/nat"
	"warren/nat/natkind"
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
	e := &evidence{self: status.Self.Name, port: b.socket.Port(), key: status.Self.PublicKey}
	e.Schema, e.Time = api.Schema, status.Time
	if i := slices.IndexFunc(status.Peers, func(p api.Peer) bool { return p.Static && p.Name == req.Peer }); i >= 0 {
		e.Peer = status.Peers[i]
		e.endpoint = b.staticEndpoint(req.Peer)
		return e.judged(), nil
	}
	m, err := b.inMesh()
	if err != nil {
		return api.Why{}, err
	}
	target, err := m.find(req.Peer)
	if err != nil {
		if r, ok := revokedNode(status.Revoked, req.Peer); ok {
			e.Peer, e.Revoked = api.Peer{ID: r.ID, Name: cmp.Or(r.Name, r.ID[:min(10, len(r.ID))])}, &r
			return e.judged(), nil
		}
		return api.Why{}, err
	}
	if target.ID == m.self {
		return api.Why{}, &api.Error{Code: api.CodeRefused, Message: target.Name + " is this node", Hint: "what its network does: warren netcheck"}
	}
	i := slices.IndexFunc(status.Peers, func(p api.Peer) bool { return p.ID == target.ID.String() })
	if i < 0 {
		return api.Why{}, refused("%s became a member just now: ask again", target.Name)
	}
	e.Peer = status.Peers[i]
	if e.Peer.State != api.PeerLeft {
		b.look(ctx, e, target)
	}
	m.gather(e, target)
	return e.judged(), nil
}

// look finds out what is not known: whether the peer answers through the path that it has, and, without a direct one, what the
// NAT here does.
func (b *backend) look(ctx context.Context, e *evidence, target roster.Member) {
	m := b.member
	var tasks sync.WaitGroup
	defer tasks.Wait()
	if m.outlook.vague() && e.Peer.Path.Kind != api.PathDirect {
		tasks.Go(func() { m.measure(ctx) })
	}
	if e.Peer.Path.Kind == api.PathNone {
		return
	}
	e.Pinged = true
	if rtt, err := probe(ctx, target.Addr6, pingTime); err == nil {
		e.PingMS = milliseconds(rtt)
	} else if status, err := b.Status(ctx); err == nil {
		// The question was traffic without an answer: an idle path that was dead is known to be so by now.
		for _, p := range status.Peers {
			if p.ID == e.Peer.ID {
				e.Peer, e.Time = p, status.Time
			}
		}
	}
}

// judged adds the verdict.
func (e *evidence) judged() api.Why {
	v := e.judge()
	w := e.Why
	w.Verdict, w.Conclusion, w.Cause, w.Fix = v.word, v.conclusion, v.cause, v.fix
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
func (m *member) gather(e *evidence, target roster.Member) {
	table := m.routes.Load()
	e.sessions, e.refusals = len(table.sessions), strings.Join(m.refusals(), "; ")

	here, at := m.standing()
	e.here, e.Here = here, standingOf(here, at)
	e.Here.Name, e.Here.Version = e.self, m.ownVersion()
	told := m.outlook.of(target.ID)
	e.there, e.There = told.nat, standingOf(told.nat, told.at)
	e.There.Name, e.There.Version = e.Peer.Name, e.Peer.Version
	e.skewed = !told.skewed.IsZero() && e.Time.Sub(told.skewed) < 2*time.Minute
	e.Signals.LastHeard = moment(told.heard)
	lastTx, _ := m.activity(target.ID)
	e.sending = e.Time.Sub(lastTx) < 10*time.Second

	life, since := m.mesh.Alive(target.ID)
	e.Gossip, e.GossipAt = gossipWord(life), moment(since)
	if remote, up := m.sessions.Remote(target.ID); up {
		s := api.Session{Address: remote}
		if bind.IsVirtual(remote.Addr()) {
			s = api.Session{Transport: api.TransportTCP}
		}
		if rtt, ok := m.sessions.RTT(target.ID); ok {
			s.LatencyMS = milliseconds(rtt)
		}
		e.Session = &s
	}
	if found, ok := m.nat.Evidence(target.ID); ok {
		m.introduced(e, found)
	}
	e.peerPort = portOf(e.Attempts)
	for _, mine := range m.nat.Mapped() {
		for _, a := range e.Attempts {
			e.sameNAT = e.sameNAT || slices.ContainsFunc(a.Pairs, func(p api.Pair) bool { return p.Type == "srflx" && p.Remote.Addr() == mine.Addr() })
		}
	}
}

// introduced takes what nat knows.
func (m *member) introduced(e *evidence, found nat.Evidence) {
	e.Signals.Unanswered, e.Signals.NoRoute, e.Signals.Refused = found.Unanswered, found.NoRoute, found.Refused
	e.Signals.Since, e.Signals.NextTry = moment(found.Begun), moment(found.NextTry)
	for _, trial := range slices.Backward(found.Trials) {
		e.Attempts = append(e.Attempts, attemptOf(trial))
	}
	names := m.shortNames()
	for _, c := range slices.Backward(found.Changes) {
		e.Changes = append(e.Changes, api.Change{Time: c.At, Reason: inNames(c.Reason, names), Path: pathOf(c.Path, m.nameOf)})
	}
	for _, r := range found.Relays {
		e.Relays = append(e.Relays, api.RelayCheck{Name: m.nameOf(r.Anchor), Ready: r.Ready, InUse: found.Path.Kind == nat.Relayed && found.Path.Via == r.Anchor})
	}
	slices.SortStableFunc(e.Relays, func(a, b api.RelayCheck) int {
		switch {
		case a.InUse != b.InUse && a.InUse, a.InUse == b.InUse && a.Ready && !b.Ready:
			return -1
		case a.InUse != b.InUse, b.Ready && !a.Ready:
			return 1
		}
		return 0
	})
}

// shortID finds what may be the short ID of a node in a text.
var shortID = regexp.MustCompile(`\b[a-z2-7]{10}\b`)

// inNames puts names in the place of the short IDs in a text of nat, which knows no others.
func inNames(text string, names map[string]string) string {
	return shortID.ReplaceAllStringFunc(text, func(short string) string { return cmp.Or(names[short], short) })
}

// shortNames are the names of members by their short IDs.
func (m *member) shortNames() map[string]string {
	names := make(map[string]string)
	for _, other := range m.mesh.View().Members {
		names[other.ID.Short()] = other.Name
	}
	return names
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

func attemptOf(t nat.Attempt) api.Attempt {
	a := api.Attempt{Started: t.Started, Ended: moment(t.Ended), More: t.More}
	answered := 0
	for _, p := range t.Pairs {
		pair := api.Pair{Remote: p.Remote, Type: p.Type, Sent: p.Sent, Answered: p.Answered, Heard: p.Heard}
		pair.Result = pairResult(pair, p.Unable, p.Remote == t.Nominated, t.Ended.IsZero())
		a.Pairs = append(a.Pairs, pair)
		if p.Answered > 0 {
			answered++
		}
	}
	// What answered comes first, then what was worked on the most.
	slices.SortStableFunc(a.Pairs, func(x, y api.Pair) int {
		return cmp.Or(cmp.Compare(y.Answered, x.Answered), cmp.Compare(y.Heard, x.Heard), cmp.Compare(y.Sent, x.Sent))
	})
	switch {
	case t.Nominated.IsValid():
		a.Result = "found " + t.Nominated.String()
	case t.Ended.IsZero():
		a.Result = "runs"
	case len(t.Pairs) == 0:
		a.Result = "the peer has told no address"
	default:
		a.Result = fmt.Sprintf("%d of %s answered", answered, counted(len(t.Pairs), "address"))
	}
	return a
}

// standingOf puts a node's own word into the API's.
func standingOf(s natkind.Self, at time.Time) api.Standing {
	return api.Standing{
		Known: s != (natkind.Self{}), Time: moment(at), Mapping: s.Mapping.String(), Filtering: s.Filtering.String(), PortMapping: s.PortMapping.String(), Ports: s.Ports.String(), UDPBlocked: s.UDPBlocked,
	}
}

// portOf is the port of the shared socket of a peer, which its host candidates show.
func portOf(attempts []api.Attempt) uint16 {
	for _, a := range attempts {
		for _, p := range a.Pairs {
			if p.Type == "host" {
				return p.Remote.Port()
			}
		}
	}
	return place.DefaultPort
}

func gossipWord(life mesh.Liveness) string {
	switch life {
	case mesh.Alive:
		return "alive"
	case mesh.Dead:
		return "dead"
	}
	return "unknown"
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
