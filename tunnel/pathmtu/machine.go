package pathmtu

import (
	"net/netip"
	"slices"
	"time"
)

/* The machine
 *
 *	          traffic: {Small, Base, Top}                  all known
 *	resting ------------------------------> searching ------------------> resting, settled
 *	   ^  ^                                   |   ^                          |
 *	   |  |            nobody answers         |   | the size in use          | traffic above Base, 2 s later: {Small, size}
 *	   |  +---- pause 1 s, 2 s, ... 8 s ------+   | is swallowed             v
 *	   |                                          +---------------------- confirming
 *	   +------------------------------------------------- it is answered ----+
 *
 * A question is asked in rounds: the size in question and, so that silence can be told from a dead path, Small. Three rounds in
 * which only the small probe was answered settle that the size does not pass; three in which none was settle nothing.
 */

// phase is what the machine is at.
type phase uint8

const (
	resting    phase = iota // waits for traffic
	searching               // asks for sizes between what passes and what does not
	confirming              // asks for the size in use
)

// sent is a probe whose answer would count.
type sent struct {
	Probe
	at    time.Time
	round int
}

// Machine measures the path to one peer.
type Machine struct {
	nonce func() uint64 // not to be guessed: whoever answers must have seen the probe
	known map[netip.AddrPort]int

	path   Path
	phase  phase
	passes int           // largest size answered on this path; 0: none
	fails  int           // smallest size that does not pass; more than path.Top: none is known
	trust  int           // size that passed when the path was in use before; 0: none
	talks  bool          // the peer has answered once, on whatever path
	mute   bool          // it is taken for one that answers no probes
	rtt    time.Duration // the least seen on this path; 0: unknown
	round  int

	question question
	probes   []sent // of the question

	// while resting
	settled bool      // passes is final until the raise
	from    time.Time // traffic counts from then on
	raise   time.Time // when a larger size is to be tried
	pauses  int       // in a row
}

// question is the size that is asked for now.
type question struct {
	size         int
	lost, silent int       // rounds that ended with an answer to another size only, and with none
	heard        bool      // there was an answer in this round
	deadline     time.Time // of this round
}

// New returns a machine without a path. Nonces are made by nonce.
func New(nonce func() uint64) *Machine {
	return &Machine{nonce: nonce, known: make(map[netip.AddrPort]int)}
}

// Move says what the path is now. The same path again changes nothing.
func (m *Machine) Move(now time.Time, p Path) Output {
	if p == m.path {
		return m.output(now, nil)
	}
	if m.passes > 0 {
		if len(m.known) >= remembered {
			clear(m.known)
		}
		m.known[m.path.Addr] = m.passes
	}
	*m = Machine{nonce: m.nonce, known: m.known, talks: m.talks, path: p, fails: p.Top + 1, trust: min(m.known[p.Addr], p.Top), round: m.round, from: now}
	return m.output(now, nil)
}

// Sent says that a packet of the size leaves for the peer. See Output.Report.
func (m *Machine) Sent(now time.Time, size int) Output {
	report := m.report(now)
	switch {
	case report < 0 || size < report:
		return m.output(now, nil)
	case !m.due(now):
		m.phase = confirming
		return m.output(now, m.ask(now, m.passes))
	}
	m.phase, m.fails = searching, m.path.Top+1
	if m.pauses > 0 { // large ones would be wasted if there is still nobody
		return m.output(now, m.ask(now, Small))
	}
	return m.output(now, m.ask(now, m.path.Top))
}

// Answer says that the peer has received a probe.
func (m *Machine) Answer(now time.Time, nonce uint64, size int) Output {
	i := slices.IndexFunc(m.probes, func(s sent) bool { return s.Nonce == nonce && s.Size == size })
	if i < 0 {
		return m.output(now, nil) // of a former path, or made up
	}
	s := m.probes[i]
	m.probes = slices.Delete(m.probes, i, i+1)
	if rtt := max(now.Sub(s.at), time.Microsecond); m.rtt == 0 || rtt < m.rtt {
		m.rtt = rtt
	}
	m.talks, m.mute, m.pauses = true, false, 0
	if size >= m.fails {
		m.fails = m.path.Top + 1 // it was only late
	}
	if m.phase == confirming && size == m.question.size {
		m.rest(now)
		return m.output(now, nil)
	}
	m.passes = max(m.passes, size)
	switch {
	case m.phase == searching && m.passes >= m.question.size:
		return m.output(now, m.next(now))
	case m.phase != resting && s.round == m.round && !m.question.heard:
		m.question.heard, m.question.deadline = true, now.Add(grace+m.rtt)
	}
	return m.output(now, nil)
}

// Tick says that time has passed.
func (m *Machine) Tick(now time.Time) Output {
	if m.phase == resting || now.Before(m.question.deadline) {
		return m.output(now, nil)
	}
	q := &m.question
	if q.heard {
		q.lost++
	} else {
		q.silent++
	}
	switch {
	case q.lost == maxTries:
		return m.output(now, m.lose(now))
	case q.silent == maxTries:
		m.pause(now)
		return m.output(now, nil)
	}
	return m.output(now, m.send(now))
}

