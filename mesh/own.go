package mesh

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"warren/mesh/record"
	"warren/mesh/store"
)

// metaOwn is the store's entry with the sequence and the epoch of this node, 8 bytes each, big endian. It
// survives the loss of the records, so a sequence number is never used twice.
const metaOwn = "own"

// own is this node's record, and the watch for another holder of its key: a disk that was cloned, a machine restored
// from a copy while the original runs.
//
// A record with our key but another run's instance proves nothing by itself: it may be from before a disk was restored, and
// members that were away may hold several such. So we answer each with a higher sequence number. Whoever is alive answers that
// with the very next numbers, again and again; old records cannot.
//
//	          we sign 12 ─▶ ◀─ theirs is 20 (instance B)
//	(B may be dead long ago) we sign 21 ─▶
//	                        ◀─ theirs is 22 (instance B): an answer?
//	              we sign 23 ─▶
//	                        ◀─ theirs is 24 (instance B): B lives
//
// Both sides see this, and tell their users. Neither stops: what the other says of itself proves nothing, and a thief must not be able to
// stop the owner by a word. Each goes on answering, ever more rarely, so that both stay known without a flood of records.
type own struct {
	key      record.Key
	node     record.Node
	signed   record.Signed
	conflict string // another holder has proved to be alive, in words

	rival   [8]byte // instance of the other holder; zero: none met
	echoes  int     // its answers to our last numbers, in a row
	proved  time.Time
	answers int // of ours to anybody, lately
	last    time.Time
}

const (
	proofEchoes = 2
	// echoSpan allows the other side to have signed something of its own meanwhile.
	echoSpan = 3
	// After quickAnswers, which settle the question, an answer waits a minute after the last one, the next one twice as long, and so on.
	quickAnswers = 8
	slowAnswer   = time.Minute
	slowestOf    = time.Hour
	// conflictFor is how long after its last answer the other holder counts as alive, and answers as recent.
	conflictFor = 3 * slowestOf
)

// restore reads sequence and epoch of the last run and counts this one.
func (o *own) restore(s *store.Store) error {
	raw, err := s.Meta(metaOwn)
	if err != nil {
		return err
	}
	if len(raw) == 16 {
		o.node.Seq, o.node.Epoch = binary.BigEndian.Uint64(raw), binary.BigEndian.Uint64(raw[8:])
	}
	o.node.Epoch++
	return nil
}

// set is told of a record that was signed and taken in.
func (o *own) set(node record.Node, signed record.Signed, s *saver) {
	o.node, o.signed = node, signed
	if key, err := signed.Key(); err == nil {
		o.key = key
	}
	s.setMeta(metaOwn, binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, node.Seq), node.Epoch))
}

// adopt takes over the admission of a record of this node that has taken the place of ours. A joiner that asked several members
// may have been admitted by more than one; the earliest admission counts for everybody, so a record that names another one
// would never be newer.
func (o *own) adopt(other record.Node) {
	if bytes.Equal(other.Certificate, o.node.Certificate) {
		o.node.Admission = other.Admission
	}
}

// meet is told that another run's record has taken the place of ours in the set. It returns whether to answer with a new one now.
func (o *own) meet(other record.Node, now time.Time) (answer bool) {
	switch ahead := other.Seq - o.node.Seq; {
	case o.rival != other.Instance, other.Seq < o.node.Seq, ahead > echoSpan:
		o.rival, o.echoes = other.Instance, 0
	case ahead > 0:
		if o.echoes++; o.echoes >= proofEchoes {
			o.proved = now
		}
	}
	o.node.Seq = max(o.node.Seq, other.Seq)
	if o.echoes >= proofEchoes && o.conflict == "" {
		o.conflict = fmt.Sprintf("this node's key is in use on another machine too, which says that it started at %s (noticed at %s): was a disk cloned, or the key stolen? "+
			"Neither of the two stops by itself. On an admin, warren revoke this node; then have the one that is to stay join anew, with a new invite",
			textTime(time.Unix(other.Started, 0)), textTime(now))
	}
	if now.Sub(o.last) > conflictFor {
		o.answers = 0
	}
	if now.Sub(o.last) < o.pause() {
		return false
	}
	o.answers, o.last = o.answers+1, now
	return true
}

// pause is the least time between the last answer and the next.
func (o *own) pause() time.Duration {
	if o.answers < quickAnswers {
		return 0
	}
	return min(slowAnswer<<min(o.answers-quickAnswers, 8), slowestOf)
}

// settle takes back that there is another holder when it has said nothing for long. It reports a change.
func (o *own) settle(now time.Time) bool {
	if o.conflict == "" || now.Sub(o.proved) <= conflictFor {
		return false
	}
	o.conflict, o.echoes = "", 0
	return true
}

func textTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
