package session

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"warren/mesh/identity"
)

const (
	joinLife   = 30 * time.Second // a whole join; a stranger does not get more
	joinLinger = time.Second
	joinStart  = 6 // first byte of the joiner's stream: opens it, so that the member may also speak first
)

// ErrWrongMember is wrapped by DialJoin when who answers is not the member, or not of the mesh, that the token names.
var ErrWrongMember = errors.New("not the member that the token names")

// JoinConn is the connection between a joiner, which has no certificate yet, and a member: one reliable stream inside
// TLS 1.3. Close lingers shortly so that what was written last still arrives.
type JoinConn interface {
	net.Conn
	// Export returns 32 bytes bound to this TLS connection and to label (RFC 8446, section 7.5), the same on both sides.
	Export(label string) ([]byte, error)
}

type joinConn struct {
	*quic.Stream
	conn  *quic.Conn
	done  func() // ends what was made for this connection only
	wrote func() // called after each message that was written; nil: nobody asks
}

func (c *joinConn) LocalAddr() net.Addr  { return c.conn.LocalAddr() }
func (c *joinConn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// Write implements net.Conn.
func (c *joinConn) Write(b []byte) (int, error) {
	n, err := c.Stream.Write(b)
	if c.wrote != nil && err == nil {
		c.wrote()
	}
	return n, err
}

// Export implements JoinConn.
func (c *joinConn) Export(label string) ([]byte, error) {
	state := c.conn.ConnectionState().TLS
	return state.ExportKeyingMaterial(label, nil, 32)
}

// Close ends the stream and waits, at most a second, until the far side has ended it too.
func (c *joinConn) Close() error {
	err := c.Stream.Close()
	c.Stream.SetReadDeadline(time.Now().Add(joinLinger))
	_, _ = io.Copy(io.Discard, io.LimitReader(c.Stream, 1<<20))
	c.conn.CloseWithError(quic.ApplicationErrorCode(CodeShutdown), "")
	c.done()
	return err
}

// tooManyJoins is what a joiner is told for whom there is no place, or no more.
const tooManyJoins = "too many joins at once; try again"

// NoPlace reports whether a joiner's failure is that the member has too many others to do with: it may be asked again soon.
func NoPlace(err error) bool {
	app, ok := errors.AsType[*quic.ApplicationError](err)
	return ok && app.Remote && uint64(app.ErrorCode) == CodeStranger
}

// join hands a joiner's connection to Inbound.
func (r *reception) join(ctx context.Context, conn *quic.Conn) {
	leaveHalfOpen(conn)
	if !r.gate.enterJoin(conn) {
		r.counters.add(dropRate)
		conn.CloseWithError(quic.ApplicationErrorCode(CodeStranger), tooManyJoins)
		return
	}
	defer r.gate.joins.Leave(conn)
	ctx, cancel := context.WithTimeout(ctx, joinLife)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		conn.CloseWithError(quic.ApplicationErrorCode(CodeShutdown), "took too long")
	})
	defer stop()
	begun, stopBeginning := context.WithTimeout(ctx, helloWithin(conn))
	defer stopBeginning()
	st, err := conn.AcceptStream(begun)
	if err != nil {
		conn.CloseWithError(quic.ApplicationErrorCode(CodeProtocol), "no stream")
		return
	}
	st.SetReadDeadline(time.Now().Add(helloWithin(conn)))
	var start [1]byte
	if _, err := io.ReadFull(st, start[:]); err != nil || start[0] != joinStart {
		r.counters.add(dropMalformed)
		conn.CloseWithError(quic.ApplicationErrorCode(CodeProtocol), "not a join")
		return
	}
	st.SetReadDeadline(time.Time{})
	// What the member answers shows that the joiner has got on.
	c := &joinConn{Stream: st, conn: conn, done: func() {}, wrote: func() { r.gate.joins.Renew(time.Now(), conn) }}
	r.inbound.Join(c)
	c.Close() // for the callee that forgot; a second time it finds everything closed
}

