package path

import (
	"fmt"
	"time"

	"warren/mesh/identity"
)

// View is what a machine was at one time, to be described later, by any goroutine. It costs little to make: the words are put
// together only when someone asks.
type View struct {
	plain         Status // without Reason, Local and Remote
	local, remote []Candidate
	controlling   bool
	because       Reason // of the last change of path
	changes       []Change
	failure       string    // of the last attempt, in words; unless a path has come and gone since
	next          time.Time // of the next introduction made unasked; zero for never
	trying        time.Time // since when ICE runs; zero: it does not
	relays        []beside
	noRelay       Reason // why there is none
	signalled
}

// signalled is the ask or offer that is out, if one is.
type signalled struct {
	waiting     bool
	sent        int
	begun, last time.Time
	noRoute     string
	refused     bool
}

// beside is what a View keeps of a relay.
type beside struct {
	anchor identity.NodeID
	phase  relayPhase
}

// View returns what the machine is now. What it shares with the machine is not written to any more.
func (m *Machine) View() *View {
	sig := &m.intro.sig
	v := &View{
		plain: Status{
			Path: m.route.path, State: StateWaiting, Since: m.route.since, RTT: m.route.path.RTT, Attempts: m.intro.try.count,
			Instance: m.intro.remote.instance, LastChange: m.route.since, Standby: m.route.relayUse(m.route.since, nil).spare,
			Proved: m.route.proved, Doubted: m.route.life.suspectSince,
		},
		local: m.intro.local.Candidates, remote: m.intro.try.remote, controlling: m.core.controlling, because: m.route.reason,
		changes: m.route.history.changes, failure: m.intro.try.failure, next: m.intro.retry.at, noRelay: m.route.relays.why,
		signalled: signalled{sig.waiting, sig.sent, sig.begun, sig.last, sig.noRoute, sig.refused},
	}
	if v.plain.Path.Kind == None && m.route.since.After(m.intro.try.failed) {
		v.failure = "" // the path has ended since, and why is what there is to say
	}
	for _, r := range m.route.relays.list {
		v.relays = append(v.relays, beside{r.anchor, r.phase})
	}
	if m.intro.try.on {
		v.trying = m.intro.try.started
	}
	switch {
	case m.route.path.Kind != None:
		v.plain.State = StateUp
	case m.intro.try.on:
		v.plain.State = StateChecking
	case m.intro.sig.waiting:
		v.plain.State = StateIntroducing
	}
	return v
}

// Status describes the peer at now.
func (m *Machine) Status(now time.Time) Status { return m.View().Status(now) }

// Evidence describes the peer in full at now.
func (m *Machine) Evidence(now time.Time) Evidence { return m.View().Evidence(now) }

// Status describes the peer as it would be at now, if nothing has happened since.
func (v *View) Status(now time.Time) Status {
	s := v.plain
	s.Reason, s.Local, s.Remote = v.whyNot(now), Lines(v.local), Lines(v.remote)
	return s
}

// whyNot says in words why there is no path, or no direct one, and what comes next.
func (v *View) whyNot(now time.Time) Reason {
	switch v.plain.Path.Kind {
	case Direct:
		return ""
	case Relayed:
		return "relayed: " + v.progress(now)
	}
	return v.progress(now) + v.relaying()
}

func (v *View) progress(now time.Time) Reason {
	switch {
	case !v.trying.IsZero():
		return because("ICE is trying %s of the peer since %s", counted(len(v.remote), "candidate"), ago(now, v.trying))
	case v.waiting && v.noRoute != "":
		return because("no route for introductions: %s", v.noRoute)
	case v.waiting && v.refused:
		return "the peer refuses introductions: it does not know this node (yet)"
	case v.waiting:
		what := "request for an offer"
		if v.controlling {
			what = "offer"
		}
		return because("peer has not answered the %s (%d sent, last %s ago)", what, v.sent, ago(now, v.last))
	}
	text := v.because
	if v.failure != "" {
		text = because("ICE failed: %s", v.failure)
	}
	if !v.next.IsZero() {
		text += because("; next try in %s", ago(v.next, now))
	}
	return text
}

// relaying says in words what becomes of the relays, for after a semicolon; empty when there is nothing to say.
func (v *View) relaying() Reason {
	for _, r := range v.relays {
		switch r.phase {
		case relayPlanned, relayOpening:
			return because("; opening a relay through %s", r.anchor)
		case relayChecking:
			return because("; waiting for the peer on the relay through %s", r.anchor)
		case relayReady:
		}
	}
	if v.noRelay != "" {
		return "; " + v.noRelay
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
