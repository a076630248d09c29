package session

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session/sessiontest"
	"warren/nat/due"
)

func FuzzParseFrame(f *testing.F) {
	to, from := identity.NodeID{1}, identity.NodeID{2}
	for _, h := range []header{
		{kind: frameDirect, proto: ProtoSignal},
		{kind: frameEnvelope, hops: 2, to: to, from: from, proto: ProtoGossip},
		{kind: framePing, nonce: 7}, {kind: framePong, nonce: 1 << 60},
	} {
		f.Add(h.appendTo(nil))
		f.Add(append(h.appendTo(nil), "payload"...))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, payload, err := parseFrame(b)
		if err != nil {
			if !errors.Is(err, errMalformed) {
				t.Fatalf("got %v, want errMalformed", err)
			}
			return
		}
		again := append(h.appendTo(nil), payload...)
		if h.kind == framePing || h.kind == framePong {
			b, again = b[:9], again[:9] // padding is not kept
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("got %x, want %x", again, b)
		}
	})
}

func FuzzReadHeader(f *testing.F) {
	f.Add(header{kind: frameDirect, proto: ProtoSync}.appendTo(nil))
	f.Add(header{kind: frameEnvelope, hops: 1, to: identity.NodeID{1}, from: identity.NodeID{2}, proto: ProtoSync}.appendTo(nil))
	f.Add(header{kind: framePing}.appendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readHeader(bytes.NewReader(b))
		if err == nil && !bytes.HasPrefix(b, h.appendTo(nil)) {
			t.Fatalf("got %+v of %x", h, b)
		}
	})
}

func FuzzReadHello(f *testing.F) {
	f.Add(appendHello(nil, instance{1, 2, 3}))
	f.Add([]byte{frameHello, 12, 2, 1, 2, 3, 4, 5, 6, 7, 8, 'n', 'e', 'w'})
	f.Add([]byte{frameHello, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		far, err := readHello(bytes.NewReader(b))
		if err == nil && !bytes.Equal(b[3:11], far[:]) {
			t.Fatalf("got %x of %x", far, b)
		}
	})
}

func FuzzCleanReason(f *testing.F) {
	f.Add("revoked by root")
	f.Add("\x1b[2J\x00" + strings.Repeat("ü", 500))
	f.Fuzz(func(t *testing.T, text string) {
		clean := cleanReason(text)
		if len(clean) > maxReason || strings.ContainsAny(clean, "\x00\x1b\n\r") || clean != cleanReason(clean) {
			t.Fatalf("got %q", clean)
		}
	})
}

func TestMailboxKeepsTheLastState(t *testing.T) {
	id, other := identity.NodeID{1}, identity.NodeID{2}
	up, down := Event{Kind: Up, ID: id, Code: 0}, Event{Kind: Down, ID: id, Code: 9}
	moved := Event{Kind: Moved, ID: id, Remote: netip.MustParseAddrPort("192.0.2.1:1")}
	movedUp := up
	movedUp.Remote = moved.Remote
	refused := Event{Kind: Refused, ID: id, Code: 3}
	otherUp := Event{Kind: Up, ID: other}
	for _, c := range []struct {
		name string
		in   []Event
		want []Event
	}{
		{"one", []Event{up}, []Event{up}},
		{"up and down", []Event{up, down}, []Event{down}},
		{"down and up", []Event{down, up}, []Event{down, up}},
		{"up, down, up", []Event{up, down, up}, []Event{down, up}},
		{"moved after up", []Event{up, moved}, []Event{movedUp}},
		{"moved alone", []Event{moved, moved}, []Event{moved}},
		{"moved, then down", []Event{moved, down}, []Event{down}},
		{"refused besides", []Event{refused, refused, up}, []Event{up, refused}},
		{"two nodes", []Event{up, otherUp, down}, []Event{down, otherUp}},
	} {
		m := newMailbox()
		for _, e := range c.in {
			m.put(e)
		}
		var got []Event
		for e, ok := m.take(); ok; e, ok = m.take() {
			got = append(got, e)
		}
		expectList(t, c.name, got, c.want...)
	}
}

