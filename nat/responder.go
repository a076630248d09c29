package nat

import (
	"net/netip"
	"sync"
	"time"
)

// Limits of answers to Binding requests without credentials, in each second. They suit an anchor of a
// mesh of thousands, and many nodes behind one address.
const (
	answersPerSecond = 1000
	answersPerSource = 50
)

// answerLimit counts the answers of the current second. Its method may be called concurrently.
type answerLimit struct {
	mu     sync.Mutex
	second int64
	total  int
	source map[netip.Prefix]int // those that were answered: no more than answers
}

// allow reports whether one more request from that source is to be answered at now.
func (l *answerLimit) allow(now time.Time, from netip.Addr) bool {
	bits := 32
	if from.Is6() {
		bits = 64
	}
	source, err := from.Prefix(bits)
	if err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := now.Unix(); s != l.second || l.source == nil {
		l.second, l.total, l.source = s, 0, make(map[netip.Prefix]int)
	}
	if l.total >= answersPerSecond || l.source[source] >= answersPerSource {
		return false
	}
	l.total++
	l.source[source]++
	return true
}
