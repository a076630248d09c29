package beacon

import (
	"net/netip"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"warren/mesh/identity"
	"warren/nat/limit"
)

// Timing.
const (
	// Window is how far clocks may differ. Introductions bear no more (mesh/signal), so that more would help nobody; and who
	// repeats a beacon on another LAN, to see whom it moves, has to be there within this time.
	Window = 5 * time.Minute
	// tellEvery is the least pause between two tells; tellShare the pause for each member on the link.
	tellEvery, tellShare = time.Minute, 15 * time.Second
	firstPause, maxPause = 4 * time.Second, 30 * time.Second // of one that is alone
	seekPause            = 2 * time.Second
	// burstJitter spreads the first beacons of machines that were switched on together.
	burstJitter = 100 * time.Millisecond
	// heardFor is how long a member counts as present after its last beacon.
	heardFor = 10 * time.Minute
	maxHeard = 512
	// answerOnce is the time in which one asker, who speaks over IPv4, IPv6 and on several links, gets one answer.
	answerOnce = 200 * time.Millisecond
	// wantedAnswers is how many of many members answer one who asks: each does with the probability that makes it so many.
	wantedAnswers = 8
	// answerSpread and answerStep spread the answers: each waits up to the one, and up to the other for every member that was
	// heard lately, fifty at most. Of members that all keep quiet nobody knows how many there are.
	answerSpread = 20 * time.Millisecond
	answerStep   = 4 * time.Millisecond
	maxPending   = 64
	maxSeeks     = 16 // nonces of own seeks that are remembered
	burstPerMin  = 12 // bursts a minute: an interface that flaps must not flood
)

// burst is when the first beacons after a change go out: one may be lost, and a switch port takes a moment to forward.
var burst = []time.Duration{0, 500 * time.Millisecond, 2 * time.Second}

// Machine decides what to send and whom to believe. It is pure: it has one owner, who passes the time in.
type Machine struct {
	self  identity.NodeID // zero: a joiner
	rand  Rand
	state State

	dirty  bool          // links or need have changed: begin a burst
	bursts *rate.Limiter // bounds them
	next   time.Time     // of the next beacon to the group; zero: none
	step   int           // of burst, then of the pauses
	pause  time.Duration

	read    *limit.Sources[netip.Addr]
	nonces  nonces
	answers *rate.Limiter
	pending []answer
	latest  map[asker]time.Time // who was answered when
	heard   map[identity.NodeID]time.Time
	seeks   []echo

	found []Found
	drops map[string]uint64
}

// Rand is the machine's source of chance: Nonce has to be unpredictable.
type Rand struct {
	Nonce func() [nonceSize]byte
	Upto  func(n int64) int64 // uniform in [0, n)
}

// asker is who gets one answer at a time: a member, or a joiner, which has no ID.
type asker struct {
	member identity.NodeID
	joiner netip.AddrPort
}

// answer is one that waits for its time.
type answer struct {
	at   time.Time
	send Send
}

// NewMachine returns the machine of a member, or of a joiner when self is zero.
func NewMachine(self identity.NodeID, rand Rand) *Machine {
	return &Machine{
		self: self, rand: rand, bursts: burstRate.Limiter(), answers: writeRate.Limiter(),
		read: limit.NewSources[netip.Addr](readRate, sourceRate), latest: make(map[asker]time.Time), heard: make(map[identity.NodeID]time.Time), drops: make(map[string]uint64),
	}
}

// Set takes the state that is wanted. New links, the first key, and a greater need begin a burst.
func (m *Machine) Set(s State) {
	s.Members, s.Invites = s.Members[:min(len(s.Members), MaxSecrets)], s.Invites[:min(len(s.Invites), MaxInvites)]
	moved := !slices.EqualFunc(s.Links, m.state.Links, Link.equal)
	able := len(m.state.Members) == 0 && len(s.Members) > 0
	m.dirty = m.dirty || moved || able || s.Need > m.state.Need
	if moved {
		m.heard = make(map[identity.NodeID]time.Time)
	}
	m.state = s
}

// Restart begins a burst: what was sent so far may have been lost.
func (m *Machine) Restart() { m.dirty = true }

