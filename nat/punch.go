package nat

import (
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/nat/path"
)

/* The budget of punching
 *
 * A peer that predicts its ports has this node send checks to them: a few, mostly one to three. What a router, or somebody
 * whose address a hostile member names, sees of it is bounded three times, and once more by host, see the budget of attempts:
 *
 *	an attempt    32 ports, each three times in half a second: 96 packets
 *	a peer        two attempts, the next after 4 s, doubled after each one in vain, up to 10 min; from the start again
 *	              after a direct path, or 10 min without any
 *	this node     200 packets a second
 */

const (
	punchFirstPause = 4 * time.Second
	punchLastPause  = 10 * time.Minute
	punchesPerTick  = 20 // each punchTick: 200 a second
	punchTick       = 100 * time.Millisecond
)

// punchTimes are when a port is punched: once is enough, but packets are lost.
var punchTimes = [...]time.Duration{0, 150 * time.Millisecond, 450 * time.Millisecond}

// puncher paces the checks to predicted ports. It is pure: its owner sends for it.
type puncher struct {
	running map[identity.NodeID]*punch
	pauses  map[identity.NodeID]pause
	tick    time.Time // when sent began to count
	sent    int
}

// punch is the work of one attempt.
type punch struct {
	attempt uint64
	ports   []punchPort
}

type punchPort struct {
	to   netip.AddrPort
	from time.Time // told
	sent int
}

// pause keeps an attempt with a peer from following too soon on one in vain.
type pause struct {
	until time.Time
	vain  int
}

func newPuncher() *puncher {
	return &puncher{running: make(map[identity.NodeID]*punch), pauses: make(map[identity.NodeID]pause)}
}

// add takes the ports that a peer has predicted in an attempt; package path bounds their number. It reports false when the
// peer's attempts follow each other too fast.
func (q *puncher) add(now time.Time, peer identity.NodeID, p path.Punch) bool {
	w := q.running[peer]
	if w == nil || w.attempt != p.Attempt {
		q.forget(now)
		last := q.pauses[peer]
		if now.Before(last.until) {
			return false
		}
		next := pause{until: now, vain: last.vain + 1}
		if last.vain > 0 { // an attempt may begin anew at once, with a relay or an address that was not known before
			next.until = now.Add(min(punchFirstPause<<min(last.vain-1, 16), punchLastPause))
		}
		q.pauses[peer] = next
		w = &punch{attempt: p.Attempt}
		q.running[peer] = w
	}
	for _, to := range p.To {
		w.ports = append(w.ports, punchPort{to: to, from: now})
	}
	return true
}

// stop ends the work of a peer's attempt.
func (q *puncher) stop(peer identity.NodeID) { delete(q.running, peer) }

// won notes a direct path to a peer.
func (q *puncher) won(peer identity.NodeID) { delete(q.pauses, peer) }

// forget drops the pauses that were over long ago. A peer that comes and goes gains nothing.
func (q *puncher) forget(now time.Time) {
	for id, p := range q.pauses {
		if now.Sub(p.until) >= punchLastPause {
			delete(q.pauses, id)
		}
	}
}

// due returns the peer's ports to be punched at now. What is beyond the limit of all peers comes later.
func (q *puncher) due(now time.Time) (due map[identity.NodeID][]netip.AddrPort) {
	if now.Sub(q.tick) >= punchTick {
		q.tick, q.sent = now, 0
	}
	for id, w := range q.running {
		for i := range w.ports {
			p := &w.ports[i]
			if p.sent == len(punchTimes) || now.Before(p.from.Add(punchTimes[p.sent])) || q.sent == punchesPerTick {
				continue
			}
			p.sent++
			q.sent++
			if due == nil {
				due = make(map[identity.NodeID][]netip.AddrPort)
			}
			due[id] = append(due[id], p.to)
		}
		if !slices.ContainsFunc(w.ports, func(p punchPort) bool { return p.sent < len(punchTimes) }) {
			w.ports = w.ports[:0]
		}
	}
	return due
}

// wake is the earliest time at which due returns something, zero for never.
func (q *puncher) wake() time.Time {
	var first time.Time
	for _, w := range q.running {
		for _, p := range w.ports {
			if p.sent == len(punchTimes) {
				continue
			}
			if at := p.from.Add(punchTimes[p.sent]); first.IsZero() || at.Before(first) {
				first = at
			}
		}
	}
	if free := q.tick.Add(punchTick); !first.IsZero() && q.sent == punchesPerTick && first.Before(free) {
		return free
	}
	return first
}
