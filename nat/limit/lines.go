package limit

import (
	"sync"
	"time"
)

// lineEvery is how often one source has a line of one kind written.
const lineEvery = time.Minute

// Lines bounds the lines that sources cause in a log: one a minute of each of them. It is used for one kind of line. While there are
// more sources than it keeps, those that it does not keep count as one.
//
// The zero value is ready. It may be used concurrently.
type Lines[K comparable] struct {
	mu    sync.Mutex // guards the rest
	each  map[K]line
	crowd line
}

type line struct {
	last    time.Time
	skipped int
}

// Due counts one line of a source, and reports whether it is to be written, and how many of that source were not since the last.
func (l *Lines[K]) Due(now time.Time, from K) (skipped int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one, known := l.each[from]
	if !known && len(l.each) >= maxSources {
		for k, old := range l.each {
			if now.Sub(old.last) >= lineEvery {
				l.crowd.skipped += old.skipped
				delete(l.each, k)
			}
		}
	}
	switch {
	case known:
	case len(l.each) >= maxSources:
		return l.crowd.count(now)
	case l.each == nil:
		l.each = make(map[K]line)
	}
	skipped, due = one.count(now)
	l.each[from] = one
	return skipped, due
}

// count counts one more.
func (l *line) count(now time.Time) (skipped int, due bool) {
	if !l.last.IsZero() && now.Sub(l.last) < lineEvery {
		l.skipped++
		return 0, false
	}
	skipped = l.skipped
	*l = line{last: now}
	return skipped, true
}