// Step returns what is due, and when to call again at the latest; zero: not before an input.
func (m *Machine) Step(now time.Time) (out []Send, wake time.Time) {
	if m.dirty {
		m.dirty = false
		if m.bursts.AllowN(now, 1) {
			m.step, m.next = 0, now.Add(m.upto(burstJitter))
		} else {
			m.step, m.pause, m.next = len(burst), 0, now.Add(m.jitter(firstPause))
		}
	}
	if !m.next.IsZero() && !now.Before(m.next) {
		if m.step < len(burst) || m.joiner() || m.state.Need != Quiet {
			out = m.speak(now)
		}
		m.schedule(now)
	}
	m.pending = slices.DeleteFunc(m.pending, func(a answer) bool {
		if now.Before(a.at) {
			return false
		}
		out = append(out, a.send)
		return true
	})
	wake = m.next
	for _, a := range m.pending {
		if wake.IsZero() || a.at.Before(wake) {
			wake = a.at
		}
	}
	return out, wake
}

// Take returns the members heard since the last call.
func (m *Machine) Take() []Found {
	found := m.found
	m.found = nil
	return found
}

// takeDrops returns how many beacons were dropped since the last call, by reason.
func (m *Machine) takeDrops() map[string]uint64 {
	drops := m.drops
	if len(drops) > 0 {
		m.drops = make(map[string]uint64)
	}
	return drops
}

// jitter is d, a quarter more or less.
func (m *Machine) jitter(d time.Duration) time.Duration { return d*3/4 + m.upto(d/2) }

func (m *Machine) upto(d time.Duration) time.Duration { return time.Duration(m.rand.Upto(int64(d))) }

// schedule sets the time of the next beacon to the group.
func (m *Machine) schedule(now time.Time) {
	m.step++
	switch {
	case m.step < len(burst):
		m.pause = 0
		m.next = now.Add(m.jitter(burst[m.step] - burst[m.step-1]))
	case m.joiner():
		m.next = now.Add(m.jitter(seekPause))
	case m.state.Need == Alone:
		m.pause = min(max(2*m.pause, firstPause), maxPause)
		m.next = now.Add(m.jitter(m.pause))
	case m.state.Need == Apart:
		m.next = now.Add(m.jitter(max(tellEvery, time.Duration(m.present(now))*tellShare)))
	default:
		m.next = time.Time{}
	}
}

func (m *Machine) joiner() bool { return m.self.IsZero() }

// present counts the members heard lately.
func (m *Machine) present(now time.Time) int {
	for id, at := range m.heard {
		if now.Sub(at) > heardFor {
			delete(m.heard, id)
		}
	}
	return len(m.heard)
}

// speak makes the beacons to the group of each link and family: one under the first key. Of a node that knows several
// secrets every third goes out under the others too: members that know only those answer.
func (m *Machine) speak(now time.Time) (out []Send) {
	keys := m.state.Members
	if m.joiner() {
		keys = m.state.Invites
	}
	msg := message{kind: kindAsk, at: now, id: m.self, port: m.state.Port}
	switch {
	case m.joiner():
		msg.kind, msg.port = kindSeek, 0
	case m.step >= len(burst) && m.state.Need == Apart:
		msg.kind = kindTell
	}
	if m.step%len(burst) != 0 {
		keys = keys[:min(1, len(keys))]
	}
	if !m.joiner() && msg.port == 0 {
		return nil // the agent's socket is closed
	}
	for _, link := range m.state.Links {
		if !m.joiner() {
			if msg.addrs = link.speakable(); len(msg.addrs) == 0 {
				continue
			}
		}
		for _, family := range link.families() {
			for _, key := range keys {
				nonce := m.rand.Nonce()
				if m.joiner() {
					m.seeks = append(m.seeks, echo(nonce[:16]))
					m.seeks = m.seeks[max(0, len(m.seeks)-maxSeeks):]
				}
				out = append(out, Send{Link: link.Index, Group: family, Raw: msg.seal(key, nonce)})
			}
		}
	}
	return out
}

// Receive takes a beacon. What comes of it is returned by Step and Take.
func (m *Machine) Receive(now time.Time, p Packet) {
	if reason := m.receive(now, p); reason != "" {
		m.drops[reason]++
	}
}

