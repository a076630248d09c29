package courier

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session"
	"warren/mesh/signal"
	"warren/nat/natkind"
	"warren/nat/path"
)

// world is some nodes whose sessions lead to each other at once.
type world struct {
	t     testing.TB
	start time.Time

	mu   sync.Mutex
	keys map[identity.NodeID]signal.Keys // of members
	all  map[identity.NodeID]*host
}

// host is the surroundings of one courier: it is its Members, Sessions, Tunnel, NAT and Standing, and writes down what
// is asked of them, in order.
type host struct {
	world   *world
	id      identity.NodeID
	courier *Courier
	name    string
	addr    netip.AddrPort
	stands  natkind.Self

	mu       sync.Mutex
	lines    []string
	alone    bool                              // no session is up
	lost     bool                              // the sessions lead nowhere
	answers  bool                              // offers
	slow     map[identity.NodeID]time.Duration // how long the tunnel takes with a key
	failing  bool                              // the tunnel knows no peer
	psk      map[identity.NodeID][32]byte
	captured [][]byte      // what it sent
	held     bool          // what it sends is captured only
	delay    time.Duration // of what it sends
	shakes   bool          // its tunnel has handshakes to be carried
	responds time.Duration // how long its tunnel takes for a response
	spoils   bool          // what it offers is another's handshake
}

func newWorld(t testing.TB) *world {
	return &world{t: t, start: time.Now(), keys: make(map[identity.NodeID]signal.Keys), all: make(map[identity.NodeID]*host)}
}

// add makes a node that is a member.
func (w *world) add(name string) *host {
	w.t.Helper()
	key := identity.GenerateKey()
	sealing, public, err := signal.GenerateSealingKey()
	if err != nil {
		w.t.Fatal(err)
	}
	signing := key.Public().(ed25519.PublicKey)
	h := &host{
		world: w, id: identity.NodeIDOf(signing), name: name, slow: make(map[identity.NodeID]time.Duration), psk: make(map[identity.NodeID][32]byte),
		stands: natkind.Self{Mapping: natkind.MappedIndependent},
	}
	h.courier, err = New(Options{
		Mesh: identity.MeshID{1}, Self: h.id, Signing: key, Sealing: sealing, Members: w, Sessions: h, Tunnel: h, Standing: h, Letters: letters{h},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keys[h.id] = signal.Keys{Signing: signing, Sealing: public}
	h.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(len(w.all) + 1)}), 9277)
	w.all[h.id] = h
	return h
}

// pair makes two nodes that run.
func pair(t testing.TB) (alice, bob *host) {
	w := newWorld(t)
	alice, bob = w.add("alice"), w.add("bob")
	alice.run()
	bob.run()
	return alice, bob
}

// run runs the courier until the test ends, or stop is called.
func (h *host) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.courier.Run(ctx, h) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			h.world.t.Errorf("%s: got %v at the end, want nil", h.name, err)
		}
	})
	h.world.t.Cleanup(stop)
	return stop
}

func (w *world) Keys(id identity.NodeID) (signal.Keys, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	keys, ok := w.keys[id]
	return keys, ok
}

func (w *world) host(id identity.NodeID) *host {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all[id]
}

// expel makes a node one that is no member.
func (w *world) expel(h *host) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.keys, h.id)
}

// admit undoes that.
func (w *world) admit(h *host, keys signal.Keys) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keys[h.id] = keys
}

func (h *host) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, fmt.Sprintf("%s %s", time.Since(h.world.start), fmt.Sprintf(format, args...)))
}

// took returns what was noted since the last call.
func (h *host) took() []string {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	lines := h.lines
	h.lines = nil
	return lines
}

// want compares what was noted with lines of "time what".
func (h *host) want(lines ...string) {
	h.world.t.Helper()
	if got := h.took(); !slices.Equal(got, lines) {
		h.world.t.Errorf("%s: got\n\t%s\nwant\n\t%s", h.name, strings.Join(got, "\n\t"), strings.Join(lines, "\n\t"))
	}
}

// wantDropped compares the counters.
func (h *host) wantDropped(want map[string]uint64) {
	h.world.t.Helper()
	synctest.Wait()
	if got := h.courier.Dropped(); fmt.Sprint(got) != fmt.Sprint(want) {
		h.world.t.Errorf("%s: got drops %v, want %v", h.name, got, want)
	}
}

func (h *host) nameOf(id identity.NodeID) string {
	if other := h.world.host(id); other != nil {
		return other.name
	}
	return id.Short()
}

// Send implements Sessions.
func (h *host) Send(to identity.NodeID, p session.Proto, sealed []byte) error {
	h.note("sends to %s", h.nameOf(to))
	h.mu.Lock()
	lost, held := h.lost, h.held
	h.captured = append(h.captured, sealed)
	h.mu.Unlock()
	if lost {
		return session.ErrNoRoute
	}
	if p != session.ProtoSignal {
		h.world.t.Errorf("got protocol %d, want %d", p, session.ProtoSignal)
	}
	if sealed = slices.Clone(sealed); !held && h.delay > 0 {
		time.AfterFunc(h.delay, func() { h.world.host(to).courier.Take(h.id, h.id, sealed) })
	} else if !held {
		h.world.host(to).courier.Take(h.id, h.id, sealed)
	}
	return nil
}

