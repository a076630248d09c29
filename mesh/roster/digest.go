package roster

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"warren/mesh/record"
)

// bucket holds the keys of the set that start with one byte.
type bucket struct {
	keys   []record.Key // sorted
	digest [8]byte
	stale  bool
}

// Digest sums up the whole set: two rosters with equal digests hold the same records.
func (r *Roster) Digest() [16]byte {
	hash := sha256.New()
	for _, digest := range r.Buckets() {
		hash.Write(digest[:])
	}
	return [16]byte(hash.Sum(nil))
}

// Buckets sums up the records by the first byte of their key. An empty bucket is all zeros.
func (r *Roster) Buckets() [256][8]byte {
	var digests [256][8]byte
	for i := range r.buckets {
		digests[i] = r.bucketDigest(i)
	}
	return digests
}

// Bucket lists the records whose key starts with byte i, sorted by key.
func (r *Roster) Bucket(i int) []Entry {
	entries := make([]Entry, len(r.buckets[i].keys))
	for n, key := range r.buckets[i].keys {
		entries[n] = Entry{Key: key, Version: r.set[key].Version}
	}
	return entries
}

// bucketDigest computes a digest anew only when its bucket has changed.
func (r *Roster) bucketDigest(i int) [8]byte {
	b := &r.buckets[i]
	if !b.stale {
		return b.digest
	}
	b.stale, b.digest = false, [8]byte{}
	if len(b.keys) == 0 {
		return b.digest
	}
	hash := sha256.New()
	for _, key := range b.keys {
		version := r.set[key].Version
		line := append([]byte(nil), key[:]...)
		line = binary.BigEndian.AppendUint64(line, version.High)
		hash.Write(binary.BigEndian.AppendUint64(line, version.Low))
	}
	b.digest = [8]byte(hash.Sum(nil))
	return b.digest
}

// note notes that the record of a key is new.
func (b *bucket) note(key record.Key) {
	b.stale = true
	if at, ok := b.find(key); !ok {
		b.keys = slices.Insert(b.keys, at, key)
	}
}

// drop notes that a key has gone.
func (b *bucket) drop(key record.Key) {
	b.stale = true
	if at, ok := b.find(key); ok {
		b.keys = slices.Delete(b.keys, at, at+1)
	}
}

func (b *bucket) find(key record.Key) (int, bool) {
	return slices.BinarySearchFunc(b.keys, key, func(a, b record.Key) int { return bytes.Compare(a[:], b[:]) })
}
