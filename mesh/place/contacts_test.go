package place

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
)

// met is the nth contact.
func met(n int) Contact {
	return Contact{ID: identity.NodeID{byte(n), byte(n >> 8)}, Addr: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), 1+uint16(n))}
}

// written is one write of the twin.
type written struct {
	at   time.Duration // since the test began
	list []Contact
	err  error
}

// errFull is what the twin of a full disk says.
var errFull = errors.New("no space left")

// fileTwin is contacts.json in memory: a file whose disk may be slow or full. It is used in bubbles only.
type fileTwin struct {
	begun  time.Time
	slow   time.Duration // how long each write takes
	full   time.Duration // until then writes fail
	writes []written     // Run's until it waits or has ended
}

func (f *fileTwin) write(raw []byte) error {
	w := written{at: time.Since(f.begun)}
	if w.at < f.full {
		w.err = errFull
	}
	time.Sleep(f.slow)
	if err := json.Unmarshal(raw, &w.list); err != nil {
		return err
	}
	f.writes = append(f.writes, w)
	return w.err
}

// keeper opens the contacts of a new mesh over a file in memory and runs them. stop ends Run and waits for that.
func keeper(t *testing.T, f *fileTwin, log *bytes.Buffer) (c *Contacts, stop func()) {
	t.Helper()
	c, warning := OpenContacts(&State{Dir: t.TempDir()}, slog.New(slog.NewTextHandler(log, nil)))
	if warning != "" {
		t.Errorf("got warning %q of a list that is not there, want none", warning)
	}
	f.begun, c.write = time.Now(), f.write
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	return c, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("got %v from Run, want nil", err)
		}
	}
}

// check compares the writes with what is wanted: when each began, what it held, and what came of it.
func (f *fileTwin) check(t *testing.T, want ...written) {
	t.Helper()
	same := slices.EqualFunc(f.writes, want, func(a, b written) bool {
		return a.at == b.at && slices.Equal(a.list, b.list) && errors.Is(a.err, b.err)
	})
	if !same {
		t.Errorf("got writes %v, want %v", f.writes, want)
	}
}

func TestContactsAreKeptNewestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &State{Dir: t.TempDir(), Settings: Settings{Contacts: []netip.AddrPort{met(200).Addr}, Admitter: met(200).ID}}
		c, warning := OpenContacts(s, nil)
		if got := c.Snapshot(); warning != "" || len(got) != 1 || got[0] != met(200) {
			t.Fatalf("got %v and %q, want the member that admitted this node", got, warning)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		for n := range maxContacts + 5 {
			c.Add(met(n).ID, met(n).Addr)
		}
		c.Add(met(30).ID, met(30).Addr)
		cancel()
		<-done

		want := []Contact{met(30)}
		for n := maxContacts + 4; len(want) < maxContacts; n-- {
			if n != 30 {
				want = append(want, met(n))
			}
		}
		again, warning := OpenContacts(s, nil)
		if warning != "" || !slices.Equal(c.Snapshot(), want) || !slices.Equal(again.Snapshot(), want) {
			t.Errorf("got %v, and on disk %v (%q), want %v", c.Snapshot(), again.Snapshot(), warning, want)
		}
	})
}

// A burst of contacts is two writes: one at once, one of all that came after it.
func TestBurstOfContactsIsTwoWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f fileTwin
		c, stop := keeper(t, &f, new(bytes.Buffer))
		synctest.Wait()
		f.check(t) // nothing has changed
		c.Add(met(0).ID, met(0).Addr)
		synctest.Wait()
		want := []Contact{met(0)}
		for n := 1; n < 10; n++ {
			time.Sleep(10 * time.Millisecond)
			c.Add(met(n).ID, met(n).Addr)
			c.Add(met(n).ID, met(n).Addr) // no change
			want = slices.Insert(want, 0, met(n))
		}
		time.Sleep(time.Hour)
		stop()
		f.check(t, written{list: []Contact{met(0)}}, written{at: contactsEvery, list: want})
	})
}

// Whoever adds a contact does not wait for the disk, and what came meanwhile is written next.
func TestSlowDiskHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fileTwin{slow: 20 * time.Second}
		c, stop := keeper(t, &f, new(bytes.Buffer))
		for n := range 3 {
			c.Add(met(n).ID, met(n).Addr)
			synctest.Wait()
		}
		if since := time.Since(f.begun); since != 0 || len(c.Snapshot()) != 3 {
			t.Errorf("got %d contacts after %s, want 3 after 0s", len(c.Snapshot()), since)
		}
		time.Sleep(time.Minute)
		stop()
		f.check(t, written{list: []Contact{met(0)}}, written{at: 21 * time.Second, list: []Contact{met(2), met(1), met(0)}})
	})
}

// A full disk is said once and tried every ten seconds, and nothing is lost.
func TestFullDiskIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fileTwin{full: 15 * time.Second}
		var log bytes.Buffer
		c, stop := keeper(t, &f, &log)
		c.Add(met(0).ID, met(0).Addr)
		time.Sleep(15 * time.Second)
		if err := c.Trouble(); !errors.Is(err, errFull) {
			t.Errorf("got trouble %v, want %v", err, errFull)
		}
		c.Add(met(1).ID, met(1).Addr)
		time.Sleep(time.Hour)
		if err := c.Trouble(); err != nil {
			t.Errorf("got trouble %v, want none any more", err)
		}
		stop()
		f.check(t, written{list: []Contact{met(0)}, err: errFull}, written{at: contactsRetry, list: []Contact{met(0)}, err: errFull},
			written{at: 2 * contactsRetry, list: []Contact{met(1), met(0)}})
		if got := strings.Count(log.String(), "contacts not kept"); got != 1 {
			t.Errorf("got %d warnings, want 1:\n%s", got, &log)
		}
	})
}

// What was met just before the end is written before Run returns.
func TestLastContactIsWrittenAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f fileTwin
		c, stop := keeper(t, &f, new(bytes.Buffer))
		c.Add(met(0).ID, met(0).Addr)
		time.Sleep(contactsEvery / 2)
		c.Add(met(1).ID, met(1).Addr)
		stop()
		f.check(t, written{list: []Contact{met(0)}}, written{at: contactsEvery / 2, list: []Contact{met(1), met(0)}})
	})
}

func TestDamagedContactsAreSetAside(t *testing.T) {
	s := &State{Dir: t.TempDir()}
	path := filepath.Join(s.Dir, fileContacts)
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, warning := OpenContacts(s, nil)
	if len(c.Snapshot()) != 0 || !strings.Contains(warning, "set aside") {
		t.Errorf("got %v and %q from a damaged list, want none and a warning", c.Snapshot(), warning)
	}
	aside, err := filepath.Glob(path + ".corrupt-*")
	if err != nil || len(aside) != 1 {
		t.Errorf("got files set aside %v (%v), want one", aside, err)
	}
	if c, warning = OpenContacts(s, nil); len(c.Snapshot()) != 0 || warning != "" {
		t.Errorf("got %v and %q the second time, want none", c.Snapshot(), warning)
	}
}

func FuzzContacts(f *testing.F) {
	raw, err := json.Marshal([]Contact{met(1), met(2)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`[{"id":"","addr":""}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := decodeContacts(data)
		for _, got := range list {
			if err != nil || !got.Addr.IsValid() || got.Addr.Port() == 0 {
				t.Errorf("got contact %v (%v), which cannot be dialled", got, err)
			}
		}
	})
}
