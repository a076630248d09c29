package mesh

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// Timing of one sync.
const (
	syncOpen = 10 * time.Second // to open its stream
	syncIdle = 20 * time.Second // without a byte
	syncMost = 10 * time.Minute // in all: a large mesh over a thin line
)

// syncer brings this node in step with others, and asks them what they have: the exchange that syncwire.go draws, on either side.
type syncer struct {
	// constant
	sessions Sessions
	book     *book
	intake   *intake
	asks     *asks
	drops    *drops
	log      *slog.Logger
	isDirect func(net.Conn) bool // nobody forwards a stream
	proof    *proof
	slots    *slots // of the syncs that others open

	missing atomic.Int64 // records that running syncs have yet to fetch
}

// with brings this node and a member in step: the opener's side. How it goes is counted in the slot.
func (s *syncer) with(ctx context.Context, peer identity.NodeID, in *slot) (syncStats, error) {
	open, cancel := context.WithTimeout(ctx, syncOpen)
	defer cancel()
	conn, err := s.sessions.OpenSync(open, peer)
	if err != nil {
		return syncStats{}, fmt.Errorf("sync with %s: %w", peer.Short(), err)
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	c := s.converse(peer, conn, in)
	err = c.open()
	c.finish(err)
	if err != nil {
		return c.stats, fmt.Errorf("sync with %s: %w", peer.Short(), err)
	}
	return c.stats, nil
}

// serve answers a member that has opened a stream. It returns when the conversation is over, or ctx is, and closes conn.
func (s *syncer) serve(ctx context.Context, from identity.NodeID, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	in := s.slots.take(s.sourceOf(from, conn), time.Now(), func() { _ = conn.Close() })
	if in == nil {
		s.drops.add("sync: too many at once")
		return
	}
	defer s.slots.leave(in)
	c := s.converse(from, conn, in)
	err := c.answer()
	c.finish(err)
	if err != nil {
		s.log.Debug("sync broke off", "peer", s.book.public.nameOf(from), "error", err)
		if errors.Is(err, errSync) {
			s.drops.add("sync: malformed")
		}
	}
}

// sourceOf says with whose conversations one is counted.
func (s *syncer) sourceOf(from identity.NodeID, conn net.Conn) source {
	switch {
	case !s.book.public.isMember(from):
		return stranger
	case !s.isDirect(conn):
		return source{forwarded: true}
	}
	return source{id: from}
}

func (s *syncer) converse(peer identity.NodeID, conn net.Conn, in *slot) *conversation {
	c := &conversation{s: s, peer: peer, proven: s.isDirect(conn), buf: make([]byte, maxFrame), end: time.Now().Add(syncMost), slot: in}
	c.conn = metered{conn, &in.moved}
	c.in = bufio.NewReaderSize(c.conn, 4096)
	if !s.book.public.isMember(peer) {
		c.basis = s.proof.shown(peer)
	}
	return c
}

// parallelAsks is how many members are asked at once.
const parallelAsks = 16

// confirmed asks members whether they have the record of a key, in the version that is here or a newer one, and returns the answers of
// those that could be asked before ctx ended.
func (s *syncer) confirmed(ctx context.Context, key record.Key, members []identity.NodeID) map[identity.NodeID]bool {
	type answer struct {
		id  identity.NodeID
		has bool
		err error
	}
	e := s.book.entry(key)
	answers, slots := make(chan answer), make(chan struct{}, parallelAsks)
	for _, id := range members {
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			has, err := s.ask(ctx, id, e)
			answers <- answer{id, has, err}
		}()
	}
	confirmed := make(map[identity.NodeID]bool)
	for range members {
		if a := <-answers; a.err == nil {
			confirmed[a.id] = a.has
		}
	}
	return confirmed
}

// ask asks one member whether it has a record.
func (s *syncer) ask(ctx context.Context, id identity.NodeID, e roster.Entry) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, syncOpen)
	defer cancel()
	conn, err := s.sessions.OpenSync(ctx, id)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err := conn.Write(appendFrame(nil, frameAsk, appendEntry(nil, e))); err != nil {
		return false, err
	}
	f, err := readFrame(io.LimitReader(conn, 64), make([]byte, maxFrame))
	if err != nil {
		return false, err
	}
	if f.kind != frameHas {
		return false, unexpected(f)
	}
	return f.payload[0] == 1, nil
}
