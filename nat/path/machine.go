package path

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"warren/mesh/identity"
	"warren/nat/due"
)

// Config is what a Machine is made of.
type Config struct {
	Self, Peer identity.NodeID
	Instance   [8]byte // of this process
	// Seed is where all chance comes from, ICE passwords included: nobody may know it, and no two machines share one.
	Seed [32]byte
	// Answers is shared by the machines of a node; nil: by none.
	Answers *Answers
}

// Machine holds what is known about one peer. See Step.
//
// It is made of parts that do not know each other: the introduction signals and tries ICE, the route uses what came of it,
// the wishes are what else a relayed path would like. Machine tells each what the others have done.
type Machine struct {
	core   *core
	intro  introduction
	route  route
	wishes wishes
}

// core is what all parts stand on.
type core struct {
	// Constant after New.
	cfg         Config
	controlling bool

	random  *rand.Rand
	overlay []netip.Prefix // as Local last said
	trusted []Credentials  // own ones of the newest attempts, newest first
	agreed  exchange       // set by checks
	out     []Output
}

// exchange is a pair of credentials that both sides hold. Checks are made under the one agreed on last.
type exchange struct {
	own, remote Credentials
}

func (e exchange) ok() bool { return e.own.Ufrag != "" }

// New returns the machine of a peer with no path. The first Step should be Local, the second
// Routable, which starts the introduction.
func New(cfg Config, now time.Time) *Machine {
	if cfg.Answers == nil {
		cfg.Answers = new(Answers)
	}
	c := &core{cfg: cfg, controlling: cfg.Self.Compare(cfg.Peer) < 0, random: rand.New(rand.NewChaCha8(cfg.Seed))}
	return &Machine{core: c, intro: newIntroduction(c), route: newRoute(c, now)}
}

// Controlling reports whether this side offers and nominates: the one with the smaller ID.
func (m *Machine) Controlling() bool { return m.core.controlling }

// Step takes one input and returns what to do, in order, and when to send the next Wake: the zero time for never, else now or later, so that
// whoever comes later than that is late. The outputs are the caller's.
func (m *Machine) Step(now time.Time, in Input) (out []Output, wake time.Time) {
	switch in := in.(type) {
	case Wake:
		m.wake(now, in)
	case Stirred:
		m.route.watch(now, Wake{LastTx: in.LastTx, LastRx: in.LastRx})
	case Local:
		m.core.overlay = in.Overlay
		again, soon := m.stranded(in) || m.cornered(in), m.unaided(in)
		m.intro.setLocal(now, in)
		m.route.relays.renew(now, m.route.used(), in.Relays)
		m.ease(now)
		switch {
		case again:
			m.intro.begin(now)
		case soon:
			m.intro.hurry(now)
		}
	case Met:
		m.intro.meet(now, in.Addr)
	case Received:
		m.intro.received(now, in.Message)
	case Routable:
		m.intro.routable(now, in.Perhaps)
	case Unroutable:
		m.intro.sig.unroutable(now, in)
	case NetworkChanged:
		m.core.overlay = in.Local.Overlay
		m.intro.retry.descend()
		m.route.suspectAnew(now) // checks that went nowhere while the link was down prove nothing
		if in.Same {
			m.intro.setLocal(now, in.Local)
			m.intro.routable(now, false)
		} else {
			m.intro.local = in.Local.bounded()
			m.route.relays.avoided = nil // it may have been this node's network
			m.intro.begin(now)
		}
	case PeerChanged:
		m.intro.remote.heard = now // the record has just come
		if m.route.path.Kind != Direct {
			m.intro.retry.descend()
			m.intro.hurry(now)
		}
	case Suspect:
		m.route.suspect(now)
	case RelayGone:
		m.route.relayGone(now, in.Anchor)
	case Introduce:
		m.intro.again(now)
	case Nominated:
		if m.intro.try.runs(in.Attempt) {
			// The agent has done its work: from here on the peer's checks are answered, and the path watched, by our own.
			m.intro.succeed()
			m.intro.try.chosen = true
			m.route.nominated(now, in.Addr)
		}
	case PairAnswered:
		if m.intro.try.runs(in.Attempt) {
			m.intro.try.agreed = true
			m.route.early(now, in.Addr)
		}
	case Failed:
		m.failed(now, in)
	case OwnPredicted:
		if m.intro.try.predict(in) {
			m.intro.tellMore(now)
		}
	case RelayOpened:
		m.route.relayOpened(now, in)
		if in.Text != "" && m.route.path.Kind == None && len(m.route.relays.list) == 0 && m.intro.try.on {
			m.intro.rush(now) // this attempt has no relay any more, and others may be had
		}
	case CheckAnswered:
		m.route.checkAnswered(now, in.ID)
	case PeerChecked:
		m.route.prove(now, in.From)
		m.route.peerChecked(now, in.From)
	case Proven:
		m.route.prove(now, in.From)
	}
	m.settle(now)
	m.prepare(now)
	m.seekSpare(now)
	m.goOn(now)
	out, m.core.out = m.core.out, nil
	return out, m.next(now)
}

