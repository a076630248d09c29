package path

import (
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
)

// Config is what a Machine is made of.
type Config struct {
	Self, Peer identity.NodeID
	Instance   [8]byte               // of this process
	Random     func(n int) string    // n unguessable characters of IceAlphabet
	Jitter     func() float64        // in [0, 1)
	Reject     func(netip.Addr) bool // addresses that are never candidates; may be nil
}

// Input is one of the types below.
type Input interface{ input() }

type (
	// Wake is due at the time that Step returned. It carries the peer's WireGuard activity, zero for never.
	Wake struct{ LastTx, LastRx time.Time }
	// Local replaces this node's candidates and the anchors that it can relay through.
	Local struct {
		Candidates []Candidate
		Relays     []RelayOffer
	}
	// Received is a verified message from the peer.
	Received struct{ Message Message }
	// Routable says that signals to the peer have a route now.
	Routable struct{}
	// Unroutable says that the message just sent, of that kind, had no route.
	Unroutable struct {
		Kind Kind
		Text string
	}
	// NetworkChanged brings what Local does and asks for a new attempt, whatever there is.
	NetworkChanged struct{ Local Local }
	// Suspect asks for a check of the current path now.
	Suspect struct{}
	// Nominated is ICE's success; Failed its end without one.
	Nominated struct {
		Attempt uint64
		Addr    netip.AddrPort
	}
	Failed struct {
		Attempt uint64
		Text    string
	}
	// RelayOpened answers OpenRelay; Text is the error, empty for success.
	RelayOpened struct {
		Anchor identity.NodeID
		Addr   netip.AddrPort
		Text   string
	}
	// CheckAnswered says that a Check got an authentic answer from the address it went to.
	CheckAnswered struct{ ID uint64 }
	// PeerChecked says that an authentic check of the peer came from that address.
	PeerChecked struct{ From netip.AddrPort }
)

func (Wake) input()           {}
func (Local) input()          {}
func (Received) input()       {}
func (Routable) input()       {}
func (Unroutable) input()     {}
func (NetworkChanged) input() {}
func (Suspect) input()        {}
func (Nominated) input()      {}
func (Failed) input()         {}
func (RelayOpened) input()    {}
func (CheckAnswered) input()  {}
func (PeerChecked) input()    {}

// Output is one of the types below, to be carried out in order.
type Output interface{ output() }

type (
	// Send signals a message to the peer. If there is no route, Unroutable must be the next input.
	Send struct{ Message Message }
	// StartICE starts an agent of its own for this attempt. StopICE ends it; it may have ended already.
	StartICE struct {
		Attempt       uint64
		Controlling   bool
		Local, Remote Credentials
		Candidates    []Candidate
	}
	AddCandidates struct {
		Attempt    uint64
		Candidates []Candidate
	}
	StopICE struct{ Attempt uint64 }
	// Trust replaces the own credentials under which the peer's checks are answered.
	Trust struct{ Own []Credentials }
	// Check sends one STUN Binding request from Own to Remote's credentials.
	Check struct {
		ID          uint64
		To          netip.AddrPort
		Own, Remote Credentials
	}
	OpenRelay  struct{ Anchor identity.NodeID }
	CloseRelay struct{ Addr netip.AddrPort }
	// Report tells the world.
	Report struct{ Event Event }
)

func (Send) output()          {}
func (StartICE) output()      {}
func (AddCandidates) output() {}
func (StopICE) output()       {}
func (Trust) output()         {}
func (Check) output()         {}
func (OpenRelay) output()     {}
func (CloseRelay) output()    {}
func (Report) output()        {}

// Machine holds what is known about one peer. See Step.
type Machine struct {
	// Constant after New.
	cfg         Config
	controlling bool

	local   Local
	remote  remote
	own     []Credentials // of the newest attempts, newest first
	agreed  exchange
	sources []netip.AddrPort

	sig   signalling
	try   attempt
	relay relay
	cur   current
	life  life
	retry ladder

	out []Output
}

// remote is the peer's process as last heard.
type remote struct {
	instance, previous [8]byte
	changed            time.Time // when it took the place of previous
	restarted          bool      // and no path since
}

// exchange is the newest pair of credentials that both sides hold: checks are made under it.
type exchange struct {
	own, remote Credentials
	ok          bool
}

// current is the path in use.
type current struct {
	path   Path
	since  time.Time
	reason string // of the last change
	alt    netip.AddrPort
	altOK  time.Time // when alt last answered a check
}

