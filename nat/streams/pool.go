package streams

import (
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/nat/due"
)

// Times of the streams.
const (
	// lingerTime is how long a stream stays after the session has been told to leave it: what is relayed over it has
	// to move too.
	lingerTime = 3 * time.Second

	wantedStreams = 2                      // a spare one
	moreEvery     = 300 * time.Millisecond // while none is up, one more anchor is tried
	mostOpening   = 6
	reopenFirst   = 500 * time.Millisecond // doubled for each failure
	reopenMost    = time.Minute
	// provenFailures is how many failures are left of an anchor's once a stream to it is up: it lives, or lives again.
	provenFailures = 1
	// lonelyFirst and lonelyShare bound the wait while no stream is up at all: 3 s and a tenth of the time without one.
	lonelyFirst = 3 * time.Second
	lonelyShare = 10
	steady      = 5 * time.Second // a stream that lived this long is opened again at once
)

// pool are the streams that the machine has opened and closed, to have as many as it wants.
type pool struct {
	*core
	anchors []identity.NodeID
	streams map[identity.NodeID]*slot // of each anchor
	serial  uint64
	lonely  time.Time // since when no stream is up although streams are wanted, zero while one is
}

type phase uint8

const (
	streamDown phase = iota
	streamOpening
	streamUp
	streamLeaving // up, and to be closed soon
)

type slot struct {
	serial   uint64 // of the one that is or was last open
	phase    phase
	since    time.Time
	at       time.Time // down: not to be opened before; leaving: to be closed
	failures int
}

// setAnchors closes the streams of those that are no anchors any more.
func (p *pool) setAnchors(ids []identity.NodeID) {
	for _, id := range p.anchors {
		if s := p.streams[id]; s != nil && !slices.Contains(ids, id) {
			if s.phase != streamDown {
				p.close(id, s)
			}
			delete(p.streams, id)
		}
	}
	p.anchors = slices.Clone(ids)
	for _, id := range ids {
		if p.streams[id] == nil {
			p.streams[id] = &slot{}
		}
	}
}

// forgive has the streams that failed opened again at once: the network is another one.
func (p *pool) forgive(now time.Time) {
	for id := range p.streams {
		p.moved(now, id)
	}
}

// moved has the stream to an anchor that failed opened again at once: it was somewhere else.
func (p *pool) moved(now time.Time, id identity.NodeID) {
	if s := p.streams[id]; s != nil {
		if s.failures = 0; s.phase == streamDown {
			s.at = now
		}
	}
}

// opened notes that a stream is up.
func (p *pool) opened(now time.Time, ref Ref) {
	if s := p.streams[ref.ID]; s != nil && s.serial == ref.Serial && s.phase == streamOpening {
		s.phase, s.since = streamUp, now
		s.failures = min(s.failures, provenFailures)
	}
}

// close ends a stream, which may be opened again at any time.
func (p *pool) close(id identity.NodeID, s *slot) {
	p.emit(CloseStream{Ref{id, s.serial}})
	*s = slot{serial: s.serial}
}

// ended notes that a stream is down, or was not to be had.
func (p *pool) ended(now time.Time, ref Ref) {
	s := p.streams[ref.ID]
	if s == nil || s.serial != ref.Serial || s.phase == streamDown {
		return
	}
	if s.phase != streamOpening && now.Sub(s.since) >= steady {
		*s = slot{serial: s.serial, at: now}
		return
	}
	s.failures++
	wait := reopenMost
	if s.failures < 8 {
		wait = min(reopenFirst<<(s.failures-1), reopenMost)
	}
	s.phase, s.since, s.at = streamDown, now, now.Add(p.jittered(wait))
}

// closeLeaving ends what was left anyhow.
func (p *pool) closeLeaving() {
	for _, id := range p.anchors {
		if s := p.streams[id]; s.phase == streamLeaving {
			p.close(id, s)
		}
	}
}

// leaveAll has what goes over streams move away from them. It reports whether one was up.
func (p *pool) leaveAll(now time.Time) (up bool) {
	for _, id := range p.anchors {
		switch s := p.streams[id]; s.phase {
		case streamUp:
			up = true
			s.phase, s.at = streamLeaving, now.Add(lingerTime)
			p.emit(LeaveStream{Ref{id, s.serial}})
		case streamOpening:
			p.close(id, s)
		}
	}
	return up
}

// streamSince reports whether a stream is up that has come up since then. If that is since a trial began, the network works,
// and only UDP does not.
func (p *pool) streamSince(begin time.Time) bool {
	for _, s := range p.streams {
		if s.phase == streamUp && !s.since.Before(begin) {
			return true
		}
	}
	return false
}

// arrange opens and closes streams until there are as many as wanted: none, or some since a time.
func (p *pool) arrange(now time.Time, wanted bool, since time.Time) {
	up, opening := 0, 0
	for _, id := range p.anchors {
		switch s := p.streams[id]; {
		case s.phase == streamLeaving && !now.Before(s.at):
			p.close(id, s)
		case s.phase == streamUp && up == wantedStreams:
			p.close(id, s) // several were tried at once
		case s.phase == streamUp:
			up++
		case s.phase == streamOpening:
			opening++
		}
	}
	switch {
	case up > 0 || !wanted:
		p.lonely = time.Time{}
	case p.lonely.IsZero():
		p.lonely = now
	}
	if !wanted {
		return
	}
	for _, id := range p.anchors {
		s := p.streams[id]
		if s.phase != streamDown || now.Before(p.openAt(now, s)) {
			continue
		}
		if opening >= mayOpen(now.Sub(since), up) {
			return
		}
		p.serial++
		s.phase, s.since, s.serial = streamOpening, now, p.serial
		opening++
		p.emit(OpenStream{Ref{id, s.serial}})
	}
}

// openAt is when a stream that is down may be opened.
func (p *pool) openAt(now time.Time, s *slot) time.Time {
	if p.lonely.IsZero() || s.at.IsZero() {
		return s.at
	}
	return earlier(s.at, s.since.Add(lonelyFirst+now.Sub(p.lonely)/lonelyShare))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// mayOpen returns how many streams may be in the opening. The first anchors of the list may be gone, so more are tried
// the longer none is up.
func mayOpen(since time.Duration, up int) int {
	if up > 0 {
		return wantedStreams - up
	}
	return min(wantedStreams+int(since/moreEvery), mostOpening)
}

// wake returns when something is due, zero for never.
func (p *pool) wake(now time.Time, wanted bool, since time.Time) (first time.Time) {
	up, opening, ready := 0, 0, false
	for _, s := range p.streams {
		switch s.phase {
		case streamLeaving:
			first = due.Sooner(first, s.at)
		case streamUp:
			up++
		case streamOpening:
			opening++
		}
	}
	for _, s := range p.streams {
		if s.phase == streamDown && wanted && up < wantedStreams {
			if at := p.openAt(now, s); !at.After(now) {
				ready = true
			} else {
				first = due.Sooner(first, at)
			}
		}
	}
	if ready && up == 0 && opening >= wantedStreams && opening < mostOpening {
		first = due.Sooner(first, since.Add(moreEvery*time.Duration(opening-wantedStreams+1)))
	}
	return first
}
