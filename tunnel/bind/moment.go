package bind

import "time"

// origin is when the process began. Moments are kept as nanoseconds since 1970 by the clock as it was then: whoever sets that clock later
// changes nothing of what has passed since.
var origin = time.Now()

// nanos is now, as a moment.
func nanos() int64 { return nanosOf(time.Now()) }

func nanosOf(t time.Time) int64 { return origin.UnixNano() + int64(t.Sub(origin)) }

// timeOf is the time of a moment, with the reading of the monotonic clock; zero for 0, which is never.
func timeOf(nano int64) time.Time {
	if nano == 0 {
		return time.Time{}
	}
	return origin.Add(time.Duration(nano - origin.UnixNano()))
}