// letters are the host's Letters.
type letters struct{ *host }

// Send implements Letters.
func (l letters) Send(to netip.AddrPort, sealed []byte) error {
	l.note("writes to %v", to)
	l.mu.Lock()
	l.captured = append(l.captured, sealed)
	l.mu.Unlock()
	l.world.mu.Lock()
	defer l.world.mu.Unlock()
	for _, h := range l.world.all {
		if h.addr == to {
			h.courier.TakeStraight(slices.Clone(sealed), l.addr)
		}
	}
	return nil
}

// last returns the last signal that the host sent.
func (h *host) last() []byte {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.captured[len(h.captured)-1])
}

// Came implements Sessions.
func (h *host) Came(from, by identity.NodeID) {
	h.note("signal of %s came by %s", h.nameOf(from), h.nameOf(by))
}

// Leads implements Sessions.
func (h *host) Leads() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.alone
}

// SetPresharedKey implements Tunnel.
func (h *host) SetPresharedKey(id identity.NodeID, psk [32]byte) error {
	h.mu.Lock()
	slow, failing := h.slow[id], h.failing
	h.mu.Unlock()
	time.Sleep(slow)
	if failing {
		return fmt.Errorf("no such peer")
	}
	h.note("key of %s", h.nameOf(id))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.psk[id] = psk
	return nil
}

// Anew implements Tunnel.
func (h *host) Anew(id identity.NodeID) { h.note("%s begins anew", h.nameOf(id)) }

// Agreed implements Tunnel.
func (h *host) Agreed(id identity.NodeID, instance [8]byte) {
	h.note("agreed with %s %x", h.nameOf(id), instance[:1])
}

// Initiation implements Handshakes. One names who made it, and for whom.
func (h *host) Initiation(id identity.NodeID, _ uint64) []byte {
	if !h.shakes {
		return nil
	}
	h.note("handshake for %s", h.nameOf(id))
	out := make([]byte, 148)
	if !h.spoils {
		copy(out, h.name+" "+h.nameOf(id))
	}
	return out
}

// Respond implements Handshakes.
func (h *host) Respond(id identity.NodeID, initiation []byte) ([]byte, error) {
	if !bytes.HasPrefix(initiation, []byte(h.nameOf(id)+" "+h.name)) {
		return nil, errors.New("made by another")
	}
	h.mu.Lock()
	psk := h.psk[id]
	h.mu.Unlock()
	time.Sleep(h.responds)
	if !h.shakes {
		return nil, nil
	}
	h.note("handshake of %s", h.nameOf(id))
	return append(psk[:], make([]byte, 60)...), nil // which can be read with the right key only
}

// Conclude implements Handshakes.
func (h *host) Conclude(id identity.NodeID, instance [8]byte, response []byte) bool {
	h.mu.Lock()
	psk := h.psk[id]
	h.mu.Unlock()
	done := bytes.HasPrefix(response, psk[:])
	h.note("handshake with %s %x: %v", h.nameOf(id), instance[:1], done)
	return done
}

// Deliver implements NAT.
func (h *host) Deliver(from identity.NodeID, m path.Message) {
	if m.Straight.IsValid() {
		h.note("%s %d of %s from %v", m.Kind, m.Attempt, h.nameOf(from), m.Straight)
	} else {
		h.note("%s %d of %s", m.Kind, m.Attempt, h.nameOf(from))
	}
	h.mu.Lock()
	answers := h.answers
	h.mu.Unlock()
	if answers && m.Kind == path.KindOffer {
		h.say(from, answer(m.Attempt))
	}
}

// Pack implements Standing.
func (h *host) Pack() uint32 { return h.stands.Pack() }

// say sends, and fails the test when that is refused.
func (h *host) say(to identity.NodeID, m path.Message) {
	h.world.t.Helper()
	if err := h.courier.Send(to, m); err != nil {
		h.world.t.Errorf("%s: send %s: got %v, want nil", h.name, m.Kind, err)
	}
}

func (h *host) key(of *host) [32]byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.psk[of.id]
}

func message(kind path.Kind, attempt uint64) path.Message {
	m := path.Message{Kind: kind, Attempt: attempt, Instance: [8]byte{7}}
	if kind == path.KindOffer || kind == path.KindAnswer {
		m.Ufrag, m.Pwd = "abcd", strings.Repeat("p", 22)
	}
	return m
}

func offer(attempt uint64) path.Message      { return message(path.KindOffer, attempt) }
func answer(attempt uint64) path.Message     { return message(path.KindAnswer, attempt) }
func candidates(attempt uint64) path.Message { return message(path.KindCandidates, attempt) }
