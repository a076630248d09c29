package relay

import (
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"warren/mesh/identity"
)

// table is which channels there are. The server's loop owns it, and writes the socket's table by it.
type table struct {
	// constant
	self   identity.NodeID
	socket Forwarder
	log    *slog.Logger

	channels  map[identity.NodeID]map[identity.NodeID]*channel // by who asked, then by the peer it is for
	count     int                                              // of channels
	accounts  map[identity.NodeID]*account
	lingering []lingerer // in the order of their end
	dirty     bool       // a ledger made before is not true any more
	stirred   bool       // something was joined since this was last cleared
}

// channel is one member's half of a relayed path.
type channel struct {
	half    Half
	joined  bool      // both directions stand in the socket's table
	counter Counter   // of what the member sent; nil: never joined
	holder  net.Conn  // the control stream that holds it; nil while it lingers
	until   time.Time // when it ends; counts while holder is nil
}

// lingerer is a channel that nobody holds, unless its stream has come back since.
type lingerer struct {
	from, peer identity.NodeID
	channel    *channel
	until      time.Time
}

// open finds or makes the channel of (from, peer), hands it to the stream c, and joins it with the peer's half.
func (t *table) open(from, peer identity.NodeID, addr netip.AddrPort, c net.Conn) (uint16, status) {
	mine := t.channels[from]
	switch {
	case !t.account(from).ask(time.Now()):
		return 0, refusedBusy
	case mine[peer] == nil && (len(mine) >= maxOfMember || t.count >= maxChannels):
		return 0, refusedFull
	}
	if mine == nil {
		mine = make(map[identity.NodeID]*channel)
		t.channels[from] = mine
	}
	ch := mine[peer]
	if ch == nil {
		number := t.freeNumber(from, peer, mine)
		if number == 0 {
			return 0, refusedFull
		}
		ch = &channel{half: Half{Addr: addr, Channel: number}}
		mine[peer] = ch
		t.count++
	}
	ch.holder, t.dirty = c, true
	t.place(from, peer, ch, addr)
	return ch.half.Channel, granted
}

// freeNumber returns a channel number that a member does not use, 0 when it has them all. It is the peer's as long as no other
// has taken it: so a relay that was restarted gives the number again that the member still uses, in whatever order its
// channels are asked for.
func (t *table) freeNumber(client, peer identity.NodeID, mine map[identity.NodeID]*channel) uint16 {
	used := make(map[uint16]bool, len(mine))
	for _, ch := range mine {
		used[ch.half.Channel] = true
	}
	first, count := uint16(firstChannel), uint16(middleChannel-firstChannel)
	if t.self.Compare(client) > 0 {
		first, count = middleChannel, lastChannel-middleChannel+1
	}
	at := binary.BigEndian.Uint16(peer[:])
	for n := range count {
		if number := first + (at%count+n)%count; !used[number] {
			return number
		}
	}
	return 0
}

// place moves a half to addr and writes both directions into the socket's table if the peer's half is there.
func (t *table) place(from, peer identity.NodeID, ch *channel, addr netip.AddrPort) {
	if ch.joined && ch.half.Addr != addr {
		t.socket.Unforward(ch.half)
		t.retire(from, ch)
	}
	ch.half.Addr = addr
	other := t.channels[peer][from]
	if other == nil {
		return
	}
	t.forward(ch, other)
	t.forward(other, ch)
	if !ch.joined {
		t.log.Info("relaying", "id", from.Short(), "with", peer.Short())
	}
	ch.joined, other.joined, t.dirty, t.stirred = true, true, true, true
}

// forward writes one direction into the socket's table. What cannot be written is as a packet lost: the members see that the
// path does not work.
func (t *table) forward(from, to *channel) {
	counter, err := t.socket.Forward(from.half, to.half)
	if err != nil {
		t.log.Warn("not relaying", "from", from.half.Addr, "to", to.half.Addr, "error", err)
		return
	}
	from.counter = counter
}

// end is called when the stream c is over. Another stream that took the channel over keeps it.
func (t *table) end(from, peer identity.NodeID, c net.Conn, now bool) {
	ch := t.channels[from][peer]
	if ch == nil || ch.holder != c {
		return
	}
	ch.holder = nil
	if now {
		t.remove(from, peer)
		return
	}
	ch.until = time.Now().Add(Linger)
	t.lingering = append(t.lingering, lingerer{from, peer, ch, ch.until})
}

