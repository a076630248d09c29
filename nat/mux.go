package nat

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"warren/mesh/identity"
	"warren/nat/limit"
	"warren/nat/path"
	"warren/nat/stunwire"
)

// Reason names why a STUN packet was dropped, for counters.
type Reason int

// The reasons.
const (
	DropMalformed Reason = iota // not a STUN Binding request or response, or an unsound one
	DropUnknown                 // credentials or transaction unknown, or expired
	DropForged                  // message integrity wrong
	DropLimited                 // over the rate limit, or the answer would be larger than the request
	DropRejected                // from an address that is no underlay address
	DropQueue                   // a queue was full
	reasons
)

// String names the reason in metrics.
func (r Reason) String() string {
	return [...]string{"malformed", "unknown", "forged", "limited", "rejected", "queue full"}[r]
}

// mux shares the STUN lane between the ICE agents of all attempts, the checks of the paths in use, the
// prober and the answers to strangers. It looks a request up by its ufrag and a response by its
// transaction, never by address, so that two agents towards one address do not take each other's packets.
//
// Its methods may be called concurrently.
type mux struct {
	// Constant after newMux.
	conn   net.PacketConn
	notify func(item) bool              // never blocks; false when the queue is full
	wake   func()                       // never blocks: there is something in arrived
	limit  *limit.Sources[netip.Prefix] // of answers to strangers, by limit.Host

	overlay atomic.Pointer[[]netip.Prefix] // as Local last said
	dropped [reasons]atomic.Uint64

	// With locks of their own.
	asks     transactions
	arrivals arrivals
	budget   *budget // of checks to addresses that have not answered

	// Guarded by mu.
	mu      sync.Mutex
	agents  map[string]*agentMux // by own ufrag
	trusted map[string]*trusted  // by own ufrag
	byPeer  map[identity.NodeID][]path.Credentials
}

// trusted says whose checks are taken under a ufrag. Until its attempt is over they are its agent's,
// and held for an agent that has not started: a peer-reflexive address is learnt from nothing else.
type trusted struct {
	peer  identity.NodeID
	pwd   string
	over  bool
	early []early
	told  []netip.AddrPort // from where something authentic came, as the machine was told

	answers *rate.Limiter // constant: of checks after the attempt
}

type early struct {
	raw  []byte
	from netip.AddrPort
}

const (
	maxEarly = 8 // checks held: one for each pair of a usual attempt
	// maxTold bounds the addresses of a peer in an attempt: each new one has the agent send checks there. A peer that uses more
	// has them from a generator, or forges those of others.
	maxTold = 16
	// checksAnswered bounds, in each second, the checks under one ufrag that are answered and reported: a path in use has five,
	// a few more when it is in doubt. One peer must not fill the queue of all.
	checksAnswered = 50
)

func newMux(conn net.PacketConn, notify func(item) bool, wake func()) *mux {
	x := &mux{
		conn: conn, notify: notify, wake: wake, limit: newAnswerLimit(),
		agents: make(map[string]*agentMux), trusted: make(map[string]*trusted),
		byPeer: make(map[identity.NodeID][]path.Credentials), asks: transactions{waiting: make(map[stunwire.ID]waiter)}, budget: newBudget(),
	}
	x.overlay.Store(new([]netip.Prefix))
	return x
}

