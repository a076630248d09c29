// Package session keeps the control sessions of a node: QUIC connections with mutual TLS 1.3 to other members, on the
// QUIC lane of the node's one UDP socket. It dials the targets that it was last told to have and keeps at it for ever,
// accepts what verified members dial, carries short messages and streams over the sessions, and passes both on for
// members that have no session with each other, through at most two forwarding members (wire.go draws the formats).
//
// It leaves to its user who is a member (Options.Verify), which members to dial (SetTargets), by whom a member without
// a session can be reached (Options.NextHops), and what messages and streams mean. What comes through a forwarding
// member names its source only as truly as that member does: the first hop checks it, the last one cannot. Whoever
// needs proof of the source signs the payload. Tunnels never depend on a session.
//
// All methods may be called concurrently, and before, during and after Run; callbacks of Options are called concurrently,
// without any lock held, and may call every method except Run.
package session

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"warren/mesh/identity"
)

// Proto says what a message or a stream is for. Zero is not used on the wire; numbers that this package does not know
// are carried all the same.
type Proto byte

// The protocols that sessions carry today.
const (
	ProtoGossip       Proto = 1 // message: a packet of memberlist
	ProtoGossipStream Proto = 2 // stream: memberlist's push/pull and fallback ping
	ProtoSignal       Proto = 3 // message: a sealed introduction; parked for a destination that is not there yet
	ProtoSync         Proto = 4 // stream: anti-entropy of records
	ProtoRelay        Proto = 5 // stream: relay control
	ProtoAsk          Proto = 6 // reserved
)

// MaxMessage is the largest payload, in bytes, that Send takes. Up to about 1,100 bytes travel as one QUIC datagram
// (unreliable); larger ones as a stream of their own.
const MaxMessage = 64 << 10

// Codes with which a session is closed (the application error code of QUIC's CONNECTION_CLOSE, RFC 9000, section 19.19).
// Codes from CodeFirstFree on are the user's, given to Drop.
const (
	CodeShutdown     uint64 = 0 // the node stops
	CodeDuplicate    uint64 = 1 // a second session between the same two nodes, dialled at the same time
	CodeReplaced     uint64 = 2 // a newer session with the same node took over
	CodeRefused      uint64 = 3 // the certificate chain was not accepted
	CodeUnresponsive uint64 = 4 // no answer to checks
	CodeUnneeded     uint64 = 5 // the dialling side no longer has the node as a target
	CodeProtocol     uint64 = 6 // the far side broke the protocol
	CodeLost         uint64 = 7 // never sent: the session timed out or was reset
	CodeFirstFree    uint64 = 0x100
)

// Errors that callers tell apart.
var (
	ErrNoRoute  = errors.New("no session with the node, and with none that leads to it")
	ErrTooLarge = errors.New("message too large")
)

// Target is a node to keep a session with, and the underlay addresses where it may be dialled.
type Target struct {
	ID    identity.NodeID
	Addrs []netip.AddrPort
}

// Refusal is an error that Options.Verify may return (also wrapped) to choose the code and the text that the refused
// node is told. With any other error the code is CodeRefused and the text is the error's.
type Refusal struct {
	Code   uint64
	Reason string
}

// Error returns the reason.
func (r *Refusal) Error() string { return r.Reason }

// Options is what New takes. Conn, Self, Credential and Verify are needed, the rest may be left out.
type Options struct {
	Conn       net.PacketConn // the QUIC lane; its read deadline must work; not closed by this package
	Self       identity.NodeID
	Credential func() tls.Certificate // the node's chain, leaf first, root last, with the node's Ed25519 key
	// Verify checks a chain that was presented in a handshake, leaf first, and returns the leaf's node ID. It is called
	// concurrently, at each handshake, and once more when the session is entered, so that a revocation that falls
	// between the two is not missed.
	Verify func(chain []*x509.Certificate) (identity.NodeID, error)
	// NextHops lists members by which dst can probably be reached (its anchors, mutual neighbours), best first. It
	// is asked when there is no session with dst, must not block, and may return nil.
	NextHops  func(dst identity.NodeID) []identity.NodeID
	OnMessage func(from identity.NodeID, p Proto, payload []byte) // must not block; payload is the callee's
	OnStream  func(from identity.NodeID, p Proto, c net.Conn)     // in a goroutine of its own; closes c; returns when c fails
	OnJoin    func(c JoinConn)                                    // a joiner's connection, likewise; nil: joining is not offered
	Logger    *slog.Logger
}

// Status describes one target or session.
type Status struct {
	ID        identity.NodeID
	Target    bool // it is in the list given to SetTargets
	Up        bool
	Remote    netip.AddrPort // the far side's address, when up
	RTT       time.Duration  // smoothed, when up
	Since     time.Time      // when the session came up
	Dialled   bool           // this side dialled it
	LastError string         // of the last dial or session; empty when there was none
	Attempts  int            // failed dials since the last session
	NextDial  time.Time      // zero when up or dialling
}
