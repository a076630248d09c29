// Package courier carries the introductions of this node: it seals what nat says to a peer and gives it to the control
// sessions, opens what they bring, and sees that the preshared key which an answer agrees on is in the tunnel before the answer
// leaves, or before nat acts on it.
//
// What an introduction says is the business of nat, the cryptography that of mesh/signal, and the way to the peer that of
// mesh/session. It keeps nothing on disk, and no preshared key: the tunnel does.
//
// A Courier's methods may be called concurrently, and before, during and after Run; none of them but Run waits.
package courier

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session"
	"warren/mesh/signal"
	"warren/nat/path"
)

/* An introduction, from the first word to the key
 *
 *	Send ─▶ lane of the peer ─▶ transmit: offer: Tunnel.Initiation · answer: key into the tunnel, Tunnel.Respond
 *	                                      → where this node stands → seal → Sessions.Send
 *	Take ─▶ lane of the peer ─▶ receive:  open → answer: key into the tunnel, Tunnel.Conclude → NAT.Deliver → answer: Tunnel.Agreed
 *
 * Each peer has a lane of its own (lane.go) while there is something to do for it: a tunnel that is slow with the key of one peer
 * holds up that peer alone. What is said by and to one peer keeps its order, but that offers and answers go first. Of all lanes
 * that go first in which an introduction is under way, so that what a burst costs does not grow by those that wait and repeat themselves.
 */

// Members tells the keys of active members. Keyring is one.
type Members interface {
	Keys(id identity.NodeID) (signal.Keys, bool)
}

// Sessions is the way to other members. Neither method blocks.
type Sessions interface {
	Send(to identity.NodeID, p session.Proto, payload []byte) error
	// Leads reports whether there is a session with anybody, or one in the making that takes messages already.
	Leads() bool
	// Came says that a signal that was brought by the session with another member, by, was from's indeed. It does not block.
	Came(from, by identity.NodeID)
}

// Letters goes straight to an address, as a datagram or two, without a session. It does not block, and what it sends may get lost.
type Letters interface {
	Send(to netip.AddrPort, sealed []byte) error
}

// NAT acts on what peers say. It does not block.
type NAT interface {
	Deliver(from identity.NodeID, m path.Message)
}

// Tunnel takes the preshared keys. It may block for a while.
type Tunnel interface {
	// SetPresharedKey is called again with the same key for each repeat of an answer.
	SetPresharedKey(id identity.NodeID, psk [32]byte) error
	// Anew is told that a peer introduces itself from another process than before: the session with that one is gone.
	Anew(id identity.NodeID)
	// Agreed is told on the controlling side that the key was agreed on with this process of the peer, when Conclude did not do the handshake.
	Agreed(id identity.NodeID, instance [8]byte)
	Handshakes
}

// Handshakes are WireGuard's as introductions carry them. None of this may wait for more than some milliseconds.
type Handshakes interface {
	// Initiation is the first message, for an offer to carry; nil: no handshake is due.
	Initiation(id identity.NodeID, attempt uint64) []byte
	// Respond takes it on the other side, where the key is set, and returns the second, for the answer; nil: none was made in time. An
	// error says that the first was not made by the peer.
	Respond(id identity.NodeID, initiation []byte) ([]byte, error)
	// Conclude takes that, where the key is set, and reports whether the handshake is done.
	Conclude(id identity.NodeID, instance [8]byte, response []byte) bool
}

// Standing tells where this node stands, as a natkind.Self packed. It is asked for every ask, offer and answer.
type Standing interface {
	Pack() uint32
}

// Options of a Courier; all fields but Instance and Logger are required.
type Options struct {
	Mesh     identity.MeshID
	Self     identity.NodeID
	Signing  ed25519.PrivateKey
	Sealing  [32]byte // the X25519 private key whose public half stands in the own record
	Instance [8]byte  // of this run, as the own record and nat tell it
	Members  Members
	Sessions Sessions
	Tunnel   Tunnel
	Standing Standing
	Letters  Letters      // nil: nothing goes straight
	Logger   *slog.Logger // nil: none
}

// ErrNoSession is returned by Send while no control session is up.
var ErrNoSession = errors.New("no control session is up")

// Courier seals, opens and hands on. See New.
type Courier struct {
	// Constant after New.
	log      *slog.Logger
	members  Members
	sessions Sessions
	tunnel   Tunnel
	standing Standing
	letters  Letters
	sealer   *signal.Sealer
	queue    *queue

	// Atomic.
	started atomic.Bool
	drops   [reasons]atomic.Uint64

	// Guarded by mu.
	mu   sync.Mutex
	told map[identity.NodeID]Told

	// Guarded by themselves.
	peers peers
	early early
}

