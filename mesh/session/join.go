package session

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"

	"warren/mesh/identity"
)

// JoinConn is the connection between a joiner, which has no certificate yet, and a member: one reliable stream inside
// TLS 1.3. Close lingers shortly so that what was written last still arrives.
type JoinConn interface {
	net.Conn
	// Export returns 32 bytes bound to this TLS connection and to label (RFC 8446, section 7.5), the same on both sides.
	Export(label string) ([]byte, error)
}

// DialJoin is written out below.
func DialJoin(ctx context.Context, conn net.PacketConn, addr netip.AddrPort, mesh identity.MeshID, pin [8]byte) (JoinConn, *x509.Certificate, []*x509.Certificate, error) {
	return nil, nil, nil, errors.ErrUnsupported
}
