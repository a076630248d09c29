package tunnel

import (
	"math"
	"os"
	"runtime/debug"
)

// The device takes packet buffers of 64 KiB out of pools that have no limit (device.PreallocatedBuffersPerPool is 0, a
// constant), so that under load the heap grows with the collector's laziness, to 100 MB and more above what is in use.
// What can be set is the runtime's soft limit: near it the collector runs more often, which empties the pools. Greatest resident
// set and CPU time per byte of one end in the bench of this package, on two busy cores, beside no limit (190 MB): 160 MiB 140 MB
// and 3 % more, 128 MiB 107 MB and 10 % more, 64 MiB 42 MB and 50 % more.
//
// The limit has to stay above what is truly in use, or the collector never rests: 128 KiB are allowed for each peer, of which the device
// takes about 25; the rest is for its path, its control session and its record.
const (
	baseMemory = 160 << 20
	peerMemory = 128 << 10
)

// memory sets the soft limit of the process for a number of peers.
type memory struct{ on bool }

// newMemory honours what the operator has set.
func newMemory(wanted bool) memory {
	return memory{on: wanted && os.Getenv("GOMEMLIMIT") == ""}
}

func (m memory) limit(peers int) {
	if m.on {
		debug.SetMemoryLimit(baseMemory + int64(peers)*peerMemory)
	}
}

// lift takes the limit away.
func (m memory) lift() {
	if m.on {
		debug.SetMemoryLimit(math.MaxInt64)
	}
}
