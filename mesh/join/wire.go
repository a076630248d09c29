package join

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"warren/mesh/record"
)

// The conversation. Each message is a length of four bytes (big-endian) and a CBOR map (RFC 8949) with integer keys, in which
// exactly one key says what the message is. In place of its next message the member may always send a refusal.
//
//	joiner                                 member
//	1 hello: version, invite key, proof ─▶
//	                                    ◀─ 2 chain: certificates from the invite to the root, clock
//	3 request: certificate, proof       ─▶
//	                                    ◀─ 4 admitted: admission, records, total
//	5 first: the node's first record    ─▶
//	                                    ◀─ 6 done
//	                                    ◀─ 7 refusal: code, text
//
// The proofs are signatures of the TLS exporter, by the invite's key and by the node's.
type message struct {
	Hello    *hello    `cbor:"1,keyasint,omitempty"`
	Chain    *chain    `cbor:"2,keyasint,omitempty"`
	Request  *request  `cbor:"3,keyasint,omitempty"`
	Admitted *admitted `cbor:"4,keyasint,omitempty"`
	First    []byte    `cbor:"5,keyasint,omitempty"`
	Done     bool      `cbor:"6,keyasint,omitempty"`
	Refusal  *refusal  `cbor:"7,keyasint,omitempty"`
}

type hello struct {
	Version uint   `cbor:"1,keyasint"`
	Invite  []byte `cbor:"2,keyasint"` // Ed25519 public key
	Proof   []byte `cbor:"3,keyasint"`
}

type chain struct {
	Certs [][]byte `cbor:"1,keyasint"` // DER
	Clock int64    `cbor:"2,keyasint"` // Unix seconds
}

type request struct {
	Cert  []byte `cbor:"1,keyasint"` // DER
	Proof []byte `cbor:"2,keyasint"`
}

type admitted struct {
	Time      int64    `cbor:"1,keyasint"`
	Signer    []byte   `cbor:"2,keyasint"`
	Signature []byte   `cbor:"3,keyasint"`
	Records   [][]byte `cbor:"4,keyasint"`
	Total     uint32   `cbor:"5,keyasint"`
}

type refusal struct {
	Code Code   `cbor:"1,keyasint"`
	Text string `cbor:"2,keyasint"`
}

const (
	protocolVersion = 1
	maxFromJoiner   = 8 << 10   // a certificate, a record
	maxFromMember   = 256 << 10 // maxBundle and its framing
)

var errMessage = errors.New("malformed message")

var (
	encoding = record.Deterministic()
	decoding = record.Strict(4096, 16) // a bundle is a list of records
)

func write(out io.Writer, m message) error {
	body, err := encoding.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	_, err = out.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

// read reads one message of at most so many bytes. Its parts do not share memory with anything.
func read(in io.Reader, most int) (message, error) {
	var head [4]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return message{}, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size == 0 || size > uint32(most) {
		return message{}, fmt.Errorf("message of %d bytes where %d are allowed: %w", size, most, errMessage)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(in, body); err != nil {
		return message{}, err
	}
	return decode(body)
}

// decode reads the body of a message and checks the lengths of what it holds.
func decode(body []byte) (message, error) {
	var m message
	if err := decoding.Unmarshal(body, &m); err != nil {
		return message{}, fmt.Errorf("%w: %w", errMessage, err)
	}
	kinds := 0
	for _, present := range []bool{m.Hello != nil, m.Chain != nil, m.Request != nil, m.Admitted != nil, m.First != nil, m.Done, m.Refusal != nil} {
		if present {
			kinds++
		}
	}
	const keySize, signatureSize = 32, 64
	switch {
	case kinds != 1:
		return message{}, fmt.Errorf("%d kinds in one: %w", kinds, errMessage)
	case m.Hello != nil && (len(m.Hello.Invite) != keySize || len(m.Hello.Proof) != signatureSize),
		m.Request != nil && len(m.Request.Proof) != signatureSize,
		m.Admitted != nil && (len(m.Admitted.Signer) != keySize || len(m.Admitted.Signature) != signatureSize):
		return message{}, fmt.Errorf("key or signature of a wrong length: %w", errMessage)
	}
	return m, nil
}
