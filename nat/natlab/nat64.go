//go:build linux

package natlab

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// pool64 is where a NAT64 has its hosts inside, between its two halves.
var pool64 = netip.MustParsePrefix("10.255.0.0/24")

// NAT64 has a DualStack router reach IPv4 for hosts of its LAN that have IPv6 only (Only6), by this prefix of 96 bits. It is two
// halves, as usual: addresses and headers are translated one to one (RFC 7915) by this process, and the router's masquerade does
// the rest. Fragments, and errors of ICMP, are dropped.
func (l *Lab) NAT64(r *Router, prefix netip.Prefix) {
	if r.Kind != DualStack || prefix.Bits() != 96 {
		l.fatal(fmt.Errorf("make NAT64 on %s: it has to be %s, and the prefix of 96 bits", r.Name, DualStack))
	}
	var tun *os.File
	l.must(r.space.do(func() (err error) { tun, err = openTUN("nat64"); return err }))
	l.closeLater(tun)
	l.must(r.space.ip("link set nat64 up", fmt.Sprintf("route add %s dev nat64", prefix), fmt.Sprintf("route add %s dev nat64", pool64)))
	l.must(r.space.nft(`insert rule inet lab forward iifname "nat64" accept`))
	x := &xlat{prefix: prefix.Addr().As16(), inside: make(map[netip.Addr]netip.Addr), outside: make(map[netip.Addr]netip.Addr)}
	go x.run(tun) // ends when the lab closes it
}

// openTUN makes a TUN device in the namespace of this thread.
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open TUN: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make TUN %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// xlat translates between the families, without state but for its pool.
type xlat struct {
	prefix          [16]byte
	inside, outside map[netip.Addr]netip.Addr // IPv6 hosts by the address of the pool, and back
}

func (x *xlat) run(tun *os.File) {
	in := make([]byte, 1<<16)
	for {
		n, err := tun.Read(in)
		if err != nil {
			return
		}
		var out []byte
		switch in[0] >> 4 {
		case 4:
			out = x.to6(in[:n])
		case 6:
			out = x.to4(in[:n])
		}
		if out != nil {
			_, _ = tun.Write(out)
		}
	}
}

