package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"warren/mesh/record"
	"warren/mesh/roster"
)

// The wire format of a sync stream. Each frame is a type, a length and a payload:
//
//	+------+--------+-------------------+
//	| type | length | payload           |
//	|  1   |   2    | 0 … maxFrame      |
//	+------+--------+-------------------+
//
// A conversation goes in turns; a turn of more than one frame ends with an end frame.
//
//	opener                              answerer
//	hello  version, digest  ─────────▶
//	                        ◀─────────  same                     (digests are equal: done)
//	                        ◀─────────  buckets                  or the digests of its 256 buckets
//	compare  bucket bitmap  ─────────▶                           the buckets that differ,
//	entries…, end                                                and what the opener has in them
//	                        ◀─────────  entries…, want…, end     what the answerer has in them, and lacks
//	records…, want…, end    ─────────▶
//	                        ◀─────────  records…, end
//
// An answerer of few records lists them at once, and the two change parts from there on:
//
//	hello  version, digest  ─────────▶
//	                        ◀─────────  compare (all), entries…, end
//	entries…, want…, end    ─────────▶
//	                        ◀─────────  records…, want…, end
//	records…, end           ─────────▶
//
// or, to learn whether a member has a record (warren revoke --wait):
//
//	ask  key, version       ─────────▶
//	                        ◀─────────  has  0 or 1
//
// Nobody is sent a record that it did not ask for by key.
type frameType byte

const (
	frameHello   frameType = iota + 1 // version 1 byte, digest 16
	frameSame                         // nothing
	frameBuckets                      // 256 digests of 8 bytes
	frameCompare                      // 32 bytes, bit i set: bucket i differs (bit 0 of byte 0 is bucket 0)
	frameEntries                      // n × (key 32, version 16)
	frameWant                         // n × key 32
	frameRecord                       // one record as record.Signed encodes it
	frameEnd                          // nothing
	frameAsk                          // key 32, version 16: has it this version or a newer one?
	frameHas                          // 1 byte
)

const (
	syncVersion = 1
	maxFrame    = 32 << 10
	// maxEntries bounds the records that one conversation may be about in each direction: ten times the largest
	// mesh that was measured.
	maxEntries = 1 << 17
	entrySize  = 48
	keySize    = 32
)

var errSync = errors.New("malformed sync message")

// frame is one frame as it was read. Its payload is valid until the next read.
type frame struct {
	kind    frameType
	payload []byte
}

// sizes says which payload lengths a frame may have: from min to max, a multiple of unit.
var sizes = map[frameType]struct{ min, max, unit int }{
	frameHello:   {17, 17, 1},
	frameSame:    {0, 0, 1},
	frameBuckets: {2048, 2048, 1},
	frameCompare: {32, 32, 1},
	frameEntries: {entrySize, maxFrame / entrySize * entrySize, entrySize},
	frameWant:    {keySize, maxFrame / keySize * keySize, keySize},
	frameRecord:  {1, record.MaxRevocation, 1},
	frameEnd:     {0, 0, 1},
	frameAsk:     {entrySize, entrySize, 1},
	frameHas:     {1, 1, 1},
}

// readFrame reads one frame into buf, which must hold maxFrame bytes.
func readFrame(in io.Reader, buf []byte) (frame, error) {
	var head [3]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return frame{}, err
	}
	f := frame{kind: frameType(head[0])}
	n := int(binary.BigEndian.Uint16(head[1:]))
	size, ok := sizes[f.kind]
	if !ok || n < size.min || n > size.max || n%size.unit != 0 {
		return frame{}, fmt.Errorf("frame type %d of %d bytes: %w", head[0], n, errSync)
	}
	f.payload = buf[:n]
	if _, err := io.ReadFull(in, f.payload); err != nil {
		return frame{}, fmt.Errorf("frame type %d cut short: %w", head[0], err)
	}
	return f, nil
}

// appendFrame appends one frame to out.
func appendFrame(out []byte, kind frameType, payload []byte) []byte {
	out = append(out, byte(kind))
	out = binary.BigEndian.AppendUint16(out, uint16(len(payload)))
	return append(out, payload...)
}

// appendEntries appends entries as as many frames as they need.
func appendEntries(out []byte, entries []roster.Entry) []byte {
	payload := make([]byte, 0, min(len(entries)*entrySize, maxFrame))
	for _, e := range entries {
		if len(payload)+entrySize > maxFrame {
			out, payload = appendFrame(out, frameEntries, payload), payload[:0]
		}
		payload = appendEntry(payload, e)
	}
	if len(payload) > 0 {
		out = appendFrame(out, frameEntries, payload)
	}
	return out
}

func appendEntry(out []byte, e roster.Entry) []byte {
	out = append(out, e.Key[:]...)
	out = binary.BigEndian.AppendUint64(out, e.Version.High)
	return binary.BigEndian.AppendUint64(out, e.Version.Low)
}

// parseEntries reads a payload whose length is a multiple of entrySize.
func parseEntries(payload []byte) []roster.Entry {
	entries := make([]roster.Entry, 0, len(payload)/entrySize)
	for ; len(payload) >= entrySize; payload = payload[entrySize:] {
		entries = append(entries, roster.Entry{
			Key: record.Key(payload[:keySize]),
			Version: record.Version{
				High: binary.BigEndian.Uint64(payload[keySize:]),
				Low:  binary.BigEndian.Uint64(payload[keySize+8:]),
			},
		})
	}
	return entries
}

// appendKeys appends wanted keys as as many frames as they need.
func appendKeys(out []byte, keys []record.Key) []byte {
	const perFrame = maxFrame / keySize
	for len(keys) > 0 {
		n := min(len(keys), perFrame)
		payload := make([]byte, 0, n*keySize)
		for _, key := range keys[:n] {
			payload = append(payload, key[:]...)
		}
		out, keys = appendFrame(out, frameWant, payload), keys[n:]
	}
	return out
}

// parseKeys reads a payload whose length is a multiple of keySize.
func parseKeys(payload []byte) []record.Key {
	keys := make([]record.Key, 0, len(payload)/keySize)
	for ; len(payload) >= keySize; payload = payload[keySize:] {
		keys = append(keys, record.Key(payload[:keySize]))
	}
	return keys
}
