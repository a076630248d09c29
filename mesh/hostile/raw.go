//go:build hostile

package hostile

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"warren/mesh/identity"
	"warren/mesh/session"
)

// The protocols of handshakes, as packages session and stream call them.
const (
	alpnMember    = "warren/1"
	alpnJoin      = "warren-join/1"
	alpnTCP       = "warren-tcp/1"
	alpnTCPJoin   = "warren-tcp-join/1"
	handshakeTime = 3 * time.Second
)

// raw is a connection of the attacker's own making, on a socket of its own.
type raw struct {
	conn   *quic.Conn
	socket *net.UDPConn
	carry  *quic.Transport
	to     identity.NodeID
	since  time.Time
}

// connectionIDs are as package session has them: what members send to others would not arrive.
type connectionIDs struct{}

func (connectionIDs) GenerateConnectionID() (quic.ConnectionID, error) {
	b := [12]byte{0xff, 0xff, 0xff}
	rand.Read(b[3:])
	return quic.ConnectionIDFromBytes(b[:]), nil
}

func (connectionIDs) ConnectionIDLen() int { return 12 }

// credential is a credential for TLS.
func credential(key ed25519.PrivateKey, chain []*x509.Certificate) *tls.Certificate {
	c := &tls.Certificate{PrivateKey: key}
	for _, cert := range chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}

// tlsFor takes whoever answers, and shows the credential, if there is one.
func tlsFor(c *tls.Certificate, alpn string) *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{alpn}, InsecureSkipVerify: true}
	if c != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c, nil }
	}
	return config
}

// dial makes one.
func (s *strike) dial(ctx context.Context, to netip.AddrPort, c *tls.Certificate, alpn string) (*raw, error) {
	socket, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, err
	}
	carry := &quic.Transport{Conn: socket, ConnectionIDGenerator: connectionIDs{}}
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	conn, err := carry.Dial(ctx, net.UDPAddrFromAddrPort(to), tlsFor(c, alpn), &quic.Config{
		EnableDatagrams: true, MaxIdleTimeout: 40 * time.Second, KeepAlivePeriod: 10 * time.Second, InitialPacketSize: 1200, DisablePathMTUDiscovery: true,
	})
	if err != nil {
		carry.Close()
		socket.Close()
		return nil, err
	}
	s.held.Add(1)
	r := &raw{conn: conn, socket: socket, carry: carry, since: time.Now()}
	context.AfterFunc(conn.Context(), func() {
		s.held.Add(-1)
		carry.Close()
		socket.Close()
	})
	return r, nil
}

func (r *raw) close(code uint64, reason string) {
	r.conn.CloseWithError(quic.ApplicationErrorCode(code), reason)
}

// hello is the first word of a member's session, and waits for the answer, which says that the certificate was accepted.
func (r *raw) hello(ctx context.Context, instance [8]byte) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	st, err := r.conn.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	st.SetDeadline(time.Now().Add(handshakeTime))
	if _, err := st.Write(append([]byte{5, 9, 1}, instance[:]...)); err != nil {
		return err
	}
	st.Close()
	answer := make([]byte, 11)
	_, err = io.ReadFull(st, answer)
	return err
}

// direct is a frame of a session to its far side.
func direct(p session.Proto, payload []byte) []byte { return append([]byte{1, byte(p)}, payload...) }

// envelope is one that the far side is to pass on.
func envelope(hops byte, to, from identity.NodeID, p session.Proto, payload []byte) []byte {
	return bytes.Join([][]byte{{2, hops}, to[:], from[:], {byte(p)}, payload}, nil)
}

// push sends a frame: as a datagram when it fits, else as a stream of its own.
func (r *raw) push(frame []byte) error {
	err := r.conn.SendDatagram(frame)
	if large := (*quic.DatagramTooLargeError)(nil); !errors.As(err, &large) {
		return err
	}
	st, err := r.conn.OpenUniStream()
	if err != nil {
		return err
	}
	st.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := st.Write(frame); err != nil {
		return err
	}
	return st.Close()
}

// open begins a stream.
func (r *raw) open(ctx context.Context, p session.Proto) (*quic.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	st, err := r.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	_, err = st.Write([]byte{1, byte(p)})
	return st, err
}

// syncFrame is one frame of a sync conversation.
func syncFrame(kind byte, payload []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(payload))), payload...)
}
