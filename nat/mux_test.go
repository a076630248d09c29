package nat

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"warren/nat/limit"
	"warren/nat/path"
	"warren/nat/stunwire"
)

// tap is a lane that keeps what is sent.
type tap struct {
	mu   sync.Mutex
	sent []simPacket
}

func (c *tap) WriteTo(p []byte, addr net.Addr) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, simPacket{raw: append([]byte(nil), p...), from: addr.(*net.UDPAddr).AddrPort()})
	return len(p), nil
}
func (c *tap) take() []simPacket {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent := c.sent
	c.sent = nil
	return sent
}
func (*tap) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, os.ErrDeadlineExceeded }
func (*tap) Close() error                           { return nil }
func (*tap) LocalAddr() net.Addr                    { return &net.UDPAddr{} }
func (*tap) SetDeadline(time.Time) error            { return nil }
func (*tap) SetReadDeadline(time.Time) error        { return nil }
func (*tap) SetWriteDeadline(time.Time) error       { return nil }

var (
	ownCreds   = path.Credentials{Ufrag: "ownufrag", Pwd: strings.Repeat("o", 24)}
	theirCreds = path.Credentials{Ufrag: "theirufr", Pwd: strings.Repeat("t", 24)}
	remote4    = netip.MustParseAddrPort("192.0.2.7:1234")
	remote6    = netip.MustParseAddrPort("[2001:db8::7]:1234")
	virtual    = netip.MustParseAddrPort("[100::7]:1234")
)

