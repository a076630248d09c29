package session

import (
	"crypto/x509"
	"fmt"
	"time"

	"warren/mesh/identity"
	"warren/nat/limit"
)

// Limits of strangers. Whoever holds an invite, an old one too, can make as many identities as it likes that pass a handshake, and
// needs none of them to be admitted. An honest newcomer shows its record as soon as the session is up, which takes a few round
// trips, and is a member then.
const (
	maxStrangers       = 64
	maxStrangersInvite = 2
	maxStrangersSource = 4
	strangerTime       = 30 * time.Second // to become a member
	strangerSpentTime  = 5 * time.Second  // by an invite whose uses are all taken: only a record that has not come here yet can tell
	strangersLook      = 500 * time.Millisecond
)

// What strangers are told with CodeStranger.
const (
	noPlaceText = "too many nodes at once that are no members by the records here: it is tried again by itself"
	noTimeText  = "no member by the records here after %v: see whether another member takes this node in, else ask for a new invite"
	spentText   = "no member by the records here, and all uses of its invite are taken: ask for a new invite"
)

// strangers are the sessions that nodes have dialled which are no members by the records: new ones whose records have not come yet,
// and all who show an invite. They are few, and not for long. Those that this node has dialled itself are no concern here: it wants them.
//
// The methods may be called concurrently.
type strangers struct {
	roster Roster // constant
	places *limit.Places[*link]
	came   chan struct{} // capacity 1: there are some
}

func newStrangers(r Roster) *strangers {
	return &strangers{roster: r, places: limit.NewPlaces[*link](maxStrangers, quietTime), came: make(chan struct{}, 1)}
}

// inviteOf returns the key that has certified the leaf of a chain: an invite's.
func inviteOf(chain []*x509.Certificate) identity.KeyID { return identity.IssuerOf(chain[0]) }

// enter takes a place for a link that a stranger has dialled, before anybody knows of it; those of members need none. Others may
// have to give way. The error is a *Refusal.
func (s *strangers) enter(l *link) error {
	if l.dialled || s.roster.Member(l.id) {
		return nil
	}
	l.stranger.Store(true)
	for _, old := range s.places.Values() {
		if old.id == l.id { // which this one replaces
			s.places.Leave(old)
		}
	}
	source, invite := sourceOf(l.conn.RemoteAddr()), inviteOf(l.chain)
	if l.patience = strangerTime; s.roster.Spent(invite) {
		l.patience = strangerSpentTime
	}
	out, ok := s.places.Enter(l.since, l, limit.Share{Key: source, Most: maxStrangersSource}, limit.Share{Key: invite, Most: maxStrangersInvite})
	if !ok {
		return &Refusal{Code: CodeStranger, Reason: noPlaceText}
	}
	for _, old := range out {
		old.spawn(func() { old.close(CodeStranger, noPlaceText) })
	}
	notify(s.came)
	return nil
}

// leave gives the place of a link back, if it has one.
func (s *strangers) leave(l *link) { s.places.Leave(l) }

// look returns the links of those who are members by now, and ends those whose time is over.
func (s *strangers) look(now time.Time) (members []*link) {
	for _, l := range s.places.Values() {
		switch {
		case s.roster.Member(l.id):
			s.places.Leave(l)
			l.stranger.Store(false)
			members = append(members, l)
		case now.Sub(l.since) >= l.patience:
			s.places.Leave(l)
			text := fmt.Sprintf(noTimeText, l.patience)
			if s.roster.Spent(inviteOf(l.chain)) {
				text = spentText
			}
			l.spawn(func() { l.close(CodeStranger, text) })
		}
	}
	return members
}

// any reports whether there are strangers.
func (s *strangers) any() bool { return s.places.Taken(nil) > 0 }
