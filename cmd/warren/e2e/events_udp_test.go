//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// Events about UDP that is blocked at the home of a: while it lasts, a says "stream" of everybody, and b "relay" of a.

// diversion is an event after which the route is another one.
type diversion struct {
	event
	peers  func(*world) (x, y *Node)
	before func(*world) // what the event begins from; may be nil
	then   string
}

func homes(w *world) (x, y *Node)    { return w.x, w.y }
func toAnchor(w *world) (x, y *Node) { return w.x, w.anchors[0] }

func block(w *world)   { w.homeX.Rule(natlab.UDPBlocked) }
func unblock(w *world) { w.homeX.Rule(natlab.EIMAPDF) }

// reopened undoes block and waits until all is as before.
func reopened(w *world) {
	unblock(w)
	w.connected(w.x, w.y, routeDirect)
	for _, a := range w.anchors {
		w.byTransport(w.x, a, routeDirect, "")
		w.byTransport(a, w.x, routeDirect, "")
	}
}

// blockedFor some seconds is when the way back is no longer tried every second.
func blockedFor(w *world) {
	block(w)
	w.byTransport(w.x, w.y, routeRelay, "tcp")
	time.Sleep(10 * time.Second)
}

// blockedFully waits until a has a stream to each anchor, and a second relay to b in reserve.
func blockedFully(w *world) {
	block(w)
	w.anchored(w.x, w.y)
	for _, a := range w.anchors {
		w.byTransport(w.x, a, routeDirect, "tcp")
	}
	w.byTransport(w.x, w.y, routeRelay, "tcp")
	_, err := w.x.Wait(w.ctx, "a relay in reserve", func(s api.Status) bool {
		p, _ := Peer(s, w.y.Name())
		return p.Path.Standby != ""
	})
	w.must(err)
}

// relaying is the anchor through which a reaches b.
func (w *world) relaying() *Node {
	p, _ := Peer(w.status(w.x), w.y.Name())
	for _, a := range w.anchors {
		if a.Name() == p.Path.Via {
			return a
		}
	}
	w.t.Fatalf("a is relayed by %q, want an anchor", p.Path.Via)
	return nil
}

func reviveBlocked(w *world) {
	for _, n := range w.anchors {
		if n.Agent() == nil {
			w.must(n.Start(w.ctx))
		}
	}
}

func mended(w *world) {
	for _, a := range w.anchors {
		w.Mend(a.Host)
	}
}

func diversionTable() []diversion {
	const nat, direct = natlab.EIMAPDF, routeDirect
	return []diversion{
		{event{"udp-blocked/home", nat, nat, direct, at(block), reopened}, homes, nil, "stream/relay"},
		{event{"udp-blocked/anchor", nat, nat, direct, at(block), reopened}, toAnchor, nil, "stream"},
		{event{"udp-open/home", nat, nat, "stream/relay", at(unblock), nil}, homes, blockedFor, direct},
		{event{"udp-open/anchor", nat, nat, "stream", at(unblock), nil}, toAnchor, blockedFor, direct},
		{event{"anchor-killed/stream", nat, nat, "stream/relay", at(killRelay), reviveBlocked}, homes, blockedFully, "stream/relay"},
		{event{"anchor-cut/stream", nat, nat, "stream/relay", at(func(w *world) { w.Cut(w.relaying().Host) }), mended}, homes, blockedFully, "stream/relay"},
		{event{"anchor-restart/stream", nat, nat, "stream/relay", at(restart((*world).relaying)), nil}, homes, blockedFully, "stream/relay"},
	}
}

// BenchmarkEventsUDP measures what it costs a tunnel in use when UDP is blocked on one side, and when it works again.
func BenchmarkEventsUDP(b *testing.B) {
	var rows []string
	for _, e := range diversionTable() {
		b.Run(e.name, func(b *testing.B) {
			w := newWorld(b, e.x, e.y)
			var all []disturbance
			for b.Loop() {
				for round := range rounds(b) {
					if e.before != nil {
						e.before(w)
					}
					x, y := e.peers(w)
					d := w.divert(x, y, e.want, e.then, eventLimit, func() time.Time { return e.happen(w) })
					w.step("%s, round %d: %v", e.name, round+1, d)
					all = append(all, d)
					if e.after != nil {
						e.after(w)
					}
				}
			}
			rows = append(rows, eventRow(b, e.event, all))
		})
	}
	if len(rows) > 0 {
		fmt.Printf("\n%-24s %-7s %10s %10s %10s %12s %12s   [ms]\n%s\n\n", "event", "route", "outage", "worst", "silent", "again", "worst", strings.Join(rows, "\n"))
	}
}
