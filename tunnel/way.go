package tunnel

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/identity"
	"warren/nat/due"
	"warren/tunnel/bind"
	"warren/tunnel/osnet"
)

/* The ways of the members
 *
 * Where the packets to a member go is chosen above this package (SetWay). What follows from that is seen to here, by one
 * goroutine that owns all of it:
 *
 *	SetWay, Agreed, Conclude ─▶ inbox ─▶ loop ─▶ the member's endpoint (its path), handshakes of the device
 *	bind.Strays ─▶ findRoamers ─▶ loop ─▶ Roamed      (roam.go)
 *	bind.Stirs ──────────────────▶ loop ─▶ Stirred
 *	timers ──────────────────────▶ loop ─▶ Stale, the next try of a handshake (handshake.go)
 *	loop ─▶ sizeWays ─▶ the size of packets by the new way (mtu.go)
 *
 * What may wait for the kernel or for the device's lock, finding a roamer and sizing a way, has goroutines of its own beside
 * the loop, so that no handshake waits for it.
 */

// Way is where the packets to a member go.
type Way struct {
	Addr      netip.AddrPort   // direct, or the virtual address of a relay channel or a stream; zero: none
	Sources   []netip.AddrPort // beside Addr, where the member's packets may come from; proved, see bind.Endpoint.SetSources
	Restarted bool             // the member may have lost its session keys: a handshake is due even when the address is the same
}

// EventKind says what has come to light about a member.
type EventKind uint8

const (
	// Roamed: WireGuard has authenticated the member from an address that was not chosen (Addr). Packets to it go there
	// for two seconds; whoever chooses ways should look at the one it chose.
	Roamed EventKind = iota + 1
	// Stirred: packets leave for the member after a pause of a second or more.
	Stirred
	// Stale: the member's way carries packets one way, while WireGuard agrees on no keys: a new introduction is due. It
	// comes when all tries of a handshake were in vain, and again once a minute at most as long as that lasts.
	Stale
)

// Event is news of a member.
type Event struct {
	Kind EventKind
	ID   identity.NodeID
	Addr netip.AddrPort // of Roamed: from where; else zero
}

// Bind is the socket of a device that gives each member an endpoint of its own, whose path can be moved. *bind.Bind is one.
type Bind interface {
	conn.Bind
	NewEndpoint(key [32]byte) *bind.Endpoint
	RemoveEndpoint(*bind.Endpoint)
	SetStatic(addrs []netip.AddrPort)
	Strays() <-chan netip.AddrPort
	Stirs() <-chan netip.AddrPort
	Exact(on bool)
}

// wireGuard is what the ways ask of the device. What is asked about a member whose endpoint is removed does nothing: its key may be
// another node's by now.
type wireGuard interface {
	// Initiate starts a handshake with a peer now, unless one was started within the last five seconds (WireGuard's
	// RekeyTimeout). fresh says that the peer has restarted and lost its session: the session is then given up
	// on this side too, packets wait for the new one, and the five seconds do not count. False says that the device has the
	// response to the last one, so that it must not be told to start another (bind/answers.go).
	Initiate(m *member, fresh bool) (began bool)
	// Confirm sends an empty packet to a peer, if none waits to be sent: whoever answered a handshake uses the new keys
	// only once a packet under them has come in (WireGuard, section 5.4.5).
	Confirm(m *member)
	LastHandshake(m *member) time.Time
	// SetEndpoint has the device send to the member's endpoint again, wherever it has roamed to.
	SetEndpoint(m *member)
	// Endpoints reads from the whole device where it sends to. It may wait.
	Endpoints() (map[wgtypes.Key]netip.AddrPort, error)
	// SetPath says what size of packets the way to a peer has to be asked about. It may wait.
	SetPath(m *member, p path)
}

// ways looks after the ways of all members.
type ways struct {
	// constant after newWays
	log     *slog.Logger
	bind    Bind          // nil: there are no members
	wake    chan struct{} // of capacity 1: there is something in the inbox
	events  chan Event    // unbuffered: what waits for its reader waits in news
	roamers chan roamer
	links   chan unsized
	linkMTU func(netip.Addr) (int, error) // osnet's, but in tests

	// atomic
	members atomic.Pointer[map[identity.NodeID]*member] // an immutable table, replaced under mu

	// guarded by mu
	mu    sync.Mutex
	inbox inbox

	// owned by the run loop
	device   wireGuard // set before the other goroutines start, which use it too
	peers    map[identity.NodeID]*followed
	byHandle map[netip.AddrPort]identity.NodeID
	busy     due.Queue[*followed] // those that are to be looked at
	news     latest[newsKey, netip.AddrPort]
	unsized  latest[identity.NodeID, unsized]
}

