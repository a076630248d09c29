package noise

import "sync/atomic"

// entry is what an index leads to: a handshake that waits for its response, or a session. It never changes; another one takes its
// place.
type entry struct {
	index   uint32
	peer    *Peer
	attempt *attempt
	pair    *pair
}

// leastSlots are the slots of an empty table.
const leastSlots = 64

// slots hold entries by the low bits of their index. No two in use share a slot, so that looking one up is one step.
type slots []atomic.Pointer[entry]

// table leads from the indices of received messages to peers. The control goroutine writes; reading needs no lock.
type table struct {
	slots atomic.Pointer[slots]
	used  int
}

func (t *table) init() {
	s := make(slots, leastSlots)
	t.slots.Store(&s)
}

// get returns what an index leads to, or nil.
func (t *table) get(index uint32) *entry {
	s := *t.slots.Load()
	if e := s[index&uint32(len(s)-1)].Load(); e != nil && e.index == index {
		return e
	}
	return nil
}

// add gives e an index out of random numbers, of those whose slot is free. At most a quarter of the slots is in use, so that it
// takes few, and so that an index tells nothing of the others.
func (t *table) add(e *entry, random func() uint32) {
	s := *t.slots.Load()
	if 4*(t.used+1) > len(s) {
		grown := make(slots, 2*len(s)) // two that differ in n low bits differ in n+1
		for i := range s {
			if old := s[i].Load(); old != nil {
				grown[old.index&uint32(len(grown)-1)].Store(old)
			}
		}
		s = grown
		t.slots.Store(&grown)
	}
	for {
		e.index = random()
		if slot := &s[e.index&uint32(len(s)-1)]; slot.Load() == nil {
			slot.Store(e)
			t.used++
			return
		}
	}
}

// replace puts e where its index leads to.
func (t *table) replace(e *entry) {
	s := *t.slots.Load()
	s[e.index&uint32(len(s)-1)].Store(e)
}

// remove makes an index unknown, if it is known.
func (t *table) remove(index uint32) {
	if t.get(index) == nil {
		return
	}
	s := *t.slots.Load()
	s[index&uint32(len(s)-1)].Store(nil)
	t.used--
}
