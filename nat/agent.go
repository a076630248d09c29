package nat

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/ice/v3"
	"github.com/pion/logging"
	"github.com/pion/transport/v3"
	"github.com/pion/transport/v3/stdnet"

	"warren/mesh/identity"
	"warren/nat/path"
	"warren/nat/stunwire"
)

/* The library
 *
 * ICE is pion's, of the line v3, which is at its end: what it reads STUN with has a known hole (GHSA-34rh-wp3j-6cxc), and is given
 * nothing that stunwire has not passed, and no stranger's messages. It is imported here and nowhere else. To go on to v4 (seen with
 * v4.4.9, by which all tests of this package pass) the paths of two imports are changed, ice/v3 to ice/v4 and transport/v3 to the
 * transport that this version of ice wants (v5), with the one of stdnet below it; options, methods and logging are the same.
 * What is new there is settled before the library: v4 answers a conflict of roles (487) and changes sides, see take.
 */

// Times of an ICE agent. pion's defaults cost 0.6 s, these 0.07 s.
const (
	checkInterval = 50 * time.Millisecond
	// reflexiveWait lets a better pair, which may answer some milliseconds later, win against the first.
	// It is a little less than checkInterval, because nomination happens on its ticks.
	reflexiveWait = 45 * time.Millisecond
	// agentTime is above package path's time for an attempt, which decides.
	agentTime = 10 * time.Second
	// closeTime is how long a Close is waited for; it is known to hang.
	closeTime = 3 * time.Second
	// agentQueue is the number of packets held for an agent; the oldest go first.
	agentQueue = 64
)

// agentMux gives one ICE agent its share of the socket. To the agent it has one address of each family:
// all local addresses send through the same socket and the kernel chooses among them, so that more
// would be the same pairs over again (RFC 8445, section 6.1.2.4, prunes them). What is signalled to the
// peer is another matter, and all of it.
type agentMux struct {
	// Constant.
	mux    *mux
	peer   identity.NodeID
	own    path.Credentials
	remote path.Credentials
	// controlling is the role for good: it follows from the IDs, so that there is no conflict to be settled.
	controlling bool

	bases  []net.Addr
	v4, v6 *agentConn
	trial  *trial              // what comes of the attempt
	poked  chan struct{}       // a value when checks may wait for their turn
	first  chan netip.AddrPort // the first address that has answered; capacity 1
	once   sync.Once

	mu    sync.Mutex // guards the rest
	pacer *pacer
}

var _ ice.UDPMux = (*agentMux)(nil)

// newAgentMux needs the node's host addresses, of which the first of each family becomes the base, and its mapped ones.
func newAgentMux(x *mux, peer identity.NodeID, s path.StartICE, hosts, mapped []netip.AddrPort) *agentMux {
	a := &agentMux{mux: x, peer: peer, own: s.Local, remote: s.Remote, controlling: s.Controlling, poked: make(chan struct{}, 1), first: make(chan netip.AddrPort, 1)}
	a.pacer = newPacer(neighbourhood{hosts: addresses(hosts), mapped: addresses(mapped)}, s.Spacing)
	for _, host := range hosts {
		base := net.UDPAddrFromAddrPort(host)
		switch {
		case host.Addr().Is4() && a.v4 == nil:
			a.v4 = newAgentConn(a, base)
		case host.Addr().Is6() && a.v6 == nil:
			a.v6 = newAgentConn(a, base)
		default:
			continue
		}
		a.bases = append(a.bases, base)
	}
	a.trial = &trial{v4: a.v4 != nil, v6: a.v6 != nil}
	return a
}

func addresses(list []netip.AddrPort) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, a.Addr())
	}
	return out
}

// named notes candidates that the peer has told.
func (a *agentMux) named(candidates []path.Candidate) {
	a.trial.named(candidates)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pacer.named(candidates)
}

