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
// Both sides see this; the one that started later stops, the other one is told and goes on.
type own struct {
	key      record.Key
	node     record.Node
	signed   record.Signed
	conflict string // another holder has proved to be alive, in words

	rival   [8]byte // instance of the other holder; zero: none met
	echoes  int     // its answers to our last numbers, in a row
	answers int     // of ours to anybody
	last    time.Time
}

const (
	proofEchoes = 2
	// echoSpan allows the other side to have signed something of its own meanwhile.
	echoSpan = 3
	// After quickAnswers we answer once a minute: a thief of the key must not make us flood the mesh.
	quickAnswers = 20
	slowAnswer   = time.Minute
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

// meet is told that another run's record has taken the place of ours in the set. It returns whether to answer with a new
// one, and the end of this node when the other run is alive and older.
func (o *own) meet(other record.Node, now time.Time) (answer bool, fatal *FatalError) {
	switch ahead := other.Seq - o.node.Seq; {
	case o.rival != other.Instance, other.Seq < o.node.Seq, ahead > echoSpan:
		o.rival, o.echoes = other.Instance, 0
	case ahead > 0:
		o.echoes++
	}
	o.node.Seq = max(o.node.Seq, other.Seq)
	answer = o.answers < quickAnswers || now.Sub(o.last) >= slowAnswer
	if answer {
		o.answers, o.last = o.answers+1, now
	}
	if o.echoes < proofEchoes {
		return answer, nil
	}
	if o.younger(other) {
		return false, &FatalError{Text: fmt.Sprintf(
			"this node's key is in use on another machine too, which started earlier (%s): was this disk cloned? Remove the state here and join with a new invite",
			time.Unix(other.Started, 0).UTC().Format(time.DateTime))}
	}
	o.conflict = fmt.Sprintf("this node's key is in use on another machine too, since %s; that one has been told to stop: was a disk cloned? (noticed at %s)",
		time.Unix(other.Started, 0).UTC().Format(time.DateTime), now.UTC().Format(time.DateTime))
	return answer, nil
}

// younger reports whether this run started after the other one; both sides decide it alike.
func (o *own) younger(other record.Node) bool {
	if o.node.Started != other.Started {
		return o.node.Started > other.Started
	}
	return bytes.Compare(o.node.Instance[:], other.Instance[:]) > 0
}
