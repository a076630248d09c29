package osnames

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"warren/tunnel/hostsfile"
)

// twin is a way in memory.
type twin struct {
	called  string
	mu      sync.Mutex // of all below
	missing string
	told    *Desired // nil: nothing
	sets    int
	refuses error
	swept   bool
	changed chan struct{}
}

func (w *twin) name() string                { return w.called }
func (w *twin) says() string                { return w.called + " is used" }
func (w *twin) holds() bool                 { return true }
func (w *twin) changes() <-chan struct{}    { return w.changed }
func (w *twin) close()                      {}
func (w *twin) clear(context.Context) error { w.be(func() { w.told = nil }); return nil }
func (w *twin) sweep(context.Context) error { w.be(func() { w.swept = true }); return nil }

// be changes the twin.
func (w *twin) be(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *twin) lacks(context.Context, Desired) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.missing
}

func (w *twin) set(_ context.Context, d Desired) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sets++
	if w.refuses != nil {
		return w.refuses
	}
	w.told = &d
	return nil
}

// TestChoice has the better way come and go while the owner runs.
func TestChoice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service, file := &twin{called: "resolved", missing: "it does not run", changed: make(chan struct{}, 1)}, &twin{called: "hosts"}
		n := New(Options{ways: []way{service, file}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		synctest.Wait()
		if n.Snapshot().Using != "" || !service.swept || !file.swept {
			t.Errorf("at the start: got %+v", n.Snapshot())
		}
		d := Desired{Mode: Auto, Link: "warren0", Domain: "home.internal", Servers: []netip.Addr{netip.MustParseAddr("100.125.0.7")}}
		n.Set(d)
		time.Sleep(restAfter)
		synctest.Wait()
		if got := n.Snapshot(); got != (Snapshot{"hosts", "it does not run"}) || file.told == nil {
			t.Errorf("without the service: got %+v, %v", got, file.told)
		}
		n.Set(d)
		for i := range 50 { // members come many at a time
			d.Hosts = append(d.Hosts, Host{netip.AddrFrom4([4]byte{100, 125, 1, byte(i)}), []string{"x.home.internal"}})
			n.Set(d)
			synctest.Wait()
		}
		time.Sleep(5 * lookEvery)
		synctest.Wait()
		if file.sets != 2 || len(file.told.Hosts) != 50 {
			t.Errorf("told %d times, %d names at last, want the first and what came after it in one", file.sets, len(file.told.Hosts))
		}
		service.be(func() { service.missing = "" })
		service.changed <- struct{}{}
		synctest.Wait()
		if got := n.Snapshot(); got != (Snapshot{"resolved", "resolved is used"}) || file.told != nil || service.told == nil {
			t.Errorf("with the service: got %+v; the file has %v, the service %v", got, file.told, service.told)
		}
		service.be(func() { service.told = nil }) // it was restarted
		service.changed <- struct{}{}
		synctest.Wait()
		if service.told == nil {
			t.Error("a service that was restarted is not told again")
		}
		d.Mode = InHosts
		n.Set(d)
		time.Sleep(restAfter)
		synctest.Wait()
		if n.Snapshot().Using != "hosts" || service.told != nil {
			t.Errorf("by the settings: got %+v, the service has %v", n.Snapshot(), service.told)
		}
		d.Domain = "lab.internal"
		file.be(func() { file.refuses = errors.New("read-only") })
		n.Set(d)
		time.Sleep(restAfter)
		synctest.Wait()
		if got := n.Snapshot(); got != (Snapshot{"", "read-only"}) {
			t.Errorf("refused: got %+v", got)
		}
		file.be(func() { file.refuses = nil })
		time.Sleep(againAfter)
		synctest.Wait()
		if n.Snapshot().Using != "hosts" || file.told.Domain != "lab.internal" {
			t.Errorf("tried again: got %+v", n.Snapshot())
		}
		d.Mode = Off
		n.Set(d)
		time.Sleep(restAfter)
		synctest.Wait()
		if got := n.Snapshot(); got.Using != "" || !strings.Contains(got.Why, `names = "off"`) || file.told != nil {
			t.Errorf("off: got %+v, %v", got, file.told)
		}
		d.Mode = Resolved
		service.be(func() { service.missing = "it does not run" })
		n.Set(d)
		time.Sleep(restAfter)
		synctest.Wait()
		if got := n.Snapshot(); got != (Snapshot{"", "it does not run"}) {
			t.Errorf("only by the service: got %+v", got)
		}
		d.Mode = Auto
		n.Set(d)
		time.Sleep(restAfter)
		synctest.Wait()
		cancel()
		if <-done; file.told != nil || service.told != nil {
			t.Error("not taken back at the end")
		}
	})
}

// TestSweepAfterCrash asserts that lines of a run that was killed are gone after the next start, and after TakeBack, and others' are not.
func TestSweepAfterCrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	const others = "127.0.0.1 localhost\n100.64.0.1\tx.work.internal\t# warren work\n"
	left := func() {
		t.Helper()
		if err := os.WriteFile(path, []byte(others), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := (hostsfile.File{Path: path, Mesh: "home"}).Set([]hostsfile.Line{{Addr: netip.MustParseAddr("100.125.0.7"), Names: []string{"nas.home.internal"}}}); err != nil {
			t.Fatal(err)
		}
	}
	left()
	f := &file{hostsfile.File{Path: path, Mesh: "home"}}
	n := New(Options{ways: []way{f}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if raw, _ := os.ReadFile(path); string(raw) == others {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("not swept")
		}
	}
	cancel()
	<-done
}

func TestResolvers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "resolver")
	servers := []netip.Addr{netip.MustParseAddr("100.125.0.7"), netip.MustParseAddr("fd00::7")}
	if err := setResolvers(dir, "home", []string{"home.internal", "125.100.in-addr.arpa"}, servers); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "home.internal"))
	if err != nil || string(raw) != "# warren home: kept by the agent of this mesh\nnameserver 100.125.0.7\nnameserver fd00::7\n" {
		t.Errorf("got %q, %v", raw, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "corp.example"), []byte("nameserver 10.0.0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := setResolvers(dir, "work", []string{"home.internal"}, servers); err == nil || !strings.Contains(err.Error(), "somebody else's") {
		t.Errorf("another mesh with the domain: got %v", err)
	}
	if err := setResolvers(dir, "home", nil, nil); err != nil {
		t.Fatal(err)
	}
	entries, _ := os.ReadDir(dir)
	if names := slices.Collect(func(yield func(string) bool) {
		for _, e := range entries {
			if !yield(e.Name()) {
				return
			}
		}
	}); !slices.Equal(names, []string{"corp.example"}) {
		t.Errorf("left behind, or lost: %v", names)
	}
	if err := setResolvers(filepath.Join(dir, "none"), "home", nil, nil); err != nil {
		t.Errorf("take back where there is nothing: %v", err)
	}
}
