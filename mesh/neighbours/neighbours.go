// Package neighbours is what a node says and hears on its local networks: it has beacons sent under the keys that the records
// give, as often as the sessions that are up call for, and remembers which members answered, and where.
//
// The packets and their timing are the business of nat/beacon; what is heard is a hint, which a session dialled there
// proves. Which neighbours are dialled when is decided by mesh/node.
//
// A Neighbours' methods may be called concurrently, and before, during and after Run; none of them but Run waits.
package neighbours

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/nat/beacon"
	"warren/nat/netwatch"
)

const (
	// hold is how long a neighbour is dialled after its last beacon; one with a session stays.
	hold = 5 * time.Minute
	// maxHeard bounds the members that are remembered, and maxStrangers those that are none here.
	maxHeard     = 256
	maxStrangers = 32
	// maxAddrs bounds the addresses of one neighbour that beacons have told: several hosts may speak in one's name.
	maxAddrs = 8
	// linksEvery is when the interfaces are read again: a change of theirs may be no change of the network.
	linksEvery = time.Minute
)

// Host tells the interfaces of this machine. It may block: the kernel is asked.
type Host interface {
	// Links returns those to speak on, the node's own tunnel left out.
	Links() []netwatch.Link
}

// Options of a Neighbours. Network and Logger may be left out.
type Options struct {
	Self    identity.NodeID
	Mesh    identity.MeshID
	Host    Host
	Network beacon.Network // nil: the system's
	Logger  *slog.Logger   // nil: none
}

// Desired is what is known and wanted. It replaces all that was said before, and nothing in it is changed afterwards.
type Desired struct {
	Off      bool                               // neither speak nor listen
	Port     uint16                             // of the agent's socket, which is told to others; 0: it is closed
	Network  uint64                             // another value: the network is another one, and its interfaces are read at once
	Overlay  []netip.Prefix                     // of the mesh: no neighbour is dialled through the tunnel
	Members  []roster.Member                    // all known ones, this node included, in the order of their admission
	Invites  []Invite                           // by the time of their making
	Sessions map[identity.NodeID]netip.AddrPort // that are up, and where their far sides are
	Contacts bool                               // members were reached at some address before
}

// Invite is one that a joiner may come with.
type Invite struct {
	ID         identity.KeyID
	Uses, Used int
	Expires    time.Time
	Revoked    bool
}

// Contact is an address on the local network at which a member said that it is.
type Contact struct {
	ID   identity.NodeID
	Addr netip.AddrPort
}

// Snapshot is what was heard. It is shared: nothing in it may be changed.
type Snapshot struct {
	Contacts []Contact // where to dial neighbours
	Trouble  string    // in words; "": none
}

// Neighbours speaks and listens. See New.
type Neighbours struct {
	// Constant after New.
	self   identity.NodeID
	log    *slog.Logger
	host   Host
	beacon *beacon.Beacon
	poke   chan struct{} // capacity 1: desired is another one
	events chan struct{} // capacity 1

	// Owned by Run.
	keys    keys
	links   []beacon.Link
	stale   time.Time // when links are read again
	network uint64    // that links were read in
	clock   uint64    // beacons dropped over the clock until then
	trouble string
	heard   map[identity.NodeID]neighbour
	known   map[identity.NodeID]bool // active members beside this node
	follows *Desired                 // that known was read from
	seed    maphash.Seed             // chooses among strangers, until the links are read again

	// Atomic. What they lead to is never changed.
	started  atomic.Bool
	desired  atomic.Pointer[Desired] // nil: nothing was said yet
	snapshot atomic.Pointer[Snapshot]
}

// neighbour is a node that was heard.
type neighbour struct {
	proven netip.AddrPort   // where a session with it was; no beacon replaces that. Zero: nowhere
	told   []netip.AddrPort // by beacons in its name, the latest first
	until  time.Time
}

// addrs are where to dial a neighbour, the likeliest first.
func (n neighbour) addrs() []netip.AddrPort {
	if !n.proven.IsValid() {
		return n.told
	}
	return withFirst(n.told, n.proven)
}

