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

// TestKeyOfAnotherInNamespace has others name the key of a member that is up: what it has stays, whoever comes and goes; and what
// goes over to another is nothing.
func TestKeyOfAnotherInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	m := osnettest.New()
	a, v := node(t, "wa", m), node(t, "wv", m)
	victim := Peer{ID: id('v'), PublicKey: v.key, AllowedIPs: prefixes("10.0.0.2/32"), Controlling: true}
	thief := Peer{ID: id('t'), PublicKey: v.key, AllowedIPs: prefixes("10.0.0.66/32"), Controlling: true}
	static := Peer{PublicKey: v.key, AllowedIPs: prefixes("10.0.0.2/32"), PresharedKey: key(9), Endpoint: v.at(t)}
	toA := Peer{ID: id('a'), PublicKey: a.key, AllowedIPs: prefixes("10.0.0.1/32")}
	v.peers(t, toA)
	v.SetWay(id('a'), Way{Addr: a.at(t)})
	up := func(psk byte) {
		t.Helper()
		if err := errors.Join(v.SetPresharedKey(id('a'), key(psk)), a.SetPresharedKey(id('v'), key(psk))); err != nil {
			t.Fatal(err)
		}
		a.SetWay(id('v'), Way{Addr: v.at(t), Restarted: true})
		wait(t, "handshake", func() bool { return !a.LastHandshake(id('v')).IsZero() })
		carries(t, a, v, "10.0.0.1", "10.0.0.2")
	}
	device := func() string {
		t.Helper()
		return run(t, "wg", "show", "wa", "preshared-keys") + run(t, "wg", "show", "wa", "allowed-ips") + run(t, "wg", "show", "wa", "latest-handshakes")
	}
	conflict := func(peers ...Peer) {
		t.Helper()
		if err := a.SetPeers(peers); !errors.Is(err, ErrConflict) {
			t.Errorf("got %v, want ErrConflict", err)
		}
	}
	a.peers(t, victim)
	up(7)

	// A thief comes, is spoken of, and is put out.
	before, shook, endpoint := device(), a.LastHandshake(id('v')), a.ways.member(id('v')).endpoint
	conflict(victim, thief)
	if err := a.SetPresharedKey(id('t'), key(8)); !errors.Is(err, ErrNoPeer) {
		t.Errorf("preshared key of the thief: got %v, want ErrNoPeer", err)
	}
	a.SetWay(id('t'), Way{Addr: netip.MustParseAddrPort("127.0.0.1:9")})
	a.Agreed(id('t'), [8]byte{1})
	conflict(victim, thief)
	if stats, err := a.Snapshot(); err != nil || len(stats) != 1 || stats[v.key].ID != id('v') || !a.LastHandshake(id('t')).IsZero() {
		t.Errorf("got %+v, %v, want the key to be the victim's", stats, err)
	}
	a.peers(t, victim)
	if got := device(); got != before || !a.LastHandshake(id('v')).Equal(shook) {
		t.Errorf("got %q, want it as it was: %q", got, before)
	}
	if now := a.ways.member(id('v')).endpoint; now != endpoint || now.Path() != v.at(t) {
		t.Errorf("got another endpoint, or path %v", now.Path())
	}
	carries(t, a, v, "10.0.0.1", "10.0.0.2")
	carries(t, v, a, "10.0.0.2", "10.0.0.1")

	// The key goes over to the thief, and back. Neither has anything of the other.
	conflict(thief, victim)
	if got, want := run(t, "wg", "show", "wa", "preshared-keys")+run(t, "wg", "show", "wa", "allowed-ips"), v.key.String()+" (none)"+v.key.String()+" 10.0.0.66/32"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !a.LastHandshake(id('t')).IsZero() || !a.LastHandshake(id('v')).IsZero() || !endpoint.Removed() {
		t.Error("a handshake or the endpoint of the victim is left")
	}
	a.peers(t, victim)
	if !a.LastHandshake(id('v')).IsZero() {
		t.Error("got a handshake of the thief's for the victim's")
	}
	up(6)

	// A static peer has its key before any member, wherever it stands in the list. Nothing that still runs for the member touches it.
	old := a.ways.member(id('v'))
	conflict(victim, static)
	if err := a.SetPresharedKey(id('v'), key(5)); !errors.Is(err, ErrNoPeer) {
		t.Errorf("preshared key of the member: got %v, want ErrNoPeer", err)
	}
	attached{a.Tunnel}.SetEndpoint(old)
	attached{a.Tunnel}.Initiate(old, true)
	attached{a.Tunnel}.SetPath(old, path{Addr: home})
	stats, err := a.Snapshot()
	if s := stats[v.key]; err != nil || !s.ID.IsZero() || s.Endpoint != v.at(t) || !s.LastHandshake.IsZero() {
		t.Errorf("got %+v, %v, want the static peer alone", s, err)
	}
	if got, want := run(t, "wg", "show", "wa", "preshared-keys"), v.key.String()+" "+key(9).String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := v.SetPresharedKey(id('a'), key(9)); err != nil {
		t.Fatal(err)
	}
	carries(t, a, v, "10.0.0.1", "10.0.0.2")
	a.peers(t, victim)
	up(4)
}
