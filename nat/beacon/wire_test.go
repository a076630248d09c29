package beacon

import (
	"bytes"
	"crypto/rand"
	"errors"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"warren/mesh/identity"
)

var (
	testMesh = identity.MeshID{7}
	testKey  = MemberKey(testMesh, [16]byte{1})
	testTime = time.UnixMilli(1767225600123)
)

func testMessages() []message {
	return []message{
		{kind: kindAsk, at: testTime, id: identity.NodeID{1}, port: 9277, addrs: []netip.Addr{netip.MustParseAddr("192.168.1.2"), netip.MustParseAddr("fd00::2")}},
		{kind: kindTell, at: testTime, id: identity.NodeID{2}, port: 1, addrs: []netip.Addr{
			netip.MustParseAddr("169.254.3.4"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"),
		}},
		{kind: kindSeek, at: testTime},
		{kind: kindHere, at: testTime, echo: echo{9}, port: 65535, addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
	}
}

func randomNonce() (n [nonceSize]byte) { rand.Read(n[:]); return n }

func TestEveryBeaconHasOneSizeAndIsReadByItsKeyAlone(t *testing.T) {
	for _, want := range testMessages() {
		raw := want.seal(testKey, randomNonce())
		if len(raw) != Size {
			t.Errorf("got %d bytes, want %d: an answer must not be larger than what asked for it", len(raw), Size)
		}
		plain, ok := testKey.open(raw)
		if !ok {
			t.Fatal("not readable under its own key")
		}
		got, err := parse(plain)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		for name, other := range map[string]Key{
			"another secret": MemberKey(testMesh, [16]byte{2}), "another mesh": MemberKey(identity.MeshID{8}, [16]byte{1}),
			"an invite": InviteKey(testMesh, identity.KeyID{1}),
		} {
			if _, ok := other.open(raw); ok {
				t.Errorf("readable under the key of %s", name)
			}
		}
		for i := range raw {
			bad := bytes.Clone(raw)
			bad[i] ^= 1
			if _, ok := testKey.open(bad); ok {
				t.Errorf("byte %d changed, and still accepted", i)
			}
		}
	}
}

// A stranger compares packets: of the same message sealed 64 times no byte may stand still, and no packet repeat.
func TestNothingStandsStillAcrossBeacons(t *testing.T) {
	msg := testMessages()[0]
	const count = 64
	first := msg.seal(testKey, randomNonce())
	var moved [Size]bool
	for range count {
		// As after a restart, the key is derived afresh.
		raw := msg.seal(MemberKey(testMesh, [16]byte{1}), randomNonce())
		for i := range raw {
			moved[i] = moved[i] || raw[i] != first[i]
		}
	}
	for i, ok := range moved {
		if !ok { // by chance: once in 256^64
			t.Errorf("byte %d is the same in %d beacons", i, count+1)
		}
	}
}

func TestParseIsStrict(t *testing.T) {
	good := func() [plainSize]byte {
		plain, _ := testKey.open(testMessages()[0].seal(testKey, randomNonce()))
		return plain
	}
	for name, change := range map[string]func(*[plainSize]byte){
		"version":          func(p *[plainSize]byte) { p[0] = 2 },
		"kind 0":           func(p *[plainSize]byte) { p[1] = 0 },
		"kind 5":           func(p *[plainSize]byte) { p[1] = 5 },
		"echo in an ask":   func(p *[plainSize]byte) { p[10] = 1 },
		"no node ID":       func(p *[plainSize]byte) { clear(p[26:58]) },
		"no port":          func(p *[plainSize]byte) { clear(p[58:60]) },
		"five addresses":   func(p *[plainSize]byte) { p[60] = 5 },
		"hidden address":   func(p *[plainSize]byte) { p[60] = 1 },
		"empty address":    func(p *[plainSize]byte) { p[60] = 3 },
		"after the end":    func(p *[plainSize]byte) { p[127] = 1 },
		"loopback":         func(p *[plainSize]byte) { p[addrsAt+12] = 127 },
		"multicast":        func(p *[plainSize]byte) { p[addrsAt+12] = 239 },
		"link-local IPv6":  func(p *[plainSize]byte) { p[addrsAt+16], p[addrsAt+17] = 0xfe, 0x80 },
		"seek with a port": func(p *[plainSize]byte) { clear(p[26:58]); p[1] = byte(kindSeek) },
	} {
		plain := good()
		change(&plain)
		if got, err := parse(plain); !errors.Is(err, errMalformed) {
			t.Errorf("%s: got %+v, %v, want it refused", name, got, err)
		}
	}
}

// FuzzParse reads what a member, or who holds an invite, may have sealed.
func FuzzParse(f *testing.F) {
	for _, m := range testMessages() {
		plain, _ := testKey.open(m.seal(testKey, randomNonce()))
		f.Add(plain[:])
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var plain [plainSize]byte
		copy(plain[:], text)
		m, err := parse(plain)
		if err != nil {
			if !errors.Is(err, errMalformed) {
				t.Fatalf("error of no class: %v", err)
			}
			return
		}
		again, ok := testKey.open(m.seal(testKey, randomNonce()))
		if !ok || again != plain {
			t.Fatalf("%+v has two forms", m)
		}
	})
}

// FuzzReceive gives a machine what a stranger sends.
func FuzzReceive(f *testing.F) {
	for _, m := range testMessages() {
		f.Add(m.seal(testKey, randomNonce()), true)
		plain, _ := testKey.open(m.seal(testKey, randomNonce()))
		f.Add(plain[:], false)
	}
	link := Link{Index: 1, Name: "eth0", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.1.7/24")}}
	f.Fuzz(func(t *testing.T, raw []byte, sealed bool) {
		m := NewMachine(identity.NodeID{3}, systemRand())
		m.Set(State{Links: []Link{link}, Members: []Key{testKey}, Port: 9277})
		if !sealed { // as a member could have sealed it
			var plain [plainSize]byte
			copy(plain[:], raw)
			nonce := randomNonce()
			raw = testKey.aead.Seal(nonce[:], nonce[:], plain[:], nil)
		}
		m.Receive(testTime, Packet{Link: 1, From: netip.MustParseAddrPort("192.168.1.9:5000"), Raw: raw})
		out, _ := m.Step(testTime.Add(time.Minute))
		for _, s := range out {
			if len(s.Raw) != Size {
				t.Fatalf("sent %d bytes", len(s.Raw))
			}
		}
	})
}
