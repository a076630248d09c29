package streams

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session"
	"warren/nat/path"
	"warren/nat/stream"
	"warren/tunnel/bind"
)

var (
	_ Client   = (*stream.Client)(nil)
	_ Server   = (*stream.Server)(nil)
	_ Socket   = (*bind.Bind)(nil)
	_ Sessions = (*session.Sessions)(nil)
)

const rtt = 50 * time.Millisecond

// world is what Streams live in: a network that lets UDP pass or not, anchors that take streams or not, sessions that are
// dialled where they were told, and a user of Streams that takes hubTime from what it reads to what it sets.
//
// What happens is written into a log, one line each with the virtual time. What happens at the same time stands there in
// alphabetical order, since goroutines have none; where order matters, the line tells what it found.
type world struct {
	*testing.T
	*Streams
	begin   time.Time
	hubTime time.Duration
	poked   chan struct{} // the user has something else to set

	mu      sync.Mutex
	udp     bool // sessions and STUN get through
	stun    bool // STUN does, whatever udp says
	anchors map[identity.NodeID]anchorTwin
	log     []line
	probes  int

	want    Desired                            // what the user sets, but for the targets
	targets map[identity.NodeID]netip.AddrPort // what the sessions were told
	failed  map[identity.NodeID]int            // dials in silence
	traffic map[identity.NodeID]bind.Activity  // of peers
	ways    map[identity.NodeID]netip.AddrPort // of peers
	streams map[netip.AddrPort]*twinConn       // attached
	serial  uint64
	local   string        // this machine's address
	looking time.Duration // takes so long
	taker   stream.Taker
	ports   []stream.Port
}

type line struct {
	at   time.Duration
	text string
}

// anchorTwin says what comes of dialling a stream to an anchor; one that is not there does not answer.
type anchorTwin struct{ err error }

// twinConn is a stream to or from a member.
type twinConn struct {
	net.Conn
	id            identity.NodeID
	local, remote string
	virtual       netip.AddrPort
	o             bind.StreamOptions
	once          sync.Once
	done          chan struct{}
}

func (c *twinConn) Close() error         { return nil }
func (c *twinConn) LocalAddr() net.Addr  { return tcpAddr(c.local) }
func (c *twinConn) RemoteAddr() net.Addr { return tcpAddr(c.remote) }
func tcpAddr(a string) net.Addr          { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(a)) }

// public and private are where an anchor is.
func public(n byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, n}), 9277)
}

func private(n byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, 1, n}), 9277)
}

// inWorld runs a test in a bubble, in a world with anchors at public addresses that all take streams.
func inWorld(t *testing.T, udp bool, anchors []byte, test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			T: t, begin: time.Now(), hubTime: 5 * time.Millisecond, poked: make(chan struct{}, 1), udp: udp,
			anchors: make(map[identity.NodeID]anchorTwin), targets: make(map[identity.NodeID]netip.AddrPort),
			failed: make(map[identity.NodeID]int), traffic: make(map[identity.NodeID]bind.Activity),
			ways: make(map[identity.NodeID]netip.AddrPort), streams: make(map[netip.AddrPort]*twinConn), local: "192.168.1.5",
		}
		w.want.Sessions, w.want.Paths = make(map[identity.NodeID]Session), make(map[identity.NodeID]path.Path)
		for _, n := range anchors {
			w.anchors[anchor(n)] = anchorTwin{}
			w.want.Anchors = append(w.want.Anchors, Anchor{ID: anchor(n), UDP: []netip.AddrPort{public(n)}})
		}
		var err error
		w.Streams, err = New(Options{Client: w, Server: serverTwin{w}, Socket: w, Sessions: sessionsTwin{w}, Traffic: w, STUN: w, Logger: slog.New(logTwin{w})})
		if err != nil {
			t.Fatal(err)
		}
		w.jitter = func() float64 { return 0.5 }
		w.hosts = func() ([]net.Addr, error) {
			w.mu.Lock()
			took, local := w.looking, w.local
			w.mu.Unlock()
			time.Sleep(took)
			return []net.Addr{&net.IPNet{IP: net.ParseIP(local), Mask: net.CIDRMask(24, 32)}}, nil
		}
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() {
			if err := w.Streams.Run(ctx); err != nil {
				t.Errorf("run: got %v, want nil", err)
			}
		})
		running.Go(func() { w.hub(ctx) })
		synctest.Wait()
		test(w)
		cancel()
		running.Wait()
		time.Sleep(time.Minute) // for the timers of the twin
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.streams) > 0 {
			t.Errorf("got %d streams after the end, want none", len(w.streams))
		}
	})
}

