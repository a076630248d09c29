package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func item(n uint64) Item {
	return Item{Key: sha256.Sum256(binary.BigEndian.AppendUint64(nil, n)), Value: bytes.Repeat([]byte{byte(n)}, 400)}
}

func mustOpen(t *testing.T, path string) *Store {
	t.Helper()
	s, aside, err := Open(path)
	if err != nil || aside != nil {
		t.Fatalf("open %s: got %v, %v, want a sound store", path, aside, err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func load(t *testing.T, s *Store) map[Key][]byte {
	t.Helper()
	items, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[Key][]byte)
	for _, it := range items {
		m[it.Key] = it.Value
	}
	return m
}

func TestKeepsWhatWasApplied(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.db")
	s := mustOpen(t, path)
	if err := s.Apply(Batch{Put: []Item{item(1), item(2), item(3)}, Meta: map[string][]byte{"epoch": {7}, "gone": {1}}}); err != nil {
		t.Fatal(err)
	}
	changed := Item{Key: item(2).Key, Value: []byte("changed")}
	if err := s.Apply(Batch{Delete: []Key{item(1).Key, item(9).Key}, Put: []Item{changed}, Meta: map[string][]byte{"gone": nil}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, path)
	got := load(t, s)
	if len(got) != 2 || string(got[changed.Key]) != "changed" || !bytes.Equal(got[item(3).Key], item(3).Value) {
		t.Errorf("records after reopening: got %d, want the changed one and the third", len(got))
	}
	if v, err := s.Meta("epoch"); err != nil || !bytes.Equal(v, []byte{7}) {
		t.Errorf("meta epoch: got %v, %v, want 7", v, err)
	}
	if v, err := s.Meta("gone"); err != nil || v != nil {
		t.Errorf("removed meta: got %v, %v, want nil", v, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: got %v, %v, want 0600", info.Mode(), err)
	}
}

func TestRefusesOversize(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "records.db"))
	err := s.Apply(Batch{Put: []Item{item(1), {Key: item(2).Key, Value: make([]byte, MaxValue+1)}}})
	if err == nil {
		t.Fatal("oversize value: got nil, want an error")
	}
	if got := load(t, s); len(got) != 0 {
		t.Errorf("after a refused batch: got %d records, want none of it", len(got))
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.db")
	mustOpen(t, path)
	if _, _, err := Open(path); !errors.Is(err, ErrInUse) {
		t.Errorf("second open: got %v, want ErrInUse", err)
	}
}

func TestNewerLayoutIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.db")
	s := mustOpen(t, path)
	writeLayout(t, s, layoutVersion+1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(path); !errors.Is(err, ErrNewer) {
		t.Errorf("newer layout: got %v, want ErrNewer", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("newer file: %v, want it left in place", err)
	}
}

// A copy of the file taken at any moment of a write is what a kill leaves behind: every batch whose Apply had
// returned before has to be in it, and no batch in part.
func TestCopyTakenMidWriteHoldsWholeBatches(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "records.db")
	s := mustOpen(t, path)
	acknowledged := make(chan uint64, 1)
	acknowledged <- 0
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := uint64(1); ; n++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := s.Apply(Batch{Put: []Item{item(3 * n), item(3*n + 1), item(3*n + 2)}}); err != nil {
				done <- err
				return
			}
			<-acknowledged
			acknowledged <- n
		}
	}()
	for i := range 25 {
		at := <-acknowledged
		acknowledged <- at
		torn := filepath.Join(dir, fmt.Sprintf("torn-%d.db", i))
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(torn, data, 0o600); err != nil {
			t.Fatal(err)
		}
		checkTorn(t, torn, at)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// checkTorn reads a torn copy. A plain read of the file is not one instant, so a copy may mix pages of two transactions
// and be found damaged; what must never happen is that it opens and lacks something.
func checkTorn(t *testing.T, path string, acknowledged uint64) {
	t.Helper()
	s, aside, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if aside != nil {
		t.Logf("copy was not one instant: %v", aside)
		return
	}
	got := load(t, s)
	if len(got)%3 != 0 {
		t.Errorf("torn copy: got %d records, want whole batches of 3", len(got))
	}
	for n := uint64(1); n <= acknowledged; n++ {
		if _, ok := got[item(3*n).Key]; !ok {
			t.Fatalf("torn copy: batch %d of %d acknowledged is missing", n, acknowledged)
		}
	}
}

// Whatever is done to the file, Open gives a working store, and a damaged file is kept under another name.
func TestDamageIsSetAside(t *testing.T) {
	sound := soundFile(t)
	rng := rand.New(rand.NewPCG(1, 2))
	const page = 4096
	pages := len(sound) / page
	damages := map[string]func(d []byte) []byte{
		"flipped bytes": func(d []byte) []byte {
			for range 1 + rng.IntN(40) {
				d[rng.IntN(len(d))] ^= byte(1 + rng.IntN(255))
			}
			return d
		},
		"truncated":   func(d []byte) []byte { return d[:1+rng.IntN(len(d)-1)] },
		"zeroed page": func(d []byte) []byte { n := rng.IntN(pages); clear(d[n*page : (n+1)*page]); return d },
		"swapped pages": func(d []byte) []byte {
			copy(d[rng.IntN(pages)*page:][:page], sound[rng.IntN(pages)*page:][:page])
			return d
		},
		"random header": func(d []byte) []byte {
			n := rng.IntN(pages)
			for i := range 64 {
				d[n*page+i] = byte(rng.IntN(256))
			}
			return d
		},
		"not a store": func([]byte) []byte { return []byte("hello, I am not a store\n") },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			aside := 0
			for i := range 40 {
				path := filepath.Join(t.TempDir(), fmt.Sprintf("%d.db", i))
				if checkDamaged(t, path, damage(bytes.Clone(sound))) {
					aside++
				}
			}
			t.Logf("%d of 40 set aside", aside)
			if name == "not a store" && aside != 40 {
				t.Errorf("foreign files: got %d set aside, want all 40", aside)
			}
		})
	}
}

func checkDamaged(t *testing.T, path string, data []byte) (wasSetAside bool) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, aside, err := Open(path)
	if errors.Is(err, ErrNewer) {
		t.Fatal("damage taken for a newer layout")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if aside != nil {
		if !strings.HasPrefix(aside.Path, path+".corrupt-") || !errors.Is(aside.Cause, ErrDamaged) {
			t.Errorf("set aside: got %v, want a name of its own and ErrDamaged", aside)
		}
		kept, err := os.ReadFile(aside.Path)
		if err != nil || !bytes.Equal(kept, data) {
			t.Errorf("set aside: %v, want the damaged bytes kept as they were", err)
		}
		if err := s.Apply(Batch{Put: []Item{item(1)}}); err != nil {
			t.Errorf("new store: %v", err)
		}
		return true
	}
	// Without the newer of its two meta pages a bbolt file is the sound file of one batch ago.
	if got := load(t, s); len(got) != 60 && len(got) != 54 {
		t.Errorf("store taken for sound: got %d records, want 60, or 54 of the batch before", len(got))
	}
	return false
}

func soundFile(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sound.db")
	s := mustOpen(t, path)
	for n := uint64(0); n < 60; n += 6 {
		batch := Batch{Meta: map[string][]byte{"epoch": {byte(n)}}}
		for i := range uint64(6) {
			batch.Put = append(batch.Put, item(n+i))
		}
		if err := s.Apply(batch); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte{}, uint16(0), []byte{1})
	f.Add([]byte("hello"), uint16(3), []byte{0xff, 0})
	f.Fuzz(func(t *testing.T, data []byte, at uint16, patch []byte) {
		path := filepath.Join(t.TempDir(), "fuzz.db")
		if len(data) < 64 {
			data = soundSmall()
			copy(data[int(at)%len(data):], patch)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, _, err := Open(path)
		if err != nil {
			t.Skip(err)
		}
		_, _ = s.Load()
		_ = s.Apply(Batch{Put: []Item{item(1)}})
		_ = s.Close()
	})
}
