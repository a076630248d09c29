package streams

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session"
)

// Stepping the machine, doing what it says, and what follows for the sessions.

// step tells the machine one thing and does what it says.
func (l *loop) step(ctx context.Context, in Input) {
	before, _, _ := l.machine.State()
	var out []Output
	out, l.wake = l.machine.Step(time.Now(), in)
	// A new question makes older answers worthless, so its time is taken before it is asked.
	if state, since, _ := l.machine.State(); state == Trying {
		l.trial = since
	}
	for _, o := range out {
		switch o := o.(type) {
		case Probe:
			l.o.STUN.Probe()
		case Knock:
			l.knock(ctx, o.Serial)
		case OpenStream:
			l.open(ctx, o.Ref)
		case LeaveStream:
			if d := l.held.get(o.Ref); d != nil {
				d.leaving = true // endSessions does the rest, once the sessions are dialled elsewhere
			}
		case CloseStream:
			if d := l.held.get(o.Ref); d != nil {
				delete(l.held.dialled, o.ID)
				d.cancel()
				l.held.end(time.Now(), d.end)
			}
		}
	}
	if state, _, reason := l.machine.State(); state != before {
		l.changed(ctx, before, state, reason)
	}
}

// changed is told that the machine believes something else of UDP now.
func (l *loop) changed(ctx context.Context, before, now State, reason string) {
	level := slog.LevelDebug
	if now == Blocked || before == Returning {
		level = slog.LevelInfo
	}
	l.log.Log(ctx, level, "UDP state changed", "state", now.String(), "reason", reason)
	switch {
	case now == Blocked && before != Returning:
		l.tally.blocks++
	case now == Open && before == Returning:
		l.tally.returned++
	}
}

// follow takes what is so and what is wanted.
func (l *loop) follow(ctx context.Context, d Desired) {
	before := l.want
	l.want = d
	l.o.Server.SetPorts(d.Listen...)
	if d.Network != before.Network {
		l.leaveNetwork()
		l.step(ctx, NetworkChanged{})
	}
	ids := anchorIDs(d.Anchors)
	if !slices.Equal(ids, anchorIDs(before.Anchors)) || d.Private != before.Private {
		l.step(ctx, Anchors{IDs: ids})
	}
	for _, a := range d.Anchors {
		i := slices.IndexFunc(before.Anchors, func(b Anchor) bool { return b.ID == a.ID })
		if i >= 0 && (!slices.Equal(before.Anchors[i].UDP, a.UDP) || !slices.Equal(before.Anchors[i].TCP, a.TCP)) {
			l.step(ctx, Moved{ID: a.ID})
		}
	}
	for id, r := range l.tally.refusals {
		if e, up := d.Sessions[id]; up && e.Since.After(r.At) || !slices.Contains(ids, id) {
			delete(l.tally.refusals, id)
		}
	}
	for id, e := range l.dropped {
		if now, up := d.Sessions[id]; !up || now != e {
			delete(l.dropped, id)
		}
	}
}

func anchorIDs(anchors []Anchor) []identity.NodeID {
	ids := make([]identity.NodeID, len(anchors))
	for i, a := range anchors {
		ids[i] = a.ID
	}
	return ids
}

// leaveNetwork ends the streams whose own address this machine does not have any more. TCP would take long to notice. The far
// side hears nothing of it, and keeps the stream until it sends: who may use what this node has opened is therefore told
// by its session (Snapshot.Ends).
func (l *loop) leaveNetwork() {
	if len(l.held.dialled) == 0 {
		return
	}
	addrs, err := l.hosts()
	if err != nil {
		return // TCP will notice
	}
	ours := func(local netip.Addr) bool {
		return slices.ContainsFunc(addrs, func(a net.Addr) bool {
			prefix, ok := a.(*net.IPNet)
			return ok && prefix.IP.Equal(local.AsSlice())
		})
	}
	for _, d := range l.held.dialled {
		if d.end.local.IsValid() && !ours(d.end.local) {
			l.o.Socket.Detach(d.end.Virtual)
		}
	}
}

// endSessions ends the sessions that are to go another way. None is ended before the other way is what the sessions are
// dialled by (Desired.Targets).
func (l *loop) endSessions() {
	state, _, _ := l.machine.State()
	for id, e := range l.want.Sessions {
		d := l.held.dialled[id]
		switch {
		case l.held.ended(e.Remote):
			l.endSession(id, e, session.CodeLost, "its stream ended") // it would take 40 s to notice
		case d == nil || !d.end.Virtual.IsValid():
		case d.leaving && e.Remote == d.end.Virtual && l.want.Targets[id] != d.end.Virtual:
			l.endSession(id, e, session.CodeUnneeded, "UDP works again")
		case state == Blocked && !d.leaving && l.want.byUDP(id) && l.want.Targets[id] == d.end.Virtual:
			l.endSession(id, e, session.CodeUnresponsive, "UDP is blocked") // left alone it would take long to notice
		}
	}
}

// endSession ends a session once: what is told of it meanwhile may be older than its end, and the one that takes its place
// must not be hit.
func (l *loop) endSession(id identity.NodeID, e Session, code uint64, reason string) {
	if before, done := l.dropped[id]; done && before == e {
		return
	}
	l.dropped[id] = e
	l.o.Sessions.Drop(id, code, reason)
}
