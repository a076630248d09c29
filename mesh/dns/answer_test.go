package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"warren/mesh/zone"
)

func addrs(list ...string) (out []netip.Addr) {
	for _, text := range list {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

var networks = []netip.Prefix{netip.MustParsePrefix("100.125.0.0/16"), netip.MustParsePrefix("fdfd:110d:301d::/48")}

func sample(hosts ...zone.Host) *zone.Zone {
	return zone.New(zone.Options{Domain: "home.internal", Self: "nas", Networks: networks, Hosts: append([]zone.Host{
		{Name: "nas", Addrs: addrs("100.125.0.7", "fdfd:110d:301d::7")}, {Name: "six", Addrs: addrs("fdfd:110d:301d::6")},
	}, hosts...)})
}

// ask asks the pure half, and tells the answer in a line: the code, then the records of each section.
func ask(t *testing.T, z *zone.Zone, name string, kind uint16, change func(*dns.Msg)) (*dns.Msg, string) {
	t.Helper()
	var q dns.Msg
	q.SetQuestion(dns.Fqdn(name), kind)
	if change != nil {
		change(&q)
	}
	raw, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	out, err := Answer(z, raw, true)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	var reply dns.Msg
	if err := reply.Unpack(out); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if reply.Id != q.Id || !reply.Response || reply.RecursionAvailable || reply.RecursionDesired != q.RecursionDesired {
		t.Errorf("%s: got header %+v", name, reply.MsgHdr)
	}
	reply.Compress = true // for its length
	text := dns.RcodeToString[reply.Rcode]
	for _, rr := range reply.Answer {
		text += " " + strings.Join(strings.Fields(strings.TrimPrefix(rr.String(), rr.Header().String())), " ")
	}
	for _, rr := range reply.Ns {
		text += fmt.Sprintf(" [%s %s]", rr.Header().Name, dns.TypeToString[rr.Header().Rrtype])
	}
	return &reply, text
}

func TestAnswers(t *testing.T) {
	const soa, soa4 = " [home.internal. SOA]", " [125.100.in-addr.arpa. SOA]"
	for _, test := range []struct {
		name string
		kind uint16
		want string
	}{
		{"nas.home.internal", dns.TypeA, "NOERROR 100.125.0.7"},
		{"nas.home.internal", dns.TypeAAAA, "NOERROR fdfd:110d:301d::7"},
		{"nas.home.internal", dns.TypeANY, "NOERROR 100.125.0.7 fdfd:110d:301d::7"},
		{"NAS.Home.INTERNAL", dns.TypeA, "NOERROR 100.125.0.7"},
		{"six.home.internal", dns.TypeA, "NOERROR" + soa},
		{"nas.home.internal", dns.TypeMX, "NOERROR" + soa},
		{"nas.home.internal", dns.TypeHTTPS, "NOERROR" + soa},
		{"bob.home.internal", dns.TypeA, "NXDOMAIN" + soa},
		{"a.nas.home.internal", dns.TypeA, "NXDOMAIN" + soa},
		{"home.internal", dns.TypeA, "NOERROR" + soa},
		{"home.internal", dns.TypeNS, "NOERROR nas.home.internal."},
		{"7.0.125.100.in-addr.arpa", dns.TypePTR, "NOERROR nas.home.internal."},
		{"7.0.125.100.in-addr.arpa", dns.TypeA, "NOERROR" + soa4},
		{"8.0.125.100.in-addr.arpa", dns.TypePTR, "NXDOMAIN" + soa4},
		{"0.125.100.in-addr.arpa", dns.TypePTR, "NOERROR" + soa4},
		{zone.ReverseName(netip.MustParseAddr("fdfd:110d:301d::6")), dns.TypePTR, "NOERROR six.home.internal."},
		{"example.com", dns.TypeA, "REFUSED"},
		{"nas", dns.TypeA, "REFUSED"},
		{".", dns.TypeNS, "REFUSED"},
		{"version.bind", dns.TypeTXT, "REFUSED"},
		{"home.internal", dns.TypeAXFR, "REFUSED"},
	} {
		if _, got := ask(t, sample(), test.name, test.kind, nil); got != test.want {
			t.Errorf("%s %s: got %s, want %s", test.name, dns.TypeToString[test.kind], got, test.want)
		}
	}
	if _, got := ask(t, nil, "nas.home.internal", dns.TypeA, nil); got != "REFUSED" {
		t.Errorf("without a zone: got %s", got)
	}
	if reply, got := ask(t, sample(), "home.internal", dns.TypeSOA, nil); !strings.HasPrefix(got, "NOERROR nas.home.internal. hostmaster.home.internal. ") || !reply.Authoritative {
		t.Errorf("SOA: got %s, authoritative %v", got, reply.Authoritative)
	}
	if reply, _ := ask(t, sample(), "NaS.home.internal", dns.TypeA, nil); reply.Question[0].Name != "NaS.home.internal." || reply.Answer[0].Header().Name != "NaS.home.internal." || reply.Answer[0].Header().Ttl != ttl {
		t.Errorf("the case of the question is not kept, or its life is another: %v", reply.Answer)
	}
}

func TestOddQuestions(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*dns.Msg)
		want   string
	}{
		{"chaos", func(q *dns.Msg) { q.Question[0].Qclass = dns.ClassCHAOS }, "REFUSED"},
		{"notify", func(q *dns.Msg) { q.Opcode = dns.OpcodeNotify }, "NOTIMP"},
		{"update", func(q *dns.Msg) { q.Opcode = dns.OpcodeUpdate }, "NOTIMP"},
		{"EDNS", func(q *dns.Msg) { q.SetEdns0(4096, true) }, "NOERROR 100.125.0.7"},
		{"EDNS of the future", func(q *dns.Msg) { q.SetEdns0(4096, false); q.IsEdns0().SetVersion(1) }, "BADVERS"},
	} {
		reply, got := ask(t, sample(), "nas.home.internal", dns.TypeA, test.change)
		if strings.Replace(got, "BADSIG", "BADVERS", 1) != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
		if opt := reply.IsEdns0(); (opt != nil) != strings.HasPrefix(test.name, "EDNS") || opt != nil && opt.UDPSize() != udpSize {
			t.Errorf("%s: got %v", test.name, opt)
		}
	}
	for name, raw := range map[string]string{"nothing": "", "half a header": "\x00\x01\x00", "an answer": "\x00\x01\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00", "an answer without a question": "\x00\x01\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00"} {
		if out, err := Answer(sample(), []byte(raw), true); out != nil || err == nil {
			t.Errorf("%s: got %x, %v, want silence", name, out, err)
		}
	}
	for name, raw := range map[string]string{
		"no question":                 "\x00\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"two questions":               "\x00\x01\x01\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01\x00\x00\x01\x00\x01",
		"a name that leads to itself": "\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01",
		"cut":                         "\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03nas",
	} {
		out, err := Answer(sample(), []byte(raw), true)
		if err == nil || len(out) != 12 || out[3]&15 != dns.RcodeFormatError || out[1] != 1 {
			t.Errorf("%s: got %x, %v, want FORMERR", name, out, err)
		}
	}
}