// DialJoin connects a joiner to the member at addr. It shows no certificate, and checks that the member's chain ends in
// the root of mesh and begins with a node whose ID starts with pin (any member of the mesh when pin is zero); both
// are returned, the chain leaf first and root last. The error then wraps ErrWrongMember. conn is used by this
// connection alone until its Close, is not closed, and can be used again afterwards.
func DialJoin(ctx context.Context, conn net.PacketConn, addr netip.AddrPort, mesh identity.MeshID, pin [8]byte) (JoinConn, *x509.Certificate, []*x509.Certificate, error) {
	ln := newLane(conn, func() {})
	transport := &quic.Transport{Conn: ln, ConnectionIDGenerator: connectionIDs{}}
	var chain []*x509.Certificate
	config := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{alpnJoin},
		InsecureSkipVerify: true, // names mean nothing here: VerifyConnection checks the chain and the pin
		VerifyConnection: func(state tls.ConnectionState) error {
			chain = state.PeerCertificates
			return checkMember(chain, mesh, pin, time.Now())
		},
	}
	dctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := ln.watch(netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), func(err error) { cancel(err) }, new(atomic.Bool))
	defer stop()
	settings := quicConfig()
	settings.MaxIncomingStreams, settings.MaxIncomingUniStreams = -1, -1
	qc, err := transport.Dial(dctx, net.UDPAddrFromAddrPort(addr), config, settings)
	if err != nil {
		transport.Close()
		return nil, nil, nil, fmt.Errorf("dial member at %v: %w", addr, err)
	}
	st, err := qc.OpenStreamSync(dctx)
	if err == nil {
		_, err = st.Write([]byte{joinStart})
	}
	if err != nil {
		qc.CloseWithError(quic.ApplicationErrorCode(CodeShutdown), "")
		transport.Close()
		return nil, nil, nil, fmt.Errorf("dial member at %v: %w", addr, err)
	}
	return &joinConn{Stream: st, conn: qc, done: func() { transport.Close() }}, chain[len(chain)-1], chain, nil
}

// checkMember checks the chain of the member that a token leads to: every link of it, up to the root that the mesh ID
// names. Revocations are not known to a joiner; whoever presents the pinned key is the one that the token means.
func checkMember(chain []*x509.Certificate, mesh identity.MeshID, pin [8]byte, now time.Time) error {
	if len(chain) < 2 || len(chain) > identity.MaxChain {
		return fmt.Errorf("chain of %d certificates: %w", len(chain), ErrWrongMember)
	}
	for _, cert := range chain {
		if err := identity.CheckForm(cert); err != nil {
			return fmt.Errorf("%w: %w", ErrWrongMember, err)
		}
	}
	leaf, root := chain[0], chain[len(chain)-1]
	rootID, leafID := identity.KeyIDOfCert(root), identity.NodeIDOfCert(leaf)
	switch role := identity.RoleOf(leaf); {
	case !bytes.HasPrefix(rootID[:], mesh[:]):
		return fmt.Errorf("of another mesh: %w", ErrWrongMember)
	case pin != [8]byte{} && !bytes.HasPrefix(leafID[:], pin[:]):
		return fmt.Errorf("node %s: %w", leafID.Short(), ErrWrongMember)
	case role != identity.RoleMember && role != identity.RoleAdmin:
		return fmt.Errorf("a key of role %s: %w", role, ErrWrongMember)
	case now.After(leaf.NotAfter):
		return fmt.Errorf("its certificate expired on %s: %w", leaf.NotAfter.Format(time.DateOnly), ErrWrongMember)
	}
	if err := identity.CheckRoot(root); err != nil {
		return fmt.Errorf("%w: %w", ErrWrongMember, err)
	}
	for i, child := range chain[:len(chain)-1] {
		err := identity.CheckLink(child, chain[i+1])
		if err == nil {
			err = identity.CheckSignature(child, chain[i+1])
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrWrongMember, err)
		}
	}
	return nil
}