// wake is when the next channel that lingers ends.
func (t *table) wake() time.Time {
	if len(t.lingering) == 0 {
		return time.Now().Add(time.Hour)
	}
	return t.lingering[0].until
}

// expire takes away the channels whose stream did not come back.
func (t *table) expire(now time.Time) {
	for len(t.lingering) > 0 && !t.lingering[0].until.After(now) {
		l := t.lingering[0]
		t.lingering = t.lingering[1:]
		if t.channels[l.from][l.peer] == l.channel && l.channel.holder == nil && !l.channel.until.After(now) {
			t.remove(l.from, l.peer)
		}
	}
}

// remove takes a channel away and both directions with it.
func (t *table) remove(from, peer identity.NodeID) {
	ch := t.channels[from][peer]
	if ch == nil {
		return
	}
	delete(t.channels[from], peer)
	t.count--
	t.dirty = true
	t.retire(from, ch)
	if len(t.channels[from]) == 0 {
		delete(t.channels, from)
	}
	if !ch.joined {
		return
	}
	t.socket.Unforward(ch.half)
	if other := t.channels[peer][from]; other != nil {
		t.socket.Unforward(other.half)
		other.joined = false
		t.retire(peer, other)
	}
}

// move says that a member's data now comes from another address.
func (t *table) move(id identity.NodeID, addr netip.AddrPort) {
	for peer, ch := range t.channels[id] {
		if ch.half.Addr != addr {
			t.place(id, peer, ch, addr)
		}
	}
}

// drop takes away every channel of and towards a member.
func (t *table) drop(id identity.NodeID) {
	for peer := range t.channels[id] {
		t.remove(id, peer)
	}
	for from, peers := range t.channels {
		if peers[id] != nil {
			t.remove(from, id)
		}
	}
	delete(t.accounts, id)
	t.dirty = true
}

// account returns that of a member.
func (t *table) account(id identity.NodeID) *account {
	a := t.accounts[id]
	if a == nil {
		a = &account{asks: asks.Limiter()}
		t.accounts[id], t.dirty = a, true
	}
	return a
}

// retire keeps the counts of a direction that was just removed.
func (t *table) retire(from identity.NodeID, ch *channel) {
	if ch.counter != nil {
		a := t.account(from)
		a.ended = a.ended.plus(ch.counter.Traffic())
		ch.counter, t.dirty = nil, true
	}
}

// joined reports whether anything is forwarded.
func (t *table) joined() bool {
	for _, peers := range t.channels {
		for _, ch := range peers {
			if ch.joined {
				return true
			}
		}
	}
	return false
}

// watch counts one more stream on which a member is told the load, unwatch one less.
func (t *table) watch(from identity.NodeID) status {
	a := t.account(from)
	if !a.ask(time.Now()) || a.watches >= maxLoadStreams {
		return refusedBusy
	}
	a.watches++
	return granted
}

func (t *table) unwatch(from identity.NodeID) {
	if a := t.accounts[from]; a != nil && a.watches > 0 {
		a.watches--
	}
}

// traffic is all that was ever forwarded.
func (t *table) traffic() (sum Traffic) {
	for _, a := range t.accounts {
		sum = sum.plus(a.ended)
	}
	for _, peers := range t.channels {
		for _, ch := range peers {
			sum = sum.plus(trafficOf(ch.counter))
		}
	}
	return sum
}

// ledger returns what is open now.
func (t *table) ledger() *ledger {
	l := &ledger{}
	for from, peers := range t.channels {
		for peer, ch := range peers {
			h := half{from: from, peer: peer, joined: ch.joined, counter: ch.counter, listed: true}
			if other := t.channels[peer][from]; other != nil {
				h.other, h.listed = other.counter, from.Compare(peer) < 0
			}
			l.halves = append(l.halves, h)
		}
	}
	for id, a := range t.accounts {
		l.members = append(l.members, Member{ID: id, Channels: len(t.channels[id]), Sent: a.ended})
	}
	return l
}
