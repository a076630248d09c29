// Package store keeps a node's records and a few small values on disk, in one bbolt file. A batch is either on disk
// as a whole or not at all, whatever moment the power goes or the process is killed.
//
// What the bytes mean is left to mesh, which verifies each record again when it loads it: a store is trusted no
// more than the network. A file that is damaged is set aside under another name and said, never silently
// replaced; filling the new one again from the other members is mesh's work too.
//
// A Store may be used by several goroutines at once; batches are applied one after the other.
package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"warren/mesh/disk"
)

// The layout of the file. Each value ends in the CRC-32C of its key and value, since bbolt has no checksum of
// its own outside its two meta pages: a flipped bit is found here and not in a decoder.
var (
	recordBucket = []byte("records")
	metaBucket   = []byte("meta")
	layoutKey    = []byte("layout") // in metaBucket: layoutVersion
	countKey     = []byte("count")  // in metaBucket: number of records, big endian, so that a lost page is noticed
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
)

const (
	layoutVersion = 1
	// lockWait is how long Open waits for another process to let go of the file: an agent that is being stopped
	// needs a moment, one that runs never lets go.
	lockWait = 3 * time.Second
	// MaxValue is the longest value of a record or of a meta entry, in bytes.
	MaxValue = 64 << 10
)

var (
	// ErrInUse is wrapped by Open when another process holds the file.
	ErrInUse = errors.New("in use by another process")
	// ErrDamaged is wrapped by the errors of a file whose content cannot be right. Opened again, the file is set aside.
	ErrDamaged = errors.New("damaged")
	// ErrNewer is wrapped by Open when the file was written by a later version of this program.
	ErrNewer = errors.New("written by a newer version")
)

// Key names a record.
type Key = [32]byte

// Item is a record as it is kept.
type Item struct {
	Key   Key
	Value []byte
}

// Batch is what Apply changes at once. Deletions come before puts.
type Batch struct {
	Delete []Key
	Put    []Item
	Meta   map[string][]byte // a nil value removes the entry
}

// SetAside tells that Open found a damaged file, where it is now, and what was wrong with it.
type SetAside struct {
	Path  string
	Cause error
}

// Store is an open file of records. Make one with Open, end it with Close.
type Store struct {
	// constant
	path string
	disk disk.Disk
	turn chan struct{} // held by the one that works with what follows

	db      *bolt.DB // nil: there is no file that can be read
	reading bool     // the file could not be opened for writing yet

	trouble atomic.Pointer[Trouble]
}

// Open opens the file at path and makes it when it is missing, readable by its owner only. Every record is read
// once to see that the file is sound. When it is not, the file is renamed to
// path.corrupt-TIME, an empty one takes its place, and the SetAside is not nil. Errors wrap ErrInUse, ErrNewer or
// what the file system says.
//
// That the disk cannot be written is no error: the store is what can be read, and has a Trouble. Of a damaged file that cannot be set aside it is
// empty, and the SetAside has no path.
func Open(path string) (*Store, *SetAside, error) { return OpenOn(disk.Disk{}, path) }

// OpenOn is Open on a disk other than the system's, for tests: to open the file for writing is one step, and so is each batch.
func OpenOn(d disk.Disk, path string) (*Store, *SetAside, error) {
	s := &Store{path: path, disk: d, turn: make(chan struct{}, 1)}
	var err error
	s.db, err = s.open()
	switch {
	case err == nil:
		return s, nil, nil
	case refuses(err):
		return s, s.read(err), nil
	case !errors.Is(err, ErrDamaged):
		return nil, nil, fmt.Errorf("open store %s: %w", path, err)
	}
	aside, moveErr := setAside(path)
	if refuses(moveErr) {
		s.read(moveErr)
		return s, &SetAside{Cause: err}, nil
	}
	if moveErr != nil {
		return nil, nil, fmt.Errorf("open store %s: %w; set it aside: %w", path, err, moveErr)
	}
	var again error
	s.db, again = s.open()
	switch {
	case refuses(again):
		s.read(again)
	case again != nil:
		return nil, nil, fmt.Errorf("open new store %s: %w", path, again)
	}
	return s, &SetAside{Path: aside, Cause: err}, nil
}

// open opens the file for writing.
func (s *Store) open() (db *bolt.DB, err error) {
	err = s.disk.Do("open", s.path, func() error {
		db, err = open(s.path, false)
		return err
	})
	return db, err
}

