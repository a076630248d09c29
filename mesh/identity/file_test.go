package identity

import (
	"bytes"
	"testing"
)

func TestPEM(t *testing.T) {
	key := testKey("a")
	encoded, err := EncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodePrivateKey(encoded); err != nil || !got.Equal(key) {
		t.Errorf("got %v, want the key", err)
	}
	c := newChain(t)
	certs, err := DecodeCerts(EncodeCerts(c.founder.Cert, c.root.Cert))
	if err != nil || len(certs) != 2 || !certs[0].Equal(c.founder.Cert) || !certs[1].Equal(c.root.Cert) {
		t.Errorf("got %d certificates, %v", len(certs), err)
	}
	for _, bad := range [][]byte{nil, []byte("x"), EncodeCerts(c.root.Cert), append(bytes.Clone(encoded), encoded...), encoded[:50]} {
		if _, err := DecodePrivateKey(bad); err == nil {
			t.Errorf("private key %.30q: no error", bad)
		}
	}
	for _, bad := range [][]byte{nil, encoded, []byte("x")} {
		if _, err := DecodeCerts(bad); err == nil {
			t.Errorf("certificates %.30q: no error", bad)
		}
	}
}
