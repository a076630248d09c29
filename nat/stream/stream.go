// Package stream carries datagrams over TCP for networks that drop UDP: in TLS connections to anchors, on the number of
// their UDP port and on 443, through an HTTP proxy where the environment names one. A stream carries what would have
// gone by UDP. Server accepts streams, Client dials them; when a node needs them is decided in package streams.
//
// What the datagrams mean is the business of whoever takes a stream over (in an agent, the shared socket); who is a
// member is decided by Members. The protocols inside prove their far ends again, so a stream is only asked
// whether its far end is a member at all.
//
// Server and Client may be used by several goroutines at once.
//
// The wire: TLS 1.3, ALPN "warren-tcp/1" with certificates of the mesh on both sides, or "warren-tcp-join/1" of a joiner
// that has none yet. Then, in both directions, frames:
//
//	length (2, big endian) ‖ datagram
//
// The anchor's first frame is its answer: of length 0 when it takes the stream, else
//
//	code (2, big endian) ‖ reason (UTF-8, at most 256 bytes)
//
// and the end. Later frames of length 0 mean nothing.
package stream

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
	"unicode"
)

// AlternatePort is where anchors listen as well if they may: the port that the strictest networks leave open.
const AlternatePort = 443

const (
	alpnMember = "warren-tcp/1"
	alpnJoin   = "warren-tcp-join/1"

	handshakeTimeout = 5 * time.Second
	maxReason        = 256
	maxProof         = 64 << 10

	// idleTimeout is longer than the sessions inside live unheard (40 s) and they send something every 15 s.
	idleTimeout = 45 * time.Second
	// writeTimeout: TCP that has not taken a few kilobytes for so long leads nowhere.
	writeTimeout = 10 * time.Second
)

// Refusal is wrapped by the error of a dial when the anchor did not take the stream. Members.Verify may return one (also
// wrapped) to choose the code, which is the user's; with any other error it is 0.
type Refusal struct {
	Code   uint16
	Reason string
	// Proof is what the refusal rests on, for the far side to verify: at most maxProof bytes, with 4 for each part.
	Proof [][]byte
}

// Error says that it is the anchor that refuses, and why.
func (r *Refusal) Error() string { return "refused by the anchor: " + r.Reason }

// baseTLS has what all sides agree on. Small first records, as crypto/tls sends them by itself, are for web pages.
func baseTLS(alpn string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{alpn},
		SessionTicketsDisabled:      true, // a resumed session would skip the verification
		DynamicRecordSizingDisabled: true,
	}
}

// writeGreeting is the anchor's answer; nil: the stream is taken. Else what the refusal rests on follows.
//
//	0 (2)
//	length (2) | code (2) | reason | length (4) | length (4), bytes: one part after the other
func writeGreeting(w io.Writer, no *Refusal) error {
	frame := []byte{0, 0}
	if no != nil {
		frame = append(binary.BigEndian.AppendUint16(frame, no.Code), printable(no.Reason)...)
		binary.BigEndian.PutUint16(frame, uint16(len(frame)-2))
		proof := appendParts(nil, no.Proof)
		frame = append(binary.BigEndian.AppendUint32(frame, uint32(len(proof))), proof...)
	}
	_, err := w.Write(frame)
	return err
}

// appendParts appends the parts of a proof that fit.
func appendParts(b []byte, parts [][]byte) []byte {
	for _, part := range parts {
		if len(b)+4+len(part) > maxProof {
			break
		}
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(part))), part...)
	}
	return b
}

// readParts reads what appendParts wrote; the rest of one that is cut short is left out.
func readParts(b []byte) (parts [][]byte) {
	for len(b) >= 4 {
		n := binary.BigEndian.Uint32(b)
		if uint64(n) > uint64(len(b)-4) {
			return parts
		}
		parts, b = append(parts, b[4:4+n]), b[4+n:]
	}
	return parts
}

// readGreeting reads the anchor's answer and nothing behind it. Its error may be a Refusal.
func readGreeting(r io.Reader) error {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("read greeting: %w", err)
	}
	n := binary.BigEndian.Uint16(head[:])
	if n == 0 {
		return nil
	}
	if n < 2 || n > 2+maxReason {
		return fmt.Errorf("read greeting: length %d", n)
	}
	frame := make([]byte, n)
	if _, err := io.ReadFull(r, frame); err != nil {
		return fmt.Errorf("read greeting: %w", err)
	}
	no := &Refusal{Code: binary.BigEndian.Uint16(frame), Reason: printable(string(frame[2:]))}
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil || binary.BigEndian.Uint32(size[:]) > maxProof {
		return no // it is a no, whatever it rests on
	}
	proof := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(r, proof); err == nil {
		no.Proof = readParts(proof)
	}
	return no
}

// printable keeps of a text that a stranger may have chosen what can be printed, bounded.
func printable(text string) string {
	text = strings.ToValidUTF8(text[:min(len(text), maxReason)], "")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
}

// timed is a stream that fails when nothing has come for idleTimeout, or nothing has left for writeTimeout.
type timed struct{ net.Conn }

func (c timed) Read(p []byte) (int, error) {
	c.SetReadDeadline(time.Now().Add(idleTimeout))
	return c.Conn.Read(p)
}

func (c timed) Write(p []byte) (int, error) {
	c.SetWriteDeadline(time.Now().Add(writeTimeout))
	return c.Conn.Write(p)
}