// New checks the options and allocates; nothing runs before Run.
func New(o Options) (*Courier, error) {
	if o.Self.IsZero() || len(o.Signing) != ed25519.PrivateKeySize || o.Members == nil || o.Sessions == nil || o.Tunnel == nil || o.Standing == nil {
		return nil, errors.New("new courier: Self, Signing, Members, Sessions, Tunnel and Standing are needed")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	sealer, err := signal.New(signal.Options{
		Mesh: o.Mesh, Self: o.Self, Signing: o.Signing, Sealing: o.Sealing, Members: o.Members, Instance: o.Instance, Started: time.Now(),
	})
	if err != nil {
		return nil, fmt.Errorf("new courier: %w", err)
	}
	return &Courier{
		log: o.Logger.With("part", "courier"), members: o.Members, sessions: o.Sessions, tunnel: o.Tunnel, standing: o.Standing, letters: o.Letters, sealer: sealer,
		// At most half of the processors: a burst of introductions must not stand before the packets of the tunnels.
		queue: newQueue(max(1, runtime.GOMAXPROCS(0)/2)), told: make(map[identity.NodeID]Told),
	}, nil
}

// Run seals, opens and hands what peers say to nat until ctx ends; it returns nil when every goroutine has ended, which a
// call of the tunnel's may delay. It can be called once. What was given to Send and Take before waits for it.
func (c *Courier) Run(ctx context.Context, nat NAT) error {
	if c.started.Swap(true) {
		return errors.New("run courier: called twice")
	}
	var serving sync.WaitGroup
	defer serving.Wait()
	for ctx.Err() == nil {
		for l, j, ok := c.queue.pick(); ok; l, j, ok = c.queue.pick() {
			serving.Go(func() { c.serve(l, j, nat) })
		}
		select {
		case <-ctx.Done():
		case <-c.queue.wake:
		}
	}
	return nil
}

// Send has a message of nat sealed and sent. It fails at once, with ErrNoSession, while there is no session at all, unless it goes straight. Nil means
// that the message waits in a bounded queue, where the oldest of its peer may be dropped and counted: nat repeats what gets no
// answer.
func (c *Courier) Send(to identity.NodeID, m path.Message) error {
	if !c.sessions.Leads() && !(m.Straight.IsValid() && c.letters != nil) {
		return ErrNoSession
	}
	c.put(to, out, job{message: m})
	return nil
}

// Take takes a sealed message as a session brought it, and owns its bytes from then on. from is who is said to have sent it:
// that has to be a member, or to become one within 2 s (Met), and gives the order of what is done; who has sent it is proven by the message. by is the far side of the
// session that brought it, from itself or a member that forwards: what waits is on its account. What does not fit into the queues is dropped and counted.
func (c *Courier) Take(from, by identity.NodeID, sealed []byte) {
	if len(sealed) > signal.MaxSealed {
		c.count(malformedSignal)
		return
	}
	if _, ok := c.members.Keys(from); !ok { // costs less than to open it, and would end the same
		if !c.early.put(time.Now(), from, by, sealed) {
			c.count(fromStranger)
			return
		}
		if _, ok = c.members.Keys(from); ok {
			c.Met(from) // it has become one meanwhile
		}
		return
	}
	c.put(from, in, job{sealed: sealed, by: by})
}

// TakeStraight takes a sealed message that came straight from an address, and owns its bytes from then on. Anybody may have sent it: until it
// is opened all of them wait in one lane, of which the oldest are dropped.
func (c *Courier) TakeStraight(sealed []byte, from netip.AddrPort) {
	if len(sealed) > signal.MaxSealed {
		c.count(malformedSignal)
		return
	}
	c.put(nobody, in, job{sealed: sealed, by: nobody, straight: from})
}

// nobody is whose lane and account it is that straight messages are on before they are opened.
var nobody identity.NodeID

// Forget drops all that is remembered of a peer that is no member any more, and what waits for it. Members has to have
// forgotten it before.
func (c *Courier) Forget(id identity.NodeID) {
	c.queue.forget(id)
	c.forget(id)
}

func (c *Courier) forget(id identity.NodeID) {
	c.mu.Lock()
	delete(c.told, id)
	c.mu.Unlock()
	c.peers.forget(id)
	c.sealer.Forget(id)
}

// put gives the lane of a peer a job.
func (c *Courier) put(id identity.NodeID, way int, j job) {
	if c.queue.put(id, way, j) {
		c.count(queueFull)
	}
}