// TestLongAnswer has a host with more addresses than one packet holds.
func TestLongAnswer(t *testing.T) {
	many := zone.Host{Name: "many"}
	for i := range 200 {
		many.Addrs = append(many.Addrs, netip.AddrFrom4([4]byte{100, 125, 9, byte(i)}))
	}
	z := sample(many)
	for _, size := range []uint16{0, 100, 700, 4096} {
		reply, _ := ask(t, z, "many.home.internal", dns.TypeA, func(q *dns.Msg) {
			if size > 0 {
				q.SetEdns0(size, false)
			}
		})
		limit := min(max(int(size), dns.MinMsgSize), udpSize)
		if !reply.Truncated || reply.Len() > limit || len(reply.Answer) == 0 {
			t.Errorf("at %d: truncated %v, %d bytes, want %d at most, %d answers", size, reply.Truncated, reply.Len(), limit, len(reply.Answer))
		}
	}
	var q dns.Msg
	q.SetQuestion("many.home.internal.", dns.TypeA)
	raw, _ := q.Pack()
	out, err := Answer(z, raw, false)
	var reply dns.Msg
	if err != nil || reply.Unpack(out) != nil || reply.Truncated || len(reply.Answer) != 200 {
		t.Errorf("by TCP: %v, truncated %v, %d answers, want 200", err, reply.Truncated, len(reply.Answer))
	}
}

func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"nas.home.internal.", "7.0.125.100.in-addr.arpa.", "example.com.", "."} {
		var q dns.Msg
		q.SetQuestion(name, dns.TypeA)
		raw, _ := q.Pack()
		f.Add(raw)
		q.SetEdns0(1400, true)
		raw, _ = q.Pack()
		f.Add(raw)
	}
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"))
	z := sample()
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, udp := range []bool{true, false} {
			out, err := Answer(z, raw, udp)
			if err == nil && out == nil || udp && len(out) > udpSize {
				t.Fatalf("%x: got %d bytes, %v", raw, len(out), err)
			}
			if out == nil {
				continue
			}
			if len(raw) > 2 && raw[2]&0x80 != 0 || !slices.Equal(out[:2], raw[:2]) || out[2]&0x80 == 0 {
				t.Fatalf("%x: got %x, want an answer to this question, and none to an answer", raw, out)
			}
			if again, _ := Answer(z, out, udp); again != nil {
				t.Fatalf("%x: answers are answered", raw)
			}
		}
	})
}
