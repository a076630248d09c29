package tunnel

import (
	"errors"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun/tuntest"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/identity"
	"warren/tunnel/bind"
	"warren/tunnel/osnet/osnettest"
	"warren/tunnel/sockets"
)

// node runs a tunnel for members.
func node(t *testing.T, name string, m Links) *side {
	t.Helper()
	channels := tuntest.NewChannelTUN()
	s := start(t, Options{TUN: named{channels.TUN(), name}, Links: m, Bind: bind.New(bind.Options{Inner: sockets.New()})})
	s.tun = channels
	return s
}

// peers sets them, and wants no error.
func (s *side) peers(t *testing.T, peers ...Peer) {
	t.Helper()
	if err := s.SetPeers(peers); err != nil {
		t.Fatal(err)
	}
}

// shook returns what LastHandshake says of a member, which must be what the device says.
func (s *side) shook(t *testing.T, id identity.NodeID, key wgtypes.Key) time.Time {
	t.Helper()
	got := s.LastHandshake(id)
	if want := s.handshake(t, key); !got.Equal(want) {
		t.Errorf("last handshake: got %v, want %v", got, want)
	}
	return got
}

func TestMembersInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	m := osnettest.New()
	a, b := node(t, "wa", m), node(t, "wb", m)
	toB := Peer{ID: id('b'), PublicKey: b.key, AllowedIPs: prefixes("10.0.0.2/32"), Controlling: true}
	toA := Peer{ID: id('a'), PublicKey: a.key, AllowedIPs: prefixes("10.0.0.1/32")}
	if err := a.SetPresharedKey(id('b'), key(7)); !errors.Is(err, ErrNoPeer) {
		t.Errorf("preshared key of nobody: got %v, want ErrNoPeer", err)
	}
	a.peers(t, toB)
	b.peers(t, toA)
	if got := a.shook(t, id('b'), b.key); !got.IsZero() || !a.LastHandshake(id('x')).IsZero() {
		t.Errorf("before the first handshake: got %v, want none", got)
	}

	// A way without a packet to send has a handshake all the same, and both know of it.
	b.SetWay(id('a'), Way{Addr: a.at(t)})
	a.SetWay(id('b'), Way{Addr: b.at(t)})
	wait(t, "handshake", func() bool { return !a.LastHandshake(id('b')).IsZero() && !b.LastHandshake(id('a')).IsZero() })
	first := a.shook(t, id('b'), b.key)
	carries(t, a, b, "10.0.0.1", "10.0.0.2")
	carries(t, b, a, "10.0.0.2", "10.0.0.1")

	// An agreed key holds over another SetPeers and over what others do, and lets no old one in.
	for _, s := range []struct {
		*side
		other identity.NodeID
		peer  Peer
	}{{a, id('b'), toB}, {b, id('a'), toA}} {
		for range 2 {
			if err := s.SetPresharedKey(s.other, key(7)); err != nil {
				t.Fatal(err)
			}
		}
		run(t, "wg", "set", s.Name(), "peer", s.peer.PublicKey.String(), "remove")
		s.peers(t, s.peer)
		if err := s.do(func(o *open) error { s.compare(o); return nil }); err != nil {
			t.Fatal(err)
		}
		if got := run(t, "wg", "show", s.Name(), "preshared-keys"); got != s.peer.PublicKey.String()+" "+key(7).String() {
			t.Errorf("%s: got %q, want the agreed key", s.Name(), got)
		}
	}
	a.Agreed(id('b'), [8]byte{1})
	wait(t, "handshake with the agreed key", func() bool { return a.LastHandshake(id('b')).After(first) })
	carries(t, a, b, "10.0.0.1", "10.0.0.2")

	membersRoam(t, a, b)
	membersRekey(t, m, a, b)
}

// membersRoam has b speak from another port: a follows it, says so, and goes back to the way that was chosen.
func membersRoam(t *testing.T, a, b *side) {
	t.Helper()
	old := b.at(t)
	if err := b.SetPort(0); err != nil {
		t.Fatal(err)
	}
	carries(t, b, a, "10.0.0.2", "10.0.0.1")
	a.tun.Outbound <- tuntest.Ping(netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1")) // lost or not
	roamed := func() bool {
		select {
		case e := <-a.Events():
			return e == (Event{Kind: Roamed, ID: id('b'), Addr: b.at(t)})
		default:
			return false
		}
	}
	wait(t, "roamed", roamed)
	if _, way := a.Activity(id('b')); way != b.at(t) {
		t.Errorf("roamed: got way %v, want %v", way, b.at(t))
	}
	wait(t, "recalled", func() bool { _, way := a.Activity(id('b')); return way == old })
	a.SetWay(id('b'), Way{Addr: b.at(t)})
	wait(t, "moved", func() bool { activity, way := a.Activity(id('b')); return way == b.at(t) && activity.TxPackets > 0 })
	for len(b.tun.Inbound) > 0 {
		<-b.tun.Inbound
	}
	carries(t, a, b, "10.0.0.1", "10.0.0.2")
}

// membersRekey has b's place taken by a node with another key: the way is kept, the preshared key is not.
func membersRekey(t *testing.T, m *osnettest.Machine, a, b *side) {
	t.Helper()
	at := b.at(t)
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	c := node(t, "wc", m)
	if err := c.SetPort(at.Port()); err != nil {
		t.Fatal(err)
	}
	c.peers(t, Peer{ID: id('a'), PublicKey: a.key, AllowedIPs: prefixes("10.0.0.1/32")})
	a.peers(t, Peer{ID: id('b'), PublicKey: c.key, AllowedIPs: prefixes("10.0.0.2/32"), Controlling: true})
	wait(t, "handshake with the new key", func() bool { return !a.LastHandshake(id('b')).IsZero() })
	a.shook(t, id('b'), c.key)
	if got, want := run(t, "wg", "show", "wa", "preshared-keys"), c.key.String()+" (none)"; got != want {
		t.Errorf("got preshared keys %q, want %q", got, want)
	}
	carries(t, a, c, "10.0.0.1", "10.0.0.2")
	a.peers(t)
	if _, way := a.Activity(id('b')); way.IsValid() {
		t.Errorf("without members: got way %v, want none", way)
	}
	if out, err := exec.Command("wg", "show", "wa", "peers").Output(); err != nil || len(out) != 0 {
		t.Errorf("without members: got peers %q, %v, want none", out, err)
	}
}

// TestPlainSocketsHaveNoMembersInNamespace sets a member where there are no endpoints for it.
func TestPlainSocketsHaveNoMembersInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	a := inMemory(t, "wa", osnettest.New())
	if err := a.SetPeers([]Peer{{ID: id('b'), PublicKey: key('b')}, {PublicKey: key('c')}}); err == nil {
		t.Error("got no error")
	}
	if got := run(t, "wg", "show", "wa", "peers"); got != key('c').String() {
		t.Errorf("got peers %q, want the static one", got)
	}
}
