// Package due orders things by the time when something of each is due. Nothing that happens to one of them looks at the others: setting a
// time costs the logarithm of their number, with a thousand handshakes under way too.
//
// What is due, and the waiting for it, is left to whoever has the queue. A Queue and what is in it belong to one goroutine.
package due

import (
	"container/heap"
	"time"
)

// Slot is what a thing needs in order to be in a Queue: it embeds one. Its zero value is in none.
type Slot struct {
	at    time.Time
	place int // in the queue's list, from 1 on; 0: it is in none
}

func (s *Slot) slot() *Slot { return s }

// thing is a pointer to something that embeds a Slot.
type thing interface {
	comparable
	slot() *Slot
}

// Queue holds things by their times. Its zero value is empty. A thing may be in one queue only.
type Queue[T thing] struct{ list list[T] }

// Set notes when something of v is due, and forgets what was noted before; the zero time: nothing is.
func (q *Queue[T]) Set(v T, at time.Time) {
	s := v.slot()
	switch {
	case at.IsZero() && s.place > 0:
		heap.Remove(&q.list, s.place-1)
	case at.IsZero():
	case s.place > 0:
		s.at = at
		heap.Fix(&q.list, s.place-1)
	default:
		s.at = at
		heap.Push(&q.list, v)
	}
}

// Next returns the earliest time at which something is due; zero: nothing ever is.
func (q *Queue[T]) Next() time.Time {
	if len(q.list) == 0 {
		return time.Time{}
	}
	return q.list[0].slot().at
}

// Due returns something that is due by now, the earliest, and leaves it in the queue.
func (q *Queue[T]) Due(now time.Time) (v T, ok bool) {
	if len(q.list) == 0 || q.list[0].slot().at.After(now) {
		return v, false
	}
	return q.list[0], true
}

// list is a heap by the times.
type list[T thing] []T

// Len implements heap.Interface, as the next four.
func (l list[T]) Len() int           { return len(l) }
func (l list[T]) Less(i, j int) bool { return l[i].slot().at.Before(l[j].slot().at) }
func (l list[T]) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].slot().place, l[j].slot().place = i+1, j+1
}

// Push is for Set only.
func (l *list[T]) Push(x any) {
	v := x.(T) //nolint:forcetypeassert // only Set pushes
	v.slot().place = len(*l) + 1
	*l = append(*l, v)
}

// Pop is for Set only.
func (l *list[T]) Pop() any {
	var none T
	last := (*l)[len(*l)-1]
	(*l)[len(*l)-1] = none // or what has gone would stay in memory
	*l = (*l)[:len(*l)-1]
	*last.slot() = Slot{}
	return last
}
