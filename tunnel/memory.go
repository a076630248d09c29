package tunnel

import (
	"context"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"time"
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

// What removed peers leave behind is garbage, 40 KiB each. The collector is in no hurry for it: the device's receive buffers, which are
// mostly untouched, make the heap look like 40 MB in use, so that it waits for as much garbage again; the queues of peers have finalizers, and take
// two rounds; and without packets there is no round at all for minutes. So when manyPeers have gone, it is run twice, a moment later, and
// what is free goes back to the system. Fourteen times 150 peers replaced: 86 MB, for minutes, before, and 33 MB two seconds later now.
const (
	manyPeers    = 32
	collectAfter = time.Second
	// finalize is how long the finalizers of the first round have until the second.
	finalize = 100 * time.Millisecond
)

// memory sets the soft limit of the process for a number of peers, and has its collector run when many of them have gone.
type memory struct {
	on    bool
	gone  int           // since the last word; owned by the run loop
	words chan struct{} // of capacity 1: many have gone
}

// newMemory honours what the operator has set.
func newMemory(wanted bool) memory {
	return memory{on: wanted && os.Getenv("GOMEMLIMIT") == "", words: make(chan struct{}, 1)}
}

// removed notes that peers have gone.
func (m *memory) removed(peers int) {
	if m.gone += peers; m.gone < manyPeers {
		return
	}
	select {
	case m.words <- struct{}{}:
		m.gone = 0
	default: // it is about to be done
	}
}

// run has the collector run after each word, until ctx ends.
func (m *memory) run(ctx context.Context, collect func()) {
	for m.on {
		select {
		case <-ctx.Done():
			return
		case <-m.words:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(collectAfter):
		}
		select { // whatever else has gone meanwhile goes with it
		case <-m.words:
		default:
		}
		collect()
	}
}

// collect takes two rounds, the second of which gives back to the system what is free.
func collect() {
	runtime.GC()
	time.Sleep(finalize)
	debug.FreeOSMemory()
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
