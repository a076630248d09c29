package mesh

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
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

	// A side keeps in mind at most wantFactor records that it wants for each that it has, and wantMore: a far side that makes entries up
	// costs no more. Whoever lacks more than that asks again when it has these.
	wantFactor = 4
	wantMore   = 1024
	// maxOfStranger is how many records a stranger may bring at once, and maxBasis how many it may show as its proof.
	maxOfStranger = 64
	maxBasis      = 1024

	// Who has no more records than fewRecords lists them at once, in the place of the digests of buckets, which are as long as 42 of them:
	// that saves a round trip.
	fewRecords = 128
)

// syncStats says what a sync moved.
type syncStats struct {
	equal              bool // the digests were, before it
	sent, got, refused int
	more               bool // there was more to be had than could be asked for at once
	later              bool // there were versions of records whose turn has not come
}

// conversation is one sync stream and this side's part in it. What it holds is bounded by this node's own set, whatever the far side says:
// the keys of what it wants, and of what it is to send.
type conversation struct {
	s      *syncer
	peer   identity.NodeID
	proven bool // the far side is certainly the peer: nobody forwards the stream. Else nothing is noted of the one that is named
	// A peer that is no member here gets to see no more than what proves this node's own membership, or nothing yet (see proof.shown), until
	// it has proved its own: whoever holds an old invite can make a certificate that passes a handshake. basis is nil for members.
	basis *basis
	conn  net.Conn
	in    *bufio.Reader
	out   []byte // the turn in the making
	buf   []byte
	end   time.Time
	slot  *slot
	shown int // entries shown to the far side: it cannot want more
	stats syncStats
}

// finish notes a success, and asks for another sync with a peer that has become a member in this one, or has more.
func (c *conversation) finish(err error) {
	if err == nil && c.proven {
		c.s.asks.done(c.peer)
	}
	if c.basis != nil && c.s.book.public.isMember(c.peer) || err == nil && c.stats.more && c.stats.got > 0 {
		c.s.asks.sync(c.peer, 0)
	}
	if c.stats.later {
		c.s.asks.later(c.peer)
	}
}

// extend moves the deadline on after each sign of life, up to the end, which comes sooner for one that is slow.
func (c *conversation) extend() error {
	deadline := time.Now().Add(syncIdle)
	for _, sooner := range [...]time.Time{c.end, c.slot.until()} {
		if deadline.After(sooner) {
			deadline = sooner
		}
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
	case f.kind == frameCompare:
		return c.follow(append([]byte(nil), f.payload...), false)
	case f.kind != frameBuckets:
		return unexpected(f)
	}
	bitmap := c.compare(f.payload)
	c.put(frameCompare, bitmap)
	return c.lead(bitmap, bytes.Equal(f.payload, unlike[:]))
}

