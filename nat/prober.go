package nat

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"warren/nat/natkind"
	"warren/nat/path"
	"warren/nat/stunwire"
)

// Times of probing.
const (
	probeFirst = 100 * time.Millisecond // until the first repetition, doubled after each
	probeTries = 6                      // over about six seconds
	probeRetry = 30 * time.Second       // after a server did not answer
	// probeAgain notices a new public address that no local interface shows.
	probeAgain = time.Minute
	// probeFresh is the age from which an answer is confirmed when an attempt offers it: the peer may have begun it because
	// our router has just got another address, of which an idle node knows nothing yet.
	probeFresh = 2 * time.Second
	// probeDoubt is the same when a path answers no checks: many do at once.
	probeDoubt = time.Second
	// changeBurst and changeEvery bound how often one server may say that this node is elsewhere now, unless another one says so
	// within changeAgreed: each time has all peers told, and looked at. What it says beyond that is a claim, until another one agrees.
	changeBurst  = 3
	changeEvery  = 2 * time.Minute
	changeAgreed = 2 * time.Second
	maxServers   = 8
	maxMapped    = 4
	maxIDs       = 12 // a late answer counts: those of the last round, and of questions in between
)

// mappedAnswer is a STUN server's answer.
type mappedAnswer struct {
	server netip.AddrPort
	id     stunwire.ID
	addr   netip.AddrPort
}

// probe is what is known of and through one STUN server.
type probe struct {
	mapped netip.AddrPort
	seen   time.Time // of mapped
	at     time.Time // of the answer, or of giving up on one
	sent   int
	next   time.Time
	ids    []stunwire.ID // of the last questions without an answer

	moved   time.Time // when it last saw this node elsewhere than before
	changes time.Time // until when its changes would take, one each changeEvery

	claim   netip.AddrPort // where it sees this node, when that is not believed
	claimed time.Time
}

// mayChange reports whether the server may say once more that this node is elsewhere, and counts it.
func (q *probe) mayChange(now time.Time) bool {
	if q.changes.Before(now) {
		q.changes = now
	}
	if q.changes.Sub(now) > (changeBurst-1)*changeEvery {
		return false
	}
	q.changes = q.changes.Add(changeEvery)
	return true
}

// claims reports whether the server has said just now that this node is elsewhere, and was not believed.
func (q *probe) claims(now time.Time) bool {
	return q.claim.IsValid() && now.Sub(q.claimed) < changeAgreed
}

// prober keeps this node's server-reflexive addresses, one cache for all attempts. It is pure: its
// owner sends for it.
type prober struct {
	servers map[netip.AddrPort]*probe
}

// set replaces the servers. Those that stay keep their answers; new ones are due at once.
func (p *prober) set(now time.Time, servers []netip.AddrPort) {
	fresh := make(map[netip.AddrPort]*probe)
	for _, s := range servers {
		if len(fresh) == maxServers {
			break
		}
		if !s.IsValid() || path.IsVirtual(s.Addr()) {
			continue
		}
		fresh[s] = p.servers[s]
		if fresh[s] == nil {
			fresh[s] = &probe{next: now}
		}
	}
	p.servers = fresh
}

// flush forgets all answers: they were learnt in another network.
func (p *prober) flush(now time.Time) {
	for s := range p.servers {
		p.servers[s] = &probe{next: now}
	}
}

// refresh asks anew for the answers that are older than fresh; they stay in use meanwhile. It reports
// whether anything is due.
func (p *prober) refresh(now time.Time, fresh time.Duration) bool {
	asked := false
	for _, q := range p.servers {
		if q.sent == 0 && now.Sub(q.at) >= fresh {
			q.next, asked = now, true
		}
	}
	return asked
}

// ask makes all servers due. Their answers stay in use.
func (p *prober) ask(now time.Time) {
	for _, q := range p.servers {
		q.next = now
	}
}

