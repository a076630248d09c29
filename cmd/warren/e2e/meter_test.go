//go:build linux

package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"warren/mesh/api"
)

const (
	echoEvery = 20 * time.Millisecond
	// hole is the silence that counts as a break of the tunnel: ten echoes in a row.
	hole = 10 * echoEvery
	// steady is how long a tunnel has to answer by the route that is wanted for an event to be over.
	steady = 3 * time.Second
)

// meter sends an echo request every 20 ms from one node to an overlay address of another, and keeps when the answers
// arrived. What counts is the time without an answer and not which request was answered: WireGuard keeps the packets
// that find no session, so that most requests of an outage are answered in the end.
type meter struct {
	conn *icmp.PacketConn
	id   int
	to   netip.Addr

	mu       sync.Mutex
	arrivals []time.Time

	end  chan struct{}
	done sync.WaitGroup
}

// meterIDs tell the echoes of meters in one host apart.
var meterIDs atomic.Uint32

// meter starts one between two nodes. It ends with the test, or by stop.
func (b *bed) meter(from, to *Node) *meter {
	b.t.Helper()
	addrs, err := to.Overlay(b.ctx)
	b.must(err)
	m := &meter{id: int(0x4000 + meterIDs.Add(1)), to: addrs[0], end: make(chan struct{})}
	b.must(from.Host.Do(func() (err error) { m.conn, err = icmp.ListenPacket("ip4:icmp", "0.0.0.0"); return err }))
	m.done.Go(m.send)
	m.done.Go(m.receive)
	b.t.Cleanup(m.stop)
	return m
}

func (m *meter) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.end:
	default:
		close(m.end)
		m.conn.Close()
	}
}

func (m *meter) send() {
	tick := time.NewTicker(echoEvery)
	defer tick.Stop()
	for seq := 0; ; seq++ {
		// Fails while there is no interface: that is an outage like another.
		sendEcho(m.conn, m.to, m.id, seq)
		select {
		case <-tick.C:
		case <-m.end:
			return
		}
	}
}

func (m *meter) receive() {
	buf := make([]byte, 1500)
	for {
		n, from, err := m.conn.ReadFrom(buf)
		now := time.Now()
		if err != nil {
			return
		}
		if isEcho(buf[:n], from, m.to, m.id) {
			m.mu.Lock()
			m.arrivals = append(m.arrivals, now)
			m.mu.Unlock()
		}
	}
}

// sendEcho sends one echo request out of a raw socket.
func sendEcho(c *icmp.PacketConn, to netip.Addr, id, seq int) error {
	echo := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: id, Seq: seq & 0xffff}}
	packet, err := echo.Marshal(nil)
	if err == nil {
		_, err = c.WriteTo(packet, &net.IPAddr{IP: to.AsSlice()})
	}
	return err
}

// isEcho reports whether a packet is the answer to a request with this ID from this address.
func isEcho(packet []byte, from net.Addr, want netip.Addr, id int) bool {
	reply, err := icmp.ParseMessage(1, packet)
	if err != nil || reply.Type != ipv4.ICMPTypeEchoReply || from.String() != want.String() {
		return false
	}
	echo, ok := reply.Body.(*icmp.Echo)
	return ok && echo.ID == id
}

// silent is for how long no answer has come, up to now.
func (m *meter) silent(now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.arrivals) == 0 {
		return 1 << 62
	}
	return now.Sub(m.arrivals[len(m.arrivals)-1])
}

// silences returns the longest time without an answer since an event, and the sum of all that count as a hole.
func (m *meter) silences(since, until time.Time) (longest, sum time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	first, _ := slices.BinarySearchFunc(m.arrivals, since, time.Time.Compare)
	last := since
	for _, at := range append(slices.Clone(m.arrivals[first:]), until) {
		if at.After(until) {
			at = until
		}
		gap := at.Sub(last)
		longest = max(longest, gap)
		if gap > hole {
			sum += gap
		}
		last = at
	}
	return longest, sum
}

// route is the way that a status gives for a peer: direct, relay, or stream where datagrams are carried by TCP; "" when
// it is not up.
func route(s api.Status, peer *Node) string {
	p, ok := Peer(s, peer.Name())
	switch {
	case !ok || !p.Connected():
		return ""
	case p.Path.Transport == api.TransportTCP:
		return routeStream
	default:
		return p.Path.Kind
	}
}

// The routes.
const (
	routeDirect = api.PathDirect
	routeRelay  = api.PathRelay
	routeStream = "stream"
)

// disturbance is what an event did to the tunnel between two nodes.
type disturbance struct {
	Outage time.Duration // longest time without an answer
	Silent time.Duration // all times without an answer of more than 200 ms together
	// Again is how long after the event both ends said that the route is the one that is wanted, answers coming, and
	// did so for 3 s on.
	Again  time.Duration
	Healed bool // false: it was given up after the limit
}

