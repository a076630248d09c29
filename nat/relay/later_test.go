package relay

import (
	"bytes"
	"testing"

	"warren/mesh/identity"
)

// TestLaterVersionsAreBorne refuses a request of a later version in so many words, and takes an answer that is not known for a refusal.
func TestLaterVersionsAreBorne(t *testing.T) {
	request := append([]byte{version + 1}, make([]byte, 32+20)...)
	if peer, s, err := readRequest(bytes.NewReader(request)); err != nil || s != refusedVersion || peer != (identity.NodeID{}) {
		t.Errorf("a request of a later version: got %v, %v, %v, want it refused for its version", peer.Short(), s, err)
	}
	for code := range 256 {
		channel, err := readReply(bytes.NewReader([]byte{byte(code), 0x40, 0x01}))
		if (status(code) == granted) != (err == nil) || err != nil && channel != 0 {
			t.Errorf("answer %d: got channel %#x, %v", code, channel, err)
		}
	}
}
