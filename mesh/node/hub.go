// Package node is the hub of one running node: it reads what the owners know (facts.go), computes what each of them should
// have (plan.go, a pure function with its parts in claims.go, way.go, targets.go, local.go and own.go), and tells them the difference
// (reconcile.go). It is level-triggered: an event only says that there is something to read (events.go), and what
// an event missed, the next minute mends.
//
// It has no socket, no file and no goroutine but Run's. The owners stand behind the interfaces of owners.go; mesh/agent makes
// the real ones and plugs them in, the tests of this package plug in twins. What is carried from peer to peer (introductions,
// preshared keys, packets) never passes through here.
//
// Board, Reload and Leave may be called by any goroutine at any time; Run is called once.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/nat"
)

// Timing of the loop.
const (
	tickEvery  = time.Minute // everything is compared anew, also what nobody has spoken of
	retryAfter = time.Second // after a step that failed
	// restShare bounds the share of the time that reconciling takes while events keep coming, to a twentieth: a rest of that
	// many times the last round's length. A round looks at all peers; what one peer waits for when it comes up, its path, does not
	// wait for a round. maxRest bounds how long other news wait.
	restShare = 19
	maxRest   = 100 * time.Millisecond
)

// Options are what a hub works with. Only Load, Tunnel and Names must be set.
type Options struct {
	Self      identity.NodeID          // zero without a mesh
	Key       wgtypes.Key              // this node's own, public
	Endpoints []string                 // host:port of this node, for settings that name none
	NoIPv4    bool                     // the overlay has no IPv4 here, for settings that do not say
	Settings  Settings                 // to begin with
	Load      func() (Settings, error) // reads the settings afresh, at each reload
	Reload    <-chan struct{}          // each value asks for a reload; may be nil
	Ready     chan<- struct{}          // closed once everything is in place; may be nil
	Tunnel    Tunnel
	Filter    Filter // nil: nothing is filtered
	Names     Names
	Owners    *Owners // nil: no mesh, static peers only
	Feeds     Feeds
	Logger    *slog.Logger // nil: none
}

// Hub is the loop. See the package comment.
type Hub struct {
	// constant after New
	o       Options
	log     *slog.Logger
	reloads chan chan reloaded
	leave   chan struct{} // closed by Leave
	leaving sync.Once

	// atomic
	board posted

	// owned by the loop
	settings Settings
	peers    map[identity.NodeID]*peer
	sessions map[identity.NodeID]sessionFacts
	said     remarks
	last     *round // what the last round found and told; nil before the first
	parting  []parting
	opened   opened
	stale    bool // the next round trusts nothing that was told before
	ready    bool // a round has said where this node is reached
}

// opened are the sessions that came up since the last round: signals that wait have a way.
type opened struct {
	to    []identity.NodeID
	first bool // there was none before: everything has waited
	early bool // what waits goes with the hello of sessions that this node dials
}

// peer is what the loop keeps of another active member.
type peer struct {
	path  nat.Event // the last one; zero: none
	met   time.Time // when nat last found a path where there was none
	way   way       // as the tunnel was told
	where whereabouts
}

// whereabouts is what a peer's record says of where it can be reached, and under which key.
type whereabouts struct {
	key       [32]byte // WireGuard's
	instance  [8]byte
	endpoints []netip.AddrPort
}

// round is one reconciliation.
type round struct {
	facts facts
	want  desired
}