// withFirst returns a list with some in front, each once.
func withFirst(list []netip.AddrPort, first ...netip.AddrPort) []netip.AddrPort {
	out := slices.Clone(first)
	for _, addr := range list {
		if !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

// New checks the options and allocates; nothing runs before Run.
func New(o Options) (*Neighbours, error) {
	if o.Self.IsZero() || o.Host == nil {
		return nil, errors.New("new neighbours: Self and Host are needed")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	n := &Neighbours{
		self: o.Self, log: o.Logger.With("part", "neighbours"), host: o.Host, poke: make(chan struct{}, 1), events: make(chan struct{}, 1),
		beacon: beacon.New(beacon.Options{Self: o.Self, Network: o.Network, Logger: o.Logger}),
		keys:   keys{mesh: o.Mesh}, heard: make(map[identity.NodeID]neighbour), seed: maphash.MakeSeed(),
	}
	n.snapshot.Store(new(Snapshot))
	return n, nil
}

// Set says what is known and wanted from now on. Repeating it changes nothing; before the first call nothing is said.
func (n *Neighbours) Set(d Desired) {
	n.desired.Store(&d)
	notify(n.poke)
}

// Events returns a channel that gets a value, coalesced, after Snapshot has become another one. It is never closed.
func (n *Neighbours) Events() <-chan struct{} { return n.events }

// Snapshot returns what was heard lately. Of many neighbours it names those whose IDs are next to this node's in the ring
// of IDs.
func (n *Neighbours) Snapshot() Snapshot { return *n.snapshot.Load() }

// Dropped returns the number of beacons dropped so far, by reason.
func (n *Neighbours) Dropped() map[string]uint64 { return n.beacon.Dropped() }

// Run speaks and listens until ctx ends, and returns nil when all is closed. It can be called once.
func (n *Neighbours) Run(ctx context.Context) error {
	if n.started.Swap(true) {
		return errors.New("run neighbours: called twice")
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.beacon.Run(ctx) })
	group.Go(func() error { n.loop(ctx); return nil })
	return group.Wait()
}

// loop follows what is wanted, and takes what is heard.
func (n *Neighbours) loop(ctx context.Context) {
	timer := time.NewTimer(linksEvery)
	defer timer.Stop()
	for {
		if wake := n.follow(); wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(wake))
		}
		select {
		case <-ctx.Done():
			return
		case <-n.poke:
		case <-timer.C:
		case found := <-n.beacon.Found():
			n.hear(found)
		}
	}
}

// follow tells the beacon what is wanted now, forgets whom nobody heard for long, and publishes. It returns when to call it
// again at the latest; zero: not before something new.
func (n *Neighbours) follow() (wake time.Time) {
	d := n.desired.Load()
	if d == nil {
		return wake
	}
	if d.Off {
		n.trouble = ""
		n.beacon.Set(beacon.State{})
	} else {
		if d.Network != n.network {
			n.network, n.stale = d.Network, time.Time{}
		}
		if !time.Now().Before(n.stale) {
			n.readLinks()
		}
		wake = n.stale
		members, invites := n.keys.of(d, time.Now())
		n.beacon.Set(beacon.State{Links: n.links, Members: members, Invites: invites, Need: need(n.self, d), Port: d.Port})
	}
	n.know(d)
	if next := n.expire(d.Sessions, time.Now()); wake.IsZero() || !next.IsZero() && next.Before(wake) {
		wake = next
	}
	n.publish()
	return wake
}

// readLinks asks the kernel for the interfaces, and looks after the clock as often.
func (n *Neighbours) readLinks() {
	n.links = nil
	for _, link := range n.host.Links() {
		n.links = append(n.links, beacon.Link{Index: link.Index, Name: link.Name, Prefixes: link.Prefixes})
	}
	n.stale, n.seed = time.Now().Add(linksEvery), maphash.MakeSeed()
	n.checkClock()
}

