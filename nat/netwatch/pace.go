package netwatch

import "time"

const (
	// firstHold is the least time between two changes that are told. It doubles with each that follows, up to
	// lastHold, and is forgotten after calm; but another network than the one last told waits for firstHold alone.
	firstHold = time.Second
	lastHold  = 4 * time.Second
	calm      = 10 * time.Second
	// downFor is how long a host without addresses is taken for one whose link comes back: there is nothing that
	// anybody could do meanwhile.
	downFor = time.Second
)

// pace says when changes are told. It is pure.
type pace struct {
	now     network
	known   network   // as last told
	changed time.Time // since when there is something to tell, zero for nothing
	down    time.Time // since when the host has no address, zero while it has
	last    time.Time // when a change was told
	hold    time.Duration
}

// see takes what the system says now.
func (p *pace) see(now time.Time, seen network) {
	if seen.equal(p.now) {
		return
	}
	p.now = seen
	if p.changed.IsZero() {
		p.changed = now
	}
	switch {
	case len(seen.addrs) > 0:
		p.down = time.Time{}
	case p.down.IsZero():
		p.down = now
	}
}

// due is when the change is to be told, zero when there is none.
func (p *pace) due() time.Time {
	if p.changed.IsZero() {
		return time.Time{}
	}
	at, hold := p.changed, p.hold
	if len(p.now.addrs) > 0 && !p.now.equal(p.known) {
		hold = min(hold, firstHold)
	}
	if next := p.last.Add(hold); next.After(at) {
		at = next
	}
	if end := p.down.Add(downFor); !p.down.IsZero() && end.After(at) {
		at = end
	}
	return at
}

func (p *pace) ready(now time.Time) bool { return !p.changed.IsZero() && !p.due().After(now) }

// told notes that it was.
func (p *pace) told(now time.Time) {
	if now.Sub(p.last) >= calm {
		p.hold = 0
	}
	p.hold = min(max(2*p.hold, firstHold), lastHold)
	p.last, p.changed, p.known = now, time.Time{}, p.now
}
