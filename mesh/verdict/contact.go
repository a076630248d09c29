package verdict

import (
	"fmt"
	"time"
)

// Contact is what is known of a peer's being there, and no more than that.
type Contact uint8

// The contacts. Each says what is known now; none says what is merely likely.
const (
	Down       Contact = iota // no way has led to it for longer than a try takes
	Connecting                // no way leads to it yet, or not any more since a moment ago, or keys are being agreed on over the one that does
	Mute                      // a way is there, and the peer owes an answer over it
	Idle                      // a way is there that worked when it was last used; nothing was asked since
	Up                        // it has been heard by its way within the last seconds
)

// String returns the word that stays the same.
func (c Contact) String() string {
	return [...]string{"down", "connecting", "silent", "idle", "up"}[c]
}

const (
	// freshFor is how long a sign of life counts as one of now. Of a peer to which packets go, the way brings signs more often: what
	// they leave unanswered for 0.4 s is checked.
	freshFor = 2 * time.Second
	// usedFor is how long after the last packet to it a peer is in use.
	usedFor = 2 * time.Second
	// answersWithin is when a peer that gets packets sends one at the latest, an empty one: WireGuard's passive keepalive, of 10 s, and
	// the way here. It counts where no check watches the way.
	answersWithin = 12 * time.Second
)

// Signs are what a peer's contact is judged by. Times are zero for never. All that is heard was authenticated.
type Signs struct {
	Now time.Time
	// Way says that there is one; Pathless is since when there is none, as far as is known.
	Way      bool
	Pathless time.Time
	// Keyed is when WireGuard last agreed on keys with the peer.
	Keyed time.Time
	// Sent and Heard are the last packets to the peer, and of it, by the way that is used now.
	Sent, Heard time.Time
	// Proved is when the peer last answered a check of a way, or made one.
	Proved time.Time
	// Watched says that checks watch the way; Overdue, that one is not answered in time.
	Watched, Overdue bool
	// Beside is the last sign of life that came another way: over the control session, by gossip, an introduction.
	Beside time.Time
	// Missed is since when other members miss it; zero: they do not.
	Missed time.Time
}

// LastHeard is the last sign of life of the peer, whichever way it came; zero: none.
func (s Signs) LastHeard() time.Time { return later(s.byWay(), s.Keyed, s.Beside) }

func (s Signs) byWay() time.Time { return later(s.Heard, s.Proved) }

// Missing reports whether others miss the peer and this node has heard nothing of it since they do.
func (s Signs) Missing() bool { return !s.Missed.IsZero() && !s.LastHeard().After(s.Missed) }

// owes reports whether packets were sent to the peer all along and nothing came back.
func (s Signs) owes() bool {
	last := s.LastHeard()
	return !s.Watched && s.Now.Sub(s.Sent) < usedFor && !last.IsZero() && s.Sent.Sub(last) >= answersWithin
}

// Contact judges. It is the only place where that is done.
func (s Signs) Contact() Contact {
	switch {
	case !s.Way && !s.Pathless.IsZero() && s.Now.Sub(s.Pathless) >= youngFor:
		return Down
	case !s.Way:
		return Connecting
	case s.Overdue, s.owes(), s.Missing():
		return Mute
	case s.Keyed.IsZero():
		return Connecting
	case s.Now.Sub(s.byWay()) < freshFor:
		return Up
	}
	return Idle
}

// later is the latest of some times.
func later(times ...time.Time) (last time.Time) {
	for _, t := range times {
		if t.After(last) {
			last = t
		}
	}
	return last
}

// Silence is why the peer is Mute.
func (s Signs) Silence() OwesAnswer {
	c := OwesAnswer{Since: -1, Missed: s.Missing() && !s.Overdue && !s.owes()}
	if last := s.LastHeard(); !last.IsZero() {
		c.Since = s.Now.Sub(last)
	}
	return c
}

// OwesAnswer is why a peer is silent.
type OwesAnswer struct {
	Since  time.Duration // its last sign of life; negative: there was none
	Missed bool          // others miss it
}

// Words says so.
func (c OwesAnswer) Words(Names) string {
	text := "it does not answer"
	if c.Missed {
		text = "other members do not hear it any more"
	}
	if c.Since < 0 {
		return text
	}
	return fmt.Sprintf("%s; last heard %s ago", text, coarse(c.Since))
}
