package mesh

import (
	"testing/synctest"
	"time"
)

// fatalWithin waits for the end of a node and returns when it came, or the zero duration.
func fatalWithin(p *peer, most time.Duration) (*FatalError, time.Duration) {
	start := time.Now()
	for time.Since(start) < most {
		synctest.Wait()
		if fatal := fatalOf(p); fatal != nil {
			return fatal, time.Since(start)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil, 0
}
