package mesh

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// The gate stands between the sessions and memberlist. A member is authenticated but may still be hostile or broken, and
// memberlist believes the lengths that it reads: it allocates a million node states on a header's word, and inflates
// compressed messages inside compressed messages. Only the shapes that our own memberlist sends get through.

// The message types of memberlist that may pass (its net.go numbers them; never compressed, encrypted, labelled).
const (
	typePing     = 0
	typeAckResp  = 2
	typeDead     = 5
	typePushPull = 6
	typeCompound = 7
	typeUser     = 8
	typeNackResp = 11
	typeHasCRC   = 12
	typeError    = 13
)

const (
	// maxPacket bounds a packet for memberlist. Ours stay below packetSize; a gossiped packet is one message and
	// what fits beside it.
	maxPacket = 4 << 10
	// maxPushNodes bounds the node states of one push/pull: eight times the largest pools memberlist is run in.
	maxPushNodes = 16 << 10
	// maxNodeState is far more than our states need: about 110 bytes, with no metadata.
	maxNodeState = 512
	// maxUserState bounds what goes with a push/pull: our digest.
	maxUserState = 64
)

var errGate = errors.New("not a message for memberlist")

// openPacket checks a packet and takes it apart: rest is what memberlist may be given of it (nil: nothing), and user are the messages of
// our own that it carries, without their type. Those never pass through memberlist, which would not say by whose hand they came.
func openPacket(p []byte) (rest []byte, user [][]byte, err error) {
	if len(p) > maxPacket {
		return nil, nil, fmt.Errorf("packet of %d bytes: %w", len(p), errGate)
	}
	inner := p
	if len(p) > 5 && p[0] == typeHasCRC {
		inner = p[5:] // what the sum is for, the session has seen to
	}
	if len(inner) > 1 && inner[0] == typeCompound {
		return openCompound(p, inner[1:])
	}
	if err := checkMessage(inner); err != nil {
		return nil, nil, err
	}
	if inner[0] == typeUser {
		return nil, [][]byte{inner[1:]}, nil
	}
	return p, nil, nil
}

// checkMessage checks one message. memberlist nests compounds without limit; ours are never nested.
func checkMessage(p []byte) error {
	switch {
	case len(p) < 2:
		return fmt.Errorf("message of %d bytes: %w", len(p), errGate)
	case p[0] <= typeDead, p[0] == typeUser, p[0] == typeNackResp:
		return nil
	}
	return fmt.Errorf("message type %d: %w", p[0], errGate)
}

// openCompound is openPacket for a compound, whose content after the type is p: a count, that many lengths of two bytes, the messages.
func openCompound(whole, p []byte) (rest []byte, user [][]byte, err error) {
	count := int(p[0])
	lengths, parts := p[1:], []byte(nil)
	if len(lengths) < 2*count {
		return nil, nil, fmt.Errorf("compound of %d cut short: %w", count, errGate)
	}
	lengths, parts = lengths[:2*count], lengths[2*count:]
	var others [][]byte
	for ; len(lengths) > 0; lengths = lengths[2:] {
		n := int(binary.BigEndian.Uint16(lengths))
		if n > len(parts) {
			return nil, nil, fmt.Errorf("compound part of %d bytes cut short: %w", n, errGate)
		}
		part := parts[:n]
		if err := checkMessage(part); err != nil {
			return nil, nil, err
		}
		if part[0] == typeUser {
			user = append(user, part[1:])
		} else {
			others = append(others, part)
		}
		parts = parts[n:]
	}
	if len(user) == 0 {
		return whole, nil, nil
	}
	return compound(others), user, nil
}

// compound puts messages into one packet, nil when there are none.
func compound(messages [][]byte) []byte {
	switch len(messages) {
	case 0:
		return nil
	case 1:
		return messages[0]
	}
	out := []byte{typeCompound, byte(len(messages))}
	for _, message := range messages {
		out = binary.BigEndian.AppendUint16(out, uint16(len(message)))
	}
	return append(out, bytes.Join(messages, nil)...)
}

// gatedConn is a stream for memberlist: what it reads is limited to a ping, an answer to one, or a push/pull of
// honest size. The limit is set by the first bytes, at the first Read.
type gatedConn struct {
	net.Conn
	once   sync.Once
	in     io.Reader
	err    error
	closed sync.Once
	done   chan struct{} // closed by Close
}

