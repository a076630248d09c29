package mesh

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// arrival is a record that came in a message, or when encoded is nil the notice that a member holds some. From is who has sent it, as
// far as whoever forwarded the message is to be trusted.
type arrival struct {
	encoded []byte
	notice  []roster.Entry
	from    identity.NodeID
	hops    byte // how many more times it may be passed straight on
}

const (
	// inboxSize holds a burst of records while earlier ones are being verified at 6,000 a second.
	inboxSize = 1024
	// recentRecords is how many messages are remembered to drop their copies without a verification.
	recentRecords = 4096
)

// intake is the way of records in, however they come: in messages, by a sync, or of this node's own making. It has them verified and
// written in the book, and does what follows from what was new: it is saved, passed on, and told to the user.
type intake struct {
	// constant
	book     *book
	writer   *writer
	spread   *spreader
	evidence *evidence
	asks     *asks
	bell     *bell
	drops    *drops
	log      *slog.Logger

	inbox chan arrival // records and notices that came in messages; drops the newest when full: a sync mends that

	pace *pace // how often a record comes in another version

	seen *recent[[32]byte] // owned by the run loop: hashes of records that came in messages
}

func newIntake(w *writer, s *spreader, e *evidence, a *asks, b *bell, d *drops, log *slog.Logger) *intake {
	return &intake{
		book: w.book, writer: w, spread: s, evidence: e, asks: a, bell: b, drops: d, log: log,
		inbox: make(chan arrival, inboxSize), seen: newRecent[[32]byte](recentRecords, 10*time.Minute), pace: newPace(),
	}
}

// put takes in records of this node's own making, or a joiner's first: they are on disk before they spread, if it can be written. Where it cannot, others
// have to keep them: the error says which were refused, and that nobody is there to keep the others.
func (i *intake) put(signed ...record.Signed) error {
	all := i.writer.add(signed, time.Now())
	var refused []error
	for _, n := range all {
		refused = append(refused, n.refused...)
	}
	if len(refused) == len(all) {
		return errors.Join(refused...)
	}
	unkept := i.book.save()
	for _, n := range all {
		if len(n.refused) == 0 {
			i.react(n, arrival{from: i.writer.self, hops: 1})
		}
	}
	if unkept != nil && len(i.spread.sessions.Neighbours()) == 0 {
		refused = append(refused, fmt.Errorf("it counts until the agent restarts, and is lost then: this machine cannot keep it (%w), and no other member is connected", unkept))
	}
	return errors.Join(refused...)
}

// update changes the own record with f. It is written soon, and nobody waits for that: a node that starts anew without it meets its later
// record at the others, and goes on from that: own.meet.
func (i *intake) update(f func(*record.Node)) error {
	signed, changed, err := i.writer.update(f, time.Now())
	if err != nil || !changed {
		return err
	}
	i.book.keep()
	i.react(news{fresh: []record.Signed{signed}, own: true, changed: true}, arrival{from: i.writer.self, hops: 1})
	return nil
}

// advance lets time pass.
func (i *intake) advance(now time.Time) {
	i.react(i.writer.advance(now), arrival{from: i.writer.self})
	i.book.keep()
}

// fetched takes in a batch that a sync with a member has brought, which has brought so many before, and returns how many were
// refused. The records of a long sync are not gossiped on.
func (i *intake) fetched(batch []record.Signed, from identity.NodeID, before int) (refused int) {
	n := i.writer.addAll(batch, time.Now())
	i.countRefused(n.refused)
	i.took(n)
	_ = i.book.save()
	if before+len(batch)-len(n.refused) > maxGossip && !n.own {
		i.spread.notify(n.fresh, from)
		n.fresh = nil
	}
	i.react(n, arrival{from: from})
	return len(n.refused)
}

// arrived puts a record into the inbox.
func (i *intake) arrived(a arrival) {
	select {
	case i.inbox <- a:
	default:
		i.drops.add("record: queue full")
	}
}

// drain takes what else is in the inbox, up to a batch.
func (i *intake) drain(first arrival) []arrival {
	batch := []arrival{first}
	for len(batch) < syncBatch {
		select {
		case a := <-i.inbox:
			batch = append(batch, a)
		default:
			return batch
		}
	}
	return batch
}

