package tunnel

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"warren/tunnel/osnet/osnettest"
)

// TestSwapsKeepNothingInNamespace replaces all peers of a device again and again. Of those that are gone no goroutine is left, and, once it
// is collected, no memory.
func TestSwapsKeepNothingInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	a := inMemory(t, "wa", osnettest.New())
	swap := func(round int) {
		t.Helper()
		peers := make([]Peer, 40)
		for i := range peers {
			k := key(byte(i))
			k[1], k[2] = byte(round), 77
			peers[i] = Peer{PublicKey: k, AllowedIPs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(round), byte(i)}), 32)},
				Endpoint: netip.MustParseAddrPort("127.0.0.1:9"), Keepalive: 25 * time.Second}
		}
		if err := a.SetPeers(peers); err != nil {
			t.Fatal(err)
		}
	}
	left := func() (heap uint64, goroutines int) {
		collect()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc, runtime.NumGoroutine()
	}
	swap(0)
	heap, goroutines := left()
	for round := range 6 {
		swap(1 + round)
	}
	wait(t, "what was there before", func() bool {
		heap2, goroutines2 := left()
		t.Logf("first %d KiB and %d goroutines, after 6 swaps %d KiB and %d", heap>>10, goroutines, heap2>>10, goroutines2)
		return heap2 < heap+heap/4 && goroutines2 <= goroutines+2
	})
}
