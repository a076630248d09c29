package tunnel

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/tunnel/filter"
)

// prepare makes the endpoints of the members among the peers, and gives each peer the handle of its own; those of members that
// are no more, or have another key, are gone when it returns. What the device is to do with them has to be in place before
// the table that it returns is published. It is called by the tunnel's run loop only.
func (w *ways) prepare(peers []Peer) (want []Peer, table map[identity.NodeID]*member, err error) {
	before := *w.members.Load()
	want, table = make([]Peer, 0, len(peers)), make(map[identity.NodeID]*member)
	stays := make(map[identity.NodeID]bool, len(peers))
	var errs []error
	for _, p := range peers {
		if !p.ID.IsZero() && w.bind == nil {
			errs = append(errs, fmt.Errorf("set peer %v: these sockets have no endpoints for members", p.PublicKey))
			continue
		}
		want = append(want, p)
		old := before[p.ID]
		stays[p.ID] = old != nil && old.key == p.PublicKey
	}
	if w.bind == nil {
		return want, table, errors.Join(errs...)
	}
	for id, m := range before {
		if !stays[id] {
			w.bind.RemoveEndpoint(m.endpoint)
		}
	}
	var static []netip.AddrPort
	for i, p := range want {
		if p.ID.IsZero() {
			if p.Endpoint.IsValid() {
				static = append(static, p.Endpoint)
			}
			continue
		}
		m := before[p.ID]
		if !stays[p.ID] {
			m = &member{endpoint: w.bind.NewEndpoint(p.PublicKey)}
		}
		if m.key != p.PublicKey || m.controlling != p.Controlling {
			m = &member{id: p.ID, key: p.PublicKey, endpoint: m.endpoint, controlling: p.Controlling}
			m.endpoint.SetControlling(p.Controlling)
		}
		table[p.ID] = m
		want[i].Endpoint = m.endpoint.Handle()
	}
	w.bind.SetStatic(static)
	return want, table, errors.Join(errs...)
}

// publish makes a table the one that counts. What waits for a member that is no more goes.
func (w *ways) publish(table map[identity.NodeID]*member) {
	if maps.Equal(*w.members.Load(), table) {
		return
	}
	w.mu.Lock()
	w.members.Store(&table)
	w.inbox.members = true
	maps.DeleteFunc(w.inbox.ways, func(id identity.NodeID, _ Way) bool { return table[id] == nil })
	maps.DeleteFunc(w.inbox.agreed, func(id identity.NodeID, _ agreement) bool { return table[id] == nil })
	w.mu.Unlock()
	w.poke()
}

// follow takes up the members of a table and forgets the others. A member with another key is a new one to the device, but goes
// by the way that it had.
func (w *ways) follow(table map[identity.NodeID]*member, now time.Time) {
	w.byHandle = make(map[netip.AddrPort]identity.NodeID, len(table))
	for id, p := range w.peers {
		if table[id] == nil {
			w.forget(p)
		}
	}
	for id, m := range table {
		w.byHandle[m.endpoint.Handle()] = id
		p := w.peers[id]
		switch {
		case p == nil:
			w.peers[id] = &followed{member: m}
		case p.endpoint == m.endpoint:
			p.member = m
		default:
			w.unsized.drop(p.id)
			w.busy.Set(p, time.Time{})
			*p = followed{member: m, way: p.way}
			p.endpoint.SetSources(p.way.Sources)
			w.moveTo(p, netip.AddrPort{}, now)
		}
	}
}

func (w *ways) forget(p *followed) {
	delete(w.peers, p.id)
	w.busy.Set(p, time.Time{})
	w.unsized.drop(p.id)
	for _, kind := range []EventKind{Roamed, Stirred, Stale} {
		w.news.drop(newsKey{kind, p.id})
	}
}

// Rules are those of package filter, whose Filter enforces them in the data path (see Options).
type Rules = filter.Rules

// filterPeers are the peers as package filter has to know them.
func filterPeers(want []Peer) []filter.Peer {
	out := make([]filter.Peer, len(want))
	for i, p := range want {
		out[i] = filter.Peer{Key: p.PublicKey, AllowedIPs: p.AllowedIPs}
	}
	return out
}

// latest holds what waits to be taken: of each key the latest value, in the order in which the keys came.
type latest[K comparable, V any] struct {
	order  []K
	values map[K]V
}

func (l *latest[K, V]) put(k K, v V) {
	if l.values == nil {
		l.values = make(map[K]V)
	}
	if _, waits := l.values[k]; !waits {
		l.order = append(l.order, k)
	}
	l.values[k] = v
}

// first returns what has waited longest, and leaves it there.
func (l *latest[K, V]) first() (k K, v V, ok bool) {
	if len(l.order) == 0 {
		return k, v, false
	}
	k = l.order[0]
	return k, l.values[k], true
}

func (l *latest[K, V]) drop(k K) {
	if _, waits := l.values[k]; waits {
		delete(l.values, k)
		if l.order[0] == k {
			l.order = l.order[1:] // what was taken is the first, and the others need not move
			return
		}
		i := slices.Index(l.order, k)
		l.order = slices.Delete(l.order, i, i+1)
	}
}

// unsized is a way whose size of packets is to be looked up.
type unsized struct {
	of  *member
	way netip.AddrPort
}