func newGatedConn(c net.Conn) *gatedConn {
	return &gatedConn{Conn: c, done: make(chan struct{})}
}

// Read is called by one goroutine at a time, as memberlist does.
func (g *gatedConn) Read(p []byte) (int, error) {
	g.once.Do(func() { g.in, g.err = gateStream(g.Conn) })
	if g.err != nil {
		return 0, g.err
	}
	return g.in.Read(p)
}

// Close closes the stream; memberlist may do so twice.
func (g *gatedConn) Close() error {
	err := g.Conn.Close()
	g.closed.Do(func() { close(g.done) })
	return err
}

// gateStream reads the first bytes of a stream and returns a reader that gives them again and then what may follow.
func gateStream(c io.Reader) (io.Reader, error) {
	const small = 2 << 10 // a ping, its answer, an error text
	in := bufio.NewReaderSize(c, 512)
	first, err := in.Peek(1)
	if err != nil {
		return nil, err
	}
	switch first[0] {
	case typePing, typeAckResp, typeError:
		return io.LimitReader(in, small), nil
	case typePushPull:
	default:
		return nil, fmt.Errorf("stream of type %d: %w", first[0], errGate)
	}
	var seen bytes.Buffer
	nodes, err := readPushPullHeader(io.TeeReader(in, &seen))
	if err != nil {
		return nil, err
	}
	return io.MultiReader(&seen, io.LimitReader(in, int64(nodes)*maxNodeState+maxUserState)), nil
}

// readPushPullHeader reads the type byte and the header of a push/pull: a MessagePack map of Join, Nodes and
// UserStateLen, each once. It returns the number of node states that follow.
func readPushPullHeader(in io.Reader) (nodes int, err error) {
	var two [2]byte
	if _, err := io.ReadFull(in, two[:]); err != nil {
		return 0, err
	}
	if two[1] != 0x83 { // a map of three entries
		return 0, fmt.Errorf("push/pull header %#x: %w", two[1], errGate)
	}
	var seen [3]bool
	for range 3 {
		field, limit, err := readFieldName(in)
		if err != nil {
			return 0, err
		}
		value, err := readSmallInt(in)
		if err != nil {
			return 0, err
		}
		if seen[field] || value > limit {
			return 0, fmt.Errorf("push/pull header field %d of %d: %w", field, value, errGate)
		}
		seen[field] = true
		if field == 1 {
			nodes = int(value)
		}
	}
	return nodes, nil
}

// readFieldName reads the name of a header field and returns its number and its largest value.
func readFieldName(in io.Reader) (field int, limit uint64, err error) {
	var size [1]byte
	if _, err := io.ReadFull(in, size[:]); err != nil {
		return 0, 0, err
	}
	if size[0]&0xe0 != 0xa0 { // a string of up to 31 bytes
		return 0, 0, fmt.Errorf("push/pull header name %#x: %w", size[0], errGate)
	}
	name := make([]byte, size[0]&0x1f)
	if _, err := io.ReadFull(in, name); err != nil {
		return 0, 0, err
	}
	switch string(name) {
	case "Join":
		return 0, 1, nil
	case "Nodes":
		return 1, maxPushNodes, nil
	case "UserStateLen":
		return 2, maxUserState, nil
	}
	return 0, 0, fmt.Errorf("push/pull header name %q: %w", name, errGate)
}

// readSmallInt reads a MessagePack integer or boolean. Negative ones come out huge and are refused by their limit.
func readSmallInt(in io.Reader) (uint64, error) {
	var head [1]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return 0, err
	}
	size := 0
	switch b := head[0]; {
	case b < 0x80:
		return uint64(b), nil
	case b == 0xc2, b == 0xc3: // false, true
		return uint64(b & 1), nil
	case b >= 0xcc && b <= 0xd3: // unsigned and signed, of 1, 2, 4 and 8 bytes
		size = 1 << ((b - 0xcc) & 3)
	default:
		return 0, fmt.Errorf("push/pull header value %#x: %w", b, errGate)
	}
	var raw [8]byte
	if _, err := io.ReadFull(in, raw[8-size:]); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(raw[:]), nil
}
