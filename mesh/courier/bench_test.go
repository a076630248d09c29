package courier

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session"
	"warren/nat/path"
)

// switchboard joins the couriers of a benchmark, and is the surroundings of all: it keeps no lines.
type switchboard struct {
	*world
	couriers map[identity.NodeID]*Courier
	left     sync.WaitGroup // introductions that are not done
}

// port is one node at the switchboard.
type port struct {
	board *switchboard
	self  identity.NodeID
}

func (p port) Send(to identity.NodeID, _ session.Proto, sealed []byte) error {
	p.board.couriers[to].Take(p.self, p.self, sealed)
	return nil
}

func (p port) Leads() bool                                     { return true }
func (p port) Came(identity.NodeID, identity.NodeID)           {}
func (p port) SetPresharedKey(identity.NodeID, [32]byte) error { return nil }
func (p port) Anew(identity.NodeID)                            {}
func (p port) Agreed(id identity.NodeID, instance [8]byte)     { p.board.left.Done() }
func (p port) Initiation(identity.NodeID, uint64) []byte       { return nil }
func (p port) Respond(identity.NodeID, []byte) ([]byte, error) { return nil, nil }
func (p port) Conclude(identity.NodeID, [8]byte, []byte) bool  { return false }
func (p port) Pack() uint32                                    { return 1 }

func (p port) Deliver(from identity.NodeID, m path.Message) {
	if m.Kind == path.KindOffer {
		p.board.couriers[p.self].Send(from, answer(m.Attempt))
	}
}

// BenchmarkIntroductions has one node introduced to all its peers at once, which computes both ends. What one introduction
// costs must not grow with their number.
func BenchmarkIntroductions(b *testing.B) {
	for _, peers := range []int{10, 100, 500} {
		b.Run(fmt.Sprint(peers), func(b *testing.B) {
			board := &switchboard{world: newWorld(b), couriers: make(map[identity.NodeID]*Courier)}
			hosts := make([]*host, peers+1)
			for i := range hosts {
				h := board.add("node")
				hosts[i] = h
				h.courier.sessions, h.courier.tunnel, h.courier.standing = port{board, h.id}, port{board, h.id}, port{board, h.id}
				board.couriers[h.id] = h.courier
			}
			ctx, cancel := context.WithCancel(b.Context())
			var running sync.WaitGroup
			for _, h := range hosts {
				running.Go(func() { h.courier.Run(ctx, port{board, h.id}) })
			}
			b.ReportAllocs()
			attempt, before, done := uint64(0), cpuTime(b), 0
			for b.Loop() {
				attempt++
				board.left.Add(peers)
				for _, h := range hosts[1:] {
					if err := hosts[0].courier.Send(h.id, offer(attempt)); err != nil {
						b.Fatal(err)
					}
				}
				board.left.Wait()
				done += peers
				for _, h := range hosts[1:] { // attempts are minutes apart, and each is forgotten by then
					hosts[0].courier.Forget(h.id)
					h.courier.Forget(hosts[0].id)
				}
			}
			b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(done), "cpu-µs/introduction")
			cancel()
			running.Wait()
		})
	}
}

// cpuTime is what this process has computed so far.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
