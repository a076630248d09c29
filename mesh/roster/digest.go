package roster

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"warren/mesh/record"
)

// buckets sums up a set, by the first byte of its records' keys.
type buckets [256]bucket

// bucket lists the records whose keys start with one byte.
type bucket struct {
	entries []Entry // sorted by key
	sum     [8]byte
	stale   bool
}

// digest sums up all.
func (b *buckets) digest() [16]byte {
	hash := sha256.New()
	for _, sum := range b.digests() {
		hash.Write(sum[:])
	}
	return [16]byte(hash.Sum(nil))
}

// digests sums up each bucket; an empty one is all zeros.
func (b *buckets) digests() [256][8]byte {
	var digests [256][8]byte
	for i := range b {
		digests[i] = b[i].digest()
	}
	return digests
}

// note notes that a record is new, or is there in another version.
func (b *buckets) note(key record.Key, version record.Version) {
	b[key[0]].note(Entry{Key: key, Version: version})
}

// drop notes that the record of a key has gone.
func (b *buckets) drop(key record.Key) { b[key[0]].drop(key) }

// digest is computed anew only when the bucket has changed.
func (b *bucket) digest() [8]byte {
	if !b.stale {
		return b.sum
	}
	b.stale, b.sum = false, [8]byte{}
	if len(b.entries) == 0 {
		return b.sum
	}
	hash := sha256.New()
	for _, e := range b.entries {
		line := append([]byte(nil), e.Key[:]...)
		line = binary.BigEndian.AppendUint64(line, e.Version.High)
		hash.Write(binary.BigEndian.AppendUint64(line, e.Version.Low))
	}
	b.sum = [8]byte(hash.Sum(nil))
	return b.sum
}

func (b *bucket) note(e Entry) {
	b.stale = true
	at, ok := b.find(e.Key)
	if ok {
		b.entries[at] = e
	} else {
		b.entries = slices.Insert(b.entries, at, e)
	}
}

func (b *bucket) drop(key record.Key) {
	b.stale = true
	if at, ok := b.find(key); ok {
		b.entries = slices.Delete(b.entries, at, at+1)
	}
}

func (b *bucket) find(key record.Key) (int, bool) {
	return slices.BinarySearchFunc(b.entries, key, func(e Entry, key record.Key) int { return bytes.Compare(e.Key[:], key[:]) })
}
