package mesh

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
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

const (
	// syncBatch records are verified and taken in together.
	syncBatch = 64
	// maxRefused is how many bad records end a sync. Honest members differ in a few, after a revocation say.
	maxRefused = 256
	// maxGossip is how many records a sync may bring that are gossiped on: more are old news that a sync will bring the others too.
	maxGossip = 64
)

// syncStats says what a sync moved.
type syncStats struct {
	equal              bool // the digests were, before it
	sent, got, refused int
}

// conversation is one sync stream and this side's part in it.
type conversation struct {
	m    *Mesh
	peer identity.NodeID
	// A peer that is no member here gets to see no more than what proves this node's own membership, until it has proved its own:
	// whoever holds an old invite can make a certificate that passes a handshake. basis is that proof, nil for members.
	basis map[record.Key]roster.Entry
	conn  net.Conn
	in    *bufio.Reader
	out   []byte // the turn in the making
	buf   []byte
	end   time.Time
	stats syncStats
}

func (m *Mesh) converse(peer identity.NodeID, conn net.Conn) *conversation {
	c := &conversation{
		m: m, peer: peer, conn: conn, in: bufio.NewReaderSize(conn, 4096), buf: make([]byte, maxFrame), end: time.Now().Add(syncMost),
	}
	if !m.isMember(peer) {
		c.basis = m.ownBasis()
	}
	return c
}

// finish notes a success, and asks for a second sync with a peer that has become a member in this one.
func (c *conversation) finish(err error) {
	if err == nil {
		c.m.asks.done(c.peer)
	}
	if c.basis != nil && c.m.isMember(c.peer) {
		c.m.asks.sync(c.peer, 0)
	}
}

// extend moves the deadline on after each sign of life, up to the end.
func (c *conversation) extend() error {
	deadline := time.Now().Add(syncIdle)
	if deadline.After(c.end) {
		deadline = c.end
	}
	return c.conn.SetDeadline(deadline)
}

func (c *conversation) read() (frame, error) {
	if err := c.extend(); err != nil {
		return frame{}, err
	}
	return readFrame(c.in, c.buf)
}

func (c *conversation) put(kind frameType, payload []byte) { c.out = appendFrame(c.out, kind, payload) }

