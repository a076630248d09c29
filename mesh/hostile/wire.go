//go:build hostile

package hostile

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"warren/mesh/identity"
	"warren/nat/beacon"
)

// Attacks by packets of the attacker's own making, on the local network and with the address of others.

// beacons say on the local network that members are where they are not, and that there are members that are none.
func beacons(ctx context.Context, s *strike) {
	socket, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(beacon.Group4, beacon.Port)))
	if err != nil {
		s.tell(err)
		return
	}
	defer socket.Close()
	here := socket.LocalAddr().(*net.UDPAddr).AddrPort().Addr().As4()
	pace(ctx, 200, func(i int) bool {
		secret := [16]byte{}
		for _, m := range s.Records.View().Members {
			if m.Admin && m.Record.LANSecret != secret {
				secret = m.Record.LANSecret
			}
		}
		all := s.others()
		if len(all) == 0 {
			return true
		}
		id := all[i%len(all)].ID
		if i%2 == 1 {
			id = identity.NodeID(s.dice.noise(32))
		}
		elsewhere := here
		elsewhere[3] = byte(1 + s.dice.upto(254))
		kind := byte(1 + i%2) // ask, tell
		_, err := socket.Write(sealBeacon(s.State.MeshID(), secret, kind, id, uint16(1+s.dice.upto(65535)), netip.AddrFrom4(elsewhere)))
		s.tell(err)
		return true
	})
}

// sealBeacon makes a beacon as nat/beacon draws it.
func sealBeacon(mesh identity.MeshID, secret [16]byte, kind byte, id identity.NodeID, port uint16, addr netip.Addr) []byte {
	key, err := hkdf.Key(sha256.New, secret[:], mesh[:], "warren beacon v1 member", chacha20poly1305.KeySize)
	if err != nil {
		return nil
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil
	}
	plain := make([]byte, 128)
	plain[0], plain[1] = 1, kind
	binary.BigEndian.PutUint64(plain[2:], uint64(time.Now().UnixMilli()))
	copy(plain[26:], id[:])
	binary.BigEndian.PutUint16(plain[58:], port)
	raw := addr.As16()
	plain[60] = 1
	copy(plain[61:], raw[:])
	nonce := make([]byte, chacha20poly1305.NonceSizeX)
	rand.Read(nonce)
	return aead.Seal(nonce, nonce, plain, nil)
}

// spoof sends what looks like WireGuard's packets to those who can be reached, from the addresses of each other.
func spoof(ctx context.Context, s *strike) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_RAW)
	if err != nil {
		s.tell(err)
		return
	}
	defer syscall.Close(fd)
	pace(ctx, fullSpeed, func(i int) bool {
		var near []netip.AddrPort
		for _, m := range s.reachable() {
			for _, e := range m.Record.Endpoints {
				if e.Addr().Is4() {
					near = append(near, e)
				}
			}
		}
		// Where members behind NATs come from, an anchor sees.
		from := append([]netip.AddrPort(nil), near...)
		for _, m := range s.others() {
			if at, ok := s.Sessions.Remote(m.ID); ok && at.Addr().Unmap().Is4() {
				from = append(from, netip.AddrPortFrom(at.Addr().Unmap(), at.Port()))
			}
		}
		if len(near) == 0 || len(from) < 2 {
			return true
		}
		to, by := near[i%len(near)], from[s.dice.upto(len(from))]
		if to == by {
			return true
		}
		var p []byte
		switch s.dice.upto(6) {
		case 0: // an initiation
			p = append([]byte{1, 0, 0, 0}, s.dice.noise(144)...)
		case 1: // a response
			p = append([]byte{2, 0, 0, 0}, s.dice.noise(88)...)
		case 2: // a cookie
			p = append([]byte{3, 0, 0, 0}, s.dice.noise(60)...)
		default:
			p = append([]byte{4, 0, 0, 0}, s.dice.noise(28+16*s.dice.upto(60))...)
		}
		at := to.Addr().As4()
		s.tell(syscall.Sendto(fd, datagram(by, to, p), 0, &syscall.SockaddrInet4{Addr: at}))
		return true
	})
}

// datagram is an IPv4 packet with a UDP datagram in it. The kernel fills in the sum of the header; that of UDP may be left out.
func datagram(from, to netip.AddrPort, payload []byte) []byte {
	p := make([]byte, 28, 28+len(payload))
	p[0], p[8], p[9] = 0x45, 64, syscall.IPPROTO_UDP
	binary.BigEndian.PutUint16(p[2:], uint16(28+len(payload)))
	copy(p[12:], from.Addr().AsSlice())
	copy(p[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(p[20:], from.Port())
	binary.BigEndian.PutUint16(p[22:], to.Port())
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(payload)))
	return append(p, payload...)
}