// Stop ends what is running, for a peer that is no longer wanted.
func (m *Machine) Stop() []Output {
	m.intro.end()
	m.route.relays.closeAll()
	m.core.emit(Trust{})
	out := m.core.out
	m.core.out = nil
	return out
}

// wake does everything that is due, in the order in which a try unfolds.
func (m *Machine) wake(now time.Time, activity Wake) {
	if activity.Late >= due.Busy {
		m.intro.try.excuse(activity.Late)
		m.intro.sig.excuse(now, activity.Late)
		m.route.life.excuse(now, activity.Late)
	}
	m.intro.repeat(now)
	if m.intro.try.expired(now) {
		m.failed(now, Failed{Attempt: m.intro.try.number, Text: m.intro.local.tried(m.intro.try.remote)})
	}
	m.settle(now)
	m.route.watchRelays(now)
	m.route.watch(now, activity)
	m.settle(now)
	if isDue(now, m.intro.retry.at) {
		m.intro.begin(now)
	}
}

// failed ends an attempt. What path there is stays in use.
func (m *Machine) failed(now time.Time, in Failed) {
	if !m.intro.try.runs(in.Attempt) {
		return
	}
	if m.route.path.Kind == Direct && m.route.reason == firstAnswered {
		m.intro.succeed() // by what has answered in it
		m.route.relays.retireAll(now, m.route.used())
		return
	}
	m.intro.fail(now, in.Text)
	m.settle(now)
	m.route.useRelay(now)
}

// goOn sees to it that a machine which wants another path than it has always tries again, whatever ended what was under way: an attempt
// that failed, a peer that is another process now, an offer that came too soon to be answered.
func (m *Machine) goOn(now time.Time) {
	begun := m.intro.try.count > 0 || !m.intro.sig.begun.IsZero()
	if begun && m.route.path.Kind != Direct && m.intro.idle() && m.intro.retry.at.IsZero() {
		m.intro.retry.climb(now, m.route.path.Kind)
	}
}

// settle passes news between the parts until there is none.
func (m *Machine) settle(now time.Time) {
	for {
		m.route.trying = trying{
			on: m.intro.try.on, started: m.intro.try.started, waiting: m.intro.sig.waiting, begun: m.intro.sig.begun,
			forlorn: m.intro.local.NoUDP || m.intro.remote.noUDP, far: m.intro.local.far(m.intro.try.relays.first),
		}
		m.intro.path, m.intro.use = m.route.path, m.route.relayUse(now, m.intro.local.Relays)
		intro, route := m.intro.news, m.route.news
		m.intro.news, m.route.news = introNews{}, routeNews{}
		switch {
		case intro.restarted:
			m.route.restarted = true
			m.route.suspect(now)
		case !intro.started && route == routeNews{}:
			return
		}
		if intro.started {
			m.route.attempt(now, m.intro.try.exchange, m.intro.try.relays)
			m.route.suspectDirect(now)
			if intro.heard.IsValid() {
				m.route.tryThere(now, intro.heard)
			}
			if intro.reached.IsValid() {
				m.route.answeredFrom(now, intro.reached, intro.trip)
			}
		}
		if route.moved {
			m.intro.succeed()
		}
		if route.relayed {
			m.intro.try.extend()
		}
		if route.relayed || route.unspared {
			m.intro.retry.descend()
			if m.intro.idle() {
				m.intro.retry.climb(now, m.intro.path.Kind)
			}
		}
		if route.died {
			m.intro.retry.descend()
			if m.intro.path.Kind == None {
				m.intro.try.shorten(now)
			}
		}
		switch {
		case route.died || route.doubtful:
			m.search(now)
		case route.failing:
			m.intro.hurry(now)
		}
	}
}

