package store

import (
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// writeLayout marks the file as written by another version of the program.
func writeLayout(t *testing.T, s *Store, version byte) {
	t.Helper()
	err := s.db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket(metaBucket).Put(layoutKey, seal(layoutKey, []byte{version}))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// soundSmall returns the bytes of a store with three records.
func soundSmall() []byte {
	dir, err := os.MkdirTemp("", "store")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "small.db")
	s, _, err := Open(path)
	if err != nil {
		panic(err)
	}
	if err := s.Apply(Batch{Put: []Item{item(1), item(2), item(3)}}); err != nil {
		panic(err)
	}
	if err := s.Close(); err != nil {
		panic(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	return data
}
