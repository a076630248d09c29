// Package hosting is what one member says to another that is to host a plain WireGuard device, and what that answers: the wire format
// (PROTOCOL.md 7.2), and one exchange over a stream.
//
// Who may ask, and what becomes of it, is left to the caller: the stream has to come from the asking member itself, for its answer holds a secret.
//
// Each exchange belongs to one goroutine.
package hosting

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"warren/mesh/record"
)

const (
	// maxMessage bounds a message, in bytes: a request has some hundred.
	maxMessage = 4096
	// exchangeTime bounds the exchange: the far side writes one file, and reads its settings.
	exchangeTime = 10 * time.Second
)

// ErrMalformed is wrapped by what is said of messages that are none.
var ErrMalformed = errors.New("malformed")

var strict = record.Strict(32, 32)

// Request asks a member to host a device.
type Request struct {
	Name      string   // a DNS label
	PublicKey [32]byte // WireGuard's
	Tags      []string
	Endpoint  string // host:port at which the device is to reach the host; "": one that it knows
}

// Answer is what the device needs, or why it is not hosted.
type Answer struct {
	Refusal      string // in words; "": it is hosted
	Addrs        []netip.Addr
	PublicKey    [32]byte // of the host
	PresharedKey [32]byte
	Endpoint     string
	Public       bool // strangers reach that endpoint, as far as the host knows
	DNS          []netip.Addr
}

type requestWire struct {
	Name      string   `cbor:"1,keyasint"`
	PublicKey []byte   `cbor:"2,keyasint"`
	Tags      []string `cbor:"3,keyasint,omitempty"`
	Endpoint  string   `cbor:"4,keyasint,omitempty"`
}

type answerWire struct {
	Refusal      string   `cbor:"1,keyasint,omitempty"`
	Addrs        [][]byte `cbor:"2,keyasint,omitempty"`
	PublicKey    []byte   `cbor:"3,keyasint,omitempty"`
	PresharedKey []byte   `cbor:"4,keyasint,omitempty"`
	Endpoint     string   `cbor:"5,keyasint,omitempty"`
	Public       bool     `cbor:"6,keyasint,omitempty"`
	DNS          [][]byte `cbor:"7,keyasint,omitempty"`
}

// Ask has the far side of a stream host a device. It closes the stream.
func Ask(c net.Conn, r Request) (Answer, error) {
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(exchangeTime)); err != nil {
		return Answer{}, fmt.Errorf("ask for a host: %w", err)
	}
	if err := write(c, requestWire{r.Name, r.PublicKey[:], r.Tags, r.Endpoint}); err != nil {
		return Answer{}, fmt.Errorf("ask for a host: %w", err)
	}
	raw, err := read(c)
	if err != nil {
		return Answer{}, fmt.Errorf("ask for a host: %w", err)
	}
	return parseAnswer(raw)
}

// Serve answers one request. It closes the stream. What is malformed gets no answer.
func Serve(c net.Conn, host func(Request) (Answer, error)) error {
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(exchangeTime)); err != nil {
		return fmt.Errorf("answer for a device: %w", err)
	}
	raw, err := read(c)
	if err != nil {
		return fmt.Errorf("answer for a device: %w", err)
	}
	r, err := parseRequest(raw)
	if err != nil {
		return fmt.Errorf("answer for a device: %w", err)
	}
	a, err := host(r)
	if err != nil {
		a = Answer{Refusal: err.Error()}
	}
	w := answerWire{Refusal: a.Refusal, Addrs: join(a.Addrs), Endpoint: a.Endpoint, Public: a.Public, DNS: join(a.DNS)}
	if a.Refusal == "" {
		w.PublicKey, w.PresharedKey = a.PublicKey[:], a.PresharedKey[:]
	}
	if err := write(c, w); err != nil {
		return fmt.Errorf("answer for a device: %w", err)
	}
	return nil
}

func parseRequest(raw []byte) (Request, error) {
	var w requestWire
	if err := strict.Unmarshal(raw, &w); err != nil {
		return Request{}, fmt.Errorf("request: %w: %w", ErrMalformed, err)
	}
	if len(w.PublicKey) != 32 || len(w.Name) > 63 || len(w.Endpoint) > 300 || len(w.Tags) > 16 {
		return Request{}, fmt.Errorf("request: %w", ErrMalformed)
	}
	return Request{w.Name, [32]byte(w.PublicKey), w.Tags, w.Endpoint}, nil
}

func parseAnswer(raw []byte) (a Answer, err error) {
	var w answerWire
	if err := strict.Unmarshal(raw, &w); err != nil {
		return Answer{}, fmt.Errorf("answer: %w: %w", ErrMalformed, err)
	}
	if w.Refusal != "" {
		return Answer{Refusal: w.Refusal}, nil
	}
	if len(w.PublicKey) != 32 || len(w.PresharedKey) != 32 || len(w.Addrs) < 1 || len(w.Addrs) > 2 || len(w.DNS) > 2 || len(w.Endpoint) > 300 {
		return Answer{}, fmt.Errorf("answer: %w", ErrMalformed)
	}
	a = Answer{PublicKey: [32]byte(w.PublicKey), PresharedKey: [32]byte(w.PresharedKey), Endpoint: w.Endpoint, Public: w.Public}
	if a.Addrs, err = split(w.Addrs); err != nil {
		return Answer{}, err
	}
	a.DNS, err = split(w.DNS)
	return a, err
}

func join(addrs []netip.Addr) (raw [][]byte) {
	for _, a := range addrs {
		raw = append(raw, a.AsSlice())
	}
	return raw
}

func split(raw [][]byte) (addrs []netip.Addr, err error) {
	for _, b := range raw {
		a, ok := netip.AddrFromSlice(b)
		if !ok || a.Is4In6() {
			return nil, fmt.Errorf("answer: address %x: %w", b, ErrMalformed)
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// write sends a message behind its length in two bytes.
func write(w io.Writer, message any) error {
	raw, err := record.Deterministic().Marshal(message)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	if len(raw) > maxMessage {
		return fmt.Errorf("message of %d bytes: %w", len(raw), ErrMalformed)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(raw))), raw...))
	return err
}

func read(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint16(head[:])
	if n > maxMessage {
		return nil, fmt.Errorf("message of %d bytes: %w", n, ErrMalformed)
	}
	raw := make([]byte, n)
	_, err := io.ReadFull(r, raw)
	return raw, err
}
