package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"warren/mesh/identity"
)

var errDropped = errors.New("refused after the handshake")

// keeper looks after links from the hello to their end: they stand in the table, and the router serves them. Its methods may be called
// concurrently.
type keeper struct {
	members   Members
	table     *table
	router    *router
	strangers *strangers
	met       *friends // where members are met
	wait      *sync.WaitGroup
	log       *slog.Logger
}

// link makes a link of a connection.
func (k *keeper) link(conn *quic.Conn, id identity.NodeID, dialled bool) *link {
	return newLink(conn, id, dialled, k.wait, func() { k.router.counters.add(dropQueueFull) })
}

// greet has a link used for what cannot wait, from when this side has said hello; until adopt, or until the far side has refused (given).
func (k *keeper) greet(l *link) (given func()) {
	if !k.router.roster.Member(l.id) || !k.table.greet(l) {
		return func() {}
	}
	return func() { k.table.ungreet(l) }
}

// adopt takes a link after the hellos, enters it into the table and starts serving it.
func (k *keeper) adopt(l *link, far instance) (*link, error) {
	l.instance = far
	if err := k.strangers.enter(l); err != nil {
		k.router.counters.add(dropNoPlace)
		l.close(CodeStranger, err.Error())
		l.end()
		return l, fmt.Errorf("%w: %w", errDropped, err)
	}
	superfluous, settle := k.table.add(l)
	// Whoever was revoked between the handshake and now was not found by Drop, but is refused here.
	if _, err := k.members.Verify(l.chain); err != nil {
		told := refusalOf(err)
		for _, c := range superfluous {
			c.link.spawn(func() { c.link.close(told.Code, told.Reason) })
		}
		l.close(told.Code, told.Reason)
		k.ended(l)
		return l, fmt.Errorf("%w: %w", errDropped, err)
	}
	k.log.Debug("session up", "id", l.id.Short(), "address", l.conn.RemoteAddr().String(), "dialled", l.dialled)
	k.wait.Go(func() {
		k.router.readDatagrams(l)
		k.ended(l)
	})
	k.wait.Go(func() { k.router.readStreams(l) })
	k.wait.Go(func() { k.router.readMessages(l) })
	for _, c := range superfluous {
		c.link.spawn(func() { c.link.close(c.code, c.reason) })
	}
	if settle != nil {
		settle.check(func() { k.settle(settle) })
	}
	if !l.stranger.Load() {
		k.member(l)
	}
	for _, frame := range k.router.parking.take(time.Now(), l.id) {
		l.push(frame)
	}
	return l, nil
}

// became tells that a stranger is a member now.
func (k *keeper) became(l *link) {
	k.member(l)
	k.table.tell(l.id)
}

// member notes where a member was met.
func (k *keeper) member(l *link) {
	if k.router.roster.Member(l.id) {
		k.met.add(l.id, addrPortOf(l.conn.RemoteAddr()).Addr())
	}
}

// settle ends a simultaneous dial in favour of l, which has just answered.
func (k *keeper) settle(l *link) {
	other := k.table.keep(l)
	if other == nil {
		return
	}
	grace := time.NewTimer(duplicateGrace)
	defer grace.Stop()
	select {
	case <-grace.C:
		other.close(CodeDuplicate, "dialled at the same time")
	case <-other.conn.Context().Done():
	case <-l.conn.Context().Done(): // then the other one serves on
	}
}

// ended takes a link out when its connection has ended.
func (k *keeper) ended(l *link) {
	l.end()
	k.strangers.leave(l)
	cause := context.Cause(l.conn.Context())
	code, reason, byPeer := closeCause(cause)
	k.log.Debug("session down", "id", l.id.Short(), "code", code, "reason", reason, "by_peer", byPeer)
	if left := k.table.remove(l, cause); left != nil {
		left.check(nil)
	}
	close(l.gone)
}
