package standing

import (
	"errors"
	"net/netip"
	"testing"
)

// TestLaterVersionsAreBorne drops messages of versions that are not known, without a word to whoever sent them.
func TestLaterVersionsAreBorne(t *testing.T) {
	for _, version := range []byte{0, 5, 9, 255} {
		raw := encode(message{version: versionTry, id: [12]byte{1}, addr: netip.MustParseAddrPort("203.0.113.1:9277")})
		raw[0] = version
		if m, err := decode(raw); !errors.Is(err, errMalformed) || m != (message{}) {
			t.Errorf("version %d: got %+v, %v, want it dropped", version, m, err)
		}
	}
}
