package session

import (
	"bytes"
	"errors"
	"testing"
)

// TestLaterVersionsAreBorne reads what a later version may say: a hello that says more, and frames of kinds that are not known, which are dropped.
func TestLaterVersionsAreBorne(t *testing.T) {
	want := instance{1, 2, 3}
	for _, version := range []byte{1, 2, 255} {
		for _, more := range []int{0, 1, 255 - helloSize} {
			b := append([]byte{frameHello, byte(helloSize + more), version}, want[:]...)
			r := bytes.NewReader(append(append(b, make([]byte, more)...), frameDirect, 7))
			got, err := readHello(r)
			if err != nil || got != want {
				t.Errorf("hello of version %d with %d bytes more: got %v, %v", version, more, got, err)
			}
			if r.Len() != 2 {
				t.Errorf("hello of version %d with %d bytes more: %d bytes are left, want the 2 after it", version, more, r.Len())
			}
		}
	}
	for _, kind := range []byte{0, 7, 9, 255} {
		if _, _, err := parseFrame(append([]byte{kind}, make([]byte, 100)...)); !errors.Is(err, errMalformed) {
			t.Errorf("frame of kind %d: got %v, want it dropped as malformed", kind, err)
		}
	}
}
