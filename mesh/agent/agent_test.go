package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"warren/mesh/api"
	"warren/mesh/node"
	"warren/mesh/place"
)

var errTwin = errors.New("the twin was told to fail")

// ledger notes which owners have ended, and when.
type ledger struct {
	mu    sync.Mutex
	start time.Time
	lines []string
}

// owner makes one that ends with result after so long, 0 for never, or when it is told to.
func (l *ledger) owner(name string, after time.Duration, result error) owner {
	return owner{name, func(ctx context.Context) error {
		var due <-chan time.Time
		if after > 0 {
			due = time.After(after)
		}
		select {
		case <-due:
		case <-ctx.Done():
			time.Sleep(time.Second) // saying good-bye takes its time
			result = nil
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lines = append(l.lines, time.Since(l.start).String()+" "+name)
		return result
	}}
}

func TestAnOwnerThatEndsTakesTheOthersAlong(t *testing.T) {
	for _, tt := range []struct {
		name    string
		after   time.Duration // when the second one ends by itself; 0: never
		result  error
		stop    time.Duration // when the context ends; 0: never
		want    string        // the error; empty: none
		wantEnd []string
	}{
		{"without a reason", time.Minute, nil, 0, "second ended without a reason", []string{"1m0s second", "1m1s first", "1m1s third"}},
		{"with one", time.Minute, errTwin, 0, errTwin.Error(), []string{"1m0s second", "1m1s first", "1m1s third"}},
		{"the context ends", 0, nil, time.Hour, "", []string{"1h0m1s first", "1h0m1s second", "1h0m1s third"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &ledger{start: time.Now()}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.stop > 0 {
					time.AfterFunc(tt.stop, cancel)
				}
				group, upper := errgroup.WithContext(ctx)
				together(upper, group, []owner{l.owner("first", 0, nil), l.owner("second", tt.after, tt.result), l.owner("third", 0, nil)})
				got := ""
				if err := group.Wait(); err != nil {
					got = err.Error()
				}
				if got != tt.want {
					t.Errorf("got error %q, want %q", got, tt.want)
				}
				if slices.Sort(l.lines); !slices.Equal(l.lines, tt.wantEnd) {
					t.Errorf("got ends %q, want %q", l.lines, tt.wantEnd)
				}
			})
		})
	}
}

// Ready is told once the hub's first round is done, and whoever tells it waits on: an owner that ends takes the others along.
func TestReadyIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		a := &agent{ready: make(chan struct{}), o: Options{Ready: func() { told++ }}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- owner{"ready", a.tellReady}.watched(ctx) }()
		synctest.Wait()
		if told != 0 {
			t.Errorf("got ready %d times before the first round, want none", told)
		}
		close(a.ready)
		time.Sleep(time.Hour)
		synctest.Wait()
		if told != 1 || len(done) != 0 {
			t.Errorf("got ready %d times and %d ends, want 1 and none", told, len(done))
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("got %v, want nil", err)
		}
	})
}

// assembled is an agent of a new mesh, of which nothing runs.
func assembled(t *testing.T) *agent {
	t.Helper()
	made, err := place.Create(place.CreateOptions{Mesh: "home", StateRoot: t.TempDir(), Name: "alpha"})
	if err != nil {
		t.Fatal(err)
	}
	state, err := place.Load(made.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	load := func() (node.Settings, error) { return node.Settings{}, nil }
	a, private, err := prepare(Options{Mesh: "home", StateDir: made.StateDir, Version: "1", Load: load, Logger: slog.New(slog.DiscardHandler)}, node.Settings{}, state)
	if err == nil {
		err = a.assemble(node.Settings{}, state, private)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.close)
	return a
}

// A network that cannot be watched is something that a person should know of, before anything else has begun as well.
func TestNetworkThatIsNotWatchedShowsInStatus(t *testing.T) {
	a := assembled(t)
	status := func() api.Status {
		t.Helper()
		s, err := (&backend{a}).Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	mentions := func(s api.Status) bool {
		return slices.ContainsFunc(s.Warnings, func(text string) bool {
			return strings.Contains(text, "not noticed at once") && strings.Contains(text, errTwin.Error())
		})
	}
	if s := status(); s.State != api.StateStarting || mentions(s) {
		t.Errorf("got state %q and warnings %q, want %q and nothing of the network", s.State, s.Warnings, api.StateStarting)
	}
	a.parts.network.watch = func(context.Context) (<-chan struct{}, error) { return nil, errTwin }
	a.parts.network.Watch(t.Context())
	if s := status(); !mentions(s) {
		t.Errorf("got warnings %q, want one of the network", s.Warnings)
	}
}