// to4 translates a packet of a host; nil: dropped.
func (x *xlat) to4(p []byte) []byte {
	if len(p) < 40 || [12]byte(p[24:36]) != [12]byte(x.prefix[:12]) {
		return nil
	}
	host := netip.AddrFrom16([16]byte(p[8:24]))
	src, known := x.outside[host]
	if !known {
		if len(x.outside) >= 250 {
			return nil
		}
		base := pool64.Addr().As4()
		base[3] = byte(len(x.outside) + 2)
		src = netip.AddrFrom4(base)
		x.outside[host], x.inside[src] = src, host
	}
	payload := append([]byte(nil), p[40:]...)
	proto := p[6]
	if proto == unix.IPPROTO_ICMPV6 {
		if proto = unix.IPPROTO_ICMP; len(payload) < 8 || payload[0] != 128 && payload[0] != 129 {
			return nil
		}
		payload[0] = map[byte]byte{128: 8, 129: 0}[payload[0]]
	}
	out := make([]byte, 20, 20+len(payload))
	out[0], out[8], out[9] = 0x45, p[7]-1, proto
	binary.BigEndian.PutUint16(out[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(out[6:], 0x4000) // DF
	copy(out[12:], src.AsSlice())
	copy(out[16:], p[36:40])
	binary.BigEndian.PutUint16(out[10:], ^fold(sum(out)))
	return seal(out, payload, proto, sum(out[12:20]))
}

// to6 translates a packet of the Internet.
func (x *xlat) to6(p []byte) []byte {
	if len(p) < 20 || p[0] != 0x45 || binary.BigEndian.Uint16(p[6:])&0x3fff != 0 {
		return nil
	}
	host, known := x.inside[netip.AddrFrom4([4]byte(p[16:20]))]
	if !known {
		return nil
	}
	payload := append([]byte(nil), p[20:]...)
	proto := p[9]
	if proto == unix.IPPROTO_ICMP {
		if proto = unix.IPPROTO_ICMPV6; len(payload) < 8 || payload[0] != 8 && payload[0] != 0 {
			return nil
		}
		payload[0] = map[byte]byte{8: 128, 0: 129}[payload[0]]
	}
	out := make([]byte, 40, 40+len(payload))
	out[0], out[6], out[7] = 0x60, proto, p[8]-1
	binary.BigEndian.PutUint16(out[4:], uint16(len(payload)))
	copy(out[8:], x.prefix[:12])
	copy(out[20:], p[12:16])
	copy(out[24:], host.AsSlice())
	return seal(out, payload, proto, sum(out[8:40]))
}

// seal puts a payload behind a header, with the checksum that belongs to its addresses; nil for a protocol that is not translated.
func seal(header, payload []byte, proto byte, addresses uint32) []byte {
	at, ok := map[byte]int{unix.IPPROTO_UDP: 6, unix.IPPROTO_TCP: 16, unix.IPPROTO_ICMP: 2, unix.IPPROTO_ICMPV6: 2}[proto]
	if !ok || len(payload) < at+2 {
		return nil
	}
	payload[at], payload[at+1] = 0, 0
	total := sum(payload)
	if proto != unix.IPPROTO_ICMP {
		total += addresses + uint32(proto) + uint32(len(payload))
	}
	check := ^fold(total)
	if check == 0 && proto == unix.IPPROTO_UDP {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(payload[at:], check)
	return append(header, payload...)
}

// sum is the Internet checksum's (RFC 1071) before it is folded.
func sum(p []byte) (total uint32) {
	for ; len(p) > 1; p = p[2:] {
		total += uint32(binary.BigEndian.Uint16(p))
	}
	if len(p) > 0 {
		total += uint32(p[0]) << 8
	}
	return total
}

func fold(total uint32) uint16 {
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return uint16(total)
}

// Zone is what a name server of the lab knows. All its methods may be called at any time.
type Zone struct {
	mu     sync.Mutex
	names  map[string][]netip.Addr
	prefix netip.Prefix
}

// Resolver gives a host a name server of its own, and its commands that are started from now on that resolver. With a
// prefix of 96 bits it is a DNS64 (RFC 6147): names that have IPv4 addresses only, ipv4only.arpa among them, have IPv6 ones in it.
func (h *Host) Resolver(prefix netip.Prefix) *Zone {
	z := &Zone{names: make(map[string][]netip.Addr), prefix: prefix}
	z.Set("ipv4only.arpa", netip.MustParseAddr("192.0.0.170"), netip.MustParseAddr("192.0.0.171"))
	at := netip.MustParseAddrPort("127.0.0.1:53")
	c, err := h.ListenUDP(at)
	h.lab.must(err)
	h.lab.closeLater(c)
	go z.serve(c) // ends when the lab closes it
	h.lab.must(os.WriteFile(filepath.Join(h.Dir(), "resolv.conf"), []byte("nameserver "+at.Addr().String()+"\noptions timeout:1\n"), 0o644))
	return z
}

// Set makes the addresses of a name these; none: there is no such name.
func (z *Zone) Set(name string, addrs ...netip.Addr) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.names[strings.ToLower(name)+"."] = addrs
}

func (z *Zone) serve(c *net.UDPConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		var q dnsmessage.Message
		if q.Unpack(buf[:n]) != nil || len(q.Questions) != 1 {
			continue
		}
		if out, err := z.answer(q.ID, q.Questions[0]).Pack(); err == nil {
			_, _ = c.WriteToUDPAddrPort(out, from)
		}
	}
}

// answer answers one question.
func (z *Zone) answer(id uint16, q dnsmessage.Question) *dnsmessage.Message {
	z.mu.Lock()
	defer z.mu.Unlock()
	m := &dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, Response: true, RecursionAvailable: true, RecursionDesired: true},
		Questions: []dnsmessage.Question{q},
	}
	addrs := z.names[strings.ToLower(q.Name.String())]
	if len(addrs) == 0 {
		m.RCode = dnsmessage.RCodeNameError
		return m
	}
	head := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, Type: q.Type, TTL: 1}
	var six []netip.Addr
	for _, a := range addrs {
		switch {
		case a.Is6():
			six = append(six, a)
		case q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: a.As4()}})
		}
	}
	if len(six) == 0 && z.prefix.IsValid() {
		for _, a := range addrs {
			out := z.prefix.Addr().As16()
			copy(out[12:], a.AsSlice())
			six = append(six, netip.AddrFrom16(out))
		}
	}
	for _, a := range six {
		if q.Type == dnsmessage.TypeAAAA {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	return m
}