// checkClock warns of a clock that differs from that of a neighbour: the two would be introduced in vain. Without the
// Internet, clocks that have no battery are wrong after each start.
func (n *Neighbours) checkClock() {
	before := n.clock
	n.clock = n.beacon.Dropped()[beacon.ClocksDiffer]
	n.trouble = ""
	if n.clock != before {
		n.trouble = fmt.Sprintf("a member on the local network has a clock that is more than %.0f minutes off this one: set the one that is wrong, or the two do not connect", beacon.Window.Minutes())
	}
}

// know notes who is a member.
func (n *Neighbours) know(d *Desired) {
	if n.follows == d {
		return
	}
	n.follows, n.known = d, make(map[identity.NodeID]bool, len(d.Members))
	for _, m := range d.Members {
		if m.ID != n.self && m.State == roster.Active {
			n.known[m.ID] = true
		}
	}
}

// onLink reports whether an address lies in a network of this machine's.
func (n *Neighbours) onLink(addr netip.Addr) bool {
	return slices.ContainsFunc(n.links, func(l beacon.Link) bool {
		return slices.ContainsFunc(l.Prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
	})
}

// expire forgets the neighbours whose time is over and with which there is no session, and notes where a session proves one to be. It
// returns when the next one's time is; zero: there is none.
func (n *Neighbours) expire(sessions map[identity.NodeID]netip.AddrPort, now time.Time) (next time.Time) {
	for id, heard := range n.heard {
		remote, up := sessions[id]
		if up && remote != heard.proven && n.onLink(remote.Addr()) {
			heard.proven = remote
			n.heard[id] = heard
		}
		switch {
		case up:
		case !now.Before(heard.until):
			delete(n.heard, id)
		case next.IsZero() || heard.until.Before(next):
			next = heard.until
		}
	}
	return next
}

// hear notes a neighbour. A beacon is the word of whoever knows the LAN secret: it adds an address to an ID and replaces none that a session
// proved, and whom no record is known of takes no member's place.
func (n *Neighbours) hear(f beacon.Found) {
	d := n.desired.Load()
	n.know(d)
	addrs := slices.DeleteFunc(f.Addrs, func(a netip.AddrPort) bool {
		return slices.ContainsFunc(d.Overlay, func(p netip.Prefix) bool { return p.Contains(a.Addr()) })
	})
	if f.ID == n.self || len(addrs) == 0 {
		return
	}
	heard, again := n.heard[f.ID]
	if !again && !n.makeRoom(f.ID) {
		return
	}
	told := withFirst(heard.told, addrs...)
	told = told[:min(len(told), maxAddrs)]
	if !slices.Equal(told, heard.told) {
		n.log.Debug("neighbour heard", "peer", nameOf(d.Members, f.ID), "address", addrs[0].String())
	}
	heard.told, heard.until = told, time.Now().Add(hold)
	n.heard[f.ID] = heard
}

// makeRoom reports whether there is a place for one more: among members, or among strangers, where one gives way by chance.
func (n *Neighbours) makeRoom(id identity.NodeID) bool {
	var same []identity.NodeID
	for other := range n.heard {
		if n.known[other] == n.known[id] {
			same = append(same, other)
		}
	}
	switch {
	case n.known[id]:
		return len(same) < maxHeard
	case len(same) >= maxStrangers:
		delete(n.heard, same[rand.N(len(same))])
	}
	return true
}

// publish makes a new snapshot if something in it is another.
func (n *Neighbours) publish() {
	before, after := n.snapshot.Load(), &Snapshot{Contacts: contacts(n.heard, n.known, n.self, n.seed), Trouble: n.trouble}
	if before.Trouble == after.Trouble && slices.Equal(before.Contacts, after.Contacts) {
		return
	}
	n.snapshot.Store(after)
	notify(n.events)
}

// nameOf returns the name of a member if it is known, else its short ID.
func nameOf(members []roster.Member, id identity.NodeID) string {
	if i := slices.IndexFunc(members, func(m roster.Member) bool { return m.ID == id }); i >= 0 && members[i].Name != "" {
		return members[i].Name
	}
	return id.Short()
}

// notify leaves a note in a channel of capacity 1.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
