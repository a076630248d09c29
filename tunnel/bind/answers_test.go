package bind

import (
	"net/netip"
	"testing"
	"time"
)

// A response to a handshake of ours has an endpoint that can be asked and answered, whichever way it came: the device asks the one of each that it does
// not take.
func TestWaysOfAResponse(t *testing.T) {
	b, s, feed := scripted(t)
	known, unknown, relay := addr("192.0.2.7:7"), addr("192.0.2.8:8"), addr("192.0.2.1:9277")
	byChannel, _ := b.Channels().Open(relay, 0x4000)
	other, _ := b.Channels().Open(relay, 0x4001)
	e := b.NewEndpoint([32]byte{1})
	e.SetPath(other)
	e.SetPath(known)
	initiation, response := message(1), message(2)
	copy(initiation[4:8], "mine")
	copy(response[8:12], "mine")
	transmit(t, b, e, initiation)
	s.taken()
	for _, way := range []struct {
		name       string
		in         sent
		place, out netip.AddrPort
	}{
		{"the path", sent{known, response}, known, known},
		{"nobody's address", sent{unknown, response}, unknown, unknown},
		{"a channel that was the path", sent{relay, channelData(0x4001, response)}, known, known},
		{"a channel of nobody's", sent{relay, channelData(0x4000, response)}, byChannel, relay},
	} {
		got := feed(way.in)
		if len(got) != 1 {
			t.Errorf("%s: got %v, want the response", way.name, got)
			continue
		}
		begun := false
		if e.Carried().Anew(time.Time{}, func() { begun = true }) || begun {
			t.Errorf("%s: another handshake is begun while the device has the response", way.name)
		}
		for range 2 {
			if place := got[0].ep.DstToString(); place != way.place.String() {
				t.Errorf("%s: the response is from %s, want %v", way.name, place, way.place)
			}
		}
		transmit(t, b, got[0].ep, message(4))
		if out := s.taken(); len(out) != 1 || out[0].addr != way.out {
			t.Errorf("%s: sent %v to where it came from, want one to %v", way.name, out, way.out)
		}
		if !e.Carried().Anew(time.Time{}, func() {}) {
			t.Errorf("%s: no handshake is begun although the device has not taken the response", way.name)
		}
	}
}

// FuzzReceived: whatever comes from wherever, what the device is given has an endpoint that it can ask everything, and answer.
func FuzzReceived(f *testing.F) {
	for from := range byte(4) {
		for kind := byte(1); kind <= 4; kind++ {
			p := message(kind)
			copy(p[8:12], "mine")
			f.Add(from, p)
			f.Add(from, channelData(0x4000, p))
			f.Add(from, channelData(0x4001, p))
		}
	}
	b, _, feed := scripted(f)
	known, relay := addr("192.0.2.7:7"), addr("192.0.2.1:9277")
	b.Channels().Open(relay, 0x4000)
	other, _ := b.Channels().Open(relay, 0x4001)
	e := b.NewEndpoint([32]byte{1})
	e.SetPath(other)
	e.SetPath(known)
	initiation := message(1)
	copy(initiation[4:8], "mine")
	if err := b.Send([][]byte{initiation}, e); err != nil {
		f.Fatal(err)
	}
	froms := []netip.AddrPort{known, relay, addr("192.0.2.8:8"), addr("[2001:db8::8]:8")}
	f.Fuzz(func(t *testing.T, from byte, p []byte) {
		for _, got := range feed(sent{froms[int(from)%len(froms)], p}) {
			if place, err := netip.ParseAddrPort(got.ep.DstToString()); err != nil || place.Addr() != got.ep.DstIP() && got.ep.DstIP() != e.Handle().Addr() {
				t.Errorf("an endpoint at %s (%v), its address %v", got.ep.DstToString(), err, got.ep.DstIP())
			}
			if len(got.ep.DstToBytes()) == 0 {
				t.Error("cookies for it are bound to nothing")
			}
			if err := b.Send([][]byte{message(4)}, got.ep); err != nil {
				t.Errorf("no answer: %v", err)
			}
		}
	})
}
