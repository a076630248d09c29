package natprobe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/nat/natkind"
	"warren/nat/natprobe/natprobetest"
	"warren/nat/stunwire"
)

// internet is one whose NAT is of these kinds.
func internet(mapping natkind.Mapping, filtering natkind.Filtering) *natprobetest.Internet {
	return natprobetest.New(natprobetest.Options{Mapping: mapping, Filtering: filtering})
}

// members are those who answer STUN and help.
type members struct {
	t     *testing.T
	net   *natprobetest.Internet
	ctx   context.Context
	told  chan Told
	tasks sync.WaitGroup
	all   []Server
	mute  bool          // they do not understand asks for help
	late  time.Duration // how much longer their word takes than their packets
}

func newMembers(t *testing.T, ctx context.Context, i *natprobetest.Internet, n int) *members {
	m := &members{t: t, net: i, ctx: ctx, told: make(chan Told, 8)}
	for k := range n {
		s := i.Socket(netip.AddrFrom4([4]byte{203, 0, 113, byte(k + 1)}), 9277)
		m.all = append(m.all, Server{ID: identity.NodeID{byte(k + 1)}, Addr: s.Addr(), Helps: true})
		m.tasks.Go(func() { s.Serve(func([12]byte) {}) })
		context.AfterFunc(ctx, func() { s.Close() })
	}
	return m
}

// opener opens sockets at an address of the network.
type opener struct {
	net  *natprobetest.Internet
	addr netip.Addr
}

func (o opener) Listen() (net.PacketConn, error) { return o.net.Socket(o.addr, 0), nil }

// opened gives out one socket, or an error.
type opened struct {
	c   net.PacketConn
	err error
}

func (o opened) Listen() (net.PacketConn, error) { return o.c, o.err }

// Ask has a member help.
func (m *members) Ask(helper identity.NodeID, id [12]byte, addr netip.AddrPort) error {
	if m.mute {
		return nil
	}
	sockets := opener{m.net, netip.AddrFrom4([4]byte{203, 0, 113, helper[0]})}
	m.tasks.Go(func() {
		err := Help(m.ctx, sockets, id, addr, func(port uint16) {
			time.AfterFunc(natprobetest.Latency+m.late, func() { m.told <- Told{id, port} })
		})
		if err != nil && !errors.Is(err, context.Canceled) {
			m.t.Errorf("help: %v", err)
		}
	})
	return nil
}

// measure runs one measurement from the host behind the NAT.
func measure(t *testing.T, i *natprobetest.Internet, servers int, change func(*members)) (Report, time.Duration) {
	ctx, cancel := context.WithCancel(t.Context())
	m := newMembers(t, ctx, i, servers)
	if change != nil {
		change(m)
	}
	home := i.Home()
	start := time.Now()
	report, err := Measure(ctx, Options{
		Sockets: opener{i, home}, Servers: m.all, Hosts: []netip.Addr{home}, Helpers: m, Told: m.told,
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
						i := internet(mapping, filtering)
						if lossy {
							i.Set(func(o *natprobetest.Options) { o.Lossy = true })
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
							if !lossy && a.RTT != 2*natprobetest.Latency {
								t.Errorf("got round trip %s, want %s", a.RTT, 2*natprobetest.Latency)
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
			i := internet(natkind.MappedIndependent, natkind.FilteredByAddressAndPort)
			i.Set(func(o *natprobetest.Options) { o.Hairpin = hairpin })
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
				got, _ := measure(t, internet(natkind.MappedByAddress, natkind.FilteredByAddress), tt.servers, tt.change)
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
		i := internet(natkind.MappedByAddressAndPort, natkind.FilteredNot)
		got, _ := measure(t, i, 3, func(m *members) { m.late = time.Second })
		if got.Mapping != natkind.MappedByAddressAndPort || got.Filtering != natkind.FilteredNot {
			t.Errorf("got mapping %s and filtering %s, want %s and %s", got.Mapping, got.Filtering, natkind.MappedByAddressAndPort, natkind.FilteredNot)
		}
	})
}

func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := internet(natkind.MappedIndependent, natkind.FilteredNot)
		i.Set(func(o *natprobetest.Options) { o.Deaf = true })
		got, took := measure(t, i, 2, nil)
		if got.Works() || len(got.Answers) != 2 || got.Mapping != natkind.MappingUnknown || took != answerTime {
			t.Errorf("got %+v in %s, want two servers without answer in %s", got, took, answerTime)
		}
	})
}

func TestListenFails(t *testing.T) {
	want := errors.New("no IPv6 here")
	_, err := Measure(t.Context(), Options{Servers: []Server{{}}, Sockets: opened{err: want}})
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// TestHelperAnswersItsAskerOnly: nobody who does not know the transaction gets an answer, nor one that is larger than the request.
func TestHelperAnswersItsAskerOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := internet(natkind.MappedIndependent, natkind.FilteredNot)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		helper, asker := i.Socket(netip.MustParseAddr("203.0.113.1"), 0), i.Socket(netip.MustParseAddr("203.0.113.2"), 0)
		id := [12]byte{1}
		port, done := make(chan uint16, 1), make(chan error, 1)
		go func() {
			done <- Help(ctx, opened{c: helper}, id, asker.Addr(), func(p uint16) { port <- p })
		}()
		time.Sleep(time.Second)
		if got := <-port; got != helper.Addr().Port() || asker.Waiting() != len(helpTimes) {
			t.Fatalf("got port %d and %d requests, want %d and %d", got, asker.Waiting(), helper.Addr().Port(), len(helpTimes))
		}
		for range asker.Waiting() {
			asker.ReadFrom(make([]byte, 64))
		}
		for _, raw := range [][]byte{stunwire.Probe([12]byte{2}), stunwire.Bare(id), []byte("nonsense")} {
			asker.WriteTo(raw, net.UDPAddrFromAddrPort(helper.Addr()))
		}
		time.Sleep(time.Second)
		if asker.Waiting() != 0 {
			t.Errorf("got %d answers, want none", asker.Waiting())
		}
		for range 2 * maxAnswers {
			asker.WriteTo(stunwire.Probe(id), net.UDPAddrFromAddrPort(helper.Addr()))
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond)
		if asker.Waiting() != maxAnswers {
			t.Errorf("got %d answers, want %d", asker.Waiting(), maxAnswers)
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
