//go:build linux

package e2e

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestSwitchLosesNothing has two hosts that reach each other only through a relay, until the Internet lets them through:
// the tunnel goes direct, and of datagrams numbered one after the other not one is lost, nor does a TCP stream stall.
func TestSwitchLosesNothing(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	anchor := bed.node("anchor", nil)
	homeX, homeY := bed.Router("home-x", natlab.EIMAPDF), bed.Router("home-y", natlab.EIMAPDF)
	bed.Partition([]natlab.Attached{homeX}, []natlab.Attached{homeY})
	x, y := bed.node("x", homeX), bed.node("y", homeY)
	bed.must(Found(bed.ctx, "home", anchor, x, y))
	bed.connected(x, y, api.PathRelay)

	to := bed.status(y).Self.Addresses[0]
	numbered, stream := bed.numberDatagrams(x, y, to), bed.flow(x, y, to)
	bed.step("relayed, and in use")
	bed.Heal()
	bed.step("the way is free")
	for _, pair := range [][2]*Node{{x, y}, {y, x}} {
		_, err := pair[0].WaitPath(bed.ctx, pair[1], api.PathDirect)
		bed.must(err)
	}
	bed.step("direct at both ends")
	before := numbered.received()
	bed.eventually("a second of datagrams by the new path", func() bool { return numbered.received() >= before+1000 })
	sent, lost, late := numbered.end()
	stall := stream.end()
	bed.step("%d datagrams, %d lost, %d late by more than 64; longest pause of the stream %s", sent, lost, late, stall)
	if lost > 0 {
		t.Errorf("got %d of %d datagrams lost, want none", lost, sent)
	}
	if late > 0 {
		t.Errorf("got %d datagrams overtaken by more than 64 others, want none", late)
	}
	if stall > time.Second {
		t.Errorf("got a pause of %s in the stream, want a second at most", stall)
	}
}

// numbers counts datagrams that carry consecutive numbers, one each millisecond.
type numbers struct {
	out, in *net.UDPConn
	quit    chan struct{}
	done    sync.WaitGroup

	mu   sync.Mutex
	sent uint64
	seen map[uint64]bool
	top  uint64
	late int
}

// numberDatagrams sends them from one node to an address of another until end.
func (b *bed) numberDatagrams(from, to *Node, addr netip.Addr) *numbers {
	b.t.Helper()
	n := &numbers{quit: make(chan struct{}), seen: make(map[uint64]bool)}
	var err error
	n.in, err = to.Host.ListenUDP(netip.AddrPortFrom(addr, 7000))
	b.must(err)
	b.must(n.in.SetReadBuffer(4 << 20)) // a busy machine must not look like a lossy path
	b.must(from.Host.Do(func() (err error) {
		n.out, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 7000)))
		return err
	}))
	n.done.Go(n.send)
	go n.receive()
	b.t.Cleanup(func() { n.in.Close(); n.out.Close() })
	return n
}

func (n *numbers) send() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	packet := make([]byte, 200)
	for {
		select {
		case <-n.quit:
			return
		case <-tick.C:
		}
		n.mu.Lock()
		binary.BigEndian.PutUint64(packet, n.sent)
		n.sent++
		n.mu.Unlock()
		n.out.Write(packet)
	}
}

func (n *numbers) receive() {
	buf := make([]byte, 1500)
	for {
		size, err := n.in.Read(buf)
		if err != nil {
			return
		}
		if size < 8 {
			continue
		}
		number := binary.BigEndian.Uint64(buf)
		n.mu.Lock()
		n.seen[number] = true
		if number+64 < n.top {
			n.late++
		}
		n.top = max(n.top, number)
		n.mu.Unlock()
	}
}

func (n *numbers) received() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.seen)
}

// end stops sending, and returns what became of what was sent. The last ones have a second to arrive.
func (n *numbers) end() (sent uint64, lost, late int) {
	close(n.quit)
	n.done.Wait()
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if uint64(n.received()) == n.sent {
			break
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent, int(n.sent) - len(n.seen), n.late
}

// flow is a TCP stream that writes all the time; it knows the longest time in which nothing arrived.
type flow struct {
	out, in net.Conn
	longest time.Duration
	done    chan struct{}
}

// flow opens one from a node to an address of another.
func (b *bed) flow(from, to *Node, addr netip.Addr) *flow {
	b.t.Helper()
	f := &flow{done: make(chan struct{})}
	var listener net.Listener
	b.must(to.Host.Do(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(addr, 7001).String())
		return err
	}))
	defer listener.Close()
	b.must(from.Host.Do(func() (err error) {
		f.out, err = (&net.Dialer{Timeout: 10 * time.Second, FallbackDelay: -1}).Dial("tcp", netip.AddrPortFrom(addr, 7001).String())
		return err
	}))
	var err error
	f.in, err = listener.Accept()
	b.must(err)
	go func() {
		chunk := make([]byte, 4096)
		for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C { // a few Mbit/s: the machine is not to be what stalls
			if _, err := f.out.Write(chunk); err != nil {
				tick.Stop()
				return
			}
		}
	}()
	go func() {
		defer close(f.done)
		last := time.Now()
		buf := make([]byte, 64<<10)
		for {
			_, err := f.in.Read(buf)
			f.longest = max(f.longest, time.Since(last))
			last = time.Now()
			if err != nil {
				return
			}
		}
	}()
	b.t.Cleanup(func() { f.out.Close(); f.in.Close() })
	return f
}

// end closes the stream and returns the longest pause.
func (f *flow) end() time.Duration {
	f.out.Close()
	<-f.done
	return f.longest
}
