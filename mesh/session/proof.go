package session

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"warren/mesh/identity"
)

// A node that refuses another one for good says why by what the other can verify: records of its user's (Refusal.Proof). They travel in
// the refused connection itself, in the place of a hello, before it is closed with the code.
//
//	proof      | 6 | length (4) | code (8) | length (2) | reason | length (4), bytes: one record after the other |
//
// Whoever dialled says hello as always; the answer is then a proof. Whoever dialled and refuses opens the stream with one. The refused
// side closes the connection when it has read it. What is said here is the refusing side's word; Inbound.Proof is to believe the records only.
const (
	frameProof = 6

	// MaxProof bounds the records of one proof, in bytes, with 4 for each.
	MaxProof = 64 << 10

	proofHead = 8 + 2
	// proofTimeout is how long the refusing side waits until the other one has read it: a slow line carries it in that.
	proofTimeout = 4 * time.Second
)

// refusal is a no that was read from a connection in the place of a hello. Its error is that of a connection closed with the code.
type refusal struct {
	Refusal
	records [][]byte
}

func (r *refusal) Error() string { return r.Reason }

// appendProof appends a refusal with its proof, as much of it as fits.
func appendProof(b []byte, no Refusal) []byte {
	reason := cleanReason(no.Reason)
	body := binary.BigEndian.AppendUint64(nil, no.Code)
	body = append(binary.BigEndian.AppendUint16(body, uint16(len(reason))), reason...)
	size := 0
	for _, record := range no.Proof {
		if size += 4 + len(record); size > MaxProof {
			break
		}
		body = append(binary.BigEndian.AppendUint32(body, uint32(len(record))), record...)
	}
	return append(binary.BigEndian.AppendUint32(append(b, frameProof), uint32(len(body))), body...)
}

// readProof reads what follows the first byte. The error is a *refusal when it is one.
func readProof(r io.Reader) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < proofHead || n > proofHead+maxReason+MaxProof {
		return fmt.Errorf("proof of %d bytes: %w", n, errMalformed)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	no := &refusal{Refusal: Refusal{Code: binary.BigEndian.Uint64(body)}}
	reason, rest := int(binary.BigEndian.Uint16(body[8:])), body[proofHead:]
	if reason > len(rest) || reason > maxReason || no.Code < CodeFirstFree {
		return fmt.Errorf("proof with code %d and a reason of %d bytes: %w", no.Code, reason, errMalformed)
	}
	no.Reason, rest = cleanReason(string(rest[:reason])), rest[reason:]
	for len(rest) > 0 {
		if len(rest) < 4 || uint64(binary.BigEndian.Uint32(rest)) > uint64(len(rest)-4) {
			return fmt.Errorf("proof cut short: %w", errMalformed)
		}
		size := binary.BigEndian.Uint32(rest)
		no.records, rest = append(no.records, rest[4:4+size]), rest[4+size:]
	}
	return no
}

// proofs hands over why a node is refused, and takes what it is told.
type proofs struct {
	inbound Inbound // nil: nobody to tell
	wait    *sync.WaitGroup
}

// answer refuses a connection that the far side has dialled: the proof, if there is one, is the answer to its hello.
func (p *proofs) answer(ctx context.Context, conn *quic.Conn, told Refusal) {
	if len(told.Proof) > 0 {
		limit := helloWithin(conn)
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		if st, err := conn.AcceptStream(ctx); err == nil {
			st.SetDeadline(time.Now().Add(limit))
			if _, err := readHello(st); err == nil {
				p.hand(conn, st, told)
			}
		}
	}
	conn.CloseWithError(quic.ApplicationErrorCode(told.Code), cleanReason(told.Reason))
}

// open refuses a connection that this side has dialled, in its own time: the proof is in the place of the hello.
func (p *proofs) open(conn *quic.Conn, told Refusal) {
	p.wait.Go(func() {
		if st, err := conn.OpenStream(); err == nil {
			p.hand(conn, st, told)
		}
		conn.CloseWithError(quic.ApplicationErrorCode(told.Code), cleanReason(told.Reason))
	})
}

// hand writes a proof and waits until the far side has closed the connection, or some seconds.
func (p *proofs) hand(conn *quic.Conn, st *quic.Stream, told Refusal) {
	st.SetDeadline(time.Now().Add(proofTimeout))
	if _, err := st.Write(appendProof(nil, told)); err != nil {
		return
	}
	st.Close()
	timer := time.NewTimer(proofTimeout)
	defer timer.Stop()
	select {
	case <-conn.Context().Done():
	case <-timer.C:
	}
}

// heard passes on what a refusal rests on, if err is one, and ends the connection.
func (p *proofs) heard(from identity.NodeID, conn *quic.Conn, err error) {
	no, ok := errors.AsType[*refusal](err)
	if !ok {
		return
	}
	conn.CloseWithError(quic.ApplicationErrorCode(CodeRefused), "the proof was read")
	if p.inbound != nil && len(no.records) > 0 {
		p.inbound.Proof(from, no.records)
	}
}
