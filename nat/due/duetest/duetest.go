// Package duetest has what schedules are made of: seeded runs in which chance decides what a machine lives through, in a time that no clock
// tells.
package duetest

import (
	"container/heap"
	"os"
	"strconv"
	"time"
)

// Schedules returns how many are to be run, and until when: as many as WARREN_SCHEDULES says, else the usual number, of which a busy machine does
// fewer.
func Schedules(usual uint64) (n uint64, until time.Time) {
	if n, err := strconv.ParseUint(os.Getenv("WARREN_SCHEDULES"), 10, 64); err == nil {
		return n, time.Now().Add(time.Hour)
	}
	return usual, time.Now().Add(3 * time.Second)
}

// Queue is what is to be done later, by the time, and at one time in the order in which it was put. The zero Queue is empty.
type Queue struct {
	list todos
	put  int
}

// Put has do done at a time.
func (q *Queue) Put(at time.Time, do func()) {
	q.put++
	heap.Push(&q.list, todo{at, q.put, do})
}

// Next returns when the first is to be done, false when there is none.
func (q *Queue) Next() (at time.Time, ok bool) {
	if len(q.list) == 0 {
		return time.Time{}, false
	}
	return q.list[0].at, true
}

// Pop takes the first out. There has to be one.
func (q *Queue) Pop() (at time.Time, do func()) {
	first := heap.Pop(&q.list).(todo)
	return first.at, first.do
}

type todo struct {
	at    time.Time
	order int
	do    func()
}

type todos []todo

func (t todos) Len() int { return len(t) }
func (t todos) Less(i, j int) bool {
	return t[i].at.Before(t[j].at) || t[i].at.Equal(t[j].at) && t[i].order < t[j].order
}
func (t todos) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *todos) Push(x any)   { *t = append(*t, x.(todo)) }
func (t *todos) Pop() any {
	last := (*t)[len(*t)-1]
	*t = (*t)[:len(*t)-1]
	return last
}
