package filter

import (
	"sync"
	"time"
)

// Bounds of what is known of datagrams in pieces.
const (
	maxFragmented  = 64               // of one peer at a time, the oldest goes
	lastsFragments = 15 * time.Second // RFC 791, section 3.2: how long the rest may take
)

// fragments are the first fragments of one peer that have passed.
type fragments struct {
	mu   sync.Mutex
	ring []fragmented
	next int
}

// fragmented is a datagram in pieces.
type fragmented struct {
	src, dst [16]byte
	id       uint32
	of       uint8
	dir      Direction
	end      int // of the first fragment: what comes after may not reach into it, and so not into its headers
	expires  time.Duration
}

func (f *fragmented) is(dir Direction, p *packet) bool {
	return f.id == p.id && f.dir == dir && f.of == p.of && f.src == p.src && f.dst == p.dst
}

// first notes a first fragment that has passed.
func (s *fragments) first(dir Direction, p *packet, now time.Duration) {
	entry := fragmented{p.src, p.dst, p.id, p.of, dir, p.end, now + lastsFragments}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.ring {
		if s.ring[i].is(dir, p) {
			s.ring[i] = entry
			return
		}
	}
	if len(s.ring) < maxFragmented {
		s.ring = append(s.ring, entry)
		return
	}
	s.ring[s.next] = entry
	s.next = (s.next + 1) % maxFragmented
}

// follows reports whether a later fragment belongs to a datagram whose first has passed.
func (s *fragments) follows(dir Direction, p *packet, now time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.ring {
		if f := &s.ring[i]; f.is(dir, p) {
			return f.expires > now && p.from >= f.end
		}
	}
	return false
}
