package mesh

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
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
	s    *syncer
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

// finish notes a success, and asks for a second sync with a peer that has become a member in this one.
func (c *conversation) finish(err error) {
	if err == nil {
		c.s.asks.done(c.peer)
	}
	if c.basis != nil && c.s.book.public.isMember(c.peer) {
		c.s.asks.sync(c.peer, 0)
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
	wants := c.s.book.wanted(theirs, time.Now())
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
	wants := c.s.book.wanted(theirs, time.Now())
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
	if c.basis == nil && c.s.book.has(e) {
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
	digest := *c.s.book.public.digest.Load()
	return digest[:]
}

func (c *conversation) buckets() [256][8]byte {
	if c.basis == nil {
		return c.s.book.buckets()
	}
	var unlike [256][8]byte
	for i := range unlike {
		unlike[i] = [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	return unlike
}

func (c *conversation) entries(bitmap []byte) []roster.Entry {
	if c.basis == nil {
		return c.s.book.entries(bitmap)
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
	decoded := decodeAll(c.s.book.get(keys))
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
	c.s.missing.Add(int64(len(missing)))
	defer func() { c.s.missing.Add(-int64(len(missing))) }()
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
			c.s.missing.Add(-1)
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

// take hands a batch on.
func (c *conversation) take(batch []record.Signed) {
	if len(batch) == 0 {
		return
	}
	refused := c.s.intake.fetched(batch, c.peer, c.stats.got)
	c.stats.got += len(batch) - refused
	c.stats.refused += refused
}

func unexpected(f frame) error { return fmt.Errorf("frame type %d here: %w", f.kind, errSync) }