// take verifies an arrival, and up to a batch of what else is in the inbox, and reacts to what is new.
func (i *intake) take(first arrival) {
	batch, now := i.drain(first), time.Now()
	var came []arrival
	for _, a := range batch {
		if a.encoded == nil {
			i.notice(a)
			continue
		}
		hash := sha256.Sum256(a.encoded)
		if !i.seen.has(hash, now) {
			i.seen.add(hash, now)
			came = append(came, a)
		}
	}
	i.judge(came, now)
}

// resume looks at what had to wait, and returns when to do so again; zero: when there is something new.
func (i *intake) resume(now time.Time) time.Time {
	ready, next := i.pace.due(now)
	if len(ready) == 0 {
		return next
	}
	i.judge(ready, now)
	return now
}

// judge takes in what holds of these records, unless there was too much of the same lately.
func (i *intake) judge(came []arrival, now time.Time) {
	i.pace.begin()
	var looked []arrival
	var records []record.Signed
	for _, a := range came {
		signed, err := record.Unmarshal(a.encoded)
		var d record.Decoded
		if err == nil {
			d, err = signed.Decode()
		}
		entry := roster.Entry{Key: d.Key, Version: d.Version}
		switch {
		case err != nil:
			i.drops.add("record: malformed")
		case i.book.has(entry):
			i.spread.notices.has(entry, a.from)
		case i.pace.claim(d.Key, now):
			looked, records = append(looked, a), append(records, signed)
		case !i.pace.wait(d.Key, waiting{arrival: a, version: d.Version}):
			i.drops.add("record: too often")
		}
	}
	for k, n := range i.writer.add(records, now) {
		i.countRefused(n.refused)
		i.took(n)
		i.react(n, looked[k])
	}
	i.book.keep()
}

// notice asks for a sync with a member that has what is not here.
func (i *intake) notice(a arrival) {
	if !i.book.public.isMember(a.from) {
		return
	}
	var lacks []roster.Entry
	for _, e := range a.notice {
		switch {
		case i.book.has(e):
			i.spread.notices.has(e, a.from)
		case i.pace.hot(e.Key, time.Now()):
			i.asks.later(a.from)
		default:
			lacks = append(lacks, e)
		}
	}
	if len(lacks) > 0 {
		i.asks.noticed(a.from, lacks)
	}
}

// took counts what was taken in.
func (i *intake) took(n news) {
	for _, signed := range n.fresh {
		if key, err := signed.Key(); err == nil {
			i.pace.took(key, time.Now())
		}
	}
}

func (i *intake) countRefused(refused []error) {
	for _, err := range refused {
		i.drops.add("record: " + roster.ReasonOf(err).String())
		i.log.Debug("record refused", "error", err)
	}
}

// react passes on what is new, tells those that are out why, and tells the user. a says how it came.
func (i *intake) react(n news, a arrival) {
	for k, signed := range n.fresh {
		if n.own && k == len(n.fresh)-1 {
			a = arrival{from: i.writer.self, hops: maxHops} // our answer to a rival, not what came
		}
		i.spread.pass(signed, a)
	}
	for _, d := range n.dropped {
		i.log.Info("member dropped", "id", d.ID.Short(), "reason", d.Text)
	}
	i.tellWhy(n)
	if n.rival != "" {
		i.log.Warn("key in use on another machine too", "reason", n.rival)
	}
	if n.fatal != nil {
		i.bell.fail(n.fatal)
	}
	if n.changed {
		i.bell.ring()
	}
}

// tellWhy sends those that are out the records for it, as long as there are sessions with them. Others get them when they are refused one.
func (i *intake) tellWhy(n news) {
	if len(n.dropped) == 0 {
		return
	}
	up := i.spread.sessions.Neighbours()
	for _, d := range n.dropped {
		if !slices.Contains(up, d.ID) {
			continue
		}
		why := i.evidence.against(d.ID)
		for _, encoded := range why {
			i.spread.sendEncoded(d.ID, encoded, 0)
		}
		for _, signed := range n.fresh {
			if len(why) == 0 { // not by a revocation: one of these has taken its place
				i.spread.send(d.ID, signed, 0)
			}
		}
	}
}
