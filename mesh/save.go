package mesh

import (
	"context"
	"maps"
	"sync"

	"warren/mesh/record"
	"warren/mesh/store"
)

// saver remembers which records and values differ from what is on disk. Whoever needs its change on disk calls flush, which
// takes along all that has gathered meanwhile: one write for many changes. Each write carries what is true
// at its moment, so the order of writes cannot bring back an older record.
//
// Where the disk cannot be written, what is marked stays marked: the node goes on from memory, and writes it all once it can.
type saver struct {
	store *store.Store
	turn  chan struct{} // held by the one that writes

	mu    sync.Mutex
	dirty map[record.Key]struct{}
	meta  map[string][]byte
}

func newSaver(s *store.Store) *saver {
	return &saver{store: s, turn: make(chan struct{}, 1), dirty: make(map[record.Key]struct{}), meta: make(map[string][]byte)}
}

func (s *saver) mark(keys ...record.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		s.dirty[key] = struct{}{}
	}
}

func (s *saver) setMeta(name string, value []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.meta[name] = value
}

func (s *saver) pending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.dirty) > 0 || len(s.meta) > 0
}

// take empties the lists.
func (s *saver) take() (dirty map[record.Key]struct{}, meta map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dirty, meta = s.dirty, s.meta
	s.dirty, s.meta = make(map[record.Key]struct{}), make(map[string][]byte)
	return dirty, meta
}

// giveBack puts what could not be written on the lists again. What was set meanwhile is newer.
func (s *saver) giveBack(dirty map[record.Key]struct{}, meta map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.dirty, dirty)
	maps.Copy(meta, s.meta)
	s.meta = meta
}

// flush returns when all that was marked before the call is on disk. get returns the record of a key, nil
// when it is to be deleted. After an error everything is still marked: the next flush tries again.
func (s *saver) flush(ctx context.Context, get func(record.Key) []byte) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.turn }()
	dirty, meta := s.take()
	if len(dirty) == 0 && len(meta) == 0 {
		return nil
	}
	batch := store.Batch{Meta: meta}
	for key := range dirty {
		if encoded := get(key); encoded != nil {
			batch.Put = append(batch.Put, store.Item{Key: key, Value: encoded})
		} else {
			batch.Delete = append(batch.Delete, key)
		}
	}
	if err := s.store.Apply(batch); err != nil {
		s.giveBack(dirty, meta)
		return err
	}
	return nil
}
