package streams

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"warren/mesh/identity"
	"warren/nat/path"
	"warren/tunnel/bind"
)

// Signs for and against UDP, as others tell them and as the loop finds them.

const (
	// blockedLookEvery is how often the loop looks whether packets go over streams.
	blockedLookEvery = 4 * time.Second
	// busyFor is how lately a packet must have been sent for that.
	busyFor = 10 * time.Second
	// underway is how long after the beginning of a trial packets may come in that were sent before it.
	underway = 50 * time.Millisecond
	// dialsSeenEvery is how often failed dials are looked for while nothing else says that UDP works: often enough that each of them
	// is seen, for the shortest takes three times as long.
	dialsSeenEvery = 500 * time.Millisecond
)

// inbox is what other goroutines leave for the loop. Of Desired and of answers the last one counts, what is silent or lost
// coalesces by member, and of news there are two for each stream.
type inbox struct {
	poked chan struct{} // constant: a value when there is something to take

	mu      sync.Mutex // guards the rest
	private bool       // of the last Desired
	waiting signs
}

// signs are taken all at once.
type signs struct {
	desired  *Desired
	news     []news
	answered time.Time // the last answer that counts; zero: none
	knocked  *Knocked  // the last one; nil: none
	silent   map[identity.NodeID]bool
	lost     map[lostSession]bool
}

// lostSession is a session that ended in silence.
type lostSession struct {
	id     identity.NodeID
	remote netip.AddrPort
}

func newInbox() *inbox { return &inbox{poked: make(chan struct{}, 1)} }

func (b *inbox) poke() {
	select {
	case b.poked <- struct{}{}:
	default:
	}
}

func (b *inbox) set(d Desired) {
	b.mu.Lock()
	b.waiting.desired, b.private = &d, d.Private
	b.mu.Unlock()
	b.poke()
}

func (b *inbox) tell(n news) {
	b.mu.Lock()
	b.waiting.news = append(b.waiting.news, n)
	b.mu.Unlock()
	b.poke()
}

// answer does not wake the loop for an address that proves nothing.
func (b *inbox) answer(now time.Time, server netip.AddrPort) {
	b.mu.Lock()
	private := b.private
	b.mu.Unlock()
	if !Counts(server.Addr(), private) {
		return
	}
	b.mu.Lock()
	b.waiting.answered = now
	b.mu.Unlock()
	b.poke()
}

func (b *inbox) knock(k Knocked) {
	b.mu.Lock()
	if b.waiting.knocked == nil || b.waiting.knocked.Serial < k.Serial { // an older one means nothing
		b.waiting.knocked = &k
	}
	b.mu.Unlock()
	b.poke()
}

func (b *inbox) silence(peer identity.NodeID) {
	b.mu.Lock()
	if b.waiting.silent == nil {
		b.waiting.silent = make(map[identity.NodeID]bool)
	}
	b.waiting.silent[peer] = true
	b.mu.Unlock()
	b.poke()
}

func (b *inbox) lose(id identity.NodeID, remote netip.AddrPort) {
	b.mu.Lock()
	if b.waiting.lost == nil {
		b.waiting.lost = make(map[lostSession]bool)
	}
	b.waiting.lost[lostSession{id, remote}] = true
	b.mu.Unlock()
	b.poke()
}

func (b *inbox) take() signs {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.waiting
	b.waiting = signs{}
	return out
}

// weigh tells the machine what the signs prove.
func (l *loop) weigh(ctx context.Context, now time.Time, in signs) {
	for lost := range in.lost {
		switch {
		case bind.IsStream(lost.remote.Addr()):
			l.o.Socket.Detach(lost.remote) // silence is evidence against the way that the session went
		case l.want.isAnchor(lost.id) && Counts(lost.remote.Addr(), l.want.Private):
			l.step(ctx, Doubt{})
		}
	}
	for id := range in.silent {
		if l.want.byInternet(l.want.Paths[id]) {
			l.step(ctx, Doubt{})
			break
		}
	}
	// The trial that this turn may have begun has heard nobody yet.
	if state, since, _ := l.machine.State(); state == Trying && l.peerHeard(since.Add(underway)) {
		l.step(ctx, PeerAnswered{})
	}
	// An answer from before the trial is one to an older question, perhaps of another network.
	if !in.answered.IsZero() && !in.answered.Before(l.trial) {
		l.step(ctx, Answered{})
	}
	if in.knocked != nil {
		l.step(ctx, *in.knocked)
	}
	l.seeDials(ctx, now)
}