func (d disturbance) String() string {
	s := fmt.Sprintf("outage %4d ms, silent %4d ms, again after %5d ms", d.Outage.Milliseconds(), d.Silent.Milliseconds(), d.Again.Milliseconds())
	if !d.Healed {
		s += ": GIVEN UP"
	}
	return s
}

// disturb measures what an event does to a tunnel that carries an echo each way every 20 ms. It waits until the tunnel
// is in order before, and until it is again after, on the route wanted, for as long as the limit. The event returns
// the moment that counts as its beginning: zero is the moment when it is called.
func (b *bed) disturb(x, y *Node, want string, limit time.Duration, event func() time.Time) disturbance {
	b.t.Helper()
	return b.divert(x, y, want, want, limit, event)
}

// divert is disturb for an event after which another route is wanted. Where the two ends are to give different ones,
// they are "x/y".
func (b *bed) divert(x, y *Node, want, then string, limit time.Duration, event func() time.Time) disturbance {
	b.t.Helper()
	meters := []*meter{b.meter(x, y), b.meter(y, x)}
	defer func() {
		for _, m := range meters {
			m.stop()
			m.done.Wait()
		}
	}()
	w := &watch{bed: b, x: x, y: y, want: want, meters: meters}
	if !w.until(time.Second, time.Now().Add(limit)) {
		b.t.Fatalf("%s and %s before the event: got %s, want %s for 1 s", x.Name(), y.Name(), w.said, want)
	}
	begin := time.Now()
	var stop sync.WaitGroup
	over := make(chan struct{})
	stop.Go(func() { // the routes during the event
		for {
			w.look()
			select {
			case <-over:
				return
			case <-time.After(echoEvery):
			}
		}
	})
	from := event()
	close(over)
	stop.Wait()
	w.want = then
	if from.IsZero() {
		from = begin
	}
	var d disturbance
	d.Healed = w.until(steady, time.Now().Add(limit))
	now := time.Now()
	for _, m := range meters {
		longest, sum := m.silences(from, now)
		d.Outage, d.Silent = max(d.Outage, longest), max(d.Silent, sum)
	}
	d.Again = max(0, w.bad.Sub(from))
	if d.Outage > hole {
		d.Again = max(d.Again, d.Outage) // the looks are some milliseconds apart
	}
	if !d.Healed {
		b.t.Errorf("%s and %s: got %s, want %s within %v", x.Name(), y.Name(), w.said, then, limit)
	}
	return d
}

// watch looks at both ends of a tunnel.
type watch struct {
	bed    *bed
	x, y   *Node
	want   string
	meters []*meter

	bad  time.Time // when it was last not in order
	said string    // what was seen then
}

// look notes whether the tunnel is in order now.
func (w *watch) look() {
	now := time.Now()
	for _, m := range w.meters {
		if gap := m.silent(now); gap > hole {
			w.bad, w.said = now, "no answer from "+m.to.String()
		}
	}
	wantX, wantY, differ := strings.Cut(w.want, "/")
	if !differ {
		wantY = wantX
	}
	for i, pair := range [][2]*Node{{w.x, w.y}, {w.y, w.x}} {
		s, err := pair[0].Status(w.bed.ctx)
		if err != nil {
			w.bad, w.said = now, err.Error()
		} else if got := route(s, pair[1]); got != [2]string{wantX, wantY}[i] {
			w.bad, w.said = now, fmt.Sprintf("%s: %s by %q", pair[0].Name(), pair[1].Name(), got)
		}
	}
}

// until waits until the tunnel has been in order for so long; false at the deadline.
func (w *watch) until(long time.Duration, deadline time.Time) bool {
	for begin := time.Now(); ; time.Sleep(echoEvery) {
		w.look()
		now := time.Now()
		if now.Sub(begin) >= long && now.Sub(w.bad) >= long {
			return true
		}
		if now.After(deadline) {
			return false
		}
	}
}

// TestMeter asserts that the meter sees a cut of a known length, and nothing where nothing happens.
func TestMeter(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	m := &meter{}
	for _, ms := range []int{0, 20, 40, 60, 1060, 1080, 1380, 1400} {
		m.arrivals = append(m.arrivals, at(ms))
	}
	tests := []struct {
		since, until int
		longest, sum int
	}{
		{50, 1400, 1000, 1300},   // the answer before the event opens the hole
		{60, 1400, 1000, 1300},   // one at the very moment is the last before
		{1070, 1400, 300, 300},   // the first is over
		{1390, 1400, 10, 0},      // the usual distance
		{1390, 3400, 2000, 2000}, // silence up to now
		{50, 70, 10, 0},          // nothing after the end
	}
	for _, tt := range tests {
		longest, sum := m.silences(at(tt.since), at(tt.until))
		if longest.Milliseconds() != int64(tt.longest) || sum.Milliseconds() != int64(tt.sum) {
			t.Errorf("silences(%d, %d): got %v, %v, want %d ms, %d ms", tt.since, tt.until, longest, sum, tt.longest, tt.sum)
		}
	}
}
