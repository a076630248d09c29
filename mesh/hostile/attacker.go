//go:build hostile

package hostile

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/mesh/place"
	"warren/mesh/roster"
	"warren/mesh/session"
	"warren/mesh/store"
)

// Variable names, in the environment, the unix socket at which an Attacker is told what to do. Without it, it does nothing.
const Variable = "WARREN_HOSTILE_SOCKET"

// fullSpeed is how many messages a second a flood sends: more than the limits of any receiver, and not so many that a small machine,
// on which attacker and victims run together, has no time left for the victims.
const fullSpeed = 1000

// Parts are what an agent gives its Attacker.
type Parts struct {
	State    *place.State
	Records  *mesh.Mesh
	Store    *store.Store
	Sessions *session.Sessions
	Log      *slog.Logger
}

// Orders say against whom and with what an attack goes. What an attack has no use for may be left out.
type Orders struct {
	Token   string         // that this node came by
	Friends []string       // names of other attackers
	Victim  string         // name of a member
	Address netip.Addr     // overlay address to claim
	Name    string         // to claim
	Routes  []netip.Prefix // to claim
	At      netip.Addr     // underlay address of a bystander, to which others are to be made to send
	For     time.Duration  // how long it will go on
	Seed    uint64
}

// attack runs until ctx ends.
type attack func(ctx context.Context, s *strike)

// attacks are all there are, by the name that the control socket knows.
var attacks = map[string]attack{
	"bomb": bomb, "wireguard-key": copyKey, "forged-records": forgeRecords, "backdate": backdate, "claims": claim, "strangers": strangers,
	"introductions": introduce, "errands": errands, "signals": floodSignals, "sync": floodSync, "silent-joiners": silentJoiners, "record-flood": floodRecords,
	"clocks": clocks, "texts": texts, "forwarding": forward, "relay": mangle, "anchor-lies": lie, "beacons": beacons, "gossip": gossipLies,
	"streams": streams, "spoofed": spoof,
}

// Attacker is one member's evil side. See New.
type Attacker struct {
	// atomic
	parts      atomic.Pointer[Parts]
	refusing   atomic.Bool            // every chain is refused with the code of a revocation
	lying      atomic.Bool            // about addresses
	refuseWith atomic.Pointer[string] // who is refused is told this
	mangling   atomic.Int32
	counters   atomic.Pointer[counters] // of what the three above do
	held       atomic.Int64             // connections of its own that stand
	ownSeq     atomic.Uint64            // of the last record that was signed in this node's name here

	// guarded by mu
	mu      sync.Mutex
	running map[string]*strike
	puppets []*puppet
	marked  map[identity.NodeID]bool             // made here
	seen    map[identity.NodeID][]netip.AddrPort // where others were reached
}

// strike is one attack under way.
type strike struct {
	*Attacker
	*Parts
	Orders
	counters
	dice dice
	stop context.CancelFunc
	done chan struct{}
}

// counters count what an attack has done, by kind. "sent" must not be zero in the end.
type counters struct{ n *sync.Map }

func newCounters() counters { return counters{new(sync.Map)} }

func (c counters) add(what string, n int) {
	v, ok := c.n.Load(what)
	if !ok {
		v, _ = c.n.LoadOrStore(what, new(atomic.Int64))
	}
	v.(*atomic.Int64).Add(int64(n))
}

// tell counts one more as sent, or as failed.
func (c counters) tell(err error) {
	if err != nil {
		c.add("failed", 1)
		return
	}
	c.add("sent", 1)
}

func (c counters) counts() map[string]int64 {
	out := make(map[string]int64)
	for k, v := range c.n.Range {
		out[k.(string)] = v.(*atomic.Int64).Load()
	}
	return out
}

// New returns an attacker that does nothing until it is told to.
func New() *Attacker {
	return &Attacker{running: make(map[string]*strike), marked: make(map[identity.NodeID]bool), seen: make(map[identity.NodeID][]netip.AddrPort)}
}

// Use gives the attacker an agent's parts and has it listen at the socket that the environment names.
func (a *Attacker) Use(p Parts) {
	a.parts.Store(&p)
	a.listen()
}

// pace calls f so many times a second until ctx ends, or f says that it is done.
func pace(ctx context.Context, perSecond float64, f func(i int) (more bool)) {
	limit := rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond/50)))
	for i := 0; limit.Wait(ctx) == nil; i++ {
		if !f(i) {
			<-ctx.Done()
			return
		}
	}
}

// others are the active members that are no attackers.
func (s *strike) others() (out []roster.Member) {
	self := s.State.NodeID()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.Records.View().Members {
		if m.ID != self && m.State == mesh.Active && !s.marked[m.ID] && !slices.Contains(s.Friends, m.Record.Name) {
			out = append(out, m)
		}
	}
	return out
}

// reachable are those of them that strangers reach, or once did: the attacker does not forget where that was.
func (s *strike) reachable() []roster.Member {
	all := s.others()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range all {
		if m := &all[i]; len(m.Record.Endpoints) > 0 {
			s.seen[m.ID] = m.Record.Endpoints
		} else {
			m.Record.Endpoints = s.seen[m.ID]
		}
	}
	return slices.DeleteFunc(all, func(m roster.Member) bool { return len(m.Record.Endpoints) == 0 })
}

// victim is the member that the orders name, by the name that it wants.
func (s *strike) victim() (roster.Member, bool) {
	for _, m := range s.others() {
		if m.Record.Name == s.Victim {
			return m, true
		}
	}
	return roster.Member{}, false
}

// send gives a message to the session with each of the members.
func (s *strike) send(to []roster.Member, p session.Proto, payload []byte) {
	for _, m := range to {
		s.tell(s.Sessions.Send(m.ID, p, payload))
	}
}

// dice are random numbers that a seed gives again, as far as goroutines come in the same order.
type dice struct {
	mu  *sync.Mutex
	rng *rand.Rand // guarded by mu
}

func newDice(seed uint64) dice { return dice{new(sync.Mutex), rand.New(rand.NewPCG(seed, 1))} }

// upto returns one of 0 to n-1.
func (d dice) upto(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.IntN(n)
}

// noise returns n bytes.
func (d dice) noise(n int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(d.rng.Uint32())
	}
	return out
}
