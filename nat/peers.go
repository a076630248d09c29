package nat

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"time"

	"warren/mesh/identity"
	"warren/nat/due"
	"warren/nat/path"
)

const (
	// maxRunning bounds the attempts that are in their first and busiest phase; slotTime is its length.
	// 64 at once connect 250 peers within a second, and a node whose peers all need a relay still starts
	// more than 40 attempts a second.
	maxRunning = 64
	slotTime   = 1500 * time.Millisecond
	// relayTime bounds an anchor's answer to an allocation.
	relayTime = 5 * time.Second
)

// peer is the shell around one machine. The run loop owns it.
type peer struct {
	due.Slot // in loop.wakes
	id       identity.NodeID
	machine  *path.Machine
	attempt  *attempt
	trials   []*trial                          // the latest attempts, oldest first; what was published of it is not written to
	finds    int                               // attempts in which the mapping towards the peer was looked for
	guesses  guesses                           // at the ports of this node that the peer may send to
	relays   map[identity.NodeID]chan struct{} // by anchor: closed when the last call to it is done
}

func (l *loop) addPeer(now time.Time, id identity.NodeID) {
	cfg := path.Config{Self: l.o.Self, Peer: id, Instance: l.o.Instance, Answers: &l.answers}
	_, _ = rand.Read(cfg.Seed[:]) // never fails
	p := &peer{id: id, relays: make(map[identity.NodeID]chan struct{}), machine: path.New(cfg, now)}
	l.peers[id] = p
	l.step(now, p, path.Local(l.place.local))
	if early, ok := l.parking.take(id); ok {
		l.step(now, p, path.Received{Message: early})
	}
	if met, ok := l.met[id]; ok {
		delete(l.met, id)
		l.step(now, p, path.Met{Addr: met})
	}
	l.step(now, p, path.Routable{})
}

func (l *loop) removePeer(p *peer) {
	l.halt(p)
	l.wakes.Set(p, time.Time{})
	l.paths.drop(p.id)
	delete(l.peers, p.id)
	l.board.hide(p.id)
}

// step feeds a machine and does what it says.
func (l *loop) step(now time.Time, p *peer, in path.Input) {
	out, wake := p.machine.Step(now, in)
	l.board.show(p)
	l.wakes.Set(p, wake)
	trace(l.log, p, in)
	l.carryOut(p, out)
}

// trace logs what happens to a peer, as far as it belongs to introductions and relays. Checks and looks at traffic do not.
func trace(log *slog.Logger, p *peer, in path.Input) {
	if !log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	switch in := in.(type) {
	case path.Received:
		log.Debug("signal received", "id", p.id.Short(), "signal", in.Message)
	case path.Unroutable:
		log.Debug("signal not sent", "id", p.id.Short(), "kind", in.Kind, "reason", in.Text)
	case path.Failed:
		log.Debug("ICE failed", "id", p.id.Short(), "attempt", in.Attempt, "reason", in.Text)
	case path.RelayOpened:
		log.Debug("relay opened", "id", p.id.Short(), "anchor", in.Anchor.Short(), "address", in.Addr, "reason", in.Text)
	case path.Suspect, path.NetworkChanged, path.PeerChanged, path.RelayGone, path.Introduce:
		log.Debug("machine told", "id", p.id.Short(), "kind", fmt.Sprintf("%T", in))
	}
}

// halt ends what a machine has under way.
func (l *loop) halt(p *peer) {
	l.carryOut(p, p.machine.Stop())
}

// carryOut does what a machine said, in order.
func (l *loop) carryOut(p *peer, out []path.Output) {
	for _, o := range out {
		switch o := o.(type) {
		case path.Send:
			l.confirmMapped(o.Message.Kind)
			l.log.Debug("signal sent", "id", p.id.Short(), "signal", o.Message)
			if err := l.o.Signals.Send(p.id, o.Message); err != nil && !o.Message.Straight.IsValid() {
				l.step(time.Now(), p, path.Unroutable{Kind: o.Message.Kind, Text: err.Error()})
			}
		case path.StartICE:
			l.startICE(p, o)
		case path.AddCandidates:
			if p.attempt != nil && p.attempt.start.Attempt == o.Attempt {
				l.prediction.find(p, o.Candidates)
				p.attempt.add(o.Candidates)
			}
		case path.Punch:
			l.prediction.told(time.Now(), l.peers, p, o)
		case path.StopICE:
			l.attempts.stop(time.Now(), p)
		case path.Trust:
			l.mux.trust(p.id, o.Own)
		case path.Check:
			if err := l.mux.check(p.id, o); err != nil {
				l.log.Warn("check not sent", "id", p.id.Short(), "error", err)
			}
		case path.Doubt:
			l.doubt(time.Now(), p, o.Via)
		case path.OpenRelay:
			l.log.Debug("relay asked for", "id", p.id.Short(), "anchor", o.Anchor.Short())
			l.openRelay(p, o.Anchor)
		case path.CloseRelay:
			l.work.inTurn(p, o.Anchor, func(context.Context) { l.o.Relay.Close(o.Addr) })
		case path.Report:
			e := o.Event
			if e.Path.Kind == Direct {
				l.prediction.puncher.won(p.id)
				l.mux.budget.won(e.Path.Addr.Addr())
			}
			l.paths.put(e)
			l.log.Debug("path chosen", "id", p.id.Short(), "path", e.Path.Kind, "address", e.Path.Addr, "reason", e.Reason)
		}
	}
}

// confirmMapped has the mapped addresses checked that an introduction just told to the peer. If they are
// others by now, as after the reboot of a router, the new ones are trickled a round trip later.
func (l *loop) confirmMapped(kind Kind) {
	if now := time.Now(); (kind == KindOffer || kind == KindAnswer) && l.place.prober.refresh(now, probeFresh) {
		l.place.sendProbes(now)
	}
}

// doubt finds out whether more than one path is broken: what this node's address is now, and which sessions live.
func (l *loop) doubt(now time.Time, p *peer, via identity.NodeID) {
	l.log.Debug("path in doubt", "id", p.id.Short())
	if l.place.prober.refresh(now, probeDoubt) {
		l.place.sendProbes(now)
	}
	l.untold.Doubts = addOnce(l.untold.Doubts, Doubt{Peer: p.id, Via: via})
}

// startICE makes an attempt and has it tried when it is its turn. The mapping towards the peer is looked for before anything
// is sent to it.
func (l *loop) startICE(p *peer, s path.StartICE) {
	now := time.Now()
	l.attempts.stop(now, p)
	l.attempts.make(now, p, s, l.place.bases(), l.place.prober.mapped())
	l.board.show(p)
	l.prediction.find(p, s.Candidates)
	l.attempts.queue(now, p)
}

func (l *loop) openRelay(p *peer, anchor identity.NodeID) {
	if l.o.Relay == nil {
		l.step(time.Now(), p, path.RelayOpened{Anchor: anchor, Text: "this node does not use relays"})
		return
	}
	id := p.id
	l.work.inTurn(p, anchor, func(ctx context.Context) {
		limited, cancel := context.WithTimeout(ctx, relayTime)
		defer cancel()
		opened := path.RelayOpened{Anchor: anchor}
		addr, err := l.o.Relay.Open(limited, anchor, id)
		if err != nil {
			opened.Text = err.Error()
		}
		opened.Addr = addr
		l.work.submit(ctx, item{peer: id, in: opened})
	})
}
