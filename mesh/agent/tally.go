package agent

import (
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/report"
	"warren/tunnel"
)

// tally remembers the counters of static peers between two looks at them. WireGuard does not say when a packet of such a peer came last;
// that counters have grown since the last look says at least that it was not before that.
type tally struct {
	mu    sync.Mutex // guards the rest
	peers map[wgtypes.Key]counted
}

// counted is one peer as it was last looked at.
type counted struct {
	at     time.Time
	rx, tx uint64
	flow   report.Flow
}

// see takes the counters of a peer as they are now, and returns what they show.
func (l *tally) see(now time.Time, key wgtypes.Key, s tunnel.PeerStats) report.Flow {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.peers == nil {
		l.peers = make(map[wgtypes.Key]counted)
	}
	before, known := l.peers[key]
	next := before.next(now, s.RxBytes, s.TxBytes, known)
	l.peers[key] = next
	return next.flow
}

// next is what the counters show after another look. A sign of life came after the look before: it may be no younger than that.
func (c counted) next(now time.Time, rx, tx uint64, known bool) counted {
	out := counted{now, rx, tx, c.flow}
	switch {
	case !known || rx < c.rx || tx < c.tx: // the device has the peer anew
		out.flow = report.Flow{}
	case rx > c.rx:
		out.flow.Heard, out.flow.Unanswered = c.at, time.Time{}
	case tx > c.tx && c.flow.Unanswered.IsZero():
		out.flow.Unanswered = now // the packets went out some time before
	}
	return out
}