// send writes the turn.
func (c *conversation) send() error {
	if err := c.extend(); err != nil {
		return err
	}
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// syncWith brings this node and a member in step: the opener's side.
func (m *Mesh) syncWith(ctx context.Context, peer identity.NodeID) (syncStats, error) {
	open, cancel := context.WithTimeout(ctx, syncOpen)
	defer cancel()
	conn, err := m.sessions.OpenSync(open, peer)
	if err != nil {
		return syncStats{}, fmt.Errorf("sync with %s: %w", peer.Short(), err)
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	c := m.converse(peer, conn)
	err = c.open()
	c.finish(err)
	if err != nil {
		return c.stats, fmt.Errorf("sync with %s: %w", peer.Short(), err)
	}
	return c.stats, nil
}

func (c *conversation) open() error {
	hello := append([]byte{syncVersion}, c.digest()...)
	c.put(frameHello, hello)
	if err := c.send(); err != nil {
		return err
	}
	f, err := c.read()
	switch {
	case err != nil:
		return err
	case f.kind == frameSame:
		c.stats.equal = true
		return nil
	case f.kind != frameBuckets:
		return unexpected(f)
	}
	bitmap := c.compare(f.payload)
	c.put(frameCompare, bitmap)
	c.out = appendEntries(c.out, c.entries(bitmap))
	c.put(frameEnd, nil)
	if err := c.send(); err != nil {
		return err
	}
	theirs, theirWants, err := c.readLists()
	if err != nil {
		return err
	}
	wants := c.m.book.wanted(theirs, time.Now())
	if err := c.sendRecords(theirWants); err != nil {
		return err
	}
	c.out = appendKeys(c.out, wants)
	c.put(frameEnd, nil)
	if err := c.send(); err != nil {
		return err
	}
	_, err = c.readRecords(wants)
	return err
}

// HandleSync answers a sync stream that another member opened with OpenSync. It returns when the conversation is over, and
// closes conn.
func (m *Mesh) HandleSync(from identity.NodeID, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	r := m.running.Load()
	if r == nil || !m.heardStream(from, conn) {
		m.drops.add("sync: not now")
		return
	}
	defer context.AfterFunc(r.ctx, func() { _ = conn.Close() })()
	c := m.converse(from, conn)
	err := c.answer()
	c.finish(err)
	if err != nil {
		m.log.Debug("sync broke off", "peer", m.nameOf(from), "error", err)
		if errors.Is(err, errSync) {
			m.drops.add("sync: malformed")
		}
	}
}

func (c *conversation) answer() error {
	f, err := c.read()
	switch {
	case err != nil:
		return err
	case f.kind == frameAsk:
		return c.answerAsk(parseEntries(f.payload)[0])
	case f.kind != frameHello:
		return unexpected(f)
	case f.payload[0] != syncVersion:
		return fmt.Errorf("version %d: %w", f.payload[0], errSync)
	}
	if string(f.payload[1:]) == string(c.digest()) && c.basis == nil {
		c.put(frameSame, nil)
		return c.send()
	}
	var payload []byte
	for _, digest := range c.buckets() {
		payload = append(payload, digest[:]...)
	}
	c.put(frameBuckets, payload)
	if err := c.send(); err != nil {
		return err
	}
	f, err = c.read()
	switch {
	case err != nil:
		return err
	case f.kind != frameCompare:
		return unexpected(f)
	}
	bitmap := append([]byte(nil), f.payload...)
	theirs, _, err := c.readLists()
	if err != nil {
		return err
	}
	c.out = appendEntries(c.out, c.entries(bitmap))
	wants := c.m.book.wanted(theirs, time.Now())
	c.out = appendKeys(c.out, wants)
	c.put(frameEnd, nil)
	if err := c.send(); err != nil {
		return err
	}
	theirWants, err := c.readRecords(wants)
	if err != nil {
		return err
	}
	if err := c.sendRecords(theirWants); err != nil {
		return err
	}
	c.put(frameEnd, nil)
	return c.send()
}

// answerAsk says whether a record is here, to members.
func (c *conversation) answerAsk(e roster.Entry) error {
	has := []byte{0}
	if c.basis == nil && c.m.book.has(e) {
		has[0] = 1
	}
	c.put(frameHas, has)
	return c.send()
}

// digest, buckets and entries show this node's set, or its basis: digests that equal none, and the few entries.
func (c *conversation) digest() []byte {
	if c.basis != nil {
		return make([]byte, 16)
	}
	digest := *c.m.book.digest.Load()
	return digest[:]
}

func (c *conversation) buckets() [256][8]byte {
	if c.basis == nil {
		return c.m.book.buckets()
	}
	var unlike [256][8]byte
	for i := range unlike {
		unlike[i] = [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	return unlike
}

func (c *conversation) entries(bitmap []byte) []roster.Entry {
	if c.basis == nil {
		return c.m.book.entries(bitmap)
	}
	return slices.Collect(maps.Values(c.basis))
}

// compare returns which buckets differ from ours.
func (c *conversation) compare(theirs []byte) []byte {
	bitmap := make([]byte, 32)
	for i, ours := range c.buckets() {
		if string(ours[:]) != string(theirs[8*i:8*i+8]) {
			bitmap[i/8] |= 1 << (i % 8)
		}
	}
	return bitmap
}

// readLists reads entries and wanted keys up to the end of a turn.
func (c *conversation) readLists() (entries []roster.Entry, wants []record.Key, err error) {
	for {
		f, err := c.read()
		if err != nil {
			return nil, nil, err
		}
		switch f.kind {
		case frameEntries:
			entries = append(entries, parseEntries(f.payload)...)
		case frameWant:
			wants = append(wants, parseKeys(f.payload)...)
		case frameEnd:
			return entries, wants, nil
		default:
			return nil, nil, unexpected(f)
		}
		if len(entries) > maxEntries || len(wants) > maxEntries {
			return nil, nil, fmt.Errorf("more than %d entries: %w", maxEntries, errSync)
		}
	}
}

// sendRecords writes the records that the far side wants, in an order in which it can verify them.
func (c *conversation) sendRecords(keys []record.Key) error {
	if c.basis != nil {
		keys = slices.DeleteFunc(keys, func(key record.Key) bool {
			_, ok := c.basis[key]
			return !ok
		})
	}
	decoded := decodeAll(c.m.book.get(keys))
	sortForVerification(decoded)
	for _, d := range decoded {
		encoded, err := d.Signed.Marshal()
		if err != nil {
			return err
		}
		c.put(frameRecord, encoded)
		c.stats.sent++
		if len(c.out) >= maxFrame {
			if err := c.send(); err != nil {
				return err
			}
		}
	}
	return nil
}

// readRecords reads the records that were asked for and takes them in batch by batch, and the far side's wants, up to
// the end of the turn.
func (c *conversation) readRecords(asked []record.Key) (wants []record.Key, err error) {
	missing := make(map[record.Key]bool, len(asked))
	for _, key := range asked {
		missing[key] = true
	}
	c.m.missing.Add(int64(len(missing)))
	defer func() { c.m.missing.Add(-int64(len(missing))) }()
	var batch []record.Signed
	for {
		f, err := c.read()
		if err != nil {
			c.take(batch)
			return nil, err
		}
		switch f.kind {
		case frameRecord:
			signed, err := record.Unmarshal(f.payload)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", errSync, err)
			}
			key, err := signed.Key()
			if err != nil {
				return nil, fmt.Errorf("%w: %w", errSync, err)
			}
			if !missing[key] {
				return nil, fmt.Errorf("a record that was not asked for: %w", errSync)
			}
			delete(missing, key)
			c.m.missing.Add(-1)
			batch = append(batch, signed)
		case frameWant:
			if wants = append(wants, parseKeys(f.payload)...); len(wants) > maxEntries {
				return nil, fmt.Errorf("more than %d wanted: %w", maxEntries, errSync)
			}
		case frameEnd:
			c.take(batch)
			return wants, nil
		default:
			return nil, unexpected(f)
		}
		if len(batch) >= syncBatch {
			c.take(batch)
			batch = nil
		}
		if c.stats.refused > maxRefused {
			return nil, fmt.Errorf("%d bad records: %w", c.stats.refused, errSync)
		}
	}
}

// take verifies a batch and reacts to what is new in it.
func (c *conversation) take(batch []record.Signed) {
	if len(batch) == 0 {
		return
	}
	n := c.m.book.addAll(batch, time.Now())
	c.stats.got += len(batch) - len(n.refused)
	c.stats.refused += len(n.refused)
	c.m.countRefused(n.refused)
	_ = c.m.flush()
	if c.stats.got > maxGossip && !n.own {
		n.fresh = nil
	}
	c.m.react(n, arrival{from: c.peer})
}

func unexpected(f frame) error { return fmt.Errorf("frame type %d here: %w", f.kind, errSync) }