func TestParkingIsBounded(t *testing.T) {
	p := newParking()
	now := time.Unix(1000, 0)
	put := func(dst, by int) bool {
		return p.put(now, identity.NodeID{1, byte(dst >> 8), byte(dst)}, identity.NodeID{3}, identity.NodeID{2, byte(by >> 8), byte(by)}, []byte{byte(dst)})
	}
	for i := range maxParkedBy {
		if !put(i, 0) {
			t.Fatalf("put %d: got false", i)
		}
	}
	expect(t, "one member's share", put(999, 0), false)
	for i := maxParkedBy; i < maxParked; i++ {
		if !put(i, i) {
			t.Fatalf("put %d: got false", i)
		}
	}
	expect(t, "one too many", put(2000, 3000), false)
	expect(t, "taken", len(p.take(now, identity.NodeID{1, 0, 5})), 1)
	expect(t, "taken twice", len(p.take(now, identity.NodeID{1, 0, 5})), 0)
	expect(t, "room again", put(2000, 3000), true)
	now = now.Add(parkTime)
	expect(t, "room when the old ones have expired", put(1, 0), true)
	expect(t, "count", p.count, 1)
	expect(t, "members", len(p.by), 1)
	expect(t, "too large", p.put(now, identity.NodeID{1}, identity.NodeID{3}, identity.NodeID{2}, make([]byte, maxParkedFrame+1)), false)
}

// TestParkingKeepsTheNewest has each source of signals keep the newest large one and the newest small one for a destination, by each member
// that hands them in, and the oldest of all go when there are too many.
func TestParkingKeepsTheNewest(t *testing.T) {
	p, now := newParking(), time.Unix(1000, 0)
	dst := identity.NodeID{1}
	put := func(number, from, by byte, size int) {
		frame := make([]byte, size)
		frame[0] = number
		expect(t, "put", p.put(now, dst, identity.NodeID{2, from}, identity.NodeID{3, by}, frame), true)
	}
	put(1, 1, 1, largeParked)
	put(2, 1, 1, 1)
	put(3, 1, 2, largeParked) // another has handed it in
	put(4, 2, 1, largeParked) // it is said to be of another one
	put(5, 1, 1, largeParked)
	put(6, 1, 1, 2)
	got := ""
	for _, frame := range p.take(now, dst) {
		got += string('0' + rune(frame[0]))
	}
	expect(t, "kept", got, "3456")
	for i := range byte(maxParkedFor + 2) {
		put(i, i, 1, 1)
	}
	frames := p.take(now, dst)
	expect(t, "frames", len(frames), maxParkedFor)
	expect(t, "the first", frames[0][0], 2)
	expect(t, "count", p.count, 0)
}

func TestOutboxDropsTheOldest(t *testing.T) {
	var start []func()
	var sent []string
	dropped := 0
	o := outbox{
		limit: 3,
		send:  func(b []byte) error { sent = append(sent, string(b)); return nil },
		spawn: func(f func()) bool { start = append(start, f); return true },
		drop:  func() { dropped++ },
	}
	for _, s := range []string{"a", "b", "c", "d", "e"} {
		o.push([]byte(s))
	}
	expect(t, "goroutines", len(start), 1)
	start[0]()
	expect(t, "sent", strings.Join(sent, ""), "cde")
	expect(t, "dropped", dropped, 2)
	o.push([]byte("f"))
	expect(t, "goroutines", len(start), 2)
	o.close()
	expect(t, "push after close", o.push([]byte("g")), false)
	start[1]()
	expect(t, "sent", strings.Join(sent, ""), "cde")
}

func TestBackOffLadder(t *testing.T) {
	var b backOff
	for i, want := range []time.Duration{200, 240, 288, 346, 415, 498, 597, 717, 860, 1032, 1238, 1486, 1783, 2140, 2568, 3081, 3698, 4437, 5325, 6390, 7668, 9201, 11041, 13249, 15899, 19079, 22895, 27474, 30000, 30000, 30000} {
		want *= time.Millisecond
		got := b.next()
		if got < want*3/4-2*time.Millisecond || got >= want*5/4+2*time.Millisecond {
			t.Errorf("rung %d: got %v, want %v ± a quarter", i, got, want)
		}
	}
}

