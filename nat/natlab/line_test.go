//go:build linux

package natlab

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// echoed sends n packets through the lab, one interval apart, to a socket that sends them back, and returns how long
// each took that came back, in the order of their coming, with their numbers. It ends when all are back, or when everything is
// sent and nothing came for as long as silence.
func echoed(t *testing.T, a, b *Host, n int, interval, silence time.Duration) (order []int, took []time.Duration) {
	t.Helper()
	open := func(h *Host) *net.UDPConn {
		c, err := h.ListenUDP(netip.AddrPortFrom(h.Addr4(), 0))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		roomy(t, c)
		return c
	}
	from, to := open(a), open(b)
	defer from.Close()
	defer to.Close()
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := to.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			to.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	at := to.LocalAddr().(*net.UDPAddr).AddrPort()
	start := time.Now()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range n {
			time.Sleep(time.Until(start.Add(time.Duration(i) * interval)))
			b := binary.BigEndian.AppendUint64(nil, uint64(i))
			from.WriteToUDPAddrPort(binary.BigEndian.AppendUint64(b, uint64(time.Since(start))), at)
		}
	}()
	defer func() { <-sent }() // the socket is closed after it
	buf := make([]byte, 1500)
	for len(order) < n {
		from.SetReadDeadline(time.Now().Add(silence))
		if _, err := from.Read(buf); err != nil {
			select {
			case <-sent:
				return order, took
			default: // a busy machine has not sent them all yet
				continue
			}
		}
		order = append(order, int(binary.BigEndian.Uint64(buf)))
		took = append(took, time.Since(start)-time.Duration(binary.BigEndian.Uint64(buf[8:])))
	}
	return order, took
}

// roomy gives a socket room for all that a test sends: on a busy machine its reader comes late, and what the kernel drops then no
// line has lost.
func roomy(t *testing.T, c *net.UDPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		if control := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
		}); control != nil {
			err = control
		}
	}
	if err != nil {
		t.Fatalf("make room: %v", err)
	}
}

// The silences after which echoed gives up: where every packet has to come back, and where some are lost.
const (
	allBack  = 20 * time.Second
	someLost = 3 * time.Second
)

// overtaken counts the neighbours in an order of coming of which the later was sent first.
func overtaken(order []int) (n int) {
	for i := range order[1:] {
		if order[i] > order[i+1] {
			n++
		}
	}
	return n
}

// roundTrips sends n packets, all of which have to come back, none before the length of the line: that is wrong however busy the
// machine is. Being late is wrong only if it lasts: the fastest has to come within slack of it, at one of the tries of half a minute.
func roundTrips(t *testing.T, what string, a, b *Host, n int, want, slack time.Duration) (order []int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		order, took := echoed(t, a, b, n, 2*time.Millisecond, allBack)
		if len(took) != n {
			t.Errorf("%s: got %d answers, want %d", what, len(took), n)
			return order
		}
		fastest := slices.Min(took)
		if fastest < want || fastest > want+slack && time.Now().After(deadline) {
			t.Errorf("%s: got round trips from %v, median %v, want from %v", what, fastest, median(took), want)
		} else if fastest > want+slack {
			t.Logf("%s: a busy machine: got round trips from %v, again", what, fastest)
			continue
		}
		return order
	}
}

// median of durations; a machine that is busy makes some late and none early.
func median(all []time.Duration) time.Duration {
	all = slices.Clone(all)
	slices.Sort(all)
	return all[len(all)/2]
}

// TestLine changes one line live: its length, what it loses, and that it is no line any more.
func TestLine(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	home := l.Router("home", EIMAPDF)
	public, a := l.Host("public", nil), l.Host("a", home)
	const slack = 40 * time.Millisecond // less than a line of the ones before is longer
	roundTrips(t, "no line", a, public, 50, 0, slack)

	l.Line(a, Line{Delay: 25 * time.Millisecond}) // that of its home
	order := roundTrips(t, "25 ms each way", a, public, 200, 50*time.Millisecond, slack)
	if n := overtaken(order); n > 10 { // the kernel's own queues, one a core, may change a few
		t.Errorf("without jitter: got %v, want order", order)
	}
	l.Line(public, Line{Delay: 10 * time.Millisecond})
	roundTrips(t, "25 and 10 ms each way", a, public, 50, 70*time.Millisecond, slack)

	l.Line(public, Line{})
	l.Line(home, Line{Delay: 5 * time.Millisecond, Jitter: 50 * time.Millisecond})
	order, took := echoed(t, a, public, 200, 2*time.Millisecond, allBack)
	if len(order) != 200 || overtaken(order) < 20 || slices.Min(took) < 10*time.Millisecond {
		t.Errorf("with jitter: got %d answers, round trips from %v, %d overtaken", len(order), slices.Min(took), overtaken(order))
	}
	l.Line(home, Line{Loss: 0.2, Seed: 1})
	up, _ := l.Carried(home)
	order, _ = echoed(t, a, public, 500, time.Millisecond, someLost)
	after, down := l.Carried(home)
	if d := after.Minus(up); len(order) < 250 || len(order) > 390 || d.Packets+d.Lost != 500 || down.Packets == 0 {
		t.Errorf("a fifth lost each way: got %d of 500 answers, carried %+v, want about 320", len(order), d)
	}
	l.Line(home, Line{})
	roundTrips(t, "no line any more", a, public, 50, 0, slack)
}