// due returns the servers to be asked at now, and plans their next times.
func (p *prober) due(now time.Time) []netip.AddrPort {
	var list []netip.AddrPort
	for s, q := range p.servers {
		if q.next.After(now) {
			continue
		}
		list = append(list, s)
		q.next = now.Add(probeFirst << q.sent)
		q.sent++
		if q.sent >= probeTries {
			q.sent, q.at = 0, now
			q.next = now.Add(probeRetry)
		}
	}
	return list
}

func (p *prober) sent(server netip.AddrPort, id stunwire.ID) {
	if q := p.servers[server]; q != nil {
		q.ids = append(q.ids, id)
		q.ids = q.ids[max(0, len(q.ids)-maxIDs):]
	}
}

// answered notes a server's answer. It reports whether it is one to a question of ours, whether the set of mapped
// addresses is another now, and whether this node is elsewhere than before, as far as it can be believed: the sign of a NAT that
// lost its state. Of three servers or more two have to say so: when one does, the others are asked.
func (p *prober) answered(now time.Time, a mappedAnswer) (genuine, changed, moved bool) {
	q := p.servers[a.server]
	if q == nil || !slices.Contains(q.ids, a.id) || !path.Usable(a.addr.Addr()) {
		return false, false, false
	}
	before := p.mapped()
	known, agreed := p.others(now, a.server)
	elsewhere := q.mapped.IsValid() && q.mapped != a.addr
	fresh := probe{mapped: a.addr, seen: now, at: now, next: now.Add(probeAgain), moved: q.moved, changes: q.changes}
	if elsewhere {
		if !agreed && !q.mayChange(now) {
			fresh.mapped, fresh.seen, fresh.claim, fresh.claimed = q.mapped, q.seen, a.addr, now
			*q = fresh
			return true, false, false
		}
		fresh.moved, fresh.changes = now, q.changes
		moved = agreed || known < 2
	}
	*q = fresh
	if elsewhere && !moved {
		p.refresh(now, time.Nanosecond)
	}
	if moved {
		p.believe(now)
	}
	return true, !slices.Equal(before, p.mapped()), moved
}

// believe takes the servers at their word that have claimed just now that this node is elsewhere.
func (p *prober) believe(now time.Time) {
	for _, q := range p.servers {
		if q.claims(now) {
			q.mapped, q.seen, q.moved = q.claim, q.claimed, q.claimed
		}
		q.claim = netip.AddrPort{}
	}
}

// others returns how many other servers have answered, and whether one of them has just seen this node elsewhere than before.
func (p *prober) others(now time.Time, server netip.AddrPort) (known int, moved bool) {
	for s, q := range p.servers {
		if s == server || !q.mapped.IsValid() {
			continue
		}
		known++
		moved = moved || !q.moved.IsZero() && now.Sub(q.moved) < changeAgreed || q.claims(now)
	}
	return known, moved
}

// mapped returns the addresses learnt, in a fixed order: what most servers see comes first.
func (p *prober) mapped() []netip.AddrPort {
	seen := make(map[netip.AddrPort]int)
	for _, q := range p.servers {
		if q.mapped.IsValid() {
			seen[q.mapped]++
		}
	}
	list := slices.SortedFunc(maps.Keys(seen), func(a, b netip.AddrPort) int {
		return cmp.Or(cmp.Compare(seen[b], seen[a]), a.Compare(b))
	})
	return list[:min(len(list), maxMapped)]
}

// sightings returns the answers that are there, in a fixed order.
func (p *prober) sightings() []natkind.Sighting {
	var list []natkind.Sighting
	for server, q := range p.servers {
		if q.mapped.IsValid() {
			list = append(list, natkind.Sighting{Server: server, Mapped: q.mapped, At: q.seen})
		}
	}
	slices.SortFunc(list, func(a, b natkind.Sighting) int { return a.Server.Compare(b.Server) })
	return list
}

// wake is the earliest time at which due returns something, zero for never.
func (p *prober) wake() time.Time {
	var first time.Time
	for _, q := range p.servers {
		if first.IsZero() || q.next.Before(first) {
			first = q.next
		}
	}
	return first
}
