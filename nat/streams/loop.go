package streams

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"warren/mesh/identity"
	"warren/nat/limit"
)

// loop is the one goroutine that judges. All of it is owned by that goroutine.
type loop struct {
	// constant
	o      Options
	log    *slog.Logger
	inbox  *inbox
	holder *holder
	board  *board
	hosts  func() ([]net.Addr, error)

	machine *Machine
	wake    time.Time // of the machine
	trial   time.Time // when the last trial began
	want    Desired
	udp     map[identity.NodeID]bool // anchors with a session by UDP, as the machine was told
	dials   dials
	held    held
	dropped map[identity.NodeID]Session // that were ended, and are still in want
	tally   tally

	accepted limit.Lines[netip.Prefix] // of streams
}

func newLoop(s *Streams) *loop {
	return &loop{
		o: s.o, log: s.o.Logger, inbox: s.inbox, holder: s.holder, board: s.board, hosts: s.hosts,
		machine: NewMachine(s.jitter), udp: make(map[identity.NodeID]bool), dials: dials{attempts: make(map[identity.NodeID]int)},
		held: newHeld(), dropped: make(map[identity.NodeID]Session), tally: tally{refusals: make(map[identity.NodeID]Refusal)},
	}
}

// run turns until ctx ends or the server fails. It reports whether the server has not ended yet.
func (l *loop) run(ctx context.Context, served <-chan error) (running bool, err error) {
	wake := time.Now().Add(time.Hour)
	timer := time.NewTimer(time.Until(wake))
	defer timer.Stop()
	for {
		late := time.Duration(0)
		select {
		case <-ctx.Done():
			return true, nil
		case err := <-served:
			if ctx.Err() != nil {
				return false, nil
			}
			return false, fmt.Errorf("run streams: %w", err)
		case <-l.inbox.poked:
		case <-timer.C:
			late = time.Since(wake)
		}
		l.turn(ctx, time.Now(), late)
		if wake = l.wakeAt(time.Now()); wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(wake))
		}
	}
}

// turn takes what has been left in the inbox, and what time brings, in this order:
//
//  1. A change of the network comes first: what the rest says is then measured against the trial that it begins.
//  2. What proves that UDP works comes before the machine is told the time, which may let it conclude the contrary.
//  3. Sessions are ended last, by what is then believed: a session that has just come up by UDP while it was taken to be
//     blocked is evidence, and not in the way.
func (l *loop) turn(ctx context.Context, now time.Time, late time.Duration) {
	in := l.inbox.take()
	if in.desired != nil {
		l.follow(ctx, *in.desired)
	}
	l.seeSessions(ctx)
	for _, n := range in.news {
		l.streamChanged(ctx, n)
	}
	l.weigh(ctx, now, in)
	l.step(ctx, Tick{Busy: l.busy(now), Late: late})
	l.endSessions()
	l.publish()
}

// wakeAt returns when the loop is to turn next by itself; zero: not at all. It is never earlier than now, or what is due at once would be
// taken to be late.
func (l *loop) wakeAt(now time.Time) time.Time {
	wake := l.wake
	soonest := func(t time.Time) {
		if wake.IsZero() || t.Before(wake) {
			wake = t
		}
	}
	if l.mayDoubtDials() {
		soonest(l.dials.seen.Add(dialsSeenEvery))
	}
	if state, _, _ := l.machine.State(); state == Blocked {
		soonest(now.Add(blockedLookEvery))
	}
	if !wake.IsZero() && wake.Before(now) {
		return now
	}
	return wake
}
