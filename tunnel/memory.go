package tunnel

import (
	"math"
	"os"
	"runtime/debug"
)

// The device takes packet buffers of 64 KiB out of pools that have no limit (device.PreallocatedBuffersPerPool is 0, a
// constant), so that under load the heap grows with the collector's laziness, to 100 MB and more above what is in use.
// What can be set is the runtime's soft limit: near it the collector runs more often and the pools are emptied. Measured
// with the bench of this package on two cores, throughput and CPU are the same with 128 MiB as without a limit,
// half as much again is spent with 64 MiB, and with 32 MiB a quarter of the throughput is left.
//
// The limit has to stay above what is truly in use, or the collector never rests: a connected peer has up to 128 KiB in all parts of
// the agent (device, control session, path).
const (
	baseMemory = 128 << 20
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
