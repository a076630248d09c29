package place

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"warren/mesh/identity"
)

// A start tries the eight members that were used last, where they were met last; a list that is damaged is begun anew.
func TestPathsThatAreTried(t *testing.T) {
	_, m := created(t)
	s, err := Load(m.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	p := OpenPaths(s, func(id identity.NodeID) time.Time { return now.Add(time.Duration(id[0]) * time.Hour) }, nil)
	for i := range 20 {
		p.Keep(identity.NodeID{byte(i + 1)}, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 9277), 0)
	}
	moved := netip.MustParseAddrPort("198.51.100.1:9277")
	p.Keep(identity.NodeID{20}, moved, time.Second)
	p.Forget(identity.NodeID{19})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	got := OpenPaths(s, func(identity.NodeID) time.Time { return time.Time{} }, nil).Lately()
	if len(got) != triedPaths || got[identity.NodeID{20}] != moved {
		t.Errorf("got %v, want the %d that were used last", got, triedPaths)
	}
	for _, no := range []byte{19, 11, 1} {
		if addr, there := got[identity.NodeID{no}]; there {
			t.Errorf("got number %d at %v, want it left out", no, addr)
		}
	}
	if err := p.write([]byte("[{")); err != nil {
		t.Fatal(err)
	}
	if got := OpenPaths(s, nil, nil).Lately(); len(got) != 0 {
		t.Errorf("got %v out of a damaged list, want nothing", got)
	}
}
