package mesh

import (
	"warren/mesh/record"
	"warren/mesh/roster"
)

// wanted returns the keys of those entries that are missing here, or older, and those entries that are here just so. Nothing is remembered of
// what was refused: a name of a record (key and version) says nothing of its signature, so whoever gives a forged copy first would keep the
// true one out. Two members that refuse what the other has are kept from trying again and again by timetable.
func (b *book) wanted(entries []roster.Entry) (lacking []record.Key, same []roster.Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	have := make(map[byte]map[record.Key]record.Version)
	for _, e := range entries {
		bucket, ok := have[e.Key[0]]
		if !ok {
			bucket = make(map[record.Key]record.Version)
			for _, ours := range b.roster.Bucket(int(e.Key[0])) {
				bucket[ours.Key] = ours.Version
			}
			have[e.Key[0]] = bucket
		}
		switch version, ok := bucket[e.Key]; {
		case !ok || e.Version.Newer(version):
			lacking = append(lacking, e.Key)
		case version == e.Version:
			same = append(same, e)
		}
	}
	return lacking, same
}

// has reports whether a record of this version or a newer one is here.
func (b *book) has(e roster.Entry) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ours := range b.roster.Bucket(int(e.Key[0])) {
		if ours.Key == e.Key {
			return !e.Version.Newer(ours.Version)
		}
	}
	return false
}

// entry returns key and version of a record, with the version zero when it is not here.
func (b *book) entry(key record.Key) roster.Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ours := range b.roster.Bucket(int(key[0])) {
		if ours.Key == key {
			return ours
		}
	}
	return roster.Entry{Key: key}
}

// buckets returns the digests of the 256 buckets.
func (b *book) buckets() [256][8]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.roster.Buckets()
}

// entries returns what is in the buckets whose bit is set.
func (b *book) entries(bitmap []byte) []roster.Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	var entries []roster.Entry
	for i := range 256 {
		if bitmap[i/8]&(1<<(i%8)) != 0 {
			entries = append(entries, b.roster.Bucket(i)...)
		}
	}
	return entries
}

// get returns the records of those keys that are here.
func (b *book) get(keys []record.Key) []record.Signed {
	b.mu.Lock()
	defer b.mu.Unlock()
	records := make([]record.Signed, 0, len(keys))
	for _, key := range keys {
		if signed, ok := b.roster.Get(key); ok {
			records = append(records, signed)
		}
	}
	return records
}

// all returns every record with its body read.
func (b *book) all() []record.Decoded {
	b.mu.Lock()
	var records []record.Signed
	for _, signed := range b.roster.All() {
		records = append(records, signed)
	}
	b.mu.Unlock()
	return decodeAll(records)
}

// counting returns the keys of the revocations that count.
func (b *book) counting() map[record.Key]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	keys := make(map[record.Key]bool)
	for _, revoked := range b.roster.Revoked() {
		keys[revoked.Key] = true
	}
	return keys
}

func decodeAll(records []record.Signed) []record.Decoded {
	decoded := make([]record.Decoded, 0, len(records))
	for _, signed := range records {
		if d, err := signed.Decode(); err == nil {
			decoded = append(decoded, d)
		}
	}
	return decoded
}