func TestConnectionIDsCannotBeTakenForChannelData(t *testing.T) {
	id, err := connectionIDs{}.GenerateConnectionID()
	if err != nil || id.Len() != connectionIDLen || !bytes.HasPrefix(id.Bytes(), connectionIDPrefix[:]) {
		t.Errorf("got %v, %v", id, err)
	}
	// Stateless resets are random where the connection ID stands: the lane puts the prefix there.
	conn := &recorder{}
	l := newLane(conn, func() {})
	reset := bytes.Repeat([]byte{0x45}, 42)
	_, _ = l.WriteTo(reset, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1})
	expect(t, "prefix", [3]byte(conn.last[1:4]), connectionIDPrefix)
	expect(t, "argument", reset[1], 0x45)
	expect(t, "rest", bytes.Equal(conn.last[4:], reset[4:]), true)
}

func TestLaneSwallowsErrorsOfWrites(t *testing.T) {
	conn := &recorder{err: errors.New("network is unreachable")}
	l := newLane(conn, func() {})
	addr := netip.MustParseAddrPort("192.0.2.1:1")
	var told error
	stop := l.watch(addr, func(err error) { told = err }, new(atomic.Bool))
	n, err := l.WriteTo(make([]byte, 10), net.UDPAddrFromAddrPort(addr))
	if n != 10 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	expect(t, "the dialler is told", told, conn.err)
	stop()
	expect(t, "watchers", len(l.dials), 0)
	conn.err = net.ErrClosed
	if _, err := l.WriteTo(nil, net.UDPAddrFromAddrPort(addr)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed lane: got %v", err)
	}
}

// recorder is a net.PacketConn that keeps the last packet written.
type recorder struct {
	net.PacketConn
	last []byte
	err  error
}

func (r *recorder) WriteTo(p []byte, _ net.Addr) (int, error) {
	r.last = append([]byte(nil), p...)
	return len(p), r.err
}

// TestOverUDP runs two nodes over real sockets in real time.
func TestOverUDP(t *testing.T) {
	w := newWorld(t, 2, zeroOptions)
	a, b := w.nodes[0], w.nodes[1]
	arrived := make(chan string, 1)
	for _, n := range w.nodes {
		conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		n.addr = addrPortOf(conn.LocalAddr())
		s, err := New(Options{
			Conn: conn, Self: n.ID, Members: sessiontest.Member{Node: n.Node, Mesh: w.mesh},
			Inbound: onMessage{notes{n}, func(_, _ identity.NodeID, _ Proto, p []byte) { arrived <- string(p) }},
		})
		if err != nil {
			t.Fatal(err)
		}
		n.Sessions = s
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		}()
	}
	a.target(b)
	select {
	case e := <-a.Events():
		if e.Kind == Greeted {
			e = <-a.Events()
		}
		if e.Kind != Up || e.Remote != b.addr {
			t.Fatalf("got %+v", e)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no session within 10 s")
	}
	if err := a.Send(b.ID, ProtoGossip, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-arrived:
		expect(t, "message", got, "hello")
	case <-time.After(10 * time.Second):
		t.Fatal("no message within 10 s")
	}
}

// A machine that is late with its dials leaves first addresses half a second, and what was measured of answers counts if it is more; neither for long.
func TestStagger(t *testing.T) {
	l := newLane(nil, nil)
	d := &dialler{lane: l}
	for _, tt := range []struct {
		name       string
		late, took time.Duration
		ago        time.Duration
		want       time.Duration
	}{
		{"nothing is known", 0, 0, 0, urgentStagger},
		{"on time", due.Busy - 1, 0, 0, urgentStagger},
		{"late", due.Busy, 0, 0, busyStagger},
		{"late before", due.Busy, 0, busyLasts, urgentStagger},
		{"answers take long", 0, 400 * time.Millisecond, 0, 500 * time.Millisecond},
		{"both, and longer", due.Busy, 700 * time.Millisecond, 0, 875 * time.Millisecond},
		{"very long", 0, time.Minute, 0, heardStagger},
		{"took long before", 0, time.Minute, due.AnswersLast, urgentStagger},
	} {
		l.trip.Store(nil)
		l.busy.Store(nil)
		at := time.Now().Add(-tt.ago)
		l.late(at, tt.late)
		if tt.took > 0 {
			l.first(at, tt.took)
		}
		if got := d.stagger(haste{shortDial, urgentStagger}); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}
