package tunnel

import (
	"reflect"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.zx2c4.com/wireguard/tai64n"

	"warren/tunnel/osnet/osnettest"
)

// lastFrom has a device believe that the last handshake of a peer came at a time, as if the peer's clock had been there.
func lastFrom(t *testing.T, s *side, m *side, at time.Time) {
	t.Helper()
	peer := attached{s.Tunnel}.lookup(m.key)
	if peer == nil {
		t.Fatal("no such peer")
	}
	handshake := reflect.ValueOf(peer).Elem().FieldByName("handshake")
	mutex := (*sync.RWMutex)(handshake.FieldByName("mutex").Addr().UnsafePointer())
	last := (*tai64n.Timestamp)(unsafe.Pointer(handshake.FieldByName("lastTimestamp").UnsafeAddr()))
	mutex.Lock()
	defer mutex.Unlock()
	*last = stamp(at)
}

// stamp is a time as a handshake has it: TAI64N, big endian.
func stamp(at time.Time) (out tai64n.Timestamp) {
	seconds := uint64(0x400000000000000a) + uint64(at.Unix())
	for i := range 8 {
		out[i] = byte(seconds >> (56 - 8*i))
	}
	return out
}

// A member that restarts with an earlier clock is refused its handshakes until it is told of as another process.
func TestEarlierClockInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	m := osnettest.New()
	a, b := node(t, "wa", m), node(t, "wb", m)
	a.peers(t, Peer{ID: id('b'), PublicKey: b.key, AllowedIPs: prefixes("10.0.0.2/32"), Controlling: true})
	b.peers(t, Peer{ID: id('a'), PublicKey: a.key, AllowedIPs: prefixes("10.0.0.1/32")})
	psk := [32]byte(key(9))
	for _, err := range []error{a.SetPresharedKey(id('b'), psk), b.SetPresharedKey(id('a'), psk)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	lastFrom(t, b, a, time.Now().Add(4*time.Minute))
	b.SetWay(id('a'), Way{Addr: a.at(t)})
	a.SetWay(id('b'), Way{Addr: b.at(t)})
	time.Sleep(2 * handshakeRetry) // time for two
	if at := a.LastHandshake(id('b')); !at.IsZero() {
		t.Fatalf("got a handshake at %s, which WireGuard has to refuse as old", at)
	}
	b.Anew(id('x')) // unknown: ignored
	b.Anew(id('a'))
	wait(t, "handshake", func() bool { return !a.LastHandshake(id('b')).IsZero() })
	carries(t, a, b, "10.0.0.1", "10.0.0.2")
	carries(t, b, a, "10.0.0.2", "10.0.0.1")
}