func (w *world) note(format string, args ...any) {
	w.log = append(w.log, line{time.Since(w.begin), fmt.Sprintf(format, args...)})
}

// expect compares the log since the last expect, and lets nothing more happen at this instant.
func (w *world) expect(want ...string) {
	w.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortStableFunc(w.log, func(a, b line) int {
		if a.at != b.at {
			return int(a.at - b.at)
		}
		return strings.Compare(a.text, b.text)
	})
	var got []string
	for _, l := range w.log {
		got = append(got, fmt.Sprintf("%v %s", l.at, l.text))
	}
	w.log = nil
	if !slices.Equal(got, want) {
		w.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// until lets time pass until that time of the world.
func (w *world) until(at time.Duration) {
	time.Sleep(time.Until(w.begin.Add(at)))
	synctest.Wait()
}

// change changes the world, or what the user knows and sets then.
func (w *world) change(f func()) {
	w.mu.Lock()
	f()
	w.mu.Unlock()
	w.poke()
}

func (w *world) poke() {
	select {
	case w.poked <- struct{}{}:
	default:
	}
}

// hub is the user of Streams. It reads when all that happens at an instant has happened.
func (w *world) hub(ctx context.Context) {
	for first := true; ; first = false {
		const settle = time.Millisecond
		var now Snapshot
		if !first {
			time.Sleep(settle)
			now = w.Snapshot()
			w.mu.Lock()
			rest := w.hubTime - settle
			w.mu.Unlock()
			time.Sleep(rest)
		}
		w.mu.Lock()
		if !maps.Equal(w.targets, now.Targets) {
			var ids []byte
			for id := range now.Targets {
				ids = append(ids, id[0])
			}
			slices.Sort(ids)
			w.note("targets %v", ids)
		}
		w.targets = now.Targets
		d := w.want
		d.Targets, d.Anchors, d.Sessions, d.Paths = now.Targets, slices.Clone(d.Anchors), maps.Clone(d.Sessions), maps.Clone(d.Paths)
		w.mu.Unlock()
		w.Set(d)
		select {
		case <-w.Events():
		case <-w.poked:
		case <-ctx.Done():
			return
		}
	}
}

// logTwin notes what the log says of UDP.
type logTwin struct{ w *world }

func (l logTwin) Enabled(context.Context, slog.Level) bool { return true }
func (l logTwin) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l logTwin) WithGroup(string) slog.Handler            { return l }

func (l logTwin) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "UDP" {
		return nil
	}
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	r.Attrs(func(a slog.Attr) bool {
		l.w.note("%v", a.Value)
		return false // the state comes first
	})
	return nil
}

// Probe implements STUN.
func (w *world) Probe() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.probes++
	if w.udp || w.stun {
		at := w.want.Anchors[0].UDP[0]
		time.AfterFunc(rtt, func() { w.Answered(at) })
	}
}

// Activity implements Traffic.
func (w *world) Activity(peer identity.NodeID) (bind.Activity, netip.AddrPort) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.traffic[peer], w.ways[peer]
}

