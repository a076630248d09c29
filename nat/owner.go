package nat

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/nat/due"
	"warren/nat/path"
)

const noDeadline = 365 * 24 * time.Hour

// loop is Run: the one goroutine that steps the machines and starts all others. What has no other heading is its own.
type loop struct {
	// Constant.
	o      Options
	log    *slog.Logger
	mux    *mux
	inbox  <-chan item
	events chan<- Event
	news   chan<- News

	// With locks of their own.
	requests *requests
	board    *board

	work       *work
	peers      map[identity.NodeID]*peer
	wanted     []identity.NodeID // as SetPeers last said
	wakes      due.Queue[*peer]
	place      place
	attempts   attempts
	prediction prediction
	parking    parking
	answers    path.Answers                       // of the machines
	met        map[identity.NodeID]netip.AddrPort // of Options, not yet tried
	paths      outbox                             // for Events
	untold     News                               // for News
}

func newLoop(ctx context.Context, n *NAT) *loop {
	w := &work{spawn: func(task func(ctx context.Context)) { n.tasks.Go(func() { task(ctx) }) }, inbox: n.inbox}
	l := &loop{
		o: n.o, log: n.log, mux: n.mux, inbox: n.inbox, events: n.events, news: n.news, requests: n.requests, board: n.board,
		work:     w,
		peers:    make(map[identity.NodeID]*peer),
		place:    place{mux: n.mux},
		attempts: newAttempts(w, n.mux, n.log),
		parking:  parking{waiting: make(map[identity.NodeID]parked)},
		met:      maps.Clone(n.o.Met),
		paths:    outbox{pending: make(map[identity.NodeID]Event)},
	}
	l.prediction = prediction{work: w, mux: n.mux, log: n.log, sockets: n.o.Sockets, place: &l.place, puncher: newPuncher()}
	return l
}

// Run works until ctx ends and returns when every goroutine is gone. It may be called once.
func (n *NAT) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l := newLoop(ctx, n)
	if err := n.o.STUN.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("run nat: %w", err)
	}
	var readErr error
	n.tasks.Go(func() {
		if err := n.mux.read(ctx); err != nil {
			readErr = err
			cancel(err)
		}
	})
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		timer.Reset(time.Until(l.nextWake()))
		l.turn(ctx, timer)
	}
	for _, p := range l.peers {
		l.halt(p)
	}
	_ = n.o.STUN.SetReadDeadline(time.Now())
	n.tasks.Wait()
	if readErr != nil {
		return fmt.Errorf("run nat: %w", readErr)
	}
	return nil
}

// turn waits for one thing and does it.
func (l *loop) turn(ctx context.Context, timer *time.Timer) {
	var paths chan<- Event
	first, waiting := l.paths.first()
	if waiting {
		paths = l.events
	}
	var news chan<- News
	if !l.untold.empty() {
		news = l.news
	}
	select {
	case <-ctx.Done():
	case paths <- first:
		l.paths.drop(first.Peer)
	case news <- l.untold:
		l.untold = News{}
	case <-l.requests.poked:
		l.reconcile(time.Now())
	case it := <-l.inbox:
		select {
		case <-l.requests.poked: // what this node knows of itself comes first: a signal is answered with it
			l.reconcile(time.Now())
		default:
		}
		l.take(time.Now(), it)
	case <-timer.C:
		for range len(l.inbox) { // what has come is no silence
			l.take(time.Now(), <-l.inbox)
		}
		l.tick(time.Now())
	}
}

