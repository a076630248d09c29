package tunnel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"warren/tunnel/osnet"
	"warren/tunnel/osnet/osnettest"
)

// said is a log that tests read while it is written.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// count is how often the log has a text.
func (s *said) count(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.text.String(), text)
}

// mended runs a link of m that has its addresses, routes and MTU, and returns it with its log.
func mended(t *testing.T, m *osnettest.Machine) (*linked, *said) {
	t.Helper()
	inner, err := m.Open("w0", nil)
	if err != nil {
		t.Fatal(err)
	}
	log := &said{}
	l := newLinked("w0", inner, &verified{grown: make(chan struct{})}, func() {}, slog.New(slog.NewTextHandler(log, nil)))
	ctx, cancel := context.WithCancel(context.Background())
	calls, ended := make(chan call[linked]), make(chan struct{})
	go func() {
		l.run(ctx, calls)
		close(ended)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	done := make(chan error, 1)
	calls <- call[linked]{func(l *linked) error {
		return l.set(osnet.Config{Addrs: prefixes("100.70.1.2/32 fd01::2/128"), Routes: prefixes("100.70.0.0/16 fd01::/48"), Up: true})
	}, done}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	return l, log
}

// What somebody else does is undone within a moment, and with no notice of it when it is looked for the next time.
func TestOthersAreUndone(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m := osnettest.New()
			l, log := mended(t, m)
			within := settle
			if deaf {
				m.Deaf()
				within = pollEvery + settle
			}
			want, _ := m.Config("w0")
			for name, c := range map[string]struct {
				do  func(*osnet.Config)
				log string
			}{
				"routes flushed":    {func(c *osnet.Config) { c.Routes = nil }, `reason="route 100.70.0.0/16 gone, route fd01::/48 gone"`},
				"addresses flushed": {func(c *osnet.Config) { c.Addrs = nil }, "address 100.70.1.2/32 gone, address fd01::2/128 gone"},
				"down":              {func(c *osnet.Config) { c.Up = false }, "down"},
				"MTU":               {func(c *osnet.Config) { c.MTU = 900 }, "MTU 900"},
				"all of it":         {func(c *osnet.Config) { *c = osnet.Config{MTU: 1500} }, "MTU 1500, address 100.70.1.2/32 gone"},
			} {
				lines := log.count("interface put right")
				m.Disturb("w0", c.do)
				time.Sleep(within)
				synctest.Wait()
				if got, _ := m.Config("w0"); !reflect.DeepEqual(got, want) {
					t.Errorf("%s, deaf %v: got %+v after %v, want %+v", name, deaf, got, within, want)
				}
				if got := log.count("interface put right") - lines; got != 1 || log.count(c.log) == 0 {
					t.Errorf("%s, deaf %v: got %d lines, want one with %q", name, deaf, got, c.log)
				}
				time.Sleep(time.Second)
			}
			if text := *l.trouble.Load(); text != "" {
				t.Errorf("deaf %v: got trouble %q, want none", deaf, text)
			}
			lines := log.count("msg=")
			time.Sleep(time.Hour)
			if got := log.count("msg=") - lines; got != 0 {
				t.Errorf("deaf %v: got %d lines in a quiet hour, want none", deaf, got)
			}
		})
	}
}

// Who changes it all the time is not fought, and is told of; when that ends, so does the trouble.
func TestOthersAreNotFought(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := osnettest.New()
		l, log := mended(t, m)
		before := m.Writes()
		for range 600 { // a minute
			m.Disturb("w0", func(c *osnet.Config) { c.Routes = nil })
			time.Sleep(100 * time.Millisecond)
		}
		if got := m.Writes() - before; got < burst || got > burst+7 {
			t.Errorf("got %d mends in a minute, want %d at once and one each %v", got, burst, refill)
		}
		if got := *l.trouble.Load(); !strings.Contains(got, "again and again (route 100.70.0.0/16 gone, route fd01::/48 gone)") {
			t.Errorf("got trouble %q, want it to say what is changed", got)
		}
		if got := log.count("again and again"); got != 1 {
			t.Errorf("got %d lines, want 1", got)
		}
		time.Sleep(time.Minute)
		if got := *l.trouble.Load(); got != "" {
			t.Errorf("a minute after its end: got trouble %q, want none", got)
		}
		if got, _ := m.Config("w0"); len(got.Routes) != 2 {
			t.Errorf("a minute after its end: got routes %v, want both", got.Routes)
		}
	})
}