// TestLineRate has a TCP stream through a slow line: it gets the rate, and its bytes arrive as they were sent, though the cards
// leave segments and checksums to others.
func TestLineRate(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	public, a := l.Host("public", nil), l.Host("a", l.Router("home", EIMAPDF))
	l.Line(a, Line{Delay: 10 * time.Millisecond, Rate: 4_000_000})
	var server net.Listener
	if err := public.Do(func() (err error) { server, err = net.Listen("tcp", public.Addr4().String()+":1000"); return err }); err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	const size = 250_000
	go func() {
		var c net.Conn
		if a.Do(func() (err error) { c, err = net.Dial("tcp", server.Addr().String()); return err }) != nil {
			return
		}
		defer c.Close()
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(i % 251)
		}
		c.Write(data)
	}()
	c, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	start := time.Now()
	got, err := io.ReadAll(c)
	took := time.Since(start)
	if err != nil || len(got) != size {
		t.Fatalf("got %d bytes, %v, want %d", len(got), err, size)
	}
	for i := range got {
		if got[i] != byte(i%251) {
			t.Fatalf("byte %d: got %d, want %d", i, got[i], i%251)
		}
	}
	if took < 400*time.Millisecond {
		t.Errorf("a quarter of a megabyte at 4 Mbit/s took %v, want half a second and what the start of a stream costs", took)
	}
}

// TestLineGoesWithItsCable moves a host with a line, and back.
func TestLineGoesWithItsCable(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	public, home := l.Host("public", nil), l.Router("home", EIMAPDF)
	h := l.Host("laptop", nil)
	const slack = 40 * time.Millisecond
	l.Line(h, Line{Delay: 30 * time.Millisecond})
	reach(t, h, public.Addr4())
	reach(t, h, public.Addr6())
	for _, to := range []*Router{home, nil} {
		h.Move(to)
		roundTrips(t, fmt.Sprintf("after a move to %v", to), h, public, 20, 0, slack)
	}
	l.Line(home, Line{Delay: 10 * time.Millisecond})
	home.Rebind()
	h.Move(home)
	roundTrips(t, "after a rebind, the line of the home", h, public, 20, 20*time.Millisecond, slack)
}

// TestLineEndsOnce moves a host off its line and then closes the lab: what others have opened meanwhile under the numbers of the
// line's files is theirs, and stays open. A file that was closed twice would stop the line of another lab, whose end is a file as well.
func TestLineEndsOnce(t *testing.T) {
	l := ForTest(t)
	h := l.Host("laptop", nil)
	l.Line(h, Line{Delay: time.Millisecond})
	line := l.lines[h.plug().number]
	old := []int{line.up.end, line.down.end}
	h.Move(nil)
	var others []int
	for range 200 {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			t.Fatal(err)
		}
		others = append(others, fd)
	}
	defer func() {
		for _, fd := range others {
			unix.Close(fd)
		}
	}()
	for _, fd := range old {
		if !slices.Contains(others, fd) {
			t.Fatalf("file %d of the line is not free again: the test tests nothing", fd)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	for _, fd := range others {
		if n, err := unix.Read(fd, make([]byte, 8)); err != unix.EAGAIN {
			t.Errorf("file %d of somebody else: read %d bytes, %v, want it open and nobody to have written", fd, n, err)
		}
	}
}

// TestLineAndFaults: what a line holds is lost once by a Loss, and a Cut cuts.
func TestLineAndFaults(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	public, a := l.Host("public", nil), l.Host("a", nil)
	l.Line(a, Line{Delay: time.Millisecond})
	reach(t, a, public.Addr4()) // link addresses are known then
	l.Loss(a, 300)
	if order, _ := echoed(t, a, public, 1000, time.Millisecond, someLost); len(order) < 420 || len(order) > 560 {
		t.Errorf("got %d of 1000 answers, want about 490", len(order))
	}
	l.Cut(a)
	if ping(a, public.Addr4()) {
		t.Error("a host that is cut off reaches others")
	}
	l.Mend(a)
	reach(t, a, public.Addr4())
}

// BenchmarkLine tells what a line bears: packets that arrive of those that are sent as fast as it goes.
func BenchmarkLine(b *testing.B) {
	l := ForTest(b)
	from, to := l.Host("from", nil), l.Host("to", nil)
	l.Line(from, Line{Delay: 25 * time.Millisecond})
	in, err := to.ListenUDP(netip.AddrPortFrom(to.Addr4(), 1000))
	if err != nil {
		b.Fatal(err)
	}
	in.SetReadBuffer(8 << 20)
	out, err := from.ListenUDP(netip.AddrPortFrom(from.Addr4(), 0))
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	got := make(chan int)
	go func() {
		buf, n := make([]byte, 1500), 0
		for ; ; n++ {
			if _, err := in.Read(buf); err != nil {
				got <- n
				return
			}
		}
	}()
	packet, start, sent := make([]byte, 1200), time.Now(), 0
	for b.Loop() {
		out.WriteToUDPAddrPort(packet, netip.AddrPortFrom(to.Addr4(), 1000))
		sent++
	}
	took := time.Since(start)
	time.Sleep(200 * time.Millisecond)
	in.Close()
	b.ReportMetric(float64(<-got)/took.Seconds(), "arrived/s")
	b.ReportMetric(float64(sent)/took.Seconds(), "sent/s")
}
