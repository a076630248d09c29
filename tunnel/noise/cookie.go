package noise

import (
	"encoding/binary"
	"net/netip"

	"golang.zx2c4.com/wireguard/device"
)

// The module's cookies read the clock of the system. Here they are begun anew by the caller's clock before that one can matter,
// so that virtual time decides (in the installed program both tell the same).

// checker checks the MACs of messages to this node, and makes cookies.
type checker struct {
	cookies device.CookieChecker
	key     device.NoisePublicKey
	since   Instant // when the secret was made; Never: there is none
}

func (c *checker) init(key PublicKey) {
	c.key, c.since = device.NoisePublicKey(key), Never
	c.cookies.Init(c.key)
}

// mac1 reports whether a message was made by one who knows this node's public key.
func (c *checker) mac1(msg []byte) bool { return c.cookies.CheckMAC1(msg) }

// mac2 reports whether it was made by one who was sent a cookie at this address.
func (c *checker) mac2(msg []byte, src netip.AddrPort, now Instant) bool {
	c.refresh(now)
	return c.cookies.CheckMAC2(msg, address(src))
}

// reply makes a cookie for the sender of a message.
func (c *checker) reply(msg []byte, src netip.AddrPort, now Instant) []byte {
	c.refresh(now)
	r, err := c.cookies.CreateReply(msg, binary.LittleEndian.Uint32(msg[4:]), address(src))
	if err != nil {
		return nil // no random bytes
	}
	if c.since == Never {
		c.since = now
	}
	out := make([]byte, 0, CookieSize)
	out = binary.LittleEndian.AppendUint32(out, r.Type)
	out = binary.LittleEndian.AppendUint32(out, r.Receiver)
	out = append(out, r.Nonce[:]...)
	return append(out, r.Cookie[:]...)
}

// refresh drops the secret when it is old.
func (c *checker) refresh(now Instant) {
	if c.since != Never && now.Sub(c.since) > CookieRefreshTime {
		c.init(PublicKey(c.key))
	}
}

// address is what a cookie is bound to.
func address(src netip.AddrPort) []byte {
	b := src.Addr().Unmap().AsSlice()
	return binary.LittleEndian.AppendUint16(b, src.Port())
}

// macs puts the MACs on messages to one peer.
type macs struct {
	cookies device.CookieGenerator
	since   Instant // when a cookie came; Never: there is none
}

func (c *macs) init(key PublicKey) {
	c.since = Never
	c.cookies.Init(device.NoisePublicKey(key))
}

// add fills in the last 32 bytes of a message.
func (c *macs) add(msg []byte, key PublicKey, now Instant) {
	if c.since != Never && now.Sub(c.since) > CookieRefreshTime {
		c.init(key)
	}
	c.cookies.AddMacs(msg)
}

// take reads a cookie, and reports whether it was for the last message that was sent.
func (c *macs) take(msg []byte, now Instant) bool {
	r := device.MessageCookieReply{Type: uint32(Cookie), Receiver: binary.LittleEndian.Uint32(msg[4:])}
	copy(r.Nonce[:], msg[8:])
	copy(r.Cookie[:], msg[8+len(r.Nonce):])
	if !c.cookies.ConsumeReply(&r) {
		return false
	}
	c.since = now
	return true
}
