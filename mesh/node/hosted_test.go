package node

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
)

func TestAddressesOutliveAFailedLook(t *testing.T) {
	var now []netip.Addr
	var failure error
	var said []error
	h := &hosted{look: func() ([]netip.Addr, error) { return now, failure }, say: func(err error) { said = append(said, err) }}
	before, after := []netip.Addr{netip.MustParseAddr("203.0.113.1")}, []netip.Addr{netip.MustParseAddr("203.0.113.2")}
	now = before
	h.addresses()
	now, failure = nil, errors.New("interrupted")
	for range 3 {
		if got := h.addresses(); !slices.Equal(got, before) {
			t.Fatalf("got %v while the system cannot be asked, want %v", got, before)
		}
	}
	now, failure = after, nil
	if got := h.addresses(); !slices.Equal(got, after) {
		t.Errorf("got %v, want %v", got, after)
	}
	now = nil
	if got := h.addresses(); len(got) != 0 {
		t.Errorf("got %v on a host without addresses, want none", got)
	}
	if len(said) != 2 || said[0] == nil || said[1] != nil {
		t.Errorf("got told %v, want the failure once and its end", said)
	}
}
