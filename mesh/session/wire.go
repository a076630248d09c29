package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"warren/mesh/identity"
)

// A frame is one datagram, or the whole content of one unidirectional stream. A bidirectional stream begins with a
// header, which is a frame without its payload.
//
//	direct     | 1 | proto | payload …
//	envelope   | 2 | hops | to (32) | from (32) | proto | payload …
//	ping       | 3 | nonce (8) | padding (32)           datagrams only
//	pong       | 4 | nonce (8) | padding (32)           datagrams only
//	hello      | 5 | length | version | instance (8) |  first stream of a connection only, both ways; the rest
//	                                                    of length bytes is for later versions and skipped
//	proof      | 6 | …                                  in the place of a hello: see proof.go
//
// The padding makes a packet with a ping so large that a process that does not know the connection answers it with a
// stateless reset (RFC 9000, section 10.3.3: never to packets of 41 bytes or less).
//
// hops is how many members may still pass the frame on; it leaves its source with maxHops. The far end of a stream
// that began with an envelope answers with the byte streamAccepted before anything else.
const (
	frameDirect   = 1
	frameEnvelope = 2
	framePing     = 3
	framePong     = 4
	frameHello    = 5

	maxHops        = 2
	helloVersion   = 1
	streamAccepted = 1

	directSize   = 2
	envelopeSize = 1 + 1 + 32 + 32 + 1
	pingPadding  = 32
	pingSize     = 1 + 8 + pingPadding
	helloSize    = 1 + 8 // without the kind and the length
	maxFrame     = MaxMessage + envelopeSize
)

// Codes with which one stream is reset.
const (
	streamClosed  = 0
	streamNoRoute = 1 // a forwarding member knows no way on
	streamRefused = 2 // malformed, or too many
)

var errMalformed = errors.New("malformed frame")

// header is a frame without its payload.
type header struct {
	kind  byte
	hops  byte            // envelope
	to    identity.NodeID // envelope
	from  identity.NodeID // envelope
	proto Proto           // direct and envelope
	nonce uint64          // ping and pong
}

// appendTo appends the encoded header to b.
func (h header) appendTo(b []byte) []byte {
	switch h.kind {
	case frameDirect:
		return append(b, frameDirect, byte(h.proto))
	case frameEnvelope:
		b = append(b, frameEnvelope, h.hops)
		b = append(b, h.to[:]...)
		b = append(b, h.from[:]...)
		return append(b, byte(h.proto))
	default:
		b = binary.BigEndian.AppendUint64(append(b, h.kind), h.nonce)
		return append(b, make([]byte, pingPadding)...)
	}
}

// headerSize returns how many bytes follow the kind byte in a header of this kind, or 0 for an unknown kind.
func headerSize(kind byte) int {
	switch kind {
	case frameDirect:
		return directSize - 1
	case frameEnvelope:
		return envelopeSize - 1
	case framePing, framePong:
		return pingSize - 1
	default:
		return 0
	}
}

// parseFrame splits a datagram or the content of a unidirectional stream. The payload is a part of b.
func parseFrame(b []byte) (header, []byte, error) {
	if len(b) == 0 {
		return header{}, nil, fmt.Errorf("empty: %w", errMalformed)
	}
	n := headerSize(b[0])
	if n == 0 || len(b) < 1+n {
		return header{}, nil, fmt.Errorf("kind %d of %d bytes: %w", b[0], len(b), errMalformed)
	}
	h, err := parseHeader(b[0], b[1:1+n])
	if err != nil {
		return header{}, nil, err
	}
	payload := b[1+n:]
	if len(payload) > MaxMessage || (h.kind == framePing || h.kind == framePong) && len(payload) > 0 {
		return header{}, nil, fmt.Errorf("kind %d with %d bytes of payload: %w", h.kind, len(payload), errMalformed)
	}
	return h, payload, nil
}

// parseHeader reads the bytes after the kind byte; there are headerSize(kind) of them.
func parseHeader(kind byte, b []byte) (header, error) {
	h := header{kind: kind}
	switch kind {
	case frameDirect:
		h.proto = Proto(b[0])
	case frameEnvelope:
		h.hops = b[0]
		h.to = identity.NodeID(b[1:33])
		h.from = identity.NodeID(b[33:65])
		h.proto = Proto(b[65])
		if h.hops > maxHops || h.to == h.from || h.to.IsZero() || h.from.IsZero() {
			return header{}, fmt.Errorf("envelope: %w", errMalformed)
		}
	default:
		h.nonce = binary.BigEndian.Uint64(b[:8])
		return h, nil
	}
	if h.proto == 0 {
		return header{}, fmt.Errorf("protocol 0: %w", errMalformed)
	}
	return h, nil
}

// readHeader reads the header of a bidirectional stream: direct or envelope.
func readHeader(r io.Reader) (header, error) {
	var b [envelopeSize]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return header{}, err
	}
	if b[0] != frameDirect && b[0] != frameEnvelope {
		return header{}, fmt.Errorf("stream of kind %d: %w", b[0], errMalformed)
	}
	rest := b[1 : 1+headerSize(b[0])]
	if _, err := io.ReadFull(r, rest); err != nil {
		return header{}, err
	}
	return parseHeader(b[0], rest)
}

// instance is drawn at random by each New: it tells a restarted process from the one before.
type instance [8]byte

// appendHello appends the hello of this version to b.
func appendHello(b []byte, own instance) []byte {
	b = append(b, frameHello, helloSize, helloVersion)
	return append(b, own[:]...)
}

// readHello reads a hello of this version or a later one. The error is a *refusal when that is there in its place.
func readHello(r io.Reader) (instance, error) {
	var b [2 + 255]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return instance{}, err
	}
	if b[0] == frameProof {
		return instance{}, readProof(r)
	}
	if _, err := io.ReadFull(r, b[1:2]); err != nil {
		return instance{}, err
	}
	if b[0] != frameHello || b[1] < helloSize {
		return instance{}, fmt.Errorf("hello of kind %d and %d bytes: %w", b[0], b[1], errMalformed)
	}
	body := b[2 : 2+int(b[1])]
	if _, err := io.ReadFull(r, body); err != nil {
		return instance{}, err
	}
	if body[0] == 0 {
		return instance{}, fmt.Errorf("hello of version 0: %w", errMalformed)
	}
	return instance(body[1:9]), nil
}
