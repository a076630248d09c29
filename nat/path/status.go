package path

import (
	"fmt"
	"time"
)

// Status describes the peer at now.
func (m *Machine) Status(now time.Time) Status {
	s := Status{
		Path:       m.route.path,
		State:      StateWaiting,
		Reason:     m.whyNot(now),
		Since:      m.route.since,
		RTT:        m.route.path.RTT,
		Local:      Lines(m.intro.local.Candidates),
		Remote:     Lines(m.intro.try.remote),
		Attempts:   m.intro.try.count,
		Instance:   m.intro.remote.instance,
		LastChange: m.route.since,
		Standby:    m.route.relayUse(now, nil).spare,
	}
	switch {
	case m.route.path.Kind != None:
		s.State = StateUp
	case m.intro.try.on:
		s.State = StateChecking
	case m.intro.sig.waiting:
		s.State = StateIntroducing
	}
	return s
}

// whyNot says in words why there is no path, or no direct one, and what comes next.
func (m *Machine) whyNot(now time.Time) Reason {
	switch m.route.path.Kind {
	case Direct:
		return ""
	case Relayed:
		return "relayed: " + m.progress(now)
	}
	return m.progress(now) + m.route.relays.progress()
}

func (m *Machine) progress(now time.Time) Reason {
	switch {
	case m.intro.try.on:
		return because("ICE is trying %s of the peer since %s", counted(len(m.intro.try.remote), "candidate"), ago(now, m.intro.try.started))
	case m.intro.sig.waiting && m.intro.sig.noRoute != "":
		return because("no route for introductions: %s", m.intro.sig.noRoute)
	case m.intro.sig.waiting && m.intro.sig.refused:
		return "the peer refuses introductions: it does not know this node (yet)"
	case m.intro.sig.waiting:
		what := "request for an offer"
		if m.core.controlling {
			what = "offer"
		}
		return because("peer has not answered the %s (%d sent, last %s ago)", what, m.intro.sig.sent, ago(now, m.intro.sig.last))
	}
	text := m.route.reason
	if m.intro.try.failure != "" {
		text = because("ICE failed: %s", m.intro.try.failure)
	}
	if !m.intro.retry.at.IsZero() {
		text += because("; next try in %s", ago(m.intro.retry.at, now))
	}
	return text
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