func newTestMux() (*mux, *tap, *[]item) {
	lane, items := &tap{}, &[]item{}
	x := newMux(lane, func(it item) bool { *items = append(*items, it); return true }, func() {})
	x.overlay.Store(&[]netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")})
	return x, lane, items
}

func mustCheck(t *testing.T, own, remote path.Credentials) []byte {
	t.Helper()
	raw, _, err := checkRequest(own, remote)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestStrangersGetNoLargerAnswer(t *testing.T) {
	probe, bare := stunwire.Probe(stunwire.NewID()), stunwire.Bare(stunwire.NewID())
	for _, from := range []netip.AddrPort{remote4, remote6} {
		x, lane, _ := newTestMux()
		x.dispatch(probe, from)
		sent := lane.take()
		if len(sent) != 1 || sent[0].from != from || len(sent[0].raw) > len(probe) {
			t.Fatalf("got answers %v to a probe of %d bytes, want one that is no longer", sent, len(probe))
		}
		p, ok := stunwire.Inspect(sent[0].raw)
		if addr, mapped := p.Mapped(); !ok || !mapped || addr != from {
			t.Errorf("got mapped address %s, want %s", addr, from)
		}
		x.dispatch(bare, from)
		if sent := lane.take(); len(sent) != 0 {
			t.Errorf("got an answer of %d bytes to a bare request of %d, want none", len(sent[0].raw), len(bare))
		}
		for range 2 * answersPerSource {
			x.dispatch(probe, from)
		}
		if got := len(lane.take()); got > 2*answersPerSource-1 {
			t.Errorf("got %d answers at once, want a limit", got)
		}
	}
}

func TestAnswerLimit(t *testing.T) {
	l := newAnswerLimit()
	now := time.Unix(1000, 0)
	answered := func(n int, source func(i int) netip.Addr) (count int) {
		for i := range n {
			if l.Allow(now, limit.Host(source(i))) {
				count++
			}
		}
		return count
	}
	one := func(int) netip.Addr { return remote4.Addr() }
	if got := answered(1000, one); got != answersPerSource {
		t.Errorf("got %d answers to one source, want %d", got, answersPerSource)
	}
	many := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	if got := answered(5000, many); got != answersPerSecond-answersPerSource {
		t.Errorf("got %d answers to many sources, want %d", got, answersPerSecond-answersPerSource)
	}
	now = now.Add(time.Second)
	if got := answered(1, one); got != 1 {
		t.Error("got no answer a second later, want one")
	}
}

func TestChecksAreAnsweredWhenTheAttemptIsOver(t *testing.T) {
	x, lane, items := newTestMux()
	request := mustCheck(t, theirCreds, ownCreds)
	x.dispatch(request, remote4)
	if len(lane.take()) != 0 || x.drops()["unknown"] != 1 {
		t.Error("got an answer under unknown credentials, want the check dropped and counted")
	}
	x.trust(simID(2), []path.Credentials{ownCreds})
	x.dispatch(mustCheck(t, theirCreds, path.Credentials{Ufrag: ownCreds.Ufrag, Pwd: strings.Repeat("f", 24)}), remote4)
	if len(lane.take()) != 0 || x.drops()["forged"] != 1 {
		t.Error("got an answer to a forged check, want it dropped and counted")
	}
	x.dispatch(request, remote4) // before the agent: held for it
	if len(lane.take()) != 0 {
		t.Error("got an answer before the attempt, want the check held")
	}
	x.dispatch(request, virtual)
	if sent := lane.take(); len(sent) != 1 || sent[0].from != virtual {
		t.Errorf("got %v to a check over a relay, want an answer", sent)
	}
	agent := newAgentMux(x, simID(2), path.StartICE{Local: ownCreds, Remote: theirCreds}, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:9277")}, nil)
	x.addAgent(agent)
	x.dispatch(request, remote4)
	if got := len(agent.v4.queue); got != 2 {
		t.Errorf("got %d checks at the agent, want the early and the late one", got)
	}
	x.dispatch(request, remote6) // no base of that family
	x.removeAgent(agent)
	x.trust(simID(2), []path.Credentials{theirCreds, ownCreds})
	*items = nil
	x.dispatch(request, remote4)
	sent := lane.take()
	if len(sent) != 1 || sent[0].from != remote4 {
		t.Fatalf("got %v after the attempt, want an answer", sent)
	}
	if p, ok := stunwire.Inspect(sent[0].raw); !ok || !p.Authentic(ownCreds.Pwd) {
		t.Error("got an answer without the right integrity")
	}
	if len(*items) != 1 || (*items)[0].peer != simID(2) || (*items)[0].in != (path.PeerChecked{From: remote4}) {
		t.Errorf("got %v, want the peer's check noted", *items)
	}
	x.dispatch(request, netip.MustParseAddrPort("100.64.0.9:1"))
	if len(lane.take()) != 0 || x.drops()["rejected"] != 1 {
		t.Error("got an answer to an overlay address, want the check dropped and counted")
	}
	x.trust(simID(2), nil)
	x.dispatch(request, remote4)
	if len(lane.take()) != 0 {
		t.Error("got an answer after trust ended, want none")
	}
}

// The address of an authentic check, or answer, is told at once while ICE deals with it, and once.
func TestProvenAddressesAreTold(t *testing.T) {
	x, lane, items := newTestMux()
	x.trust(simID(2), []path.Credentials{ownCreds})
	want := func(when string, want ...netip.AddrPort) {
		t.Helper()
		var got []netip.AddrPort
		for _, it := range *items {
			if proven, ok := it.in.(path.Proven); ok && it.peer == simID(2) {
				got = append(got, proven.From)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v told, want %v", when, got, want)
		}
	}
	check := mustCheck(t, theirCreds, ownCreds)
	x.dispatch(mustCheck(t, theirCreds, path.Credentials{Ufrag: ownCreds.Ufrag, Pwd: strings.Repeat("f", 24)}), remote4)
	want("forged")
	x.dispatch(check, remote4)
	x.dispatch(check, remote4)
	want("held for the agent", remote4)
	agent := newAgentMux(x, simID(2), path.StartICE{Local: ownCreds, Remote: theirCreds}, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:9277")}, nil)
	x.addAgent(agent)
	other := netip.AddrPortFrom(remote4.Addr(), 99)
	x.dispatch(check, other)
	want("given to the agent", remote4, other)
	third := netip.AddrPortFrom(remote4.Addr(), 100)
	if _, err := agent.v4.WriteTo(mustCheck(t, ownCreds, theirCreds), net.UDPAddrFromAddrPort(third)); err != nil {
		t.Fatal(err)
	}
	agent.sendDue()
	p, _ := stunwire.Inspect(lane.take()[0].raw)
	forged, _ := stunwire.Answer(p.ID, third, ownCreds.Pwd)
	x.dispatch(forged, third)
	want("after a forged answer", remote4, other)
	answer, _ := stunwire.Answer(p.ID, third, theirCreds.Pwd)
	x.dispatch(answer, third)
	want("after an answer", remote4, other, third)
	for i := range 100 {
		x.dispatch(check, netip.AddrPortFrom(remote4.Addr(), uint16(1000+i)))
	}
	if got := len(*items); got > maxTold {
		t.Errorf("got %d addresses told in one attempt, want at most %d", got, maxTold)
	}
}

func TestProber(t *testing.T) {
	var p prober
	now := time.Unix(1000, 0)
	servers := []netip.AddrPort{remote4, remote6, virtual, {}}
	p.set(now, servers)
	if got := len(p.due(now)); got != 2 {
		t.Fatalf("got %d servers due, want the two real ones", got)
	}
	p.sent(remote4, stunwire.ID{1})
	if _, changed, _ := p.answered(now, mappedAnswer{server: remote4, id: stunwire.ID{9}, addr: remote4}); changed {
		t.Error("got an answer to another question taken, want it refused")
	}
	mine := netip.MustParseAddrPort("203.0.113.9:5555")
	if _, changed, moved := p.answered(now, mappedAnswer{server: remote4, id: stunwire.ID{1}, addr: mine}); !changed || moved {
		t.Errorf("got changed %v, moved %v for the first answer, want true, false", changed, moved)
	}
	if got := p.mapped(); len(got) != 1 || got[0] != mine {
		t.Errorf("got mapped %v, want %s", got, mine)
	}
	sends := 0
	for at := now; at.Before(now.Add(20 * time.Second)); at = at.Add(50 * time.Millisecond) {
		sends += len(p.due(at))
	}
	if sends != probeTries-1 {
		t.Errorf("got %d repetitions to a silent server in 20 s, want %d", sends, probeTries-1)
	}
	now = now.Add(2 * time.Minute)
	p.due(now)
	p.sent(remote4, stunwire.ID{2})
	other := netip.MustParseAddrPort("203.0.113.9:6666")
	if _, changed, moved := p.answered(now, mappedAnswer{server: remote4, id: stunwire.ID{2}, addr: other}); !changed || !moved {
		t.Errorf("got changed %v, moved %v for another mapping, want both", changed, moved)
	}
	p.set(now, servers)
	if got := p.mapped(); len(got) != 1 {
		t.Errorf("got mapped %v after the same servers were set, want the answer kept", got)
	}
	p.ask(now)
	if got := p.due(now); len(got) != 2 {
		t.Errorf("got servers %v due when all are asked, want both", got)
	}
	p.flush(now)
	if got := p.mapped(); len(got) != 0 {
		t.Errorf("got mapped %v after a flush, want none", got)
	}
}

func TestSlots(t *testing.T) {
	var s slots
	s.init()
	now := time.Unix(1000, 0)
	all := make([]*attempt, maxRunning+2)
	for i := range all {
		all[i] = &attempt{}
		s.queue(all[i], simID(i))
	}
	started := 0
	for a, _ := s.next(now); a != nil; a, _ = s.next(now) {
		started++
	}
	if started != maxRunning {
		t.Fatalf("got %d attempts at once, want %d", started, maxRunning)
	}
	s.release(all[0])
	if a, id := s.next(now); a != all[maxRunning] || id != simID(maxRunning) {
		t.Error("got another attempt than the next in line")
	}
	if wake := s.wake(); wake != now.Add(slotTime) {
		t.Errorf("got wake at %s, want when the first slot ends", wake)
	}
	s.release(all[maxRunning+1])
	if a, _ := s.next(now.Add(slotTime)); a != nil {
		t.Error("got an attempt that was released, want none")
	}
}
