package natprobe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/nat/natkind"
	"warren/nat/stunwire"
)

// internet is a network in memory: public hosts, and one NAT with a host behind it. Kinds of NATs differ only in what is in the
// keys of its two maps.
type internet struct {
	mu      sync.Mutex
	latency time.Duration
	sockets map[netip.AddrPort]*simSocket
	next    uint16
	nat     *simNAT
	deaf    bool            // nothing that comes by UDP arrives anywhere
	lost    map[string]bool // the first packet of each transaction and direction that was lost; nil: none is
}

type simNAT struct {
	mapping   natkind.Mapping
	filtering natkind.Filtering
	hairpin   bool
	addr      netip.Addr
	out       map[[2]netip.AddrPort]netip.AddrPort // (inside, what of the destination counts) → outside
	in        map[netip.AddrPort]netip.AddrPort
	open      map[[2]netip.AddrPort]bool // (outside, what of the source counts)
}

var (
	inside  = netip.MustParseAddr("192.168.1.10")
	outside = netip.MustParseAddr("203.0.113.99")
)

func newInternet(mapping natkind.Mapping, filtering natkind.Filtering) *internet {
	return &internet{latency: 10 * time.Millisecond, next: 40000, sockets: make(map[netip.AddrPort]*simSocket), nat: &simNAT{
		mapping: mapping, filtering: filtering, addr: outside,
		out: make(map[[2]netip.AddrPort]netip.AddrPort), in: make(map[netip.AddrPort]netip.AddrPort), open: make(map[[2]netip.AddrPort]bool),
	}}
}

// counts keeps of an address what a NAT of this kind looks at.
func counts(kind int, addr netip.AddrPort) netip.AddrPort {
	switch kind {
	case 1:
		return netip.AddrPort{}
	case 2:
		return netip.AddrPortFrom(addr.Addr(), 0)
	}
	return addr
}

func (n *simNAT) outbound(from, to netip.AddrPort, port uint16) netip.AddrPort {
	kind := map[natkind.Mapping]int{natkind.MappedIndependent: 1, natkind.MappedByAddress: 2, natkind.MappedByAddressAndPort: 3}[n.mapping]
	if n.mapping == natkind.Unmapped {
		n.out[[2]netip.AddrPort{from}] = from
		kind = 1
	}
	k := [2]netip.AddrPort{from, counts(kind, to)}
	if !n.out[k].IsValid() {
		n.out[k] = netip.AddrPortFrom(n.addr, port)
	}
	n.in[n.out[k]] = from
	n.open[[2]netip.AddrPort{n.out[k], n.source(to)}] = true
	return n.out[k]
}

func (n *simNAT) source(addr netip.AddrPort) netip.AddrPort {
	return counts(map[natkind.Filtering]int{natkind.FilteredNot: 1, natkind.FilteredByAddress: 2, natkind.FilteredByAddressAndPort: 3}[n.filtering], addr)
}

func (i *internet) behind(addr netip.Addr) bool {
	return addr == inside || i.nat.mapping == natkind.Unmapped && addr == outside
}

func (i *internet) send(from, to netip.AddrPort, raw []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if which := string(raw[:min(20, len(raw))]) + to.String(); i.deaf || i.lost != nil && !i.lost[which] {
		if !i.deaf {
			i.lost[which] = true
		}
		return
	}
	if i.behind(from.Addr()) {
		i.next++
		from = i.nat.outbound(from, to, i.next)
		if to.Addr() == i.nat.addr && !i.nat.hairpin {
			return
		}
	}
	if mapped, ok := i.nat.in[to]; ok {
		if !i.nat.open[[2]netip.AddrPort{to, i.nat.source(from)}] {
			return
		}
		to = mapped
	}
	if s := i.sockets[to]; s != nil {
		raw = slices.Clone(raw)
		time.AfterFunc(i.latency, func() {
			select {
			case s.queue <- simPacket{raw, from}:
			default:
			}
		})
	}
}

type simPacket struct {
	raw  []byte
	from netip.AddrPort
}

type simSocket struct {
	internet *internet
	addr     netip.AddrPort
	queue    chan simPacket
	closed   chan struct{}
	once     sync.Once
}

func (i *internet) socket(addr netip.Addr, port uint16) *simSocket {
	i.mu.Lock()
	defer i.mu.Unlock()
	if port == 0 {
		i.next++
		port = i.next
	}
	s := &simSocket{internet: i, addr: netip.AddrPortFrom(addr, port), queue: make(chan simPacket, 64), closed: make(chan struct{})}
	i.sockets[s.addr] = s
	return s
}

func (s *simSocket) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case x := <-s.queue:
		return copy(p, x.raw), net.UDPAddrFromAddrPort(x.from), nil
	case <-s.closed:
		return 0, nil, net.ErrClosed
	}
}

