package identity

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

const (
	pemPrivateKey  = "PRIVATE KEY"
	pemCertificate = "CERTIFICATE"
)

// EncodePrivateKey returns the key as PEM of its PKCS #8 form (RFC 8410), which openssl reads.
func EncodePrivateKey(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der}), nil
}

// DecodePrivateKey is the reverse of EncodePrivateKey.
func DecodePrivateKey(data []byte) (ed25519.PrivateKey, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != pemPrivateKey || len(rest) > 0 {
		return nil, errors.New("decode private key: want one PEM block PRIVATE KEY")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("decode private key: %w", err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("decode private key: %T, want Ed25519", parsed)
	}
	return key, nil
}

// EncodeCerts returns certificates as PEM, in the order given.
func EncodeCerts(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, cert := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: cert.Raw})...)
	}
	return out
}

// DecodeCerts reads the certificates of a PEM file through ParseCert. It wants at least one and at most MaxChain.
func DecodeCerts(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != pemCertificate {
			return nil, fmt.Errorf("decode certificates: PEM block %s, want CERTIFICATE", block.Type)
		}
		cert, err := ParseCert(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("decode certificates: %w", err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 || len(certs) > MaxChain {
		return nil, fmt.Errorf("decode certificates: %d of them, want 1 to %d", len(certs), MaxChain)
	}
	return certs, nil
}