// lead goes through the rest of a conversation as the side that lists first: what it has in the buckets that differ.
func (c *conversation) lead(bitmap []byte, stranger bool) error {
	c.list(bitmap, stranger, nil)
	c.put(frameEnd, nil)
	if err := c.send(); err != nil {
		return err
	}
	wants, theirWants, err := c.readLists(nil)
	if err != nil {
		return err
	}
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

// follow is the other side of lead: it lists only what the far side lacks, or has older or newer.
func (c *conversation) follow(bitmap []byte, stranger bool) error {
	both := make(map[record.Key]record.Version)
	wants, _, err := c.readLists(both)
	if err != nil {
		return err
	}
	c.list(bitmap, stranger, both)
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
	stranger := bytes.Equal(f.payload[1:], make([]byte, 16)) // that is what we are to the opener
	if !stranger && c.basis == nil && c.s.book.public.view.Load().Records <= fewRecords {
		c.put(frameCompare, everyBucket[:])
		return c.lead(everyBucket[:], false)
	}
	c.put(frameBuckets, c.buckets())
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
	return c.follow(append([]byte(nil), f.payload...), stranger)
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

// everyBucket says that all buckets may differ: what a side with few records says in the place of their digests.
var everyBucket = [32]byte(bytes.Repeat([]byte{0xff}, 32))

// unlike are bucket digests that equal none: what a node shows to strangers.
var unlike = [256 * 8]byte(bytes.Repeat([]byte{0xff}, 256*8))

// digest and buckets show this node's set, or nothing that could tell of it.
func (c *conversation) digest() []byte {
	if c.basis != nil {
		return make([]byte, 16)
	}
	digest := *c.s.book.public.digest.Load()
	return digest[:]
}

func (c *conversation) buckets() []byte {
	if c.basis != nil {
		return unlike[:]
	}
	payload := make([]byte, 0, len(unlike))
	for _, digest := range c.s.book.buckets() {
		payload = append(payload, digest[:]...)
	}
	return payload
}

// list adds to the turn what there is here in the buckets that differ, but for the records that the far side has shown in the same version.
// Whoever takes this node for a stranger is shown what its membership rests on, and no more: that is what it would have to leave away.
func (c *conversation) list(bitmap []byte, stranger bool, both map[record.Key]record.Version) {
	var entries []roster.Entry
	switch {
	case c.basis != nil:
		entries = c.basis.list
	case stranger:
		entries = c.s.proof.basis().all
	default:
		entries = c.s.book.entries(bitmap)
	}
	if len(both) > 0 {
		entries = slices.DeleteFunc(slices.Clone(entries), func(e roster.Entry) bool {
			version, ok := both[e.Key]
			return ok && version == e.Version
		})
	}
	c.shown = len(entries)
	c.out = appendEntries(c.out, entries)
}

// compare returns which buckets differ from ours.
func (c *conversation) compare(theirs []byte) []byte {
	bitmap, ours := make([]byte, 32), c.buckets()
	for i := range 256 {
		if c.basis != nil || string(ours[8*i:8*i+8]) != string(theirs[8*i:8*i+8]) {
			bitmap[i/8] |= 1 << (i % 8)
		}
	}
	return bitmap
}

// readLists reads entries and wanted keys up to the end of a turn. It returns the keys of the entries that are wanted here, as many as may
// be kept, and those that the far side wants. Unless it is nil, both gets the keys of which this side has the same version.
func (c *conversation) readLists(both map[record.Key]record.Version) (wants, theirWants []record.Key, err error) {
	most := wantFactor*c.s.book.public.view.Load().Records + wantMore
	entries, mostEntries := 0, maxEntries
	if c.basis != nil {
		most, mostEntries = maxOfStranger, maxBasis
	}
	wanted := 0
	for {
		f, err := c.read()
		if err != nil {
			return nil, nil, err
		}
		switch f.kind {
		case frameEntries:
			theirs := parseEntries(f.payload)
			if entries += len(theirs); entries > mostEntries {
				return nil, nil, fmt.Errorf("more than %d entries: %w", mostEntries, errSync)
			}
			lacking, same := c.s.book.wanted(theirs)
			if both != nil {
				for _, e := range same {
					both[e.Key] = e.Version
				}
			}
			for _, key := range lacking {
				if c.s.intake.pace.hot(key, time.Now()) {
					c.stats.later = true
					continue
				}
				wanted++
				// Of too many a random choice is kept: the same ones each time might all rest on others. A stranger shows what others rest on
				// first.
				if len(wants) < most {
					wants = append(wants, key)
				} else if i := rand.N(wanted); c.basis == nil && i < most {
					wants[i] = key
				}
			}
		case frameWant:
			if theirWants, err = c.want(theirWants, f.payload); err != nil {
				return nil, nil, err
			}
		case frameEnd:
			c.stats.more = wanted > len(wants)
			return wants, theirWants, nil
		default:
			return nil, nil, unexpected(f)
		}
	}
}

// want adds keys that the far side wants: of what it was shown.
func (c *conversation) want(wants []record.Key, payload []byte) ([]record.Key, error) {
	if len(wants)+len(payload)/keySize > c.shown {
		return nil, fmt.Errorf("more than the %d wanted that there are: %w", c.shown, errSync)
	}
	return append(wants, parseKeys(payload)...), nil
}

// sendRecords writes the records that the far side wants, in an order in which it can verify them.
func (c *conversation) sendRecords(keys []record.Key) error {
	if c.basis != nil {
		keys = slices.DeleteFunc(keys, func(key record.Key) bool { return !c.basis.in[key] })
	}
	for _, signed := range inOrder(c.s.book.get(keys)) {
		encoded, err := signed.Marshal()
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
			if wants, err = c.want(wants, f.payload); err != nil {
				return nil, err
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
