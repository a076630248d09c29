package noise

import (
	"encoding/binary"
	"time"

	"golang.zx2c4.com/wireguard/tai64n"
)

const (
	tai        = 0x400000000000000a // the second of TAI64 at which the Unix calendar starts
	coarseness = 1 << 24            // nanoseconds; finer ones would tell the world how exact our clock is
)

// stampOf returns a time as the stamp of an initiation. The module's own function reads the clock itself.
func stampOf(t time.Time) (s tai64n.Timestamp) {
	binary.BigEndian.PutUint64(s[:], tai+uint64(t.Unix()))
	binary.BigEndian.PutUint32(s[8:], uint32(t.Nanosecond())&^(coarseness-1))
	return s
}

// later returns the stamp of now, or the one that follows last, if now is not later than it. So two initiations in one tick, or
// after the calendar went back, are both taken.
func later(now time.Time, last tai64n.Timestamp) tai64n.Timestamp {
	s := stampOf(now)
	if s.After(last) {
		return s
	}
	seconds, nanos := binary.BigEndian.Uint64(last[:]), uint64(binary.BigEndian.Uint32(last[8:]))+coarseness
	if nanos >= uint64(time.Second) {
		seconds, nanos = seconds+1, 0
	}
	binary.BigEndian.PutUint64(last[:], seconds)
	binary.BigEndian.PutUint32(last[8:], uint32(nanos))
	return last
}