// Dial implements Client: TCP, TLS, and the anchor's answer, three round trips, and 10 ms more for each further anchor.
func (w *world) Dial(ctx context.Context, id identity.NodeID, addrs []netip.AddrPort) (net.Conn, error) {
	w.mu.Lock()
	w.note("dial %d at %v", id[0], addrs)
	a, there := w.anchors[id]
	w.mu.Unlock()
	if there {
		select {
		case <-time.After(3*rtt + time.Duration(id[0]-1)*10*time.Millisecond):
			if a.err != nil {
				return nil, fmt.Errorf("dial stream to %s: %w", id.Short(), a.err)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			return &twinConn{id: id, local: w.local + ":40000", remote: addrs[0].String()}, nil
		case <-ctx.Done():
		}
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// AttachStream implements Socket.
func (w *world) AttachStream(c net.Conn, o bind.StreamOptions) (netip.AddrPort, <-chan struct{}, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := c.(*twinConn)
	w.serial++
	a := netip.MustParseAddr("100::300:0:0:0").As16()
	binary.BigEndian.PutUint32(a[12:], uint32(w.serial))
	s.virtual, s.done, s.o = netip.AddrPortFrom(netip.AddrFrom16(a), 9), make(chan struct{}), o
	w.streams[s.virtual] = s
	return s.virtual, s.done, nil
}

// DetachStream implements Socket.
func (w *world) DetachStream(virtual netip.AddrPort) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.streams[virtual]; s != nil {
		delete(w.streams, virtual)
		w.note("stream of %d ends", s.id[0])
		close(s.done)
	}
}

// streamTo returns the stream to or from a member.
func (w *world) streamTo(n byte) netip.AddrPort {
	w.mu.Lock()
	defer w.mu.Unlock()
	for virtual, s := range w.streams {
		if s.id == anchor(n) {
			return virtual
		}
	}
	return netip.AddrPort{}
}

// serverTwin takes streams when accept is called.
type serverTwin struct{ w *world }

func (s serverTwin) Run(ctx context.Context, t stream.Taker) error {
	s.w.mu.Lock()
	s.w.taker = t
	s.w.mu.Unlock()
	<-ctx.Done()
	for range 10 {
		s.w.mu.Lock()
		all := slices.Collect(maps.Keys(s.w.streams))
		s.w.mu.Unlock()
		for _, virtual := range all {
			s.w.DetachStream(virtual)
		}
	}
	return ctx.Err()
}

func (s serverTwin) SetPorts(ports ...uint16) {
	s.w.mu.Lock()
	before := s.w.ports
	s.w.ports = nil
	for _, p := range ports {
		port := stream.Port{Port: p}
		if p < 1024 {
			port.Err = errors.New("taken")
		}
		s.w.ports = append(s.w.ports, port)
	}
	same := len(before) == len(ports)
	t := s.w.taker
	s.w.mu.Unlock()
	if !same && t != nil {
		t.PortsChanged()
	}
}

func (s serverTwin) Ports() []stream.Port {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return slices.Clone(s.w.ports)
}

func (s serverTwin) Counts() stream.Counts { return stream.Counts{Accepted: 7} }

func (s serverTwin) Drop(id identity.NodeID) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.note("drop streams of %d", id[0])
}

// accept has a member open a stream to this node.
func (w *world) accept(n byte) netip.AddrPort {
	w.Helper()
	c := &twinConn{local: w.local + ":9277", remote: "198.51.100.7:40001"}
	if n > 0 {
		c.id = anchor(n)
	}
	if _, err := w.taker.Accept(c.id, c); err != nil {
		w.Fatal(err)
	}
	synctest.Wait()
	return c.virtual
}

// sessionsTwin dials anew whatever is dropped or lost, where it was told: a session takes two round trips.
type sessionsTwin struct{ w *world }

func (s sessionsTwin) Drop(id identity.NodeID, code uint64, reason string) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	target := "none"
	if _, ok := s.w.targets[id]; ok {
		target = "stream"
	}
	s.w.note("drop %d: %s; target %s", id[0], reason, target)
	e, up := s.w.want.Sessions[id]
	if !up {
		return
	}
	delete(s.w.want.Sessions, id)
	if code == session.CodeLost || code == session.CodeUnresponsive {
		go s.w.SessionLost(id, e.Remote) // as the user does for each session that this side found dead
	}
	go s.w.redial(id)
	go s.w.poke()
}

func (s sessionsTwin) Dials(id identity.NodeID) (int, bool) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.w.failed[id], s.w.failed[id] > 0
}

// redial keeps dialling a session, for a minute at most.
func (w *world) redial(id identity.NodeID) {
	for range 600 {
		time.Sleep(2 * rtt)
		w.mu.Lock()
		remote, by := w.targets[id], "a stream"
		if w.streams[remote] == nil {
			remote, by = public(id[0]), "UDP"
		}
		if by == "UDP" && !w.udp {
			w.mu.Unlock()
			continue
		}
		w.want.Sessions[id] = Session{Remote: remote, Since: time.Now()}
		w.note("session with %d by %s", id[0], by)
		w.mu.Unlock()
		w.poke()
		return
	}
}

// session has a session with an anchor come up.
func (w *world) session(n byte, remote netip.AddrPort) {
	w.change(func() { w.want.Sessions[anchor(n)] = Session{Remote: remote, Since: time.Now()} })
}

// setUDP has UDP pass, or not.
func (w *world) setUDP(passes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.udp = passes
}

// setStreams says what comes of dialling a stream to an anchor.
func (w *world) setStreams(n byte, err error, answers bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.anchors, anchor(n))
	if answers {
		w.anchors[anchor(n)] = anchorTwin{err}
	}
}