// read dispatches packets until ctx has ended and a read deadline passes.
func (x *mux) read(ctx context.Context) error {
	buf := make([]byte, 2048)
	for {
		n, addr, err := x.conn.ReadFrom(buf)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("read STUN lane: %w", err)
		}
		if udp, ok := addr.(*net.UDPAddr); ok {
			from := udp.AddrPort()
			x.dispatch(buf[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
		}
	}
}

func (x *mux) dispatch(raw []byte, from netip.AddrPort) {
	p, ok := stunwire.Inspect(raw)
	switch {
	case !ok:
		x.drop(DropMalformed)
	case path.InOverlay(*x.overlay.Load(), from.Addr()):
		// A check that came through a tunnel would make the tunnel its own underlay.
		x.drop(DropRejected)
	case p.Class == stunwire.Success:
		x.response(&p, from)
	case p.Username == nil:
		x.stranger(&p, from)
	default:
		x.request(&p, from)
	}
}

func (x *mux) drop(r Reason) { x.dropped[r].Add(1) }

// drops returns the number of packets dropped so far, by reason.
func (x *mux) drops() map[string]uint64 {
	counts := make(map[string]uint64, reasons)
	for r := range x.dropped {
		counts[Reason(r).String()] = x.dropped[r].Load()
	}
	return counts
}

// request gives an authentic check to the agent of its attempt, while there is one, or answers it.
// Checks over a relay are never the agent's: relays are no candidates.
func (x *mux) request(p *stunwire.Packet, from netip.AddrPort) {
	ufrag, _, found := bytes.Cut(p.Username, []byte{':'})
	x.mu.Lock()
	t := x.trusted[string(ufrag)]
	x.mu.Unlock()
	switch {
	case !found || t == nil:
		x.drop(DropUnknown)
	case !p.Authentic(t.pwd):
		x.drop(DropForged)
	case !path.IsVirtual(from.Addr()) && x.toAgent(string(ufrag), t, p, from):
		x.prove(t, from)
	case !t.answers.AllowN(time.Now(), 1):
		x.drop(DropLimited)
	default:
		raw, err := stunwire.Answer(p.ID, from, t.pwd)
		if err != nil {
			x.drop(DropMalformed)
			return
		}
		x.write(raw, from)
		if !x.notify(item{peer: t.peer, in: path.PeerChecked{From: from}}) {
			x.drop(DropQueue)
		}
	}
}

// toAgent hands a check to the attempt that it belongs to, or holds it; false when the attempt is over.
func (x *mux) toAgent(ufrag string, t *trusted, p *stunwire.Packet, from netip.AddrPort) bool {
	x.mu.Lock()
	agent, over := x.agents[ufrag], t.over
	switch {
	case !over && len(t.told) >= maxTold && !slices.Contains(t.told, from):
		x.drop(DropLimited)
		agent, over = nil, false
	case agent != nil, over:
	case len(t.early) < maxEarly:
		t.early = append(t.early, early{raw: append([]byte(nil), p.Raw...), from: from})
	default:
		x.drop(DropQueue)
	}
	x.mu.Unlock()
	if agent == nil {
		return !over
	}
	agent.take(p, from)
	return true
}

// prove tells a peer's machine, once in an attempt, that the peer has shown itself at an address. It does so when a packet
// arrives: WireGuard packets from there may be right behind.
func (x *mux) prove(t *trusted, from netip.AddrPort) {
	x.mu.Lock()
	known := len(t.told) >= maxTold || slices.Contains(t.told, from)
	x.mu.Unlock()
	if known {
		return
	}
	if !x.notify(item{peer: t.peer, in: path.Proven{From: from}}) {
		x.drop(DropQueue) // the next check will tell
		return
	}
	x.mu.Lock()
	t.told = append(t.told, from)
	x.mu.Unlock()
}

// response gives a response to whoever asked.
func (x *mux) response(p *stunwire.Packet, from netip.AddrPort) {
	w, known := x.asks.asked(p.ID, from)
	if !known {
		x.drop(DropUnknown)
		return
	}
	if w.pwd != "" && !p.Authentic(w.pwd) {
		x.drop(DropForged) // the true answer may be right behind
		return
	}
	x.asks.done(p.ID)
	var it item
	switch {
	case w.agent != nil:
		x.answered(w.agent, p, from)
		return
	case w.punch != "":
		x.proveUnder(w.punch, from)
		return
	case w.check:
		it = item{peer: w.peer, in: path.CheckAnswered{ID: w.id}}
	default:
		addr, ok := p.Mapped()
		if !ok {
			x.drop(DropMalformed)
			return
		}
		it = item{mapped: &mappedAnswer{server: from, id: p.ID, addr: addr}}
	}
	if !x.notify(it) {
		x.drop(DropQueue)
	}
}

// answered gives an agent the authentic response to its check.
func (x *mux) answered(agent *agentConn, p *stunwire.Packet, from netip.AddrPort) {
	agent.owner.answered(from)
	if !agent.deliver(p.Raw, from) {
		x.drop(DropQueue)
	}
	x.proveUnder(agent.owner.own.Ufrag, from)
}

// proveUnder is prove for an authentic answer to a check of the attempt with that own ufrag.
func (x *mux) proveUnder(ufrag string, from netip.AddrPort) {
	x.mu.Lock()
	t := x.trusted[ufrag]
	x.mu.Unlock()
	if t != nil {
		x.prove(t, from)
	}
}

// stranger tells the sender of a bare Binding request its address, as any STUN server does (RFC 8489).
// That is what makes an anchor useful before there is a session; the limits keep it from being of use
// against others.
func (x *mux) stranger(p *stunwire.Packet, from netip.AddrPort) {
	if !path.IsVirtual(from.Addr()) && x.arrivals.came(p.ID) {
		x.wake()
	}
	raw, err := stunwire.Answer(p.ID, from, "")
	if err != nil || len(raw) > len(p.Raw) || path.IsVirtual(from.Addr()) || !x.limit.Allow(time.Now(), limit.Host(from.Addr())) {
		x.drop(DropLimited)
		return
	}
	x.write(raw, from)
}

// write sends without waiting. What cannot be sent is lost, as in the network.
func (x *mux) write(raw []byte, to netip.AddrPort) {
	_, _ = x.conn.WriteTo(raw, net.UDPAddrFromAddrPort(to))
}

// shown reports whether the peer has shown itself in the attempt with that own ufrag.
func (x *mux) shown(ufrag string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.trusted[ufrag]
	return t != nil && len(t.told) > 0
}

// trust replaces the credentials under which the checks of peer are answered.
func (x *mux) trust(peer identity.NodeID, own []path.Credentials) {
	x.mu.Lock()
	defer x.mu.Unlock()
	before := make(map[string]*trusted)
	for _, c := range x.byPeer[peer] {
		before[c.Ufrag] = x.trusted[c.Ufrag]
		delete(x.trusted, c.Ufrag)
	}
	delete(x.byPeer, peer)
	if len(own) > 0 {
		x.byPeer[peer] = own
	}
	for _, c := range own {
		x.trusted[c.Ufrag] = before[c.Ufrag]
		if before[c.Ufrag] == nil {
			x.trusted[c.Ufrag] = &trusted{peer: peer, pwd: c.Pwd, answers: rate.NewLimiter(checksAnswered, checksAnswered)}
		}
	}
}

func (x *mux) addAgent(a *agentMux) {
	var held []early
	x.mu.Lock()
	x.agents[a.own.Ufrag] = a
	if t := x.trusted[a.own.Ufrag]; t != nil {
		held, t.early = t.early, nil
	}
	x.mu.Unlock()
	for _, e := range held {
		if p, ok := stunwire.Inspect(e.raw); ok {
			a.take(&p, e.from)
		}
	}
}

// removeAgent leaves the checks of that attempt to be answered by request.
func (x *mux) removeAgent(a *agentMux) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.agents[a.own.Ufrag] == a {
		delete(x.agents, a.own.Ufrag)
	}
	if t := x.trusted[a.own.Ufrag]; t != nil {
		t.over = true
	}
}
