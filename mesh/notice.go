package mesh

import (
	"math/rand/v2"
	"sync"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// A notice says which records its sender has: whoever lacks one of them syncs with the sender. A node sends one to the members with
// which it has a session when it has taken in what it did not pass straight on to them, be it too large for gossip, out of a sync or from
// beyond the reach of straight messages. So a record comes to every member along the sessions, one after the other, without luck;
// gossip only makes that faster.
//
//	notice:  0x81, key (32), version (16), up to 16 times
//
// It goes to at most eight of them at a time, those left out by chance, and not to those that are known to have it. So where all have
// sessions with all, a record costs eight notices for each member at most, and many records at once not many more.
const (
	noticed     = 0x81
	maxNoticed  = 16 // records that one notice names: where one is missing the sync brings the others too
	maxNoticing = 64 // records that wait to be named
	maxTold     = 8  // members that one burst of notices goes to

	noticeAfter = 50 * time.Millisecond  // from the first record on, at least and as long again at random: one burst for many records
	noticeDelay = 100 * time.Millisecond // from a notice to the sync: the record itself may be on its way
)

// notices tells session neighbours of records. Records come from any goroutine; the run loop sends.
type notices struct {
	// constant
	sessions Sessions
	isMember func(identity.NodeID) bool
	wake     chan struct{} // has a value when records wait that did not before

	mu    sync.Mutex
	fresh map[record.Key]*rumour
	due   time.Time // when to send; zero: nothing waits
}

// rumour is one record to be named, and who has it.
type rumour struct {
	version record.Version
	has     map[identity.NodeID]bool
}

func newNotices(s Sessions, isMember func(identity.NodeID) bool) *notices {
	return &notices{sessions: s, isMember: isMember, wake: make(chan struct{}, 1), fresh: make(map[record.Key]*rumour)}
}

// add has a record named that came from a member.
func (n *notices) add(e roster.Entry, from identity.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	one := n.fresh[e.Key]
	switch {
	case one == nil && len(n.fresh) >= maxNoticing:
		return // each of the others is reason enough
	case one == nil || e.Version.Newer(one.version):
		n.fresh[e.Key] = &rumour{version: e.Version, has: map[identity.NodeID]bool{from: true}}
	}
	if n.due.IsZero() {
		n.due = time.Now().Add(noticeAfter + rand.N(noticeAfter))
		select {
		case n.wake <- struct{}{}:
		default:
		}
	}
}

// has notes that a member has a record, as it says: it need not be told.
func (n *notices) has(e roster.Entry, id identity.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if one := n.fresh[e.Key]; one != nil && !one.version.Newer(e.Version) {
		one.has[id] = true
	}
}

// send sends what is due, and returns when the next is; zero: when there is something new.
func (n *notices) send(now time.Time) time.Time {
	fresh, next := n.take(now)
	if len(fresh) == 0 {
		return next
	}
	told := 0
	neighbours := n.sessions.Neighbours()
	for _, i := range rand.Perm(len(neighbours)) {
		id := neighbours[i]
		message := noticeTo(id, fresh)
		if message == nil || !n.isMember(id) {
			continue
		}
		_ = n.sessions.SendGossip(id, message) // what is lost the digests show
		if told++; told == maxTold {
			break
		}
	}
	return time.Time{}
}

// take empties the list when it is due.
func (n *notices) take(now time.Time) (fresh map[record.Key]*rumour, due time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.due.IsZero() || now.Before(n.due) {
		return nil, n.due
	}
	fresh = n.fresh
	n.fresh, n.due = make(map[record.Key]*rumour), time.Time{}
	return fresh, time.Time{}
}

// noticeTo is the notice for one member, nil when it has all.
func noticeTo(id identity.NodeID, fresh map[record.Key]*rumour) []byte {
	message := []byte{noticed}
	for key, one := range fresh {
		if !one.has[id] && len(message) < 1+maxNoticed*entrySize {
			message = appendEntry(message, roster.Entry{Key: key, Version: one.version})
		}
	}
	if len(message) == 1 {
		return nil
	}
	return message
}

// parseNotice reads what follows the first byte of a notice; nil when it is none.
func parseNotice(p []byte) []roster.Entry {
	if len(p) == 0 || len(p)%entrySize != 0 || len(p) > maxNoticed*entrySize {
		return nil
	}
	return parseEntries(p)
}
