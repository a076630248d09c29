package session

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"

	"warren/mesh/identity"
)

const (
	alpnMember = "warren/1"
	alpnJoin   = "warren-join/1"

	idleTimeout      = 40 * time.Second
	keepAlive        = 15 * time.Second // NAT mappings of UDP live 30 s at the least (RFC 4787 asks for two minutes)
	handshakeTimeout = 4 * time.Second
)

var (
	errNoCertificate = errors.New("no certificate")
	errOtherNode     = errors.New("another node answers at this address")
)

// quicConfig returns the settings of a connection. The first windows are small because they are granted to strangers;
// they grow when a reader keeps up.
func quicConfig() *quic.Config {
	return &quic.Config{
		Versions:                       []quic.Version{quic.Version1},
		HandshakeIdleTimeout:           handshakeTimeout,
		MaxIdleTimeout:                 idleTimeout,
		KeepAlivePeriod:                keepAlive,
		InitialStreamReceiveWindow:     64 << 10,
		MaxStreamReceiveWindow:         1 << 20,
		InitialConnectionReceiveWindow: 128 << 10,
		MaxConnectionReceiveWindow:     4 << 20,
		MaxIncomingStreams:             maxStreams,
		MaxIncomingUniStreams:          maxUniStreams,
		InitialPacketSize:              1200, // fits a path of 1,280 bytes, the smallest that IPv6 allows
		DisablePathMTUDiscovery:        true, // the shared socket does not set the Don't Fragment bit
		EnableDatagrams:                true,
	}
}

// serverTLS returns the configuration for accepted connections. A member's chain is not verified here but right after the
// handshake (reception.member): only then can a refused node be told why. Until then it can do nothing but say hello.
func serverTLS(members Members, joins bool) *tls.Config {
	config := func(alpn string, auth tls.ClientAuthType) *tls.Config {
		return &tls.Config{
			MinVersion:             tls.VersionTLS13,
			NextProtos:             []string{alpn},
			ClientAuth:             auth,
			SessionTicketsDisabled: true, // a resumed session would skip the verification
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				cert := members.Credential()
				return &cert, nil
			},
		}
	}
	member, join := config(alpnMember, tls.RequireAnyClientCert), config(alpnJoin, tls.NoClientCert)
	outer := config(alpnMember, tls.RequireAnyClientCert)
	outer.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if joins && len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == alpnJoin {
			return join, nil
		}
		return member, nil
	}
	return outer
}

// dialTLS returns the configuration for dialling the node want. When that node proves to be itself but its chain is
// refused, refused is called and the handshake goes on, so that it can be told; towards anyone else the handshake ends,
// before our own certificate is shown.
func dialTLS(members Members, want identity.NodeID, refused func(error)) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{alpnMember},
		InsecureSkipVerify: true, // names mean nothing here: VerifyConnection checks the chain and the key
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert := members.Credential()
			return &cert, nil
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			leaf, err := leafID(state.PeerCertificates)
			if err != nil {
				return err
			}
			if leaf != want {
				return fmt.Errorf("%w: %s", errOtherNode, leaf.Short())
			}
			if id, err := members.Verify(state.PeerCertificates); err != nil {
				refused(err)
			} else if id != want {
				return fmt.Errorf("%w: %s", errOtherNode, id.Short())
			}
			return nil
		},
	}
}

// leafID returns the node ID of the key that a chain is presented for.
func leafID(chain []*x509.Certificate) (identity.NodeID, error) {
	if len(chain) == 0 {
		return identity.NodeID{}, errNoCertificate
	}
	key, ok := chain[0].PublicKey.(ed25519.PublicKey)
	if !ok {
		return identity.NodeID{}, fmt.Errorf("read certificate: key is not Ed25519")
	}
	return identity.NodeIDOf(key), nil
}

// refusalOf returns what a node is told whose chain was refused with err.
func refusalOf(err error) Refusal {
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		return *refusal
	}
	return Refusal{Code: CodeRefused, Reason: err.Error()}
}

// resetKey derives the key of stateless resets (RFC 9000, section 10.3) from the node's key, so that a restarted
// process can end the sessions of the one before. Ed25519 signatures are deterministic, and this one is never shown.
func resetKey(cert tls.Certificate) (*quic.StatelessResetKey, error) {
	key, ok := cert.PrivateKey.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("read credential: key is not Ed25519")
	}
	derived := quic.StatelessResetKey(sha256.Sum256(ed25519.Sign(key, []byte("warren stateless reset key v1"))))
	return &derived, nil
}
