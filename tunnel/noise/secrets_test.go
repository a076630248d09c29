package noise

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	flynn "github.com/flynn/noise"
	"golang.org/x/crypto/curve25519"
)

// TestWiped: a handshake that is given up or replaced leaves no secret where this package can reach it.
func TestWiped(t *testing.T) {
	for name, end := range map[string]func(a *node){
		"replaced": func(a *node) { a.p.Carry(a.moment()); a.p.Carry(a.moment()) },
		"zeroed":   func(a *node) { a.p.Carry(a.moment()); a.p.Zero() },
		"old": func(a *node) {
			a.p.Carry(a.moment())
			a.p.Step(Moment{a.sim.now.Add(RekeyAttemptTime), calendar}, nil)
		},
	} {
		s := newSim(t, 1)
		a := s.nodes[0]
		a.p.Carry(a.moment())
		first := a.p.attempts[carried]
		suite := *first.suite // a copy of where the secrets lie
		ephemeral := first.state.LocalEphemeral()
		if len(suite.secrets) < 10 || bytes.Equal(ephemeral.Private, make([]byte, 32)) {
			t.Fatalf("%s: got %d secrets", name, len(suite.secrets))
		}
		end(a)
		for i, secret := range suite.secrets {
			if !bytes.Equal(secret, make([]byte, len(secret))) {
				t.Errorf("%s: secret %d is left", name, i)
			}
		}
		if !bytes.Equal(ephemeral.Private, make([]byte, 32)) {
			t.Errorf("%s: the ephemeral key is left", name)
		}
		for _, c := range suite.ciphers {
			if c.key != [32]byte{} {
				t.Errorf("%s: a message key is left", name)
			}
		}
		if first.suite.secrets != nil || fmt.Sprint(*first.state) != fmt.Sprint(flynn.HandshakeState{}) {
			t.Errorf("%s: the state is left", name)
		}
	}
}

// TestAnsweredIsWiped: of a handshake that is done no secret is left with either side, and both can speak.
func TestAnsweredIsWiped(t *testing.T) {
	var agreed [][]byte
	s := newSimWith(t, 1, func(scalar, point []byte) ([]byte, error) {
		secret, err := curve25519.X25519(scalar, point)
		if !bytes.Equal(point, curve25519.Basepoint) {
			agreed = append(agreed, secret)
		}
		return secret, err
	})
	a, b := s.nodes[0], s.nodes[1]
	msg := a.p.Carry(a.moment())
	mine := a.p.attempts[carried].suite
	early := mine.secrets
	_, acts := b.m.Receive(msg, noSource, false, b.moment(), nil)
	r, acts := a.m.Receive(acts[0].Packet, noSource, false, a.moment(), nil)
	if r.Peer == nil {
		t.Fatalf("got %v", r.Drop)
	}
	if len(agreed) < 8 || len(early) < 10 {
		t.Fatalf("got %d and %d secrets, want those of four agreements on each side", len(agreed), len(early))
	}
	for i, secret := range append(early, agreed...) {
		if !bytes.Equal(secret, make([]byte, len(secret))) {
			t.Errorf("secret %d is left", i)
		}
	}
	a.act(acts)
	n := a.send()
	s.run(time.Second)
	if b.got[n] != 1 {
		t.Error("the session does not work")
	}
}

// TestKeysAreNotPrinted: keys that are secret do not show.
func TestKeysAreNotPrinted(t *testing.T) {
	if got := fmt.Sprintf("%v %s %v", testKey(7), testKey(7), PresharedKey{7}); strings.ContainsAny(got, "0123456789") {
		t.Errorf("got %s", got)
	}
}

// TestForgedResponse: a point of low order in a response, which the library stumbles over, does not end the handshake.
func TestForgedResponse(t *testing.T) {
	s := newSim(t, 1)
	a, b := s.nodes[0], s.nodes[1]
	_, acts := b.m.Receive(a.p.Carry(a.moment()), noSource, false, b.moment(), nil)
	response := acts[0].Packet
	var m macs
	m.init(a.m.Public())
	for _, point := range [][]byte{make([]byte, 32), append([]byte{1}, make([]byte, 31)...)} {
		forged := bytes.Clone(response)
		copy(forged[noiseResponded:], point)
		m.add(forged, a.m.Public(), s.now)
		if r, _ := a.m.Receive(forged, source, false, a.moment(), nil); r.Drop != DropForged {
			t.Fatalf("got %v", r.Drop)
		}
	}
	if r, _ := a.m.Receive(response, source, false, a.moment(), nil); r.Peer == nil {
		t.Errorf("got %v for the response itself", r.Drop)
	}
}