func (s *simSocket) WriteTo(p []byte, to net.Addr) (int, error) {
	s.internet.send(s.addr, to.(*net.UDPAddr).AddrPort(), p)
	return len(p), nil
}

func (s *simSocket) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func (s *simSocket) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(s.addr) }
func (s *simSocket) SetDeadline(time.Time) error      { return nil }
func (s *simSocket) SetReadDeadline(time.Time) error  { return nil }
func (s *simSocket) SetWriteDeadline(time.Time) error { return nil }

// members are those who answer STUN and help.
type members struct {
	t     *testing.T
	net   *internet
	ctx   context.Context
	told  chan Told
	tasks sync.WaitGroup
	all   []Server
	mute  bool          // they do not understand asks for help
	late  time.Duration // how much longer their word takes than their packets
}

func newMembers(t *testing.T, ctx context.Context, i *internet, n int) *members {
	m := &members{t: t, net: i, ctx: ctx, told: make(chan Told, 8)}
	for k := range n {
		s := i.socket(netip.AddrFrom4([4]byte{203, 0, 113, byte(k + 1)}), 9277)
		m.all = append(m.all, Server{ID: identity.NodeID{byte(k + 1)}, Addr: s.addr, Helps: true})
		m.tasks.Go(func() {
			buf := make([]byte, 512)
			for {
				n, from, err := s.ReadFrom(buf)
				if err != nil {
					return
				}
				if e, ok := parse(buf[:n]); ok && e.padded {
					s.WriteTo(answer(e.id, from.(*net.UDPAddr).AddrPort()), from)
				}
			}
		})
		context.AfterFunc(ctx, func() { s.Close() })
	}
	return m
}

func (m *members) ask(helper identity.NodeID, id [12]byte, addr netip.AddrPort) error {
	if m.mute {
		return nil
	}
	listen := func() (net.PacketConn, error) {
		return m.net.socket(netip.AddrFrom4([4]byte{203, 0, 113, helper[0]}), 0), nil
	}
	m.tasks.Go(func() {
		err := Help(m.ctx, listen, id, addr, func(port uint16) {
			time.AfterFunc(m.net.latency+m.late, func() { m.told <- Told{id, port} })
		})
		if err != nil && !errors.Is(err, context.Canceled) {
			m.t.Errorf("help: %v", err)
		}
	})
	return nil
}

// measure runs one measurement from the host behind the NAT.
func measure(t *testing.T, i *internet, servers int, change func(*members)) (Report, time.Duration) {
	ctx, cancel := context.WithCancel(t.Context())
	m := newMembers(t, ctx, i, servers)
	if change != nil {
		change(m)
	}
	home := inside
	if i.nat.mapping == natkind.Unmapped {
		home = outside
	}
	start := time.Now()
	report, err := Measure(ctx, Options{
		Listen:  func() (net.PacketConn, error) { return i.socket(home, 0), nil },
		Servers: m.all, Local: func(a netip.Addr) bool { return a == home }, Ask: m.ask, Told: m.told,
	})
	took := time.Since(start)
	if err != nil {
		t.Error(err)
	}
	time.Sleep(guardTime) // helpers end
	cancel()
	m.tasks.Wait()
	return report, took
}

func TestEveryKind(t *testing.T) {
	mappings := []natkind.Mapping{natkind.Unmapped, natkind.MappedIndependent, natkind.MappedByAddress, natkind.MappedByAddressAndPort}
	filterings := []natkind.Filtering{natkind.FilteredNot, natkind.FilteredByAddress, natkind.FilteredByAddressAndPort}
	for _, mapping := range mappings {
		for _, filtering := range filterings {
			for _, lossy := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s mapping, %s filtering, loss %v", mapping, filtering, lossy), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						i := newInternet(mapping, filtering)
						if lossy {
							i.lost = make(map[string]bool)
						}
						got, took := measure(t, i, 3, nil)
						if got.Mapping != mapping || got.Filtering != filtering {
							t.Errorf("got mapping %s and filtering %s", got.Mapping, got.Filtering)
						}
						if took > 3*time.Second {
							t.Errorf("took %s, want 3 s at most", took)
						}
						if kept := mapping == natkind.Unmapped; got.PortKept() != kept {
							t.Errorf("got port kept %v, want %v", got.PortKept(), kept)
						}
						for _, a := range got.Answers {
							if !lossy && a.RTT != 2*i.latency {
								t.Errorf("got round trip %s, want %s", a.RTT, 2*i.latency)
							}
						}
					})
				})
			}
		}
	}
}

func TestHairpin(t *testing.T) {
	for _, hairpin := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			i := newInternet(natkind.MappedIndependent, natkind.FilteredByAddressAndPort)
			i.nat.hairpin = hairpin
			got, _ := measure(t, i, 2, nil)
			if want := map[bool]natkind.Outcome{false: natkind.Missing, true: natkind.Arrived}[hairpin]; got.Hairpin != want {
				t.Errorf("hairpin %v: got %v, want %v", hairpin, got.Hairpin, want)
			}
		})
	}
}

