// Package osnames has this machine's own resolver ask the agent for the mesh's names, and for nothing else: systemd-resolved where it rules,
// /etc/resolver on macOS, else lines in /etc/hosts. /etc/resolv.conf is never written, and what was changed is taken back.
//
// What names there are, and who answers for them, is left to the caller. Set and Snapshot may be called by any goroutine at any time; Run is called
// once. Files: osnames.go (the owner), ways.go (what it chooses from), ways_linux.go, ways_darwin.go, resolver.go (the files of macOS; pure).
package osnames

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"sync/atomic"
	"time"
)

// Mode is what the settings say.
type Mode string

// The modes.
const (
	Auto     Mode = "auto"     // the first way that this machine has
	Resolved Mode = "resolved" // systemd-resolved or nothing
	InHosts  Mode = "hosts"    // lines in /etc/hosts
	Off      Mode = "off"      // this machine is told nothing; so is "", of whoever has no settings
)

// Host is one address and its names.
type Host struct {
	Addr  netip.Addr
	Names []string // the full one first, then the plain one
}

// Desired is what the machine's resolver should know.
type Desired struct {
	Mode    Mode
	Link    string // name of the interface
	Domain  string // without a dot at its end; "": there is nothing to tell
	Reverse []string
	Servers []netip.Addr // where the agent answers, port 53
	Hosts   []Host       // for a file
}

// Snapshot is what the resolver was told.
type Snapshot struct {
	Using string // name of the way: "resolved", "resolver", "hosts"; "": none
	Why   string // why this one, or why none, in words
}

const (
	// lookEvery is how often it is looked whether another way is there by now, or somebody has changed what was told.
	lookEvery = 30 * time.Second
	// againAfter is how soon what failed is tried again.
	againAfter = 2 * time.Second
	// restAfter is how long a change waits after the one before: members come many at a time, and each change of a file waits for the disk.
	restAfter = 200 * time.Millisecond
	// endTime bounds taking back at the end.
	endTime = 5 * time.Second
)

// Options are what an owner works with.
type Options struct {
	Mesh   string // whose names they are: what is left in files is found by it
	Logger *slog.Logger

	ways []way // tests
}

// Names is the owner of what the machine's resolver was told.
type Names struct {
	// constant after New
	log    *slog.Logger
	ways   []way
	change chan struct{}

	// atomic
	desired atomic.Pointer[Desired]
	snap    atomic.Pointer[Snapshot]

	// owned by Run
	current way     // that was told; nil: none
	told    Desired // what
	failing string
}

// New returns an owner that has told nobody yet.
func New(o Options) *Names {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.ways == nil {
		o.ways = ways(o)
	}
	n := &Names{log: o.Logger.With("part", "names"), ways: o.ways, change: make(chan struct{}, 1)}
	n.desired.Store(&Desired{Mode: Off})
	n.snap.Store(&Snapshot{Why: "not looked yet"})
	return n
}

// Set says what the resolver should know from now on. Nothing of d may be changed after.
func (n *Names) Set(d Desired) {
	if before := n.desired.Swap(&d); reflect.DeepEqual(*before, d) {
		return
	}
	select {
	case n.change <- struct{}{}:
	default:
	}
}

// Snapshot returns what was told last.
func (n *Names) Snapshot() Snapshot { return *n.snap.Load() }

// Run tells the resolver until ctx ends, and takes everything back. First of all it takes back what an earlier run has left.
func (n *Names) Run(ctx context.Context) error {
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		for _, w := range n.ways {
			if err := w.clear(end); err != nil && w == n.current {
				n.log.Warn("names not taken back", "error", err)
			}
			w.close()
		}
	}()
	for _, w := range n.ways {
		if err := w.sweep(ctx); err != nil {
			n.log.Debug("nothing swept", "error", err)
		}
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var rested time.Time
	for {
		var news <-chan struct{}
		for _, w := range n.ways {
			if c := w.changes(); c != nil {
				news = c
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.change:
			if rest := time.Until(rested); rest > 0 {
				timer.Reset(rest)
				continue
			}
		case <-news:
			n.told = Desired{} // whoever begins anew knows nothing
		case <-timer.C:
		}
		timer.Reset(n.tell(ctx))
		rested = time.Now().Add(restAfter)
	}
}

// tell tells the resolver what is desired, and returns when to look again.
func (n *Names) tell(ctx context.Context) time.Duration {
	d := *n.desired.Load()
	w, why := n.choose(ctx, d)
	if n.current != nil && n.current != w {
		if err := n.current.clear(ctx); err != nil {
			n.log.Warn("names not taken back", "error", err)
		}
		n.current, n.told = nil, Desired{}
	}
	if w == nil {
		n.snap.Store(&Snapshot{Why: why})
		return lookEvery
	}
	if n.current == w && reflect.DeepEqual(n.told, d) && w.holds() {
		return lookEvery
	}
	n.current = w // what fails half way is taken back as well
	if err := w.set(ctx, d); err != nil {
		if text := err.Error(); text != n.failing {
			n.failing = text
			n.log.Warn("names not told", "error", err)
		}
		n.snap.Store(&Snapshot{Why: err.Error()})
		return againAfter
	}
	if before := n.snap.Load(); before.Using != w.name() {
		n.log.Info("names told", "to", w.name())
	}
	n.failing, n.told = "", d
	n.snap.Store(&Snapshot{Using: w.name(), Why: why})
	return lookEvery
}

// choose picks the way, and says why it, or why none.
func (n *Names) choose(ctx context.Context, d Desired) (chosen way, why string) {
	switch {
	case d.Mode == Off || d.Mode == "":
		return nil, `names = "off" in [mesh] of the config file`
	case d.Domain == "":
		return nil, "there are no names to tell yet"
	}
	missing := ""
	for _, w := range n.ways {
		if d.Mode == Resolved && w.name() != string(Resolved) || d.Mode == InHosts && w.name() != string(InHosts) {
			continue
		}
		lacks := w.lacks(ctx, d)
		if lacks == "" {
			if missing == "" {
				return w, w.says()
			}
			return w, missing
		}
		missing = lacks
	}
	if missing == "" {
		missing = fmt.Sprintf("names = %q: this system has no such way", d.Mode)
	}
	return nil, missing
}
