package nat

import (
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/nat/path"
	"warren/nat/stunwire"
)

// victim is a host that never answers, and has nothing to do with the mesh.
var victim = netip.MustParseAddr("198.51.100.99")

// portsOf returns candidates at so many ports of an address.
func portsOf(addr netip.Addr, n int) (lines []string) {
	for i := range n {
		lines = append(lines, path.NewCandidate(path.ServerReflexive, netip.AddrPortFrom(addr, uint16(2000+i)), i).String())
	}
	return lines
}

// scattered returns candidates at as many hosts, which differ by round.
func scattered(round int) (lines []string) {
	for i := range path.MaxCandidates {
		a := netip.AddrFrom4([4]byte{203, byte(100 + round>>12), byte(round >> 4), byte(round<<4 | i)})
		lines = append(lines, path.NewCandidate(path.ServerReflexive, netip.AddrPortFrom(a, 9), i).String())
	}
	return lines
}

// load is what arrives somewhere, with IP and UDP headers.
type load struct{ packets, bytes atomic.Int64 }

func (l *load) String() string {
	return fmt.Sprintf("%d packets, %d bytes", l.packets.Load(), l.bytes.Load())
}

// attacked runs one honest node for a while, whose peer introduces itself that often, and says that it is at the victim. It
// returns what the victim gets, and what the node sends to anybody.
func attacked(t *testing.T, peer identity.NodeID, every, lasts time.Duration, claims func(round int) []string) (hit, all *load) {
	hit, all = new(load), new(load)
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		anchor := s.start(s.host(nil, 1), simID(200))
		x := s.start(s.host(s.nat(sequential, 10), 10), simID(100), anchor)
		time.Sleep(time.Second)
		s.mu.Lock()
		s.weigh = func(raw []byte, to netip.AddrPort) {
			if to.Addr() == anchor.host.addr.Addr() || to.Addr() == x.host.box.addr || path.IsVirtual(to.Addr()) {
				return // STUN, and a relay on which nobody else is
			}
			all.packets.Add(1)
			all.bytes.Add(int64(len(raw) + 28))
			if to.Addr() == victim {
				hit.packets.Add(1)
				hit.bytes.Add(int64(len(raw) + 28))
			}
		}
		s.mu.Unlock()
		var offered atomic.Uint64
		s.mu.Lock()
		s.scripts = map[identity.NodeID]func(Message){peer: func(m Message) {
			if m.Kind == KindOffer {
				offered.Store(m.Attempt)
			}
		}}
		s.mu.Unlock()
		x.SetPeers([]identity.NodeID{peer})
		end := time.Now().Add(lasts)
		var ports []uint16
		for i := range path.MaxPredicted {
			ports = append(ports, uint16(3000+i))
		}
		for round := 0; time.Now().Before(end); round++ {
			attempt := uint64(time.Now().UnixMilli())
			m := Message{
				Kind: KindOffer, Attempt: attempt, Instance: [8]byte{9}, Ufrag: "evilufra", Pwd: strings.Repeat("e", 24), Candidates: claims(round),
			}
			if peer.Compare(x.id) > 0 { // the node offers: it is asked to, and answered
				x.Deliver(peer, Message{Kind: KindAsk, Attempt: attempt, Instance: m.Instance})
				synctest.Wait()
				m.Kind, m.Attempt = KindAnswer, offered.Load()
			}
			x.Deliver(peer, m)
			synctest.Wait()
			m.Kind, m.Predicted = KindCandidates, path.Predicted{Addr: victim, Ports: ports}
			m.Ufrag, m.Pwd = "", ""
			x.Deliver(peer, m)
			time.Sleep(every)
		}
		x.halt()
		anchor.halt()
	})
	return hit, all
}

// What introductions make one member send to somebody who never answers. Before there was a budget, one attempt of 6 s had 1,792
// packets, 222 kB, and the next could follow 100 ms later.
func TestReflection(t *testing.T) {
	toVictim := func(int) []string { return portsOf(victim, path.MaxCandidates) }
	const often = 100 * time.Millisecond
	for _, test := range []struct {
		name         string
		peer         identity.NodeID // the smaller ID offers
		every, lasts time.Duration
		claims       func(int) []string
		hit, all     int64 // packets at the victim, and to everybody, at most
	}{
		{"one attempt", simID(1), 6 * time.Second, 6 * time.Second, toVictim, 130, 130},
		{"offers for six seconds", simID(1), often, 6 * time.Second, toVictim, 170, 170},
		{"offers for ten minutes", simID(1), often, 10 * time.Minute, toVictim, 600, 600},
		{"asks for ten minutes", simID(150), often, 10 * time.Minute, toVictim, 600, 600},
		{"offers for ten minutes, ever other victims", simID(1), often, 10 * time.Minute, scattered, 0, 900},
	} {
		t.Run(test.name, func(t *testing.T) {
			hit, all := attacked(t, test.peer, test.every, test.lasts, test.claims)
			t.Logf("%s at the victim; %s in all", hit, all)
			if got := hit.packets.Load(); got > test.hit {
				t.Errorf("got %d packets at the victim, want %d at most", got, test.hit)
			}
			if got := all.packets.Load(); got > test.all {
				t.Errorf("got %d packets sent, want %d at most", got, test.all)
			}
		})
	}
}

// What a hundred members together make one member send, when all introduce themselves all the time. The agents are played: a check
// for each pair every 200 ms, in which each peer's pace allows four, in a new attempt every two seconds.
func TestReflectionOfManyMembers(t *testing.T) {
	const members = 100
	for _, test := range []struct {
		name     string
		lasts    time.Duration
		claims   func(member, attempt int) []string
		hit, all int
	}{
		{"one victim", 10 * time.Minute, func(int, int) []string { return portsOf(victim, path.MaxCandidates) }, 160, 160},
		{"many victims", time.Minute, func(member, attempt int) []string { return scattered(member*400 + attempt) }, 0, 30_000},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hit, all, bytes := 0, 0, 0
				x, lane, _ := newTestMux()
				check, _ := stunwire.Inspect(mustCheck(t, ownCreds, theirCreds))
				agents, targets := make([]*agentMux, members), make([][]path.Candidate, members)
				begin := time.Now()
				for attempt := 0; time.Since(begin) < test.lasts; attempt++ {
					for i := range agents {
						targets[i] = path.ParseCandidates(test.claims(i, attempt), nil)
						agents[i] = newAgentMux(x, simID(1+i), path.StartICE{Local: ownCreds, Remote: theirCreds}, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:9277")}, nil)
						agents[i].named(targets[i])
					}
					for range 10 {
						for i, a := range agents {
							for _, c := range targets[i] {
								a.check(check, c.Addr)
							}
							a.sendDue()
						}
						for _, p := range lane.take() {
							all++
							bytes += len(p.raw) + 28
							if p.from.Addr() == victim {
								hit++
							}
						}
						time.Sleep(4 * checkInterval)
					}
				}
				t.Logf("%d members for %s: %d packets at the victim; %d packets, %d bytes in all", members, test.lasts, hit, all, bytes)
				if hit > test.hit || all > test.all {
					t.Errorf("got %d packets at the victim and %d in all, want %d and %d at most", hit, all, test.hit, test.all)
				}
				if kept := len(x.budget.hosts) + len(x.budget.peers); kept > 8000 {
					t.Errorf("got %d budgets kept, want fewer", kept)
				}
			})
		})
	}
}
