package identity

import (
	"bytes"
	"os"
	"path/filepath"
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

func TestWriteFileAtomic(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	for _, content := range []string{"one", "another, longer"} {
		if err := WriteFileAtomic(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Errorf("got %q, %v, want %q", got, err, content)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", info.Mode(), err)
	}
	if err := WriteFileAtomic(filepath.Join(dir, "none", "key"), nil, 0o600); err == nil {
		t.Error("no error for a directory that is not there")
	}
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFileAtomic(filepath.Join(dir, "taken"), nil, 0o600); err == nil {
		t.Error("no error for a path that is a directory")
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