// take gives an authentic check of the peer to the agent. One that claims the role of this side is not of a peer that keeps to the
// rules, and must not have the agent settle it.
func (a *agentMux) take(p *stunwire.Packet, from netip.AddrPort) {
	if p.Controlling && a.controlling || p.Controlled && !a.controlling {
		a.mux.drop(DropRejected)
		return
	}
	a.heard(from)
	if !a.conn(from.Addr()).deliver(p.Raw, from) {
		a.mux.drop(DropQueue)
	}
}

// heard notes an authentic check of the peer.
func (a *agentMux) heard(from netip.AddrPort) {
	a.trial.heard(from)
	a.mu.Lock()
	a.pacer.heard(from)
	a.mu.Unlock()
	a.poke() // the agent's check may wait already
}

// answered notes an authentic answer of the peer.
func (a *agentMux) answered(from netip.AddrPort) {
	a.trial.answered(from)
	a.mu.Lock()
	spent := a.pacer.answered(from)
	a.mu.Unlock()
	a.mux.budget.answered(time.Now(), a.peer, from.Addr(), spent)
	a.once.Do(func() { a.first <- from })
}

func (a *agentMux) poke() {
	select {
	case a.poked <- struct{}{}:
	default:
	}
}

// check takes a check of the agent, which leaves when it is its turn.
func (a *agentMux) check(p stunwire.Packet, to netip.AddrPort) {
	a.mu.Lock()
	atOnce := a.pacer.hold(time.Now(), p.Raw, to, p.Nominates)
	a.mu.Unlock()
	if atOnce {
		a.send(p, to)
		return
	}
	a.poke()
}

// sendDue sends the checks whose turn it is, as far as the budget goes.
func (a *agentMux) sendDue() {
	for {
		raw, to := a.next(time.Now())
		if raw == nil {
			return
		}
		if p, ok := stunwire.Inspect(raw); ok {
			a.send(p, to)
		}
	}
}

// next takes the check that may leave now; nil for none.
func (a *agentMux) next(now time.Time) (raw []byte, to netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.pacer.due(now) {
		switch a.mux.budget.check(now, a.peer, p.to.Addr(), p.sent > 0, p.checked) {
		case granted:
			return a.pacer.leave(p, now, !p.checked), p.to
		case waits:
			return nil, netip.AddrPort{}
		case refused:
		}
	}
	return nil, netip.AddrPort{}
}

// send sends a check, whose answer will come back to the agent.
func (a *agentMux) send(p stunwire.Packet, to netip.AddrPort) {
	c := a.conn(to.Addr())
	if c == nil {
		return
	}
	a.mux.asks.expect(p.ID, waiter{to: to, agent: c, pwd: a.remote.Pwd})
	a.trial.sent(to)
	a.mux.write(p.Raw, to)
}

// conn returns the connection for packets from that address, nil when there is none of its family.
func (a *agentMux) conn(addr netip.Addr) *agentConn {
	if addr.Is4() {
		return a.v4
	}
	return a.v6
}

// GetListenAddresses returns the bases.
func (a *agentMux) GetListenAddresses() []net.Addr { return a.bases }

// GetConn returns the connection of the base.
func (a *agentMux) GetConn(_ string, addr net.Addr) (net.PacketConn, error) {
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return nil, fmt.Errorf("get connection: %T is no UDP address", addr)
	}
	c := a.conn(udp.AddrPort().Addr().Unmap())
	if c == nil {
		return nil, fmt.Errorf("get connection: no base for %s", addr)
	}
	return c, nil
}

// RemoveConnByUfrag does nothing: an agentMux serves one attempt and goes with it.
func (a *agentMux) RemoveConnByUfrag(string) {}

// Close does nothing, for the same reason.
func (a *agentMux) Close() error { return nil }

// agentConn is the connection of one base of one agent.
type agentConn struct {
	owner  *agentMux
	local  net.Addr
	queue  chan received
	once   sync.Once
	closed chan struct{}
}

type received struct {
	raw  []byte
	from *net.UDPAddr
}

