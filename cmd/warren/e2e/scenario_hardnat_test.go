//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestHardNATs connects homes behind symmetric NATs with homes that let only those in that they wrote to. Where ports
// follow each other, the path is direct; where they are random, relayed.
func TestHardNATs(t *testing.T) {
	const direct, relay = api.PathDirect, api.PathRelay
	tests := []struct {
		a, b  natlab.Kind
		want  string
		ports int // that b may punch
	}{
		{natlab.Sequential, natlab.EIMAPDF, direct, maxPunchedPorts},
		{natlab.SequentialByTwo, natlab.EIMAPDF, direct, maxPunchedPorts},
		{natlab.Sequential, natlab.DoubleNAT, direct, maxPunchedPorts},
		{natlab.Sequential, natlab.EIMADF, direct, maxPunchedPorts},
		{natlab.Symmetric, natlab.EIMADF, direct, 0},
		{natlab.Symmetric, natlab.EIMAPDF, relay, 0},
		// With one anchor b does not know that its own NAT maps by destination.
		{natlab.Sequential, natlab.Sequential, relay, maxPunchedPorts},
		{natlab.Sequential, natlab.Symmetric, relay, maxPunchedPorts},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s and %s", tt.a, tt.b), func(t *testing.T) {
			t.Parallel()
			bed := newBed(t, 2*time.Minute)
			homeA, homeB := bed.Router("home-a", tt.a), bed.Router("home-b", tt.b)
			founder, a, b := bed.node("founder", nil), bed.node("a", homeA), bed.node("b", homeB)
			homeB.CountUDP(homeA.Public())
			bed.must(Found(bed.ctx, "home", founder, a, b))
			bed.connected(a, b, tt.want)
			if tt.want == direct {
				p, err := b.WaitPath(bed.ctx, a, direct)
				bed.must(err)
				punched(t, homeB.CountedUDP(), p.Path.Address.Port(), tt.ports)
				return
			}
			bed.eventually("a second attempt has begun", func() bool {
				out, err := b.Warren(bed.ctx, "", "why", a.Name(), "--json")
				var told api.Why
				return err == nil && json.Unmarshal([]byte(out), &told) == nil && len(told.Attempts) >= 2
			})
			bed.connected(a, b, tt.want)
			punched(t, homeB.CountedUDP(), 0, tt.ports)
		})
	}
}

// What one attempt may send to predicted ports (mesh/PROTOCOL.md, section 15.2).
const (
	maxPunchedPorts   = 32
	maxPunchedPackets = 96
)

// punched asserts from a router's counters that hardly more was tried than ICE does, which sends to the one address that the
// peer knows of itself. path is the port of the path that came of it, if one did.
func punched(t *testing.T, counted map[uint16]int, path uint16, ports int) {
	t.Helper()
	delete(counted, path)
	told, packets := 0, 0
	for _, n := range counted {
		told = max(told, n)
		packets += n
	}
	t.Logf("sent to %d other ports, %d packets, of which ICE's %d", len(counted), packets, told)
	if len(counted) > 1+ports {
		t.Errorf("got %d ports sent to besides the path, want at most %d", len(counted), 1+ports)
	}
	if packets-told > maxPunchedPackets {
		t.Errorf("got %d packets to predicted ports, want at most %d", packets-told, maxPunchedPackets)
	}
}

// TestPredictionAmongOthers asserts that ports are predicted while another host of the home opens mappings all the time.
func TestPredictionAmongOthers(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	homeA := bed.Router("home-a", natlab.Sequential)
	founder, a, b := bed.node("founder", nil), bed.node("a", homeA), bed.node("b", bed.Router("home-b", natlab.EIMAPDF))
	other, err := bed.Host("other", homeA).ListenUDP(netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	bed.must(err)
	defer other.Close()
	go func() { // a hundred new mappings a second, until the socket is closed
		for port := uint16(20000); ; port++ {
			if _, err := other.WriteToUDPAddrPort([]byte("hello"), netip.AddrPortFrom(founder.Host.Addr4(), port)); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	bed.must(Found(bed.ctx, "home", founder, a, b))
	bed.connected(a, b, api.PathDirect)
}

// TestPredictedAgain asserts that a direct path through predicted ports comes back when either router loses its mappings.
func TestPredictedAgain(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	homeA, homeB := bed.Router("home-a", natlab.Sequential), bed.Router("home-b", natlab.EIMAPDF)
	founder, a, b := bed.node("founder", nil), bed.node("a", homeA), bed.node("b", homeB)
	bed.must(Found(bed.ctx, "home", founder, a, b))
	bed.connected(a, b, api.PathDirect)
	for _, event := range []struct {
		what string
		do   func()
	}{
		{"the router with sequential ports forgets", homeA.Flush},
		{"the other router gets another address", homeB.Rebind},
		{"the router with sequential ports gets another address", homeA.Rebind},
	} {
		p, err := b.WaitPath(bed.ctx, a, api.PathDirect)
		bed.must(err)
		bed.step("%s", event.what)
		event.do()
		bed.must(a.WaitPing(bed.ctx, b))
		bed.step("they reach each other")
		_, err = b.Wait(bed.ctx, "the path is another direct one", func(s api.Status) bool {
			now, ok := Peer(s, a.Name())
			return ok && now.Path.Kind == api.PathDirect && now.Path.Address != p.Path.Address
		})
		bed.must(err)
		bed.connected(a, b, api.PathDirect)
		bed.step("directly")
	}
}