func TestTooLittleEvidence(t *testing.T) {
	tests := []struct {
		name      string
		servers   int
		change    func(*members)
		mapping   natkind.Mapping
		filtering natkind.Filtering
	}{
		{"one server", 1, nil, natkind.MappingUnknown, natkind.FilteredLoosely},
		{"one server, no help", 1, func(m *members) { m.mute = true }, natkind.MappingUnknown, natkind.FilteringUnknown},
		{"two servers, no help", 2, func(m *members) { m.mute = true }, natkind.MappedDependent, natkind.FilteringUnknown},
		{"two servers, no way to ask", 2, func(m *members) { m.all[0].Helps, m.all[1].Helps = false, false }, natkind.MappedDependent, natkind.FilteringUnknown},
		{"nobody", 0, nil, natkind.MappingUnknown, natkind.FilteringUnknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got, _ := measure(t, newInternet(natkind.MappedByAddress, natkind.FilteredByAddress), tt.servers, tt.change)
				if got.Mapping != tt.mapping || got.Filtering != tt.filtering {
					t.Errorf("got mapping %s and filtering %s, want %s and %s", got.Mapping, got.Filtering, tt.mapping, tt.filtering)
				}
			})
		})
	}
}

// TestWordOfHelperIsLate: what a helper sends may come in before its word of it, and tells as much.
func TestWordOfHelperIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInternet(natkind.MappedByAddressAndPort, natkind.FilteredNot)
		got, _ := measure(t, i, 3, func(m *members) { m.late = time.Second })
		if got.Mapping != natkind.MappedByAddressAndPort || got.Filtering != natkind.FilteredNot {
			t.Errorf("got mapping %s and filtering %s, want %s and %s", got.Mapping, got.Filtering, natkind.MappedByAddressAndPort, natkind.FilteredNot)
		}
	})
}

func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInternet(natkind.MappedIndependent, natkind.FilteredNot)
		i.deaf = true
		got, took := measure(t, i, 2, nil)
		if got.Works() || len(got.Answers) != 2 || got.Mapping != natkind.MappingUnknown || took != answerTime {
			t.Errorf("got %+v in %s, want two servers without answer in %s", got, took, answerTime)
		}
	})
}

func TestListenFails(t *testing.T) {
	want := errors.New("no IPv6 here")
	_, err := Measure(t.Context(), Options{Servers: []Server{{}}, Listen: func() (net.PacketConn, error) { return nil, want }})
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// TestHelperAnswersItsAskerOnly: nobody who does not know the transaction gets an answer, nor one that is larger than the request.
func TestHelperAnswersItsAskerOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInternet(natkind.MappedIndependent, natkind.FilteredNot)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		helper, asker := i.socket(netip.MustParseAddr("203.0.113.1"), 0), i.socket(netip.MustParseAddr("203.0.113.2"), 0)
		id := [12]byte{1}
		port, done := make(chan uint16, 1), make(chan error, 1)
		go func() {
			done <- Help(ctx, func() (net.PacketConn, error) { return helper, nil }, id, asker.addr, func(p uint16) { port <- p })
		}()
		time.Sleep(time.Second)
		if got := <-port; got != helper.addr.Port() || len(asker.queue) != len(helpTimes) {
			t.Fatalf("got port %d and %d requests, want %d and %d", got, len(asker.queue), helper.addr.Port(), len(helpTimes))
		}
		for range len(asker.queue) {
			<-asker.queue
		}
		for _, raw := range [][]byte{stunwire.Probe([12]byte{2}), stunwire.Bare(id), []byte("nonsense")} {
			asker.WriteTo(raw, net.UDPAddrFromAddrPort(helper.addr))
		}
		time.Sleep(time.Second)
		if len(asker.queue) != 0 {
			t.Errorf("got %d answers, want none", len(asker.queue))
		}
		for range 2 * maxAnswers {
			asker.WriteTo(stunwire.Probe(id), net.UDPAddrFromAddrPort(helper.addr))
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond)
		if len(asker.queue) != maxAnswers {
			t.Errorf("got %d answers, want %d", len(asker.queue), maxAnswers)
		}
		if err := <-done; err != nil {
			t.Errorf("got %v, want the helper's end", err)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(stunwire.Probe([12]byte{1}))
	f.Add(answer([12]byte{1}, netip.MustParseAddrPort("192.0.2.1:9277")))
	f.Add(answer([12]byte{1}, netip.MustParseAddrPort("[2001:db8::1]:9277")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, ok := parse(raw)
		if ok && e.mapped.IsValid() && (e.mapped.Port() == 0 || !e.mapped.Addr().IsGlobalUnicast()) {
			t.Errorf("got %v from %x", e.mapped, raw)
		}
	})
}
