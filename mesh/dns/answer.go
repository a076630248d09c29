package dns

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/miekg/dns"

	"warren/mesh/zone"
)

const (
	// ttl is how long others may remember an answer, in seconds, and that there is none (RFC 2308): a member that is put out is gone soon, and
	// whoever asks again asks this machine.
	ttl = 5
	// udpSize is the most that an answer by UDP has, in bytes (the size that fits everywhere: RFC 9715).
	udpSize = 1232
)

// ErrMalformed is what Answer wraps for what is no question.
var ErrMalformed = errors.New("no question")

// Answer is what a zone has to say to a question, both in the wire format of RFC 1035. With an error there may be an answer too (FORMERR); nil:
// there is nobody to answer. It never asks anyone, and panics for no input.
//
//	a name of a host      A, AAAA, ANY: its addresses; another type: no data        (never NXDOMAIN: small libcs stop at it)
//	an address of a host  PTR, ANY; another type: no data
//	the domain itself     SOA, NS
//	above a name          no data (RFC 8020)
//	below the domain      NXDOMAIN
//	anything else         REFUSED
func Answer(z *zone.Zone, question []byte, udp bool) ([]byte, error) {
	var q dns.Msg
	if err := q.Unpack(question); err != nil || q.Response || len(q.Question) != 1 || len(q.Answer) > 0 || len(q.Ns) > 0 {
		return complaint(question, dns.RcodeFormatError), fmt.Errorf("read question: %w", ErrMalformed)
	}
	var reply dns.Msg
	reply.SetReply(&q)
	reply.RecursionDesired, reply.Compress = q.RecursionDesired, true
	size := dns.MinMsgSize
	version := uint8(0)
	if opt := q.IsEdns0(); opt != nil {
		size = min(max(int(opt.UDPSize()), dns.MinMsgSize), udpSize)
		version = opt.Version()
		reply.SetEdns0(udpSize, false)
	}
	switch {
	case version != 0:
		reply.Rcode = dns.RcodeBadVers
	case q.Opcode != dns.OpcodeQuery:
		reply.Rcode = dns.RcodeNotImplemented
	case q.Question[0].Qclass != dns.ClassINET:
		reply.Rcode = dns.RcodeRefused
	default:
		fill(z, &reply, q.Question[0])
	}
	if udp {
		reply.Truncate(size)
	}
	out, err := reply.Pack()
	if err != nil {
		return complaint(question, dns.RcodeServerFailure), fmt.Errorf("write answer: %w", err)
	}
	return out, nil
}

// complaint is a header alone, for what cannot be read: only its ID is. Answers are never answered.
func complaint(question []byte, code int) []byte {
	if len(question) < 12 || question[2]&0x80 != 0 {
		return nil
	}
	out := make([]byte, 12)
	copy(out, question[:2])
	out[2], out[3] = 0x80|question[2]&0x78, byte(code)
	return out
}

// fill answers one question of class IN.
func fill(z *zone.Zone, reply *dns.Msg, q dns.Question) {
	name := strings.TrimSuffix(q.Name, ".")
	found := z.Find(name)
	if found.Kind == zone.Foreign || q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR {
		reply.Rcode = dns.RcodeRefused
		return
	}
	reply.Authoritative = true
	asked := func(kind uint16) bool { return q.Qtype == kind || q.Qtype == dns.TypeANY }
	head := func(kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: q.Name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
	}
	switch found.Kind {
	case zone.Named:
		for _, addr := range found.Addrs {
			switch {
			case addr.Is4() && asked(dns.TypeA):
				reply.Answer = append(reply.Answer, &dns.A{Hdr: head(dns.TypeA), A: net.IP(addr.AsSlice())})
			case addr.Is6() && asked(dns.TypeAAAA):
				reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: head(dns.TypeAAAA), AAAA: net.IP(addr.AsSlice())})
			}
		}
	case zone.Pointer:
		if asked(dns.TypePTR) {
			reply.Answer = append(reply.Answer, &dns.PTR{Hdr: head(dns.TypePTR), Ptr: dns.Fqdn(found.Name)})
		}
	case zone.Apex:
		if asked(dns.TypeSOA) {
			reply.Answer = append(reply.Answer, authority(z, found.Zone))
		}
		if asked(dns.TypeNS) {
			reply.Answer = append(reply.Answer, &dns.NS{Hdr: head(dns.TypeNS), Ns: server(z)})
		}
	case zone.Unknown:
		reply.Rcode = dns.RcodeNameError
	}
	if len(reply.Answer) == 0 {
		reply.Ns = append(reply.Ns, authority(z, found.Zone))
	}
}

// server is the name of whoever answers.
func server(z *zone.Zone) string {
	if self := z.Self(); self != "" {
		return dns.Fqdn(self)
	}
	return dns.Fqdn(z.Domain())
}

// authority is the SOA of a zone (RFC 1035, 3.3.13).
func authority(z *zone.Zone, of string) dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: dns.Fqdn(of), Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
		Ns:  server(z), Mbox: "hostmaster." + dns.Fqdn(z.Domain()), Serial: z.Serial(), Refresh: ttl, Retry: ttl, Expire: ttl, Minttl: ttl,
	}
}
