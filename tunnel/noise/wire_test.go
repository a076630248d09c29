package noise

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// TestTypeOf: a message is told by four bytes and its length.
func TestTypeOf(t *testing.T) {
	for _, tt := range []struct {
		kind byte
		size int
		want Type
	}{
		{1, 148, Initiation}, {1, 147, None}, {1, 149, None}, {2, 92, Response}, {2, 91, None}, {2, 93, None}, {3, 64, Cookie},
		{3, 63, None}, {3, 65, None}, {4, 32, Transport}, {4, 31, None}, {4, 65535, Transport}, {0, 148, None}, {5, 148, None},
	} {
		b := make([]byte, tt.size)
		b[0] = tt.kind
		if got := TypeOf(b); got != tt.want {
			t.Errorf("type %d, %d bytes: got %d, want %d", tt.kind, tt.size, got, tt.want)
		}
		for i := 1; i < 4; i++ {
			odd := bytes.Clone(b)
			odd[i] = 1
			if got := TypeOf(odd); got != None {
				t.Errorf("type %d with byte %d set: got %d, want none", tt.kind, i, got)
			}
		}
	}
	for n := range 4 {
		if got := TypeOf([]byte{4, 0, 0, 0}[:n]); got != None {
			t.Errorf("%d bytes: got %d, want none", n, got)
		}
	}
}

// TestMessages: what stands where in the messages (5.4.2 to 5.4.6), and who takes them.
func TestMessages(t *testing.T) {
	s := newSim(t, 1)
	a, b := s.nodes[0], s.nodes[1]
	index := func(msg []byte, at int) uint32 { return binary.LittleEndian.Uint32(msg[at:]) }
	zero := make([]byte, 16)

	one, two := a.p.Carry(a.moment()), a.p.Carry(a.moment())
	if TypeOf(one) != Initiation || index(one, 4) == index(two, 4) {
		t.Errorf("got %x and %x, want two initiations with indices of their own", one[:8], two[:8])
	}
	if bytes.Equal(one[8:40], two[8:40]) {
		t.Error("an ephemeral key was used twice")
	}
	if !bytes.Equal(one[132:], zero) {
		t.Error("without a cookie the second MAC is not zero")
	}
	public := a.m.Public()
	if bytes.Contains(one, public[:]) {
		t.Error("the initiator's key can be read")
	}

	for i := range InitiationSize - 16 { // each bit up to the second MAC counts
		bad := bytes.Clone(two)
		bad[i] ^= 0x80
		if r, acts := b.m.Receive(bad, source, false, b.moment(), nil); r.Drop == Kept || len(acts) > 0 {
			t.Fatalf("byte %d changed: got %v", i, r.Drop)
		}
	}
	if r, _ := a.m.Receive(two, source, false, a.moment(), nil); r.Drop != DropMAC {
		t.Errorf("got %v for an initiation to another key", r.Drop)
	}
	stranger, err := New(Options{Private: testKey(55)})
	if err != nil {
		t.Fatal(err)
	}
	p, err := stranger.Add(b.m.Public())
	if err != nil {
		t.Fatal(err)
	}
	if r, acts := b.m.Receive(p.Carry(a.moment()), source, false, b.moment(), nil); r.Drop != DropStranger || len(acts) > 0 {
		t.Errorf("got %v for an initiation of a stranger", r.Drop)
	}

	r, acts := b.m.Receive(two, source, false, b.moment(), nil)
	if r != (Received{Peer: b.p, Type: Initiation}) || len(acts) != 1 || acts[0].Kind != SendResponse {
		t.Fatalf("got %+v and %v", r, acts)
	}
	response := acts[0].Packet
	if TypeOf(response) != Response || index(response, 8) != index(two, 4) || !bytes.Equal(response[76:], zero) {
		t.Errorf("got the response %x", response)
	}
	for i := range ResponseSize - 16 {
		if i >= 4 && i < 8 {
			continue // the sender's index is not sealed; only the first MAC is over it
		}
		bad := bytes.Clone(response)
		bad[i] ^= 0x80
		if r, acts := a.m.Receive(bad, source, false, a.moment(), nil); r.Drop == Kept || len(acts) > 0 {
			t.Fatalf("byte %d changed: got %v", i, r.Drop)
		}
	}
	r, acts = a.m.Receive(response, source, false, a.moment(), nil)
	if r != (Received{Peer: a.p, Type: Response}) || len(acts) != 2 || acts[0].Kind != Ready || acts[1].Kind != SendKeepalive {
		t.Fatalf("got %+v and %v", r, acts)
	}
	if r, _ := a.m.Receive(response, source, false, a.moment(), nil); r.Drop != DropIndex {
		t.Errorf("got %v for the same response again", r.Drop)
	}
	for n, msg := range [][]byte{acts[1].Packet, nil} {
		if msg == nil {
			msg, _ = a.p.Seal(nil, []byte("packet"), s.now)
		}
		if TypeOf(msg) != Transport || index(msg, 4) != index(response, 4) || binary.LittleEndian.Uint64(msg[8:]) != uint64(n) {
			t.Errorf("got %x, want message %d of the responder's index", msg[:16], n)
		}
	}
	if len(acts[1].Packet) != KeepaliveSize {
		t.Errorf("got a keepalive of %d bytes", len(acts[1].Packet))
	}
	if r, _ := a.m.Receive(acts[1].Packet, source, false, a.moment(), nil); r.Type != Transport || r.Drop != DropMalformed {
		t.Errorf("got %+v for a packet that was not for Receive", r)
	}
	for drop := Kept; drop <= drops; drop++ {
		if drop.String() == "" {
			t.Errorf("reason %d has no name", drop)
		}
	}
}
