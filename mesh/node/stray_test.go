package node

import (
	"net/netip"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/nat"
	"warren/tunnel/bind"
	"warren/tunnel/sockets"
)

// TestStrayIsRecalled has a peer's packets follow it to an address that nat did not choose, and come back to nat's path when that
// is still there later: else they would go astray for as long as nat sees nothing wrong.
func TestStrayIsRecalled(t *testing.T) {
	socket := bind.New(bind.Options{Inner: sockets.New()})
	chosen, stray := netip.MustParseAddrPort("192.0.2.1:9277"), netip.MustParseAddrPort("192.0.2.9:9277")
	began := time.Unix(1000, 0)
	p := &peer{endpoint: socket.Endpoint(wgtypes.Key{1}), path: nat.Path{Addr: chosen, Kind: nat.Direct}, strayed: began}
	p.endpoint.SetPath(stray)
	if strays := p.recall(began.Add(strayFor - 1)); !strays || p.endpoint.Path() != stray {
		t.Errorf("got %v and path %v at first, want it to stray to %v", strays, p.endpoint.Path(), stray)
	}
	if strays := p.recall(began.Add(strayFor)); strays || p.endpoint.Path() != chosen {
		t.Errorf("got %v and path %v later, want %v", strays, p.endpoint.Path(), chosen)
	}
}
