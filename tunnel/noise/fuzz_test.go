package noise

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"
)

// fuzzed returns two nodes with a session between them and a handshake of node 0 under way, and one message of each type for node
// 1, save the last, a cookie for node 0.
func fuzzed(t testing.TB) (s *sim, messages map[Type][]byte) {
	s = newSimWith(t, 1, toy)
	a, b := s.nodes[0], s.nodes[1]
	a.send()
	s.run(time.Second)
	messages = map[Type][]byte{}
	messages[Transport], _ = a.p.Seal(nil, make([]byte, 48), s.now)
	messages[Initiation] = a.p.Carry(a.moment())
	_, acts := b.m.Receive(b2(messages[Initiation]), source, true, b.moment(), nil)
	messages[Cookie] = acts[0].Packet
	crossed := b.p.Carry(b.moment())
	_, acts = a.m.Receive(crossed, noSource, false, a.moment(), nil)
	messages[Response] = acts[0].Packet
	s.run(2 * time.Second) // the load is over
	return s, messages
}

func b2(b []byte) []byte { return bytes.Clone(b) }

// FuzzReceive: whatever comes, nothing panics, nothing but the very messages is taken, and what is answered is a message.
func FuzzReceive(f *testing.F) {
	_, messages := fuzzed(f)
	for _, msg := range messages {
		f.Add(msg, false)
		f.Add(msg, true)
		f.Add(msg[:len(msg)-1], false)
	}
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, msg []byte, load bool) {
		s, messages := fuzzed(t)
		was := b2(msg)
		for _, n := range s.nodes {
			r, acts := n.m.Receive(msg, source, load, n.moment(), nil)
			if !bytes.Equal(msg, was) {
				t.Fatal("the message was changed")
			}
			if r.Peer != nil && !bytes.Equal(msg, messages[Initiation]) && !bytes.Equal(msg, messages[Response]) {
				// The second MAC is looked at under load only.
				end := len(msg) - 16
				if load || !bytes.Equal(msg[:end], messages[r.Type][:end]) {
					t.Fatalf("a message of type %d was taken that nobody made", r.Type)
				}
			}
			if (r.Peer != nil) != (r.Drop == Kept && r.Type != Cookie) {
				t.Fatalf("got %+v", r)
			}
			for _, a := range acts {
				if a.Packet != nil && TypeOf(a.Packet) == None {
					t.Fatalf("answered with %x", a.Packet)
				}
			}
		}
	})
}

// FuzzInitiation changes an initiation and makes its first MAC good again, so that what is behind it is reached.
func FuzzInitiation(f *testing.F) {
	_, messages := fuzzed(f)
	f.Add(messages[Initiation][:stampEnd])
	f.Add(bytes.Repeat([]byte{0}, stampEnd))
	f.Fuzz(func(t *testing.T, body []byte) {
		s, messages := fuzzed(t)
		b := s.nodes[1]
		msg := make([]byte, InitiationSize)
		copy(msg[:stampEnd], body)
		binary.LittleEndian.PutUint32(msg, uint32(Initiation))
		var m macs
		m.init(b.m.Public())
		m.add(msg, b.m.Public(), s.now)
		r, acts := b.m.Receive(msg, source, false, b.moment(), nil)
		// the sender's index is not sealed
		if honest := bytes.Equal(msg[noiseInitiated:stampEnd], messages[Initiation][noiseInitiated:stampEnd]); honest != (r.Peer != nil) {
			t.Fatalf("honest %v, got %v", honest, r.Drop)
		}
		if r.Peer == nil && len(acts) > 0 {
			t.Fatal("a message that was dropped was answered")
		}
	})
}

// FuzzResponse does so with a response. One that is dropped leaves the handshake as it was.
func FuzzResponse(f *testing.F) {
	_, messages := fuzzed(f)
	f.Add(messages[Response][noiseResponded : ResponseSize-macsSize])
	f.Add(make([]byte, 48)) // a point of low order
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, body []byte) {
		s, messages := fuzzed(t)
		b := s.nodes[1]
		msg := make([]byte, ResponseSize)
		copy(msg[:noiseResponded], messages[Response])
		copy(msg[noiseResponded:ResponseSize-macsSize], body)
		var m macs
		m.init(b.m.Public())
		m.add(msg, b.m.Public(), s.now)
		r, _ := b.m.Receive(msg, source, false, b.moment(), nil)
		honest := bytes.Equal(msg[:ResponseSize-macsSize], messages[Response][:ResponseSize-macsSize])
		if honest != (r.Peer != nil) {
			t.Fatalf("honest %v, got %v", honest, r.Drop)
		}
		if !honest {
			if r, _ := b.m.Receive(messages[Response], source, false, b.moment(), nil); r.Peer == nil {
				t.Fatalf("the response itself was dropped after a forged one: %v", r.Drop)
			}
		}
	})
}

// FuzzCookie: only the very cookie is taken.
func FuzzCookie(f *testing.F) {
	_, messages := fuzzed(f)
	f.Add(messages[Cookie])
	f.Add(make([]byte, CookieSize))
	f.Fuzz(func(t *testing.T, body []byte) {
		s, messages := fuzzed(t)
		a := s.nodes[0]
		msg := make([]byte, CookieSize)
		copy(msg, body)
		binary.LittleEndian.PutUint32(msg, uint32(Cookie))
		copy(msg[4:8], messages[Cookie][4:8])
		r, acts := a.m.Receive(msg, source, false, a.moment(), nil)
		honest := bytes.Equal(msg, messages[Cookie])
		if honest != (r.Drop == Kept) || len(acts) > 0 {
			t.Fatalf("honest %v, got %v and %d actions", honest, r.Drop, len(acts))
		}
	})
}

// FuzzOpen: only the very packet is opened, and dst is left as it was up to its end.
func FuzzOpen(f *testing.F) {
	_, messages := fuzzed(f)
	f.Add(messages[Transport])
	f.Add(messages[Transport][:KeepaliveSize])
	f.Add([]byte{4, 0, 0, 0})
	f.Fuzz(func(t *testing.T, msg []byte) {
		s, messages := fuzzed(t)
		was := b2(msg)
		dst := make([]byte, 3, 64)
		o := s.nodes[1].m.Open(dst, msg, s.now)
		if honest := bytes.Equal(was, messages[Transport]); honest != (o.Drop == Kept) || honest != (o.Peer != nil) {
			t.Fatalf("honest %v, got %v", honest, o.Drop)
		}
		if !bytes.Equal(dst, make([]byte, 3)) {
			t.Fatal("what was before dst was changed")
		}
	})
}