func newAgentConn(owner *agentMux, local net.Addr) *agentConn {
	return &agentConn{owner: owner, local: local, queue: make(chan received, agentQueue), closed: make(chan struct{})}
}

// deliver queues a packet, in place of the oldest when the queue is full. It reports false when one was lost.
func (c *agentConn) deliver(raw []byte, from netip.AddrPort) bool {
	if c == nil {
		return false
	}
	r := received{raw: append([]byte(nil), raw...), from: net.UDPAddrFromAddrPort(from)}
	select {
	case c.queue <- r:
		return true
	default:
	}
	select {
	case <-c.queue:
	default:
	}
	select {
	case c.queue <- r:
	default:
	}
	return false
}

func (c *agentConn) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case r := <-c.queue:
		return copy(p, r.raw), r.from, nil
	case <-c.closed:
		return 0, nil, io.EOF
	}
}

// WriteTo sends a packet of the agent: an answer at once, a check when it is its turn, if ever.
func (c *agentConn) WriteTo(raw []byte, addr net.Addr) (int, error) {
	select {
	case <-c.closed:
		return 0, io.ErrClosedPipe
	default:
	}
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("write: %T is no UDP address", addr)
	}
	to := udp.AddrPort()
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if p, ok := stunwire.Inspect(raw); ok && p.Class == stunwire.Request {
		c.owner.check(p, to)
	} else {
		c.owner.mux.write(raw, to)
	}
	return len(raw), nil
}

func (c *agentConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (c *agentConn) LocalAddr() net.Addr { return c.local }

// Deadlines are set by the agent only just before it closes the connection.
func (c *agentConn) SetDeadline(time.Time) error      { return nil }
func (c *agentConn) SetReadDeadline(time.Time) error  { return nil }
func (c *agentConn) SetWriteDeadline(time.Time) error { return nil }

// noInterfaces keeps the agent from looking at the system: it is told all that it needs.
type noInterfaces struct{ *stdnet.Net }

func (noInterfaces) Interfaces() ([]*transport.Interface, error) { return nil, nil }

type silent struct{}

func (silent) NewLogger(scope string) logging.LeveledLogger {
	return logging.NewDefaultLeveledLoggerForScope(scope, logging.LogLevelDisabled, io.Discard)
}

func agentConfig(a *agentMux) *ice.AgentConfig {
	requests := uint16(agentTime / checkInterval)
	ptr := func(d time.Duration) *time.Duration { return &d }
	return &ice.AgentConfig{
		LocalUfrag: a.own.Ufrag, LocalPwd: a.own.Pwd,
		UDPMux:              a,
		Net:                 noInterfaces{&stdnet.Net{}},
		NetworkTypes:        []ice.NetworkType{ice.NetworkTypeUDP4, ice.NetworkTypeUDP6},
		CandidateTypes:      []ice.CandidateType{ice.CandidateTypeHost},
		MulticastDNSMode:    ice.MulticastDNSModeDisabled,
		MaxBindingRequests:  &requests,
		CheckInterval:       ptr(checkInterval),
		KeepaliveInterval:   ptr(0),
		DisconnectedTimeout: ptr(agentTime),
		FailedTimeout:       ptr(agentTime),
		// The local side is always a host candidate here, so these apply to the remote one.
		HostAcceptanceMinWait:  ptr(0),
		SrflxAcceptanceMinWait: ptr(reflexiveWait),
		PrflxAcceptanceMinWait: ptr(reflexiveWait),
		LoggerFactory:          silent{},
	}
}

// attempt is one run of an ICE agent, from StartICE to StopICE.
type attempt struct {
	start path.StartICE
	mux   *agentMux
	more  chan []path.Candidate // trickled
	stop  chan struct{}         // closed by the run loop
}

// run tries the candidate pairs and reports the nominated one, or why there can be none. It returns
// when it is stopped, or ctx ends, and the agent is closed, or known not to close.
func (a *attempt) run(ctx context.Context, report func(path.Input), log *slog.Logger) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.mux.mux.addAgent(a.mux)
	defer a.mux.mux.removeAgent(a.mux)
	agent, err := a.open()
	if err != nil {
		report(path.Failed{Attempt: a.start.Attempt, Text: err.Error()})
		return
	}
	nominated, connected := make(chan netip.AddrPort, 1), make(chan struct{})
	go func() {
		defer close(connected)
		a.connect(ctx, agent, nominated)
	}()
	answered := func(addr netip.AddrPort) { report(path.PairAnswered{Attempt: a.start.Attempt, Addr: addr}) }
	var gathered <-chan time.Time
	for ctx.Err() == nil {
		select {
		case addr := <-a.mux.first:
			answered(addr)
		case <-a.mux.poked:
			if gathered == nil {
				gathered = time.After(gatherTime)
			}
		case <-gathered:
			gathered = nil
			a.mux.sendDue()
		case candidates := <-a.more:
			a.mux.named(candidates)
			addCandidates(agent, candidates)
		case addr := <-nominated:
			select {
			case first := <-a.mux.first: // it was before
				answered(first)
			default:
			}
			a.mux.trial.nominated(addr)
			report(path.Nominated{Attempt: a.start.Attempt, Addr: addr})
		case <-a.stop:
			cancel()
		case <-ctx.Done():
		}
	}
	closed := make(chan struct{})
	go func() {
		_ = agent.Close()
		<-connected
		close(closed)
	}()
	timeout := time.NewTimer(closeTime)
	defer timeout.Stop()
	select {
	case <-closed:
	case <-timeout.C:
		log.Warn("ICE agent does not close", "attempt", a.start.Attempt)
	}
}

