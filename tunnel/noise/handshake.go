package noise

import (
	"encoding/binary"
	"fmt"
	"time"

	flynn "github.com/flynn/noise"
	"golang.zx2c4.com/wireguard/tai64n"
)

// crossingSlack is how much later than after one more round trip an initiation may come that the peer sent before it knew that
// ours is done. A peer that has restarted does not come as soon.
const crossingSlack = 100 * time.Millisecond

const prologue = "WireGuard v1 zx2c4 Jason@zx2c4.com"

// attempt is a handshake that this node began and that nobody has answered yet.
type attempt struct {
	state *flynn.HandshakeState
	suite *suite
	index uint32
	at    Instant
}

// wipe forgets the secrets of the attempt, as far as they can be reached.
func (a *attempt) wipe() {
	a.suite.wipe()
	*a.state = flynn.HandshakeState{}
}

// begin begins a handshake of Noise. peer is nil for a responder, who learns it from the first message.
func (m *Machine) begin(peer []byte) (*flynn.HandshakeState, *suite) {
	primitives, s := newSuite(m)
	state, err := flynn.NewHandshakeState(flynn.Config{
		CipherSuite: primitives, Random: m.random, Pattern: flynn.HandshakeIK, Initiator: peer != nil, Prologue: []byte(prologue),
		PresharedKeyPlacement: 2, StaticKeypair: flynn.DHKey{Private: m.private[:], Public: m.public[:]}, PeerStatic: peer,
	})
	if err != nil {
		panic("internal error: " + err.Error()) // it checks the length of a preshared key only, and there is none yet
	}
	return state, s
}

// begin makes an initiation and remembers it. The preshared key is not needed yet.
func (p *Peer) begin(now Moment) (*attempt, []byte) {
	m := p.machine
	a := &attempt{at: now.At}
	a.state, a.suite = m.begin(p.key[:])
	e := &entry{peer: p, attempt: a}
	m.table.add(e, m.uint32)
	a.index = e.index

	p.stamps.sent = later(now.Wall, p.stamps.sent)
	if p.stamps.sent.After(m.stamp) {
		m.stamp = p.stamps.sent
	}
	msg := make([]byte, noiseInitiated, InitiationSize)
	binary.LittleEndian.PutUint32(msg, uint32(Initiation))
	binary.LittleEndian.PutUint32(msg[4:], a.index)
	msg, _, _, err := a.state.WriteMessage(msg, p.stamps.sent[:])
	if err != nil {
		panic(fmt.Sprintf("internal error: make initiation: %v", err)) // no random bytes
	}
	msg = msg[:InitiationSize]
	p.macs.add(msg, p.key, now.At)
	return a, msg
}

// initiation reads an initiation. Only its own errors are told: what the peer thinks of its age is not known here.
func (m *Machine) initiation(msg []byte) (state *flynn.HandshakeState, s *suite, who PublicKey, at tai64n.Timestamp, ok bool) {
	state, s = m.begin(nil)
	stamp, _, _, err := state.ReadMessage(nil, msg[noiseInitiated:stampEnd])
	if err != nil || len(stamp) != len(at) {
		s.wipe()
		return nil, nil, who, at, false
	}
	copy(who[:], state.PeerStatic())
	copy(at[:], stamp)
	return state, s, who, at, true
}

// respond makes the response to an initiation, and the session that follows from it.
func (p *Peer) respond(state *flynn.HandshakeState, s *suite, remote uint32, now Instant) (*pair, []byte) {
	m := p.machine
	defer func() {
		s.wipe()
		*state = flynn.HandshakeState{}
	}()
	e := &entry{peer: p}
	m.table.add(e, m.uint32)
	msg := make([]byte, noiseResponded, ResponseSize)
	binary.LittleEndian.PutUint32(msg, uint32(Response))
	binary.LittleEndian.PutUint32(msg[4:], e.index)
	binary.LittleEndian.PutUint32(msg[8:], remote)
	err := state.SetPresharedKey(p.psk[:])
	if err != nil {
		panic("internal error: " + err.Error()) // 32 bytes are always a key
	}
	msg, in, out, err := state.WriteMessage(msg, nil)
	if err != nil {
		panic(fmt.Sprintf("internal error: make response: %v", err)) // no random bytes
	}
	msg = msg[:ResponseSize]
	p.macs.add(msg, p.key, now)
	k := newPair(out, in, now)
	k.local, k.remote = e.index, remote
	m.table.replace(&entry{index: e.index, peer: p, pair: k})
	return k, msg
}

// read reads the response to an attempt. It returns nil, and leaves the attempt as it was, if the response does not open: it is
// forged, or made with another preshared key.
func (a *attempt) read(msg []byte, psk PresharedKey, now Instant) *pair {
	if err := a.state.SetPresharedKey(psk[:]); err != nil {
		panic("internal error: " + err.Error()) // 32 bytes are always a key
	}
	_, out, in, err := a.state.ReadMessage(nil, msg[noiseResponded:ResponseSize-macsSize])
	if err != nil {
		return nil
	}
	k := newPair(out, in, now)
	k.initiator = true
	k.crossed = now.Add(min(now.Sub(a.at)+crossingSlack, RekeyTimeout))
	k.standing.Store(unheard)
	k.local, k.remote = a.index, binary.LittleEndian.Uint32(msg[4:])
	a.wipe()
	return k
}