// What cannot be mended is trouble until it can.
func TestTroubleIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := osnettest.New()
		l, log := mended(t, m)
		m.Take(prefixes("100.70.0.0/16")[0])
		m.Disturb("w0", func(c *osnet.Config) { c.Routes = c.Routes[1:] })
		time.Sleep(time.Second)
		if got := *l.trouble.Load(); !strings.Contains(got, "interface w0 is not whole") || !strings.Contains(got, "100.70.0.0/16") {
			t.Errorf("route of another: got trouble %q, want it named", got)
		}
		time.Sleep(time.Minute)
		if got := log.count("interface not put right"); got != 1 {
			t.Errorf("got %d lines in a minute, want 1", got)
		}
		m.Without6()
		time.Sleep(time.Minute)
		if got := log.count("IPv6 is switched off"); got != 1 {
			t.Errorf("IPv6 off: got %d lines, want 1", got)
		}
	})
}

// An interface that is gone is the end.
func TestGoneIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := osnettest.New()
		l, _ := mended(t, m)
		m.Remove("w0")
		time.Sleep(settle)
		synctest.Wait()
		select {
		case err := <-l.over:
			if !errors.Is(err, ErrGone) {
				t.Errorf("got %v, want ErrGone", err)
			}
		default:
			t.Errorf("got nothing within %v, want the end", settle)
		}
	})
}

// TestMendingRests asserts that looks that take long are few.
func TestMendingRests(t *testing.T) {
	var m mending
	now := time.Unix(1000, 0)
	m.stir(now)
	if got, want := m.due, now.Add(settle); !got.Equal(want) {
		t.Errorf("first: got %v, want %v", got, want)
	}
	m.looked(now, now.Add(10*time.Millisecond), false)
	now = now.Add(10 * time.Millisecond)
	m.stir(now)
	if got, want := m.due, now.Add(share*10*time.Millisecond); !got.Equal(want) {
		t.Errorf("after a look of 10 ms: got %v, want %v", got.Sub(now), want.Sub(now))
	}
	m.looked(now, now.Add(time.Second), false)
	now = now.Add(time.Second)
	m.stir(now)
	if got, want := m.due, now.Add(longestRest); !got.Equal(want) {
		t.Errorf("after a look of a second: got %v, want %v", got.Sub(now), want.Sub(now))
	}
}

// faulty is a TUN device of which some reads fail.
type faulty struct {
	tun.Device
	errs  []error
	reads int
}

func (f *faulty) Read([][]byte, []int, int) (int, error) {
	err := f.errs[f.reads]
	f.reads++
	if err == nil {
		return 1, nil
	}
	return 0, err
}

// A read of the TUN device ends with the device alone.
func TestReadsEndWithTheDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &faulty{errs: []error{
			errors.New("unsupported virtio GSO type: 77"), io.ErrUnexpectedEOF, &os.PathError{Op: "read", Err: io.ErrNoProgress}, nil,
			tun.ErrTooManySegments, os.ErrDeadlineExceeded, errors.New("invalid ip header version: 9"), os.ErrClosed,
		}}
		log := &said{}
		e := &enduring{Device: f, complaints: newComplaints(slog.New(slog.NewTextHandler(log, nil)))}
		for _, want := range []error{nil, tun.ErrTooManySegments, os.ErrDeadlineExceeded, os.ErrClosed} {
			if _, err := e.Read(nil, nil, 0); !errors.Is(err, want) {
				t.Errorf("read %d: got %v, want %v", f.reads, err, want)
			}
		}
		if log.count("unsupported virtio GSO type") != 1 {
			t.Errorf("got %q, want the first error in the log", log.text.String())
		}
	})
}