// nextWake is the earliest time at which something is due.
func (l *loop) nextWake() time.Time {
	next := time.Now().Add(noDeadline)
	times := []time.Time{l.place.prober.wake(), l.attempts.slots.wake(), l.prediction.puncher.wake(), l.parking.wake(), l.wakes.Next()}
	for _, t := range times {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	return next
}

// tick does what is due.
func (l *loop) tick(now time.Time) {
	for p, ok := l.wakes.Due(now); ok; p, ok = l.wakes.Due(now) {
		tx, rx := l.o.Traffic.Activity(p.id)
		l.step(now, p, path.Wake{LastTx: tx, LastRx: rx, Late: now.Sub(l.wakes.Next())})
	}
	l.place.sendProbes(now)
	l.attempts.startQueued(now)
	l.prediction.punchDue(now, l.peers)
	for _, id := range l.parking.due(now) {
		l.refuse(id)
	}
}

// take handles one item of the inbox.
func (l *loop) take(now time.Time, it item) {
	if it.mapped != nil {
		l.mappedAnswered(now, *it.mapped)
		return
	}
	if it.sampled != nil {
		l.sampled(now, *it.sampled)
		return
	}
	p := l.peers[it.peer]
	if p != nil {
		l.step(now, p, it.in)
		return
	}
	received, ok := it.in.(path.Received)
	if !ok || received.Message.Kind != KindAsk && received.Message.Kind != KindOffer {
		return
	}
	if !l.parking.put(now, it.peer, received.Message) {
		l.refuse(it.peer)
	}
}

// refuse tells a member that it is none of our peers. Without a route it will not hear, and ask again.
func (l *loop) refuse(id identity.NodeID) {
	if err := l.o.Signals.Send(id, Message{Kind: KindRefuse, Instance: l.o.Instance}); err != nil {
		l.log.Debug("introduction not refused", "id", id.Short(), "error", err)
	}
}

// reconcile does what the methods asked for.
func (l *loop) reconcile(now time.Time) {
	d := l.requests.take()
	l.untold.Arrived = append(l.untold.Arrived, l.mux.arrivals.take()...)
	if d.local != nil {
		l.know(now, d.local)
	}
	if d.probe {
		l.place.prober.ask(now)
		l.place.sendProbes(now)
	}
	if d.setPeers {
		l.wanted = d.peers
	}
	if l.place.own != nil && (d.setPeers || d.local != nil) {
		l.setPeers(now)
	}
	l.each(false, d.stirred, func(p *peer) {
		tx, rx := l.o.Traffic.Activity(p.id)
		l.step(now, p, path.Stirred{LastTx: tx, LastRx: rx})
	})
	for anchor := range d.gone {
		l.each(true, nil, func(p *peer) { l.step(now, p, path.RelayGone{Anchor: anchor}) })
	}
	l.each(false, d.changed, func(p *peer) { l.step(now, p, path.PeerChanged{}) })
	l.each(d.checkAll, d.check, func(p *peer) { l.step(now, p, path.Suspect{}) })
	if d.everyReady || len(d.ready) > 0 {
		l.each(true, nil, func(p *peer) { l.step(now, p, path.Routable{Perhaps: !d.everyReady && !d.ready[p.id]}) })
	}
	l.each(false, d.introduce, func(p *peer) { l.step(now, p, path.Introduce{}) })
}

// each does something for all peers, or for those named only: what is asked for one is not to cost more the more peers there are.
func (l *loop) each(all bool, named map[identity.NodeID]bool, do func(*peer)) {
	if all {
		for _, p := range l.peers {
			do(p)
		}
		return
	}
	for id := range named {
		if p := l.peers[id]; p != nil {
			do(p)
		}
	}
}

// setPeers touches only the difference.
func (l *loop) setPeers(now time.Time) {
	wanted := make(map[identity.NodeID]bool, len(l.wanted))
	for _, id := range l.wanted {
		wanted[id] = true
	}
	for id, p := range l.peers {
		if !wanted[id] {
			l.removePeer(p)
		}
	}
	for _, id := range l.wanted {
		if l.peers[id] == nil && id != l.o.Self {
			l.addPeer(now, id)
		}
	}
}

// know takes what the node knows of itself now.
func (l *loop) know(now time.Time, own *Local) {
	before := l.place.own
	l.place.own = own
	l.mux.overlay.Store(&own.Overlay)
	if before == nil || before.Network != own.Network {
		l.networkChanged(now, before != nil)
		return
	}
	l.place.setServers(now)
	l.place.sendProbes(now)
	l.prediction.learn(now)
	l.localChanged(now)
}

// networkChanged looks at everything anew. introduce is false at the start, when there are no peers.
func (l *loop) networkChanged(now time.Time, introduce bool) {
	l.place.setServers(now)
	l.place.collect(l.o.Relay != nil)
	same := l.place.stands() && introduce
	if introduce {
		l.log.Info("network changed", "addresses", len(l.place.hosts), "same", same)
	}
	if same {
		l.place.prober.refresh(now, 0)
	} else {
		l.place.prober.flush(now)
		l.prediction.predictor.reset()
		l.publishMapped()
		l.place.collect(l.o.Relay != nil)
	}
	for _, p := range l.peers {
		l.step(now, p, path.NetworkChanged{Local: l.place.local, Same: same})
	}
	l.place.sendProbes(now)
	if !same {
		l.prediction.learn(now)
	}
}

// mappedAnswered trickles a new address of ours. A server that sees us elsewhere than before means that
// the NAT has lost its state: all paths are suspect.
func (l *loop) mappedAnswered(now time.Time, a mappedAnswer) {
	genuine, changed, moved := l.place.prober.answered(now, a)
	if moved {
		l.prediction.predictor.reset()
	}
	if genuine {
		l.untold.Answered = addOnce(l.untold.Answered, a.server)
		l.publishMapped()
		l.prediction.learn(now)
	}
	if changed {
		l.localChanged(now)
	}
	if !moved {
		return
	}
	l.log.Info("mapped address changed", "address", a.addr, "server", a.server)
	l.untold.Moved = true
	for _, p := range l.peers {
		l.step(now, p, path.Suspect{})
	}
}

func (l *loop) publishMapped() {
	p := &l.place.prober
	l.board.see(sight{mapped: p.mapped(), sightings: p.sightings(), ports: l.prediction.predictor.ports})
}

func (l *loop) localChanged(now time.Time) {
	before := l.place.local
	l.place.collect(l.o.Relay != nil)
	after := l.place.local
	if slices.Equal(before.Candidates, after.Candidates) && slices.Equal(before.Relays, after.Relays) && before.NoUDP == after.NoUDP &&
		slices.Equal(before.Overlay, after.Overlay) && sameDialable(before.Dialable, after.Dialable) {
		return
	}
	for _, p := range l.peers {
		l.step(now, p, after)
	}
}
