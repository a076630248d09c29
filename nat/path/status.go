package path

import (
	"fmt"
	"time"
)

// Status describes the peer at now.
func (m *Machine) Status(now time.Time) Status {
	s := Status{
		Path:       m.cur.path,
		State:      StateWaiting,
		Reason:     m.whyNot(now),
		Since:      m.cur.since,
		RTT:        m.cur.path.RTT,
		Local:      Lines(m.local.Candidates),
		Remote:     Lines(m.try.remote),
		Attempts:   m.try.count,
		Instance:   m.remote.instance,
		LastChange: m.cur.since,
	}
	switch {
	case m.cur.path.Kind != None:
		s.State = StateUp
	case m.try.on:
		s.State = StateChecking
	case m.sig.waiting:
		s.State = StateIntroducing
	}
	return s
}

// whyNot says in words why there is no path, or no direct one, and what comes next.
func (m *Machine) whyNot(now time.Time) string {
	switch m.cur.path.Kind {
	case Direct:
		return ""
	case Relayed:
		return "relayed: " + m.progress(now)
	}
	return m.progress(now) + m.relayProgress()
}

func (m *Machine) progress(now time.Time) string {
	switch {
	case m.try.on:
		return fmt.Sprintf("ICE is trying %s of the peer since %s", counted(len(m.try.remote), "candidate"), ago(now, m.try.started))
	case m.sig.waiting && m.sig.noRoute != "":
		return "no route for introductions: " + m.sig.noRoute
	case m.sig.waiting && m.sig.refused:
		return "the peer refuses introductions: it does not know this node (yet)"
	case m.sig.waiting:
		what := "request for an offer"
		if m.controlling {
			what = "offer"
		}
		return fmt.Sprintf("peer has not answered the %s (%d sent, last %s ago)", what, m.sig.sent, ago(now, m.sig.last))
	}
	text := m.cur.reason
	if m.try.failure != "" {
		text = "ICE failed: " + m.try.failure
	}
	if !m.retry.at.IsZero() {
		text += fmt.Sprintf("; next try in %s", ago(m.retry.at, now))
	}
	return text
}

func (m *Machine) relayProgress() string {
	switch m.relay.phase {
	case relayPlanned, relayOpening:
		return fmt.Sprintf("; opening a relay through %s", m.relay.anchor.Short())
	case relayChecking:
		return fmt.Sprintf("; waiting for the peer on the relay through %s", m.relay.anchor.Short())
	}
	if m.relay.why != "" {
		return "; " + m.relay.why
	}
	return ""
}

// ago rounds to what a reader can use.
func ago(now, then time.Time) time.Duration {
	d := max(0, now.Sub(then))
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
