package noise

import (
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/tai64n"
)

// Peer is one peer of a machine: its sessions, its handshakes, its timers.
//
// Seal, LastHandshake and Ready may be called by any goroutine. All others belong to the control goroutine.
type Peer struct {
	// constant after Add
	machine *Machine
	key     PublicKey

	// written by the control goroutine, read by all
	keys       sessions
	handshaken atomic.Pointer[time.Time] // nil: never

	traffic traffic

	// owned by the control goroutine
	psk      PresharedKey
	macs     macs
	attempts [ways]*attempt
	stamps   struct{ sent, heard tai64n.Timestamp }
	removed  bool
	times    times
}

// An initiation goes straight to the peer or is carried, by an introduction. There may be one of each.
const (
	direct = iota
	carried
	ways
)

func newPeer(m *Machine, key PublicKey) *Peer {
	p := &Peer{machine: m, key: key}
	p.keys.init(&m.table, less(m.public, key))
	p.traffic.init()
	p.macs.init(key)
	p.stamps.sent = m.stamp // one that was there before, and is added again, has seen no later one
	p.times.init(m.jitter())
	return p
}

// Key returns the peer's public key.
func (p *Peer) Key() PublicKey { return p.key }

// SetPresharedKey says which preshared key the next response is made or read with. Sessions that are there go on; an initiation
// that waits for its response takes the new key.
func (p *Peer) SetPresharedKey(k PresharedKey) { p.psk = k }

// SetPersistent has something sent at least once in interval; 0: no. If it was off, something is sent at once (by Step).
func (p *Peer) SetPersistent(interval time.Duration, now Instant) {
	t := &p.times
	t.persistNow = t.persistent == 0 && interval > 0 || t.persistNow && interval > 0
	t.persistent, t.persistFrom = interval, now
}

// LastHandshake returns when a handshake was last completed; zero: never.
func (p *Peer) LastHandshake() time.Time {
	if at := p.handshaken.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// Ready reports whether Seal has a key.
func (p *Peer) Ready(now Instant) bool {
	k := p.keys.Load().sending()
	return k != nil && now.Sub(k.created) < RejectAfterTime && k.counter.Load() < RejectAfterMessages
}

// Handshake asks for a handshake with fresh keys, whatever keys there are. It begins at once, or RekeyTimeout after the last
// message of a handshake to this peer.
func (p *Peer) Handshake(now Moment, out []Action) []Action {
	p.times.forced = true
	p.demand(now.At)
	return p.Step(now, out)
}

// Carry makes an initiation that is to travel in an introduction. Its response is taken for RekeyAttemptTime, or until Carry is
// called again or a session of a later handshake is there; that of other initiations is taken beside it. For RekeyTimeout it
// holds back others. The preshared key need not be known before the response is handed to Machine.Receive.
func (p *Peer) Carry(now Moment) []byte {
	a, msg := p.begin(now)
	p.abandon(carried)
	p.attempts[carried] = a
	p.times.handshakeSent = now.At
	return msg
}

// Zero drops all keys and handshakes, and stops all timers but the persistent keepalive.
func (p *Peer) Zero() {
	p.keys.forget()
	p.times.zeroAt = Never
	for way := range p.attempts {
		p.abandon(way)
	}
	p.times.rest()
	p.traffic.rest()
}

// abandon drops an initiation that waits for its response.
func (p *Peer) abandon(way int) {
	if a := p.attempts[way]; a != nil {
		p.machine.table.remove(a.index)
		a.wipe()
		p.attempts[way] = nil
	}
}

// settle takes note of a session of the peer's initiation that is confirmed.
func (p *Peer) settle(now Moment, out []Action) []Action {
	if !p.keys.settle() {
		return out
	}
	for way := range p.attempts {
		p.abandon(way)
	}
	p.complete(now)
	return append(out, Action{Kind: Ready, Peer: p})
}

// complete notes that a handshake is done.
func (p *Peer) complete(now Moment) {
	p.handshaken.Store(&now.Wall)
	p.times.done()
	p.traffic.wanted.Store(false)
}

// less orders keys.
func less(a, b PublicKey) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}