// seeSessions tells the machine which sessions with anchors go by UDP, as far as it is new.
func (l *loop) seeSessions(ctx context.Context) {
	for id := range l.udp {
		if !l.want.isAnchor(id) || !l.want.byUDP(id) {
			delete(l.udp, id)
			l.step(ctx, SessionDown{ID: id})
		}
	}
	state, since, _ := l.machine.State()
	for _, a := range l.want.Anchors {
		// A session that was there before UDP was doubted proves nothing.
		if !l.udp[a.ID] && l.want.byUDP(a.ID) && (state == Open || l.want.Sessions[a.ID].Since.After(since)) {
			l.udp[a.ID] = true
			l.step(ctx, SessionUp{ID: a.ID})
		}
	}
}

func (d *Desired) isAnchor(id identity.NodeID) bool {
	return slices.ContainsFunc(d.Anchors, func(a Anchor) bool { return a.ID == id })
}

// byUDP reports whether there is a session with a member over the Internet by UDP.
func (d *Desired) byUDP(id identity.NodeID) bool {
	e, up := d.Sessions[id]
	return up && Counts(e.Remote.Addr(), d.Private)
}

// byInternet reports whether a path goes by UDP to addresses that count: straight, or to the relay.
func (d *Desired) byInternet(p path.Path) bool {
	switch p.Kind {
	case path.Direct:
		return Counts(p.Addr.Addr(), d.Private)
	case path.Relayed:
		return d.byUDP(p.Via)
	}
	return false
}

// peerHeard reports whether a peer has been heard by UDP since then.
func (l *loop) peerHeard(since time.Time) bool {
	for id, p := range l.want.Paths {
		if p.Kind != path.Direct || !l.want.byInternet(p) {
			continue
		}
		// What came by another way than the path says nothing about UDP.
		if a, way := l.o.Traffic.Activity(id); way == p.Addr && a.LastRx.After(since) {
			return true
		}
	}
	return false
}

// busy reports whether packets go over streams, as far as that matters.
func (l *loop) busy(now time.Time) bool {
	if state, _, _ := l.machine.State(); state != Blocked {
		return false
	}
	for id, p := range l.want.Paths {
		relayed := p.Kind == path.Relayed && bind.IsStream(l.want.Sessions[p.Via].Remote.Addr())
		if a, way := l.o.Traffic.Activity(id); (relayed || bind.IsStream(way.Addr())) && now.Sub(a.LastTx) < busyFor {
			return true
		}
	}
	return false
}

// mostKnocked bounds the anchors that are knocked at: the first of them may be gone.
const mostKnocked = 3

// knock dials some anchors by UDP beside what there is, and leaves what came of it in the inbox.
func (l *loop) knock(ctx context.Context, serial uint64) {
	open := make(chan bool, mostKnocked)
	asked := 0
	for _, a := range l.want.Anchors {
		addrs := l.want.counting(a.UDP)
		if len(addrs) == 0 || asked == mostKnocked {
			continue
		}
		asked++
		l.holder.work.Go(func() { open <- l.o.Sessions.Knock(ctx, a.ID, addrs) == nil })
	}
	l.holder.work.Go(func() {
		told := Knocked{Serial: serial}
		for range asked {
			told.Open = <-open || told.Open
		}
		if ctx.Err() == nil {
			l.inbox.knock(told)
		}
	})
}

// dials is what was seen of dialling anchors by UDP.
type dials struct {
	attempts map[identity.NodeID]int // that failed, and that the machine knows of or need not know of
	seen     time.Time               // when that was looked at
}

// mayDoubtDials reports whether failed dials are the only evidence.
func (l *loop) mayDoubtDials() bool {
	state, _, _ := l.machine.State()
	return state == Open && len(l.want.Anchors) > 0 && len(l.udp) == 0
}

// seeDials tells the machine of each dial of an anchor that ended without an answer, one in each look. Dials of a time in which they
// are no evidence are passed over. Those that end during a trial wait for its end: they are the next question.
func (l *loop) seeDials(ctx context.Context, now time.Time) {
	state, _, _ := l.machine.State()
	if state == Trying && len(l.udp) == 0 {
		return
	}
	may := l.mayDoubtDials()
	if may && now.Sub(l.dials.seen) < dialsSeenEvery {
		return
	}
	l.dials.seen = now
	for _, a := range l.want.Anchors {
		attempts, silent := l.o.Sessions.Dials(a.ID)
		before := l.dials.attempts[a.ID]
		l.dials.attempts[a.ID] = attempts
		if !may || attempts <= before || !silent {
			continue
		}
		l.step(ctx, DialFailed{ID: a.ID})
		if may = l.mayDoubtDials(); !may {
			return // the others are asked about when that is decided
		}
	}
}
