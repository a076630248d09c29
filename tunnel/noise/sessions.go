package noise

import "sync/atomic"

// keys are the sessions of a peer at one time. They never change; others take their place.
type keys struct {
	previous, current *pair
	next              *pair // of which this node is the responder
}

// sending returns the session to seal with, or nil.
func (k *keys) sending() *pair {
	if k.next != nil && k.next.standing.Load() == heard {
		return k.next
	}
	return k.current
}

/* Sessions follow each other so:
 *
 *	           initiator: response read            responder: response sent, then something heard under it
 *	previous   current                             previous, then current
 *	current    the new one                         current,  then next
 *	next       stays, see below                    the new one, then none
 *
 * When initiations cross, each side is initiator of one session and responder of the other. Neither forgets its own initiation
 * for the other's, so that both sessions come about; both sides then use that of the side with the lesser key, as soon as they
 * know that the other one has it: the lesser cedes the one that it is the responder of, the greater takes the one that it is the
 * responder of once something comes under it.
 */

// sessions are those of a peer. The control goroutine writes, all read.
type sessions struct {
	atomic.Pointer[keys]

	// constant
	table  *table
	lesser bool // our key, than the peer's
}

func (s *sessions) init(t *table, lesser bool) {
	s.table, s.lesser = t, lesser
	s.Store(&keys{})
}

// answer puts in place the session of an attempt of ours that was answered.
func (s *sessions) answer(k *pair) {
	old := s.Load()
	if old.next != nil && s.lesser {
		old.next.standing.CompareAndSwap(waiting, ceded)
	}
	s.Store(&keys{previous: old.current, current: k, next: old.next})
	s.drop(old.previous)
}

// offer puts in place the session of an initiation that was responded to.
func (s *sessions) offer(k *pair) {
	k.standing.Store(waiting)
	old := s.Load()
	if c := old.current; c != nil && c.standing.Load() == unheard && k.created <= c.crossed && s.lesser {
		k.standing.Store(ceded) // that initiation left before the peer knew of the current session
	}
	s.Store(&keys{previous: old.previous, current: old.current, next: k})
	s.drop(old.next)
}

// settle puts in its place a session under which something was heard, and reports whether there was one.
func (s *sessions) settle() bool {
	old := s.Load()
	if old.next == nil || old.next.standing.Load() != heard {
		return false
	}
	old.next.standing.Store(proven)
	s.Store(&keys{previous: old.current, current: old.next})
	s.drop(old.previous)
	return true
}

// forget drops all of them.
func (s *sessions) forget() {
	old := s.Swap(&keys{})
	s.drop(old.previous)
	s.drop(old.current)
	s.drop(old.next)
}

// drop makes a session unknown. Its ciphers stay in memory until the collector takes them: a data loop may be sealing with one
// now, and would go on with a key of zeros.
func (s *sessions) drop(k *pair) {
	if k != nil {
		s.table.remove(k.local)
	}
}

// stale reports whether there is no session to seal with, or one that is to be renewed.
func (s *sessions) stale(now Instant) bool {
	k := s.Load().sending()
	return k == nil || now.Sub(k.created) >= RejectAfterTime || k.initiator && now.Sub(k.created) >= RekeyAfterTime ||
		k.counter.Load() >= RekeyAfterMessages
}