// New returns the machine of a peer with no path. The first Step should be Local, the second
// Routable, which starts the introduction.
func New(cfg Config, now time.Time) *Machine {
	return &Machine{
		cfg:         cfg,
		controlling: cfg.Self.Compare(cfg.Peer) < 0,
		cur:         current{since: now, reason: "no path yet"},
	}
}

// Controlling reports whether this side offers and nominates: the one with the smaller ID.
func (m *Machine) Controlling() bool { return m.controlling }

// Step takes one input and returns what to do, in order, and when to send the next Wake (the zero
// time for never). The outputs are the caller's.
func (m *Machine) Step(now time.Time, in Input) (out []Output, wake time.Time) {
	switch in := in.(type) {
	case Wake:
		m.wake(now, in)
	case Local:
		m.setLocal(now, in)
	case Received:
		m.received(now, in.Message)
	case Routable:
		m.routable(now)
	case Unroutable:
		m.unroutable(now, in)
	case NetworkChanged:
		m.local = in.Local.bounded()
		m.retry.rung = 0
		m.suspect(now)
		m.begin(now)
	case Suspect:
		m.suspect(now)
	case Nominated:
		m.nominated(now, in)
	case Failed:
		m.failed(now, in)
	case RelayOpened:
		m.relayOpened(now, in)
	case CheckAnswered:
		m.checkAnswered(now, in.ID)
	case PeerChecked:
		m.peerChecked(now, in.From)
	}
	out, m.out = m.out, nil
	return out, m.next()
}

// Stop ends what is running, for a peer that is no longer wanted.
func (m *Machine) Stop() []Output {
	m.endAttempt()
	m.closeRelay()
	m.emit(Trust{})
	out := m.out
	m.out = nil
	return out
}

func (m *Machine) emit(o Output) { m.out = append(m.out, o) }

// wake does everything that is due, in the order in which a try unfolds.
func (m *Machine) wake(now time.Time, activity Wake) {
	if m.sig.waiting && due(now, m.sig.next) {
		m.transmit(now)
	}
	if m.try.on {
		m.watchAttempt(now)
	}
	m.watchRelay(now)
	m.watchPath(now, activity)
	if due(now, m.retry.at) {
		m.retry.at = time.Time{}
		m.begin(now)
	}
}

// next is the earliest of the parts' times.
func (m *Machine) next() time.Time {
	var first time.Time
	for _, t := range []time.Time{m.sig.wake(), m.try.wake(), m.relay.wake(m), m.life.wake(m), m.retry.at} {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

func due(now, at time.Time) bool { return !at.IsZero() && !at.After(now) }

// setPath moves to another path (or to none) and reports it.
func (m *Machine) setPath(now time.Time, p Path, reason string) {
	changed := p.Addr != m.cur.path.Addr || p.Kind != m.cur.path.Kind
	if changed || m.remote.restarted {
		m.cur.since = now
	}
	m.cur.path, m.cur.reason = p, reason
	m.life = life{checkID: m.life.checkID, pending: m.life.pending}
	if p.Kind != None {
		m.life.heard = now
		m.sendCheck(now, p.Addr)
		m.life.suspectSince, m.life.grace = now, firstGrace
	}
	restarted := m.remote.restarted && p.Kind != None
	if restarted {
		m.remote.restarted = false
	}
	m.report(restarted)
}

func (m *Machine) report(restarted bool) {
	m.emit(Report{Event{
		Peer:          m.cfg.Peer,
		Path:          m.cur.path,
		Controlling:   m.controlling,
		PeerRestarted: restarted,
		Sources:       m.allSources(),
		Reason:        m.cur.reason,
	}})
}

// allSources lists where the peer may send from besides the path: its candidates, an address that its
// checks came from, and the relay. Without them, WireGuard would take the packets of a peer that
// switches first for those of a stranger.
func (m *Machine) allSources() []netip.AddrPort {
	list := slices.Clone(m.sources)
	for _, addr := range []netip.AddrPort{m.cur.alt, m.relay.addr} {
		if addr.IsValid() && !slices.Contains(list, addr) {
			list = append(list, addr)
		}
	}
	return slices.DeleteFunc(list, func(a netip.AddrPort) bool { return a == m.cur.path.Addr })
}

// backoff returns base doubled n times, at most limit, with jitter of ± 15 %.
func (m *Machine) backoff(base, limit time.Duration, n int) time.Duration {
	d := base << min(n, 20)
	if d > limit || d <= 0 {
		d = limit
	}
	return time.Duration(float64(d) * (0.85 + 0.3*m.cfg.Jitter()))
}
