package noise

import (
	"crypto/cipher"
	"encoding/binary"
	"sync"
	"sync/atomic"

	flynn "github.com/flynn/noise"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.zx2c4.com/wireguard/replay"
)

// standing is what is known of the peer's having a session.
type standing = uint32

const (
	proven  standing = iota // something has come under it, and it is in its place
	unheard                 // nothing has yet, but this node is the initiator and has read a response
	waiting                 // nothing has yet, so the initiation may have been a copy: the responder only opens (section 5.4.6)
	heard                   // something has come under it that waited; the control goroutine has not taken note yet
	ceded                   // as waiting, but the session of a handshake that crossed it is used instead, whatever comes
)

// pair are the two keys of one session.
type pair struct {
	// constant
	send, receive cipher.AEAD
	local, remote uint32
	initiator     bool
	created       Instant
	crossed       Instant // an initiation that came until then crossed ours; only if initiator

	standing atomic.Uint32

	_       [64]byte // so that who sends and who receives do not write to one cache line
	counter atomic.Uint64
	_       [64]byte

	mu     sync.Mutex // for when a peer's packets come by two sockets
	window replay.Filter
}

// newPair makes a session out of what a handshake leaves.
func newPair(send, receive *flynn.CipherState, now Instant) *pair {
	return &pair{send: cipherOf(send), receive: cipherOf(receive), created: now}
}

// cipherOf takes the key out of the library's hands.
func cipherOf(state *flynn.CipherState) cipher.AEAD {
	key := state.UnsafeKey()
	aead, err := chacha20poly1305.New(key[:])
	if err != nil {
		panic("internal error: " + err.Error()) // 32 bytes are always a key
	}
	clear(key[:])
	*state = flynn.CipherState{}
	return aead
}

// Signal is what a data loop has to do after it has sealed or opened.
type Signal uint8

const (
	// Wake: have the control goroutine call Step of this peer, soon.
	Wake Signal = 1 << iota
	// NoKey: nothing was sealed. A packet may be kept until Ready or GaveUp.
	NoKey
)

// Seal appends a transport message with plain in it to dst, and returns it longer by Overhead and the length of plain. dst needs
// that capacity, or it is moved. Plain is as the packet is to travel, with its padding (see Padded); with nothing in it the
// message is a keepalive. Plain may lie where its sealed form will, HeaderSize behind the end of dst, or apart from it, and not
// overlap it in any other way. Without a key dst is returned as it was, with NoKey. Any goroutine may call it; it allocates
// nothing.
func (p *Peer) Seal(dst, plain []byte, now Instant) ([]byte, Signal) {
	k := p.keys.Load().sending()
	if k == nil || now.Sub(k.created) >= RejectAfterTime {
		return dst, NoKey | p.demand(now)
	}
	n := k.counter.Add(1) - 1
	if n >= RejectAfterMessages {
		k.counter.Store(RejectAfterMessages)
		return dst, NoKey | p.demand(now)
	}
	/* The nonce is four zeros and the counter. The header has the counter in its place, and the index where the zeros have to be,
	 * so it serves as the nonce until the index is written. One on the stack would be moved to the heap by the call.
	 */
	at := len(dst)
	dst = append(dst, byte(Transport), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	binary.LittleEndian.PutUint64(dst[at+8:], n)
	dst = k.send.Seal(dst, dst[at+4:at+HeaderSize], plain, nil)
	binary.LittleEndian.PutUint32(dst[at+4:], k.remote)

	signal := p.traffic.sentSome(now, len(plain) > 0)
	if n >= RekeyAfterMessages || k.initiator && now.Sub(k.created) >= RekeyAfterTime {
		signal |= p.demand(now)
	}
	return dst, signal
}

// Opened is what came out of a transport message.
type Opened struct {
	Peer   *Peer  // who sealed it: the source of the datagram is proven to be this peer's. Nil if it was dropped
	Plain  []byte // what was appended to dst; nothing for a keepalive. It may be padded, its own header tells its length
	Signal Signal // Wake is for Peer
	Drop   Drop
}

// Open opens a transport message and appends what is in it to dst, which may be msg[HeaderSize:HeaderSize], and else may not
// overlap msg; it needs the capacity, or it is moved. What lies behind the end of dst is lost even if the message is dropped, and so
// is the index in its header. Whether the packet has a source address of its peer is for the caller to check. Any goroutine may
// call it; it allocates nothing.
func (m *Machine) Open(dst, msg []byte, now Instant) Opened {
	if TypeOf(msg) != Transport {
		return Opened{Drop: DropMalformed}
	}
	e := m.table.get(binary.LittleEndian.Uint32(msg[4:]))
	if e == nil || e.pair == nil {
		return Opened{Drop: DropIndex}
	}
	k, p := e.pair, e.peer
	if now.Sub(k.created) > RejectAfterTime {
		return Opened{Drop: DropExpired}
	}
	n := binary.LittleEndian.Uint64(msg[8:])
	binary.LittleEndian.PutUint32(msg[4:], 0) // the header becomes the nonce, as in Seal
	out, err := k.receive.Open(dst, msg[4:HeaderSize], msg[HeaderSize:], nil)
	if err != nil {
		return Opened{Drop: DropForged}
	}
	k.mu.Lock()
	fresh := k.window.ValidateCounter(n, RejectAfterMessages)
	k.mu.Unlock()
	if !fresh {
		return Opened{Drop: DropReplay}
	}
	o := Opened{Peer: p, Plain: out[len(dst):]}
	switch k.standing.Load() {
	case unheard:
		k.standing.CompareAndSwap(unheard, proven)
	case waiting:
		if k.standing.CompareAndSwap(waiting, heard) {
			o.Signal |= Wake
		}
	}
	o.Signal |= p.received(k, now, len(o.Plain) > 0)
	return o
}