// ask begins a question.
func (m *Machine) ask(now time.Time, size int) []Probe {
	m.question = question{size: size}
	return m.send(now)
}

// send begins a round. As long as nothing is known of the path, it asks for what is
// likely too.
func (m *Machine) send(now time.Time) []Probe {
	m.round++
	m.question.heard = false
	wait := firstWait
	if m.rtt > 0 {
		wait = min(max(3*m.rtt, leastWait), firstWait)
	}
	m.question.deadline = now.Add(wait)
	sizes := []int{min(Small, m.question.size), m.question.size}
	if m.passes < Base && m.fails > Base && m.question.size > Base {
		sizes = []int{Small, Base, max(Base, min(m.path.Default, m.question.size)), m.question.size}
	}
	var probes []Probe
	for _, size := range slices.Compact(sizes) {
		p := Probe{Nonce: m.nonce(), Size: size}
		probes = append(probes, p)
		m.probes = append(m.probes, sent{p, now, m.round})
	}
	// Three rounds of four are all that can matter.
	m.probes = slices.Delete(m.probes, 0, max(0, len(m.probes)-maxTries*4))
	return probes
}

// lose concludes that the size in question does not pass.
func (m *Machine) lose(now time.Time) []Probe {
	size := m.question.size
	if m.phase == confirming { // a black hole
		m.phase, m.settled, m.passes = searching, false, 0
	}
	if size <= m.trust {
		m.trust = 0
	}
	m.fails = min(m.fails, size)
	return m.next(now)
}

// next asks for the size that halves what is unknown, or ends the search.
func (m *Machine) next(now time.Time) []Probe {
	if size := m.between(m.passes, m.fails); size > 0 {
		return m.ask(now, size)
	}
	m.settled, m.trust, m.raise = true, 0, now.Add(raiseEvery)
	m.rest(now)
	return nil
}

// between returns a size above low and below high: the middle one of those that are common, else the middle; 0 if there
// is none worth asking for. Base comes before all else, and what is below least is of no use.
func (m *Machine) between(low, high int) int {
	switch {
	case low < Base && high > Base:
		return Base
	case high > m.path.Top && low < m.path.Top:
		return m.path.Top
	}
	low = max(low, least)
	var list []int
	for _, outer := range common {
		if size := (outer - m.path.Overhead) &^ (block - 1); size > low && size < high {
			list = append(list, size)
		}
	}
	if list = slices.Compact(list); len(list) > 0 {
		return list[len(list)/2]
	}
	if size := (low + high) / 2 &^ (block - 1); size > low {
		return size
	}
	return 0
}

// rest waits until the size in use is to be confirmed.
func (m *Machine) rest(now time.Time) {
	m.phase, m.from, m.probes = resting, now.Add(confirmEvery), nil
}

// pause gives up for a while, because nobody answers. Answers that come late count.
func (m *Machine) pause(now time.Time) {
	m.phase, m.from = resting, now.Add(min(firstPause<<min(m.pauses, 10), lastPause))
	if m.pauses++; m.pauses >= mutePauses && !m.talks {
		m.mute, m.from = true, now.Add(mutePause)
	}
}

// due reports whether a search is to begin with the next packet.
func (m *Machine) due(now time.Time) bool {
	return !m.settled || m.passes < m.path.Top && !now.Before(m.raise)
}

// report is the size of packet that the machine waits for, negative for none.
func (m *Machine) report(now time.Time) int {
	switch {
	case !m.path.Addr.IsValid() || m.phase != resting || now.Before(m.from):
		return -1
	case !m.due(now):
		return Base + 1
	}
	return 0
}

// wake is when the report changes, or a round ends.
func (m *Machine) wake(now time.Time) time.Time {
	switch {
	case m.phase != resting:
		return m.question.deadline
	case !m.path.Addr.IsValid():
	case now.Before(m.from):
		return m.from
	case !m.due(now) && m.passes < m.path.Top:
		return m.raise
	}
	return time.Time{}
}

func (m *Machine) output(now time.Time, probes []Probe) Output {
	return Output{
		Probes: probes, Limit: m.limit(), Report: m.report(now), Exact: m.phase != resting, Verified: m.passes, Wake: m.wake(now),
	}
}

func (m *Machine) limit() Limit {
	l := Limit{Whole: max(m.passes, m.trust), Split: !m.settled, Clamp: m.path.Default}
	switch {
	case m.mute:
		return Limit{Whole: m.path.Default, Clamp: m.path.Default}
	case l.Whole < Base && m.fails > Base:
		l.Whole = Base
	case l.Whole < least:
		l.Whole = least
	}
	if m.settled {
		l.Clamp = l.Whole
	}
	return l
}