// take is for the one that works with the file, which calls free.
func (s *Store) take() (free func()) {
	s.turn <- struct{}{}
	return func() { <-s.turn }
}

// open opens and checks the file; unless it is to be read only, it makes one that is missing. What bbolt panics about, and faults in its memory map (a file that is shorter
// than its pages say), become ErrDamaged. A file that was made and is not whole is removed.
func open(path string, reading bool) (db *bolt.DB, err error) {
	_, statErr := os.Stat(path)
	err = guard(func() error {
		var err error
		db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: lockWait, FreelistType: bolt.FreelistMapType, NoStatistics: true, ReadOnly: reading})
		return err
	})
	defer func() {
		if err != nil && errors.Is(statErr, os.ErrNotExist) && !reading {
			_ = os.Remove(path)
		}
	}()
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, ErrInUse
	case isSystem(err), errors.Is(err, ErrDamaged):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer func() {
		if err != nil {
			// After a panic inside bbolt its locks may be held for ever.
			go func(db *bolt.DB) { _ = guard(db.Close) }(db)
		}
	}()
	if err := guard(func() error { return prepare(db, reading) }); err != nil {
		return nil, err
	}
	if err := guard(func() error { return db.View(check) }); err != nil {
		return nil, err
	}
	if statErr != nil {
		if err := (disk.Disk{}).Sync(filepath.Dir(path)); err != nil {
			return nil, err
		}
	}
	return db, nil
}

// isSystem reports whether the operating system refused, as opposed to bbolt not liking what it read.
func isSystem(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno)
}

// prepare lays out a new file and refuses one with a layout of the future.
func prepare(db *bolt.DB, reading bool) error {
	var laid bool
	if err := db.View(func(tx *bolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		if meta == nil {
			if records := tx.Bucket(recordBucket); records != nil {
				return fmt.Errorf("%w: records without a layout", ErrDamaged)
			}
			return nil
		}
		laid = true
		version, err := unseal(layoutKey, meta.Get(layoutKey))
		if err != nil {
			return err
		}
		if len(version) != 1 {
			return fmt.Errorf("%w: layout of %d bytes", ErrDamaged, len(version))
		}
		if version[0] != layoutVersion {
			return fmt.Errorf("layout %d: %w", version[0], ErrNewer)
		}
		return nil
	}); err != nil || laid || reading {
		return err
	}
	return db.Update(func(tx *bolt.Tx) error {
		if _, err := tx.CreateBucket(recordBucket); err != nil {
			return err
		}
		meta, err := tx.CreateBucket(metaBucket)
		if err != nil {
			return err
		}
		if err := putCount(meta, 0); err != nil {
			return err
		}
		return meta.Put(layoutKey, seal(layoutKey, []byte{layoutVersion}))
	})
}

// check reads everything once: keys in order, each value whole, as many as were counted.
func check(tx *bolt.Tx) error {
	records, meta := tx.Bucket(recordBucket), tx.Bucket(metaBucket)
	if records == nil || meta == nil {
		return fmt.Errorf("%w: a bucket is missing", ErrDamaged)
	}
	want, err := count(meta)
	if err != nil {
		return err
	}
	got, err := checkBucket(records)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%w: %d records where %d were written", ErrDamaged, got, want)
	}
	_, err = checkBucket(meta)
	return err
}

func checkBucket(b *bolt.Bucket) (n uint64, err error) {
	var last []byte
	err = b.ForEach(func(k, v []byte) error {
		if last != nil && bytes.Compare(last, k) >= 0 {
			return fmt.Errorf("%w: keys out of order", ErrDamaged)
		}
		last = append(last[:0], k...)
		n++
		_, err := unseal(k, v)
		return err
	})
	return n, err
}

// Read returns the records of a file that no agent has open, and changes nothing. There are none where there is no file.
func Read(path string) ([]Item, error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	db, err := open(path, true)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	s := &Store{path: path, turn: make(chan struct{}, 1), db: db}
	defer s.Close()
	return s.Load()
}

// Load returns all records, ordered by key.
func (s *Store) Load() ([]Item, error) {
	defer s.take()()
	if s.db == nil {
		return nil, nil
	}
	var items []Item
	err := guard(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			return tx.Bucket(recordBucket).ForEach(func(k, v []byte) error {
				value, err := unseal(k, v)
				if err != nil {
					return err
				}
				if len(k) != len(Key{}) {
					return fmt.Errorf("%w: key of %d bytes", ErrDamaged, len(k))
				}
				items = append(items, Item{Key: Key(k), Value: bytes.Clone(value)})
				return nil
			})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read store %s: %w", s.path, err)
	}
	return items, nil
}

