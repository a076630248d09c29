package tunnel

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/curve25519"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/identity"
)

/* Handshakes that introductions carry
 *
 * An introduction takes a round trip of its own, and the handshake can go with it: the initiation in the offer, the response in the answer. The
 * preshared key that the two agree on is mixed in with the response only (WireGuard, section 5.4.3), so the initiation can be made before there
 * is one, and the first path that works then carries data at once. This is all that others see of it:
 *
 *	Initiation ═▶ offer ═▶ SetPresharedKey, Respond ═▶ answer ═▶ SetPresharedKey, Conclude
 *
 * Nothing depends on it. Whatever gets lost on the way, the handshake by a path that comes up goes on as if there were none of this: the
 * same initiation is sent by it, and gets the same response (bind/carried.go); another one is not held up by WireGuard's five seconds.
 */

const (
	// deviceTime is how long an introduction waits for the device, which takes half a millisecond for a message of a handshake.
	deviceTime = 20 * time.Millisecond
)

// ErrForeign is wrapped by the error of Respond for an initiation that the member did not make for this node.
var ErrForeign = errors.New("handshake initiation not made by the member")

// Initiation returns the initiation (148 bytes) of a handshake with a member, for the offer of an attempt to carry: for each attempt another one, since
// each has a preshared key of its own. It is nil while none is due: this side is
// not controlling, a way is there or the session keys are good. It waits for nothing but the locks of the device.
func (t *Tunnel) Initiation(id identity.NodeID, attempt uint64) []byte {
	m := t.ways.member(id)
	if m == nil || !m.controlling || m.endpoint.Path().IsValid() {
		return nil
	}
	a := attached{t}
	if time.Since(a.LastHandshake(m)) < goodKeys {
		return nil
	}
	if held := m.endpoint.Carried().Initiation(time.Now(), attempt); held != nil {
		return held
	}
	a.Initiate(m, true)
	return m.endpoint.Carried().Initiation(time.Now(), attempt)
}

// Respond takes the initiation that a member's offer has carried, and returns the response (92 bytes) for the answer to carry: nil when the device has
// none within 20 ms. The preshared key has to be set before. The session that there is stays in use until the member uses the new one. The error wraps
// ErrForeign when the member did not make the initiation.
func (t *Tunnel) Respond(id identity.NodeID, initiation []byte) ([]byte, error) {
	m := t.ways.member(id)
	if m == nil || m.controlling || t.running.Load() == nil {
		return nil, nil
	}
	if by, ok := initiator(t.opts.PrivateKey, initiation); !ok || by != m.key {
		return nil, fmt.Errorf("handshake of %s: %w", id.Short(), ErrForeign)
	}
	return m.endpoint.Carried().Respond(initiation, deviceTime), nil
}

// Conclude takes the response that the answer of a member, of this instance (process), has carried, and reports whether the handshake is done: then
// packets leave with the first way that there is, and Agreed has nothing to do. The preshared key has to be set before.
func (t *Tunnel) Conclude(id identity.NodeID, instance [8]byte, response []byte) bool {
	m := t.ways.member(id)
	if m == nil || !m.controlling {
		return false
	}
	a := attached{t}
	since, first := m.endpoint.Carried().Conclude(response, a.LastHandshake(m), deviceTime)
	if first { // also when the device is late: it may be in time for the way
		t.ways.putAgreed(id, agreement{instance: instance, keyed: true})
	}
	if since.IsZero() || a.LastHandshake(m).Before(since) {
		return false
	}
	if first {
		t.log.Debug("handshake done by introduction", "id", id.Short())
	}
	return true
}

// initiator returns who made an initiation for the owner of a private key: its first half is undone (WireGuard, section 5.4.2), as far as the
// static key. That it is fresh, and made with that key, the device finds out.
func initiator(private wgtypes.Key, initiation []byte) (by wgtypes.Key, ok bool) {
	if len(initiation) != device.MessageInitiationSize || initiation[0] != device.MessageInitiationType {
		return by, false
	}
	ephemeral, static, public := initiation[8:40], initiation[40:88], private.PublicKey()
	hash := blake2s.Sum256(append(device.InitialHash[:len(device.InitialHash):len(device.InitialHash)], public[:]...))
	hash = blake2s.Sum256(append(hash[:], ephemeral...))
	var chain [blake2s.Size]byte
	device.KDF1(&chain, device.InitialChainKey[:], ephemeral)
	secret, err := curve25519.X25519(private[:], ephemeral)
	if err != nil {
		return by, false
	}
	var key [chacha20poly1305.KeySize]byte
	device.KDF2(&chain, &key, chain[:], secret)
	aead, err := chacha20poly1305.New(key[:])
	if err != nil {
		return by, false
	}
	_, err = aead.Open(by[:0], make([]byte, chacha20poly1305.NonceSize), static, hash[:])
	return by, err == nil
}