// receive returns the reason why a packet was dropped, or "".
func (m *Machine) receive(now time.Time, p Packet) string {
	at := slices.IndexFunc(m.state.Links, func(l Link) bool { return l.Index == p.Link })
	switch {
	case at < 0:
		return "on another link"
	case len(p.Raw) != Size:
		return "no beacon"
	case !p.From.IsValid() || p.From.Port() == 0:
		return "no sender"
	case !m.read.Allow(now, p.From.Addr().WithZone("")):
		return "too many"
	}
	plain, key, invite, ok := m.unseal(p.Raw)
	if !ok {
		return "not readable" // another mesh's, most likely
	}
	msg, err := parse(plain)
	switch {
	case err != nil:
		return "malformed"
	case invite != (msg.kind == kindSeek || msg.kind == kindHere):
		return "under the wrong key"
	case !m.joiner() && msg.id == m.self, m.joiner() && msg.kind == kindSeek:
		return "" // our own, or a joiner's with the same token
	case !m.nonces.fresh(now, nonceOf(p.Raw)):
		return "repeated"
	}
	link := m.state.Links[at]
	if msg.kind == kindHere {
		if !m.joiner() || !slices.Contains(m.seeks, msg.echo) {
			return "not asked for"
		}
		return m.report(msg, link, p.From)
	}
	if msg.kind == kindSeek {
		// Whatever its time: a joiner whose clock is wrong is to be told so by the member that it asks.
		nonce := nonceOf(p.Raw)
		return m.answer(now, p, link, key, message{kind: kindHere, echo: echo(nonce[:16])}, asker{joiner: p.From})
	}
	if off := now.Sub(msg.at); off > Window || off < -Window {
		return ClocksDiffer
	}
	if msg.kind == kindAsk {
		if reason := m.answer(now, p, link, key, message{kind: kindTell, id: m.self}, asker{member: msg.id}); reason != "" {
			m.drops[reason]++
		}
	}
	if m.present(now) < maxHeard {
		m.heard[msg.id] = now
	}
	return m.report(msg, link, p.From)
}

// unseal tries the keys.
func (m *Machine) unseal(raw []byte) (plain [plainSize]byte, key Key, invite, ok bool) {
	for _, key := range m.state.Members {
		if plain, ok := key.open(raw); ok {
			return plain, key, false, true
		}
	}
	for _, key := range m.state.Invites {
		if plain, ok := key.open(raw); ok {
			return plain, key, true, true
		}
	}
	return plain, key, false, false
}

// report adds what was heard to what was found. Only addresses count that are on this link by our own prefixes, or that
// the beacon came from: no member can have others dial what it names elsewhere.
func (m *Machine) report(msg message, link Link, from netip.AddrPort) string {
	found := Found{ID: msg.id}
	for _, addr := range msg.addrs {
		if link.contains(addr) || addr == from.Addr().Unmap() {
			found.Addrs = append(found.Addrs, netip.AddrPortFrom(addr, msg.port))
		}
	}
	if len(found.Addrs) == 0 {
		return "no address on this link"
	}
	if len(m.found) >= maxHeard {
		return "too many found"
	}
	m.found = append(m.found, found)
	return ""
}

// answer queues an answer to the sender of p, unless enough others will answer.
func (m *Machine) answer(now time.Time, p Packet, link Link, key Key, msg message, who asker) string {
	if m.joiner() {
		return ""
	}
	for other, at := range m.latest {
		if now.Sub(at) > answerOnce {
			delete(m.latest, other)
		}
	}
	if _, done := m.latest[who]; done {
		return ""
	}
	present := max(1, m.present(now))
	if m.rand.Upto(int64(present)) >= wantedAnswers {
		return ""
	}
	msg.at, msg.port, msg.addrs = now, m.state.Port, link.speakable()
	switch {
	case msg.port == 0 || len(msg.addrs) == 0:
		return "no address to tell"
	case len(m.pending) >= maxPending || !m.answers.AllowN(now, 1):
		return "too many answers"
	}
	m.latest[who] = now
	delay := m.upto(answerSpread + time.Duration(min(present, 50))*answerStep)
	m.pending = append(m.pending, answer{now.Add(delay), Send{Link: p.Link, To: p.From, Raw: msg.seal(key, m.rand.Nonce())}})
	return ""
}
