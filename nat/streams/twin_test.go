package streams

import (
	"context"
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
	_ Socket   = (*bind.Streams)(nil)
	_ Sessions = (*session.Sessions)(nil)
)

const (
	ms     = time.Millisecond
	second = time.Second

	rtt = 50 * ms
)

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
	failed  map[identity.NodeID]int            // dials in silence, since the last session
	failing bool                               // a dial in silence is told as one, 1.5 s after its beginning
	traffic map[identity.NodeID]bind.Activity  // of peers
	ways    map[identity.NodeID]netip.AddrPort // of peers
	streams map[netip.AddrPort]*twinConn       // attached
	serial  uint64
	local   string        // this machine's address
	looking time.Duration // takes so long
	taker   stream.Taker
	broken  chan error // ends the server
	fails   error      // what Run is to return
	full    bool       // no stream can be attached
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
			T: t, begin: time.Now(), hubTime: 5 * time.Millisecond, poked: make(chan struct{}, 1), broken: make(chan error), udp: udp,
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
			if err := w.Streams.Run(ctx); !errors.Is(err, w.fails) {
				t.Errorf("run: got %v, want %v", err, w.fails)
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

// since is the time of the world.
func (w *world) since() time.Duration { return time.Since(w.begin) }

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
	if r.Message != "UDP state changed" {
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

// blocked brings the world, in which UDP is blocked, to where it has streams to the anchors 1 and 2.
func (w *world) blocked() {
	w.until(second)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log, w.probes = nil, 0
}

func (w *world) expectState(state State, blocked, cutOff string, forlorn bool) {
	w.Helper()
	got := w.Snapshot()
	if got.State != state || got.Blocked != blocked || got.CutOff != cutOff || got.Forlorn != forlorn {
		w.Errorf("got %v, blocked %q, cut off %q, forlorn %t, want %v, %q, %q, %t", got.State, got.Blocked, got.CutOff, got.Forlorn, state, blocked, cutOff, forlorn)
	}
}