// member is what is constant about a member. A change of it makes another one.
type member struct {
	id          identity.NodeID
	key         wgtypes.Key
	endpoint    *bind.Endpoint
	controlling bool
}

// followed is what the run loop keeps of a member.
type followed struct {
	*member
	due.Slot // in ways.busy
	way      Way
	instance [8]byte // that answered last
	shake    awaited
	strayed  time.Time // when its packets began to go where nobody chose; zero: they do not
	stale    time.Time // when it was last told that no keys are agreed; zero: never
	keyed    bool      // introductions have carried the last handshake, if it was done, and no way has been there since
}

// inbox is what the loop has still to follow. Of each member the latest counts.
type inbox struct {
	members bool // the table is another one
	ways    map[identity.NodeID]Way
	agreed  map[identity.NodeID]agreement
}

// agreement is a preshared key that this side, which is controlling, has agreed on.
type agreement struct {
	instance [8]byte // of the member
	keyed    bool    // and the device was given the response of a handshake
}

// newsKey tells apart what does not replace each other.
type newsKey struct {
	kind EventKind
	id   identity.NodeID
}

func newWays(b Bind, log *slog.Logger) *ways {
	w := &ways{
		log: log, bind: b, wake: make(chan struct{}, 1), events: make(chan Event), roamers: make(chan roamer),
		links: make(chan unsized), linkMTU: osnet.LinkMTU, peers: make(map[identity.NodeID]*followed),
	}
	w.members.Store(&map[identity.NodeID]*member{})
	return w
}

// SetWay says where the packets to a member go from now on, and sees to the handshake that this needs. It never waits. The same
// way again changes nothing, unless the member has Restarted. A member that is not set is ignored; what was said of one that
// is holds until another word, also when its key changes.
func (t *Tunnel) SetWay(id identity.NodeID, w Way) {
	w.Sources = slices.Clone(w.Sources)
	t.ways.putWay(id, w)
}

// Agreed says that this side, which is controlling, has agreed on a preshared key with an instance (a process) of the member,
// and has set it. It never waits. A member that is not set is ignored.
func (t *Tunnel) Agreed(id identity.NodeID, instance [8]byte) {
	t.ways.putAgreed(id, agreement{instance: instance})
}

// LastHandshake returns when the last handshake with a member was done; zero: none, or the member is not set. It reads that
// peer only.
func (t *Tunnel) LastHandshake(id identity.NodeID) time.Time {
	m := t.ways.member(id)
	if m == nil {
		return time.Time{}
	}
	return attached{t}.LastHandshake(m)
}

// Activity returns what WireGuard packets a member's endpoint has carried, and where it sends them now, which for two seconds
// may be where the member has roamed to; zero when the member is not set or has no way. LastRx is of what the device has
// authenticated: what anybody sends from the member's address is no sign of its life.
func (t *Tunnel) Activity(id identity.NodeID) (a bind.Activity, way netip.AddrPort) {
	m := t.ways.member(id)
	if m == nil {
		return bind.Activity{}, netip.AddrPort{}
	}
	n, _ := attached{t}.Authentic(m)
	return m.endpoint.Vouched(n), m.endpoint.Path()
}

// Events delivers news of members. Of each kind and member the latest waits for its reader; what was not read is replaced,
// and goes with the member. The channel is never closed.
func (t *Tunnel) Events() <-chan Event { return t.ways.events }

// set enters a value into a map that may not be there yet.
func set[V any](m *map[identity.NodeID]V, id identity.NodeID, v V) {
	if *m == nil {
		*m = make(map[identity.NodeID]V)
	}
	(*m)[id] = v
}

// member returns one, or nil.
func (w *ways) member(id identity.NodeID) *member { return (*w.members.Load())[id] }

// putWay and putAgreed add to the inbox what concerns a member, if it is one, and wake the loop.
func (w *ways) putWay(id identity.NodeID, way Way) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.member(id) != nil {
		way.Restarted = way.Restarted || w.inbox.ways[id].Restarted
		set(&w.inbox.ways, id, way)
		w.poke()
	}
}

func (w *ways) putAgreed(id identity.NodeID, a agreement) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.member(id) != nil {
		before := w.inbox.agreed[id]
		a.keyed = a.keyed || before.keyed && before.instance == a.instance
		set(&w.inbox.agreed, id, a)
		w.poke()
	}
}