// New checks the options. Nothing runs yet.
func New(o Options) (*Hub, error) {
	if o.Load == nil || o.Tunnel == nil || o.Names == nil {
		return nil, errors.New("make hub: Load, Tunnel and Names are needed")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Hub{
		o: o, log: o.Logger.With("part", "node"), reloads: make(chan chan reloaded), board: posted{changed: make(chan struct{}, 1)}, leave: make(chan struct{}),
		settings: o.Settings, peers: make(map[identity.NodeID]*peer), sessions: make(map[identity.NodeID]sessionFacts),
		said: remarks{refusals: make(map[identity.NodeID]Refusal)},
	}
	h.board.Store(&Board{Settings: o.Settings})
	return h, nil
}

// ErrLeft is returned by Run when Leave was called.
var ErrLeft = errors.New("left the mesh")

// Leave ends Run.
func (h *Hub) Leave() { h.leaving.Do(func() { close(h.leave) }) }

// reloaded is what came of reading the settings again.
type reloaded struct {
	pending []string // see Reload
	err     error
}

// Reload has the loop read the settings again and returns what Load says. On error the old settings stay. pending says in words what of
// the new ones waits until the agent starts again.
func (h *Hub) Reload(ctx context.Context) (pending []string, err error) {
	done := make(chan reloaded, 1)
	select {
	case h.reloads <- done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case r := <-done:
		return r.pending, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Run is the one goroutine that decides: it takes the events of all owners, and reconciles when none is waiting. It returns when
// ctx ends, after Leave (ErrLeft), or when this node is out of the mesh (an error that wraps ErrFinal, unless time may cure it).
func (h *Hub) Run(ctx context.Context) error {
	c := newClock(time.Now())
	defer c.stop()
	h.reconcile(c.now)
	c.rest()
	for {
		c.wait(h.nextWake())
		var dirty bool
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-h.leave:
			return ErrLeft
		case err := <-h.o.Feeds.Fatal:
			return ended(err)
		case <-c.tick.C:
			h.stale, dirty = true, true
		case <-c.timer.C:
			c.now = time.Now()
			h.part(c.now)
			if c.due(h.retryAt()) {
				h.reconcile(c.now)
				c.rest()
			}
		case <-h.o.Reload:
			h.reload()
			dirty = true
		case done := <-h.reloads:
			done <- h.reload()
			dirty = true
		case e := <-h.o.Feeds.Paths:
			dirty = h.pathChanged(e)
		case e := <-h.o.Feeds.Sessions:
			dirty = h.sessionChanged(e)
		case n := <-h.o.Feeds.News:
			h.natSays(n)
		case e := <-h.o.Feeds.Tunnel:
			h.tunnelSays(e)
		case <-h.o.Feeds.Records:
			dirty = true
			c.free = time.Now() // somebody may have been put out: that waits for nothing
		case <-h.o.Feeds.Standing:
			dirty = true
			if h.last.facts.standing != nil && h.last.facts.standing.Network == 0 {
				c.free = time.Now() // nothing is offered to anybody before this host's addresses are known
			}
		case <-h.o.Feeds.Streams:
			dirty = true
		case <-h.o.Feeds.Relays:
			dirty = true
		case <-h.o.Feeds.Neighbours:
			dirty = true
		case <-h.o.Feeds.Names:
			dirty = true
		}
		c.dirty = c.dirty || dirty
	}
}

// ended says whether a restart can help a node that its own records put out: only when it is a matter of clocks.
func ended(err error) error {
	if fatal, ok := errors.AsType[*mesh.FatalError](err); ok && fatal.Curable() {
		return err
	}
	return fmt.Errorf("%w: %w", ErrFinal, err)
}

// clock paces the rounds of the loop.
type clock struct {
	timer *time.Timer
	tick  *time.Ticker
	now   time.Time
	dirty bool      // a round is wanted
	free  time.Time // no round before
}

func newClock(now time.Time) *clock {
	return &clock{timer: time.NewTimer(time.Hour), tick: time.NewTicker(tickEvery), now: now}
}

func (c *clock) stop() {
	c.timer.Stop()
	c.tick.Stop()
}

// rest keeps the next round away for a while, after one that began at now.
func (c *clock) rest() {
	took := time.Since(c.now)
	c.dirty, c.free = false, time.Now().Add(min(restShare*took, maxRest))
}

// wait sets the timer to the next round or to other, whichever comes first. With neither it is not set.
func (c *clock) wait(other time.Time) {
	at := other
	if c.dirty && (at.IsZero() || c.free.Before(at)) {
		at = c.free
	}
	if at.IsZero() {
		c.timer.Stop()
		return
	}
	c.timer.Reset(time.Until(at))
}

// due reports whether a round is to be made now.
func (c *clock) due(retry time.Time) bool {
	return c.dirty && !c.now.Before(c.free) || !retry.IsZero() && !c.now.Before(retry)
}