// Meta returns the entry of that name, nil when there is none.
func (s *Store) Meta(name string) ([]byte, error) {
	defer s.take()()
	if s.db == nil {
		return nil, nil
	}
	var value []byte
	err := guard(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			sealed := tx.Bucket(metaBucket).Get(metaKey(name))
			if sealed == nil {
				return nil
			}
			v, err := unseal(metaKey(name), sealed)
			value = bytes.Clone(v)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read %s from store %s: %w", name, s.path, err)
	}
	return value, nil
}

// PutMeta keeps one meta entry; it is Apply for a single value.
func (s *Store) PutMeta(name string, value []byte) error {
	return s.Apply(Batch{Meta: map[string][]byte{name: value}})
}

// Apply makes all changes of the batch, or none of them, and returns when they are on disk. What came of it Trouble says too.
func (s *Store) Apply(batch Batch) (err error) {
	defer s.take()()
	defer func() { s.note(err) }()
	if s.reading {
		if err := s.reopen(); err != nil {
			return fmt.Errorf("open store %s: %w", s.path, err)
		}
	}
	if err := s.disk.Do("write", s.path, func() error { return guard(func() error { return s.db.Update(batch.apply) }) }); err != nil {
		return fmt.Errorf("write store %s: %w", s.path, err)
	}
	return nil
}

func (batch Batch) apply(tx *bolt.Tx) error {
	records, meta := tx.Bucket(recordBucket), tx.Bucket(metaBucket)
	n, err := count(meta)
	if err != nil {
		return err
	}
	for _, key := range batch.Delete {
		if records.Get(key[:]) != nil {
			n--
		}
		if err := records.Delete(key[:]); err != nil {
			return err
		}
	}
	for _, item := range batch.Put {
		if len(item.Value) > MaxValue {
			return fmt.Errorf("record %x: %d bytes where %d are allowed", item.Key[:4], len(item.Value), MaxValue)
		}
		if records.Get(item.Key[:]) == nil {
			n++
		}
		if err := records.Put(item.Key[:], seal(item.Key[:], item.Value)); err != nil {
			return err
		}
	}
	for name, value := range batch.Meta {
		if len(value) > MaxValue {
			return fmt.Errorf("meta %s: %d bytes where %d are allowed", name, len(value), MaxValue)
		}
		if value == nil {
			err = meta.Delete(metaKey(name))
		} else {
			err = meta.Put(metaKey(name), seal(metaKey(name), value))
		}
		if err != nil {
			return err
		}
	}
	return putCount(meta, n)
}

// Close waits for the running batch and closes the file. Later calls of the other methods return an error.
func (s *Store) Close() error {
	defer s.take()()
	if s.db == nil {
		return nil
	}
	if err := guard(s.db.Close); err != nil {
		return fmt.Errorf("close store %s: %w", s.path, err)
	}
	return nil
}

// metaKey keeps the names of callers apart from the store's own.
func metaKey(name string) []byte { return append([]byte("m:"), name...) }

func count(meta *bolt.Bucket) (uint64, error) {
	v, err := unseal(countKey, meta.Get(countKey))
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("%w: count of %d bytes", ErrDamaged, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

func putCount(meta *bolt.Bucket, n uint64) error {
	return meta.Put(countKey, seal(countKey, binary.BigEndian.AppendUint64(nil, n)))
}

func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

func seal(key, value []byte) []byte {
	sealed := append(make([]byte, 0, len(value)+4), value...)
	return binary.BigEndian.AppendUint32(sealed, checksum(key, value))
}

// unseal returns the value without its checksum; it still points into the file.
func unseal(key, sealed []byte) ([]byte, error) {
	n := len(sealed) - 4
	if n < 0 || binary.BigEndian.Uint32(sealed[n:]) != checksum(key, sealed[:n]) {
		return nil, fmt.Errorf("%w: checksum of entry %.8x", ErrDamaged, key)
	}
	return sealed[:n], nil
}

// guard runs f and turns a panic of bbolt, or a fault in its memory map, into ErrDamaged. It must not be given
// anything that starts goroutines of bbolt's (Batch, Tx.Check): a panic there ends the process.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, r)
		}
	}()
	return f()
}
