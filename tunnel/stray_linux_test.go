package tunnel

import (
	"net"
	"net/netip"
	"testing"

	"warren/mesh/identity"
	"warren/tunnel/bind"
	"warren/tunnel/osnet/osnettest"
)

// TestHeardByAStreamThatEndsInNamespace has a member speak by a stream that nobody has chosen, and that ends: it is spoken to by its own endpoint
// after that. The device has roamed to the stream, and would send into nothing for ever.
func TestHeardByAStreamThatEndsInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	m := osnettest.New()
	a, b := node(t, "wa", m), node(t, "wb", m)
	a.peers(t, Peer{ID: id('b'), PublicKey: b.key, AllowedIPs: prefixes("10.0.0.2/32")})
	b.peers(t, Peer{ID: id('a'), PublicKey: a.key, AllowedIPs: prefixes("10.0.0.1/32"), Controlling: true})
	near, far := net.Pipe()
	atA, atB := a.attach(t, near), b.attach(t, far)
	b.SetWay(id('a'), Way{Addr: atB})
	wait(t, "handshake by the stream", func() bool { return !b.LastHandshake(id('a')).IsZero() })
	a.opts.Bind.(*bind.Bind).Streams().Detach(atA)

	handle := (*a.ways.members.Load())[id('b')].endpoint.Handle()
	wait(t, "own endpoint", func() bool { return a.sendsTo(t, id('b')) == handle })
	a.SetWay(id('b'), Way{Addr: b.at(t)})
	wait(t, "the way", func() bool { return a.sendsTo(t, id('b')) == b.at(t) })
	b.SetWay(id('a'), Way{Addr: a.at(t)})
	carries(t, a, b, "10.0.0.1", "10.0.0.2")
}

// attach gives a tunnel one end of a stream, and returns its virtual address there.
func (s *side) attach(t *testing.T, c net.Conn) netip.AddrPort {
	t.Helper()
	virtual, _, err := s.opts.Bind.(*bind.Bind).Streams().Attach(c, bind.StreamOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return virtual
}

// sendsTo is where the device sends what is for a member.
func (s *side) sendsTo(t *testing.T, to identity.NodeID) netip.AddrPort {
	t.Helper()
	all, err := attached{s.Tunnel}.Endpoints()
	if err != nil {
		t.Fatal(err)
	}
	return all[s.ways.member(to).key]
}
