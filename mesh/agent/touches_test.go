package agent

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"warren/nat"
	"warren/tunnel/osnet/osnettest"
)

// touches is a log that counts what is done to the WireGuard device, and what introductions are made.
type touches struct {
	mu         sync.Mutex
	reads      int             // of the whole device
	configured map[int]int     // by how many peers were named in it
	keyed      map[string]int  // preshared keys set, by the device's name of the peer
	answered   map[string]bool // introductions that have agreed on a key, by peer and attempt
}

func newTouches() *touches {
	return &touches{configured: make(map[int]int), keyed: make(map[string]int), answered: make(map[string]bool)}
}

// Enabled implements slog.Handler.
func (c *touches) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs implements slog.Handler.
func (c *touches) WithAttrs([]slog.Attr) slog.Handler { return c }

// WithGroup implements slog.Handler.
func (c *touches) WithGroup(string) slog.Handler { return c }

// Handle implements slog.Handler.
func (c *touches) Handle(_ context.Context, r slog.Record) error {
	attrs := make(map[string]slog.Value)
	r.Attrs(func(a slog.Attr) bool {
		attrs[a.Key] = a.Value
		return true
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r.Message {
	case "read device":
		c.reads++
	case "configure device":
		c.configured[int(attrs["count"].Int64())]++
	case "device":
		if who, key := strings.CutSuffix(attrs["text"].String(), " - UAPI: Updating preshared key"); key {
			c.keyed[who]++
		}
	case "signal sent", "signal received":
		if m, ok := attrs["signal"].Any().(nat.Message); ok && m.Kind == nat.KindAnswer {
			c.answered[fmt.Sprint(attrs["id"], m.Attempt)] = true
		}
	}
	return nil
}

// answers is how many introductions nat has seen answered.
func (c *touches) answers() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.answered)
}

// TestPeersUpTouchEachPeerOnceInNamespace has a hundred peers come up at once. Each one's preshared key is set once, and by that its
// peer alone is touched; the device is not read for each. The node has the first word with all of them, for on a machine that is slow enough
// a handshake of the others may overtake the word of the path that it takes, and then the device is asked whose it is.
func TestPeersUpTouchEachPeerOnceInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	const n = 100
	log := newTouches()
	s := newSwarm(t, n, 0, "wpeers", slog.New(log))
	s.meet(t)
	if got := s.handshakes(); got != n {
		t.Errorf("got %d handshakes, want %d", got, n)
	}
	// The handshake of an introduction is done before nat has its answer.
	for until := time.Now().Add(30 * time.Second); log.answers() < n && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	s.end(t)
	keys := 0
	for _, times := range log.keyed {
		keys += times
	}
	if len(log.keyed) != n {
		t.Errorf("got preshared keys of %d peers, want %d", len(log.keyed), n)
	}
	// On a machine that takes seconds for this an introduction may have begun anew: then there is another key. Of some that are under way at the end
	// nat has not been told.
	if keys > len(log.answered)+n/20 || log.configured[1] != keys {
		t.Errorf("got %d preshared keys set in %d changes of one peer, want no more than introductions: %d", keys, log.configured[1], len(log.answered))
	}
	if log.configured[n] != 1 || len(log.configured) != 3 { // the third one is for the device itself, and names no peer
		t.Errorf("got changes by number of peers %v, want one of all %d and else of one each", log.configured, n)
	}
	// A machine that is slow enough may have a handshake of ours be overtaken too, though the word goes first: a few, and never one each.
	if log.reads > n/20 {
		t.Errorf("got %d reads of the whole device, want none, or on a busy machine a few", log.reads)
	}
}