// prepare opens the channel that is most likely agreed on while an answer is on its way, if the peer is there: it was heard a moment ago.
func (m *Machine) prepare(now time.Time) {
	sig, relays := &m.intro.sig, m.route.relays
	switch {
	case !m.core.controlling || !sig.waiting || sig.sent == 0 || sig.noRoute != "" || now.Sub(m.intro.remote.heard) >= attemptTime:
		return
	case relays.prepared == sig.number || len(relays.list) > 0 || m.route.path.Kind != None:
		return
	}
	for _, o := range m.intro.use.offers(m.intro.local.Relays) {
		if !o.Private && o.far() && relays.usable(o.Anchor) {
			relays.prepared = sig.number
			r := &relay{anchor: o.Anchor}
			relays.add(m.route.used(), r)
			relays.open(now, r)
			return
		}
	}
}

// stranded reports whether an attempt that looks for any path has no relay although there could be one now: no session was
// known when it began, or those with the anchors agreed on have ended since.
func (m *Machine) stranded(now Local) bool {
	agreed := m.route.relays.agreed
	if !m.intro.try.on || m.route.path.Kind != None || len(now.Relays) == 0 || m.route.relays.ready() != nil {
		return false
	}
	if agreed.first.IsZero() {
		return len(m.intro.local.Relays) == 0
	}
	return m.intro.local.reaches(agreed) && !now.reaches(agreed)
}

// unaided reports whether there is no path and nothing under way for want of an anchor to name, and there is one now: what failed without
// it is no reason to wait.
func (m *Machine) unaided(now Local) bool {
	relays := m.route.relays
	return m.route.path.Kind == None && m.intro.try.count > 0 && m.intro.idle() && !relays.any(m.intro.local.Relays) && relays.any(now.Relays)
}

// cornered reports whether UDP has been found to be blocked here, and there is a relay to name: the peer is to know both.
func (m *Machine) cornered(now Local) bool {
	before := m.intro.local
	return now.NoUDP && len(now.Relays) > 0 && m.route.path.Kind != Relayed && (!before.NoUDP || len(before.Relays) == 0)
}

// search makes sure that a better path is being looked for, and that a running attempt has its relay.
func (m *Machine) search(now time.Time) {
	switch {
	case m.intro.try.on && (m.intro.local.reaches(m.intro.try.relays) || len(m.intro.local.Relays) == 0):
		m.route.planRelay(now, m.intro.try.relays)
	case m.intro.idle(), m.intro.try.on && len(m.route.relays.list) == 0:
		m.intro.begin(now)
	}
}

// next is the earliest of the parts' times, or now when that has gone by: what is planned for a time that counts from the beginning of an
// attempt is not late because it is planned now.
func (m *Machine) next(now time.Time) time.Time {
	first := due.Sooner(m.intro.wake(), m.route.wake())
	if first.IsZero() {
		return first
	}
	return later(first, now)
}

// rejects reports whether an address lies in the overlay: a tunnel must not become its own underlay.
func (c *core) rejects(addr netip.Addr) bool { return InOverlay(c.overlay, addr) }

// text returns n characters that carry six random bits each. ChaCha8 is strong enough for passwords as long as its seed is
// secret.
func (c *core) text(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = IceAlphabet[c.random.Uint64()&63]
	}
	return string(b)
}

func (c *core) emit(o Output) { c.out = append(c.out, o) }

// send signals a message to the peer.
func (c *core) send(msg Message) {
	msg.Instance = c.cfg.Instance
	c.emit(Send{Message: msg})
}

// newCredentials makes those of a new attempt, and has the peer's checks under them answered.
func (c *core) newCredentials() Credentials {
	fresh := Credentials{Ufrag: c.text(8), Pwd: c.text(24)}
	c.trusted = append([]Credentials{fresh}, c.trusted...)
	if len(c.trusted) > trustedMax {
		// The pair agreed on last stays, however many offers were never answered: the path lives on it.
		drop := len(c.trusted) - 1
		if c.trusted[drop] == c.agreed.own {
			drop--
		}
		c.trusted = append(c.trusted[:drop:drop], c.trusted[drop+1:]...)
	}
	c.emit(Trust{Own: append([]Credentials(nil), c.trusted...)})
	return fresh
}

// backoff returns base doubled n times, at most limit, with jitter of ± 15 %.
func (c *core) backoff(base, limit time.Duration, n int) time.Duration {
	d := base << min(n, 20)
	if d > limit || d <= 0 {
		d = limit
	}
	return time.Duration(float64(d) * (0.85 + 0.3*c.random.Float64()))
}

func isDue(now, at time.Time) bool { return !at.IsZero() && !at.After(now) }

// later is the later of two times.

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