// open makes the agent, which has its local candidates within the millisecond.
func (a *attempt) open() (*ice.Agent, error) {
	agent, err := ice.NewAgent(agentConfig(a.mux))
	if err != nil {
		return nil, fmt.Errorf("start ICE: %w", err)
	}
	err = agent.OnCandidate(func(ice.Candidate) {}) // gathering demands it
	if err == nil {
		err = agent.GatherCandidates()
	}
	if err != nil {
		_ = agent.Close()
		return nil, fmt.Errorf("start ICE: %w", err)
	}
	addCandidates(agent, a.start.Candidates)
	return agent, nil
}

func (a *attempt) connect(ctx context.Context, agent *ice.Agent, nominated chan<- netip.AddrPort) {
	dial := agent.Accept
	if a.start.Controlling {
		dial = agent.Dial
	}
	if _, err := dial(ctx, a.start.Remote.Ufrag, a.start.Remote.Pwd); err != nil {
		return // cancelled: package path keeps the time
	}
	pair, err := agent.GetSelectedCandidatePair()
	if err != nil || pair == nil {
		return
	}
	addr, err := netip.ParseAddr(pair.Remote.Address())
	if err != nil {
		return
	}
	nominated <- netip.AddrPortFrom(addr.Unmap(), uint16(pair.Remote.Port()))
}

func addCandidates(agent *ice.Agent, candidates []path.Candidate) {
	for _, c := range candidates {
		remote, err := remoteCandidate(c)
		if err != nil {
			continue // package path has parsed it; the agent has no use for it
		}
		_ = agent.AddRemoteCandidate(remote)
	}
}

func remoteCandidate(c path.Candidate) (ice.Candidate, error) {
	if c.Type == path.Host {
		return ice.NewCandidateHost(&ice.CandidateHostConfig{
			Network: "udp", Address: c.Addr.Addr().String(), Port: int(c.Addr.Port()), Component: 1, Priority: c.Priority,
		})
	}
	return ice.NewCandidateServerReflexive(&ice.CandidateServerReflexiveConfig{
		Network: "udp", Address: c.Addr.Addr().String(), Port: int(c.Addr.Port()), Component: 1, Priority: c.Priority,
	})
}