func (w *ways) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run follows the ways until ctx ends, and returns when all that it has started is over.
func (w *ways) run(ctx context.Context, device wireGuard) {
	w.device = device
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { w.findRoamers(ctx) })
	beside.Go(func() { w.sizeWays(ctx) })
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	minute := time.NewTicker(staleEvery)
	defer minute.Stop()
	var stirs <-chan netip.AddrPort
	if w.bind != nil {
		stirs = w.bind.Stirs()
	}
	for {
		w.rearm(timer)
		// What waits for a reader is offered; a channel that is nil never is ready.
		var events chan<- Event
		var links chan<- unsized
		told, addr, some := w.news.first()
		if some {
			events = w.events
		}
		id, way, some := w.unsized.first()
		if some {
			links = w.links
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
			w.take(time.Now())
		case <-timer.C:
			w.look(time.Now())
		case <-minute.C:
			w.findStale(time.Now())
		case r := <-w.roamers:
			w.roamed(r, time.Now())
		case handle := <-stirs:
			if id, ok := w.byHandle[handle]; ok {
				w.tell(Stirred, id, netip.AddrPort{})
			}
		case events <- Event{Kind: told.kind, ID: told.id, Addr: addr}:
			w.news.drop(told)
		case links <- way:
			w.unsized.drop(id)
		}
	}
}

// tell has an event wait for its reader.
func (w *ways) tell(kind EventKind, id identity.NodeID, addr netip.AddrPort) {
	w.news.put(newsKey{kind, id}, addr)
}

// rearm sets the timer to the earliest deadline.
func (w *ways) rearm(timer *time.Timer) {
	next := w.busy.Next()
	if next.IsZero() {
		timer.Stop()
		return
	}
	timer.Reset(max(time.Until(next), 0))
}

// deadline is when a member wants to be looked at; zero: it does not.
func (p *followed) deadline() time.Time {
	next := p.shake.next
	if back := p.strayed.Add(strayFor); !p.strayed.IsZero() && (next.IsZero() || back.Before(next)) {
		next = back
	}
	return next
}

// attend has a member looked at when it wants to be.
func (w *ways) attend(p *followed) { w.busy.Set(p, p.deadline()) }

// look does what is due.
func (w *ways) look(now time.Time) {
	for p, ok := w.busy.Due(now); ok; p, ok = w.busy.Due(now) {
		if !p.shake.next.IsZero() && !p.shake.next.After(now) {
			w.lookAgain(p, now)
		}
		p.recall(now)
		w.attend(p)
	}
}

// take follows what is in the inbox.
func (w *ways) take(now time.Time) {
	w.mu.Lock()
	in, table := w.inbox, *w.members.Load()
	w.inbox = inbox{}
	w.mu.Unlock()
	if in.members {
		w.follow(table, now)
	}
	for id, a := range in.agreed {
		if p := w.peers[id]; p != nil && a.keyed {
			p.keyed = true // before the ways, which then need no handshake
		}
	}
	for id, way := range in.ways {
		if p := w.peers[id]; p != nil {
			w.move(p, way, now)
		}
	}
	for id, a := range in.agreed {
		if p := w.peers[id]; p != nil {
			w.agreed(p, a, now)
		}
	}
}

// move follows a change of a member's way.
func (w *ways) move(p *followed, way Way, now time.Time) {
	before := p.way
	way.Restarted = way.Restarted || before.Restarted
	p.way = way
	if !slices.Equal(way.Sources, before.Sources) {
		p.endpoint.SetSources(way.Sources)
	}
	if way.Addr != before.Addr || way.Restarted {
		w.moveTo(p, before.Addr, now)
	}
}

// moveTo has a member's endpoint follow its way, which was another one before, and sees to the handshake: none when the session
// keys are good, for then only the address has changed.
func (w *ways) moveTo(p *followed, before netip.AddrPort, now time.Time) {
	restarted := p.way.Restarted
	p.way.Restarted, p.strayed = false, time.Time{}
	flushed := p.endpoint.SetPath(p.way.Addr)
	w.unsized.put(p.id, unsized{p.member, p.way.Addr})
	switch {
	case !p.way.Addr.IsValid():
		p.way.Restarted = restarted // a handshake is due when there is one
		p.shake = awaited{}
	case p.keyed && w.keysAreGood(p, now):
		p.confirm(w.device, now)
	case flushed:
		p.await(p.controlling, now)
	case restarted || p.way.Addr != before && !w.keysAreGood(p, now):
		w.handshake(p, p.controlling, now)
	}
	w.attend(p)
}
