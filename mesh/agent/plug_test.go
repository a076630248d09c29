package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh"
	"warren/mesh/courier"
	"warren/mesh/identity"
	"warren/mesh/node"
	"warren/mesh/roster"
	"warren/mesh/session"
	"warren/mesh/signal"
	"warren/nat/stream"
	"warren/tunnel/bind"
)

// someone is a node of a test.
func someone(n byte) identity.NodeID { return identity.NodeID{n} }

// page is a book with one view, that says this of every chain.
type page struct {
	view *mesh.View
	err  error
}

func (p page) View() *mesh.View { return p.view }

func (p page) Proof([]*x509.Certificate) [][]byte { return [][]byte{{1, 2, 3}} }

func (p page) VerifyChain([]*x509.Certificate) (identity.NodeID, error) { return someone(2), p.err }

// Only what nothing can cure is told as a no for good: who hears that gives up.
func TestVerifyTellsWhatIsFinal(t *testing.T) {
	final := map[roster.Reason]bool{
		roster.ReasonRevoked: true, roster.ReasonIssuerRevoked: true, roster.ReasonInviteRevoked: true, roster.ReasonInviteUsed: true,
	}
	seen := 0
	for reason := roster.ReasonNone; !strings.HasPrefix(reason.String(), "reason "); reason++ {
		seen++
		cause := fmt.Errorf("verify: %w", &roster.Refusal{Reason: reason, Text: "so it is"})
		m := &members{book: page{err: cause}}
		id, err := m.Verify(nil)
		if id != someone(2) {
			t.Errorf("%s: got %s, want whose chain it is", reason, id.Short())
		}
		no, isFinal := errors.AsType[*session.Refusal](err)
		if isFinal != final[reason] || isFinal && (no.Code != node.CodeNotMember || no.Reason != cause.Error() || len(no.Proof) != 1) || !isFinal && !errors.Is(err, cause) {
			t.Errorf("%s: got %#v, want final: %v", reason, err, final[reason])
		}
		_, err = streamMembers{m}.Verify(nil)
		told, isFinal := errors.AsType[*stream.Refusal](err)
		if isFinal != final[reason] || isFinal && (uint64(told.Code) != node.CodeNotMember || told.Reason != cause.Error() || len(told.Proof) != 1) {
			t.Errorf("%s: streams got %#v, want final: %v", reason, err, final[reason])
		}
	}
	if seen < 10 {
		t.Errorf("got %d reasons, want all that there are", seen)
	}
	if _, err := (&members{book: page{}}).Verify(nil); err != nil {
		t.Errorf("got %v for a member, want nil", err)
	}
}

func TestMembersAreThoseOfTheRecords(t *testing.T) {
	endpoint := []netip.AddrPort{netip.MustParseAddrPort("203.0.113.1:9277")}
	list := []mesh.Member{{ID: someone(1), State: mesh.Active}, {ID: someone(2), State: mesh.Active}, {ID: someone(3), State: roster.Left}}
	list[1].Record.Endpoints, list[2].Record.Endpoints = endpoint, endpoint
	list[0].Record.Anchors = []identity.NodeID{someone(2)}
	m := &members{book: page{view: viewOf(list...)}}
	for n, want := range map[byte][2]bool{1: {true, false}, 2: {true, true}, 3: {false, false}, 4: {false, false}} {
		if got := [2]bool{m.Member(someone(n)), m.Anchor(someone(n))}; got != want {
			t.Errorf("%d: got member and anchor %v, want %v", n, got, want)
		}
	}
	if got := m.AnchorsOf(someone(1)); len(got) != 1 || got[0] != someone(2) {
		t.Errorf("got anchors %v, want the second", got)
	}
	if got := m.AnchorsOf(someone(4)); len(got) != 0 {
		t.Errorf("got anchors %v of a stranger, want none", got)
	}
}

func TestInboundCountsWhatItDoesNotTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		self := newFace(t)
		c, err := courier.New(courier.Options{
			Self: self.id, Signing: self.signing, Sealing: self.sealing, Members: acquaintance{self}, Sessions: line{}, Tunnel: &other{}, Standing: outlook{},
		})
		if err != nil {
			t.Fatal(err)
		}
		in := &inbound{log: slog.New(slog.DiscardHandler), courier: c} // no relay: a request that got there would be a panic
		in.Message(someone(1), someone(1), 0, nil)
		in.Message(someone(1), someone(1), session.ProtoSync, []byte("a message where streams are expected"))
		in.Message(someone(1), someone(1), 99, []byte("of a later version"))
		in.Message(someone(1), someone(1), session.ProtoSignal, make([]byte, signal.MaxSealed+1))
		for _, p := range []session.Proto{0, 99, session.ProtoSignal, session.ProtoRelay} {
			near, far := net.Pipe()
			in.Stream(someone(1), p, far)
			if _, err := near.Read(make([]byte, 1)); !errors.Is(err, io.EOF) { // were it open, the test would hang, and say so
				t.Errorf("stream of kind %d: got %v, want it closed", p, err)
			}
		}
		want := map[string]uint64{"session: unknown message or stream": 6, "request not from the member itself": 1, "join: refused": 0}
		if got := in.Dropped(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if got := c.Dropped(); got["signal: malformed signal"] != 1 {
			t.Errorf("got drops %v of the courier, want the signal among them", got)
		}
	})
}

// carried is what a tunnel says of everybody.
type carried struct {
	activity bind.Activity
	way      netip.AddrPort
}

func (c carried) Activity(identity.NodeID) (bind.Activity, netip.AddrPort) { return c.activity, c.way }

// What goes by a stream says nothing of the path that nat has found.
func TestTrafficByAStreamIsNoSign(t *testing.T) {
	tx, rx := time.Unix(1000, 0), time.Unix(2000, 0)
	for way, want := range map[string][2]time.Time{
		"192.0.2.1:9277": {tx, rx}, "[2001:db8::1]:9277": {tx, rx}, "[100::200:0:0:7]:9": {tx, rx}, "[100::300:0:0:7]:9": {}, "": {tx, rx},
	} {
		c := carried{activity: bind.Activity{LastTx: tx, LastRx: rx}}
		if way != "" {
			c.way = netip.MustParseAddrPort(way)
		}
		lastTx, lastRx := traffic{c}.Activity(someone(1))
		if got := [2]time.Time{lastTx, lastRx}; got != want {
			t.Errorf("by %q: got %v, want %v", way, got, want)
		}
	}
}

// watched runs a network, and tells how many changes it has told of when all is quiet.
func watched(t *testing.T, n *network) (changes func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	n.ask = func() {}
	n.Watch(ctx)
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("at the end: got %v, want nil", err)
		}
	})
	return func() (told int) {
		synctest.Wait()
		for {
			select {
			case <-n.changes:
				told++
			default:
				return told
			}
		}
	}
}

func TestChangesOfTheNetworkAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen, ports := make(chan struct{}), make(chan uint16, 1)
		ports <- 9277 // that of the start
		n := &network{
			changes: make(chan struct{}, 1), ports: ports, log: slog.New(slog.DiscardHandler),
			watch: func(context.Context) (<-chan struct{}, error) { return seen, nil },
		}
		changes := watched(t, n)
		expect := func(what string, want int) {
			t.Helper()
			if got := changes(); got != want {
				t.Errorf("%s: got %d changes, want %d", what, got, want)
			}
		}
		expect("at the start", 0)
		seen <- struct{}{}
		expect("one", 1)
		for range 5 {
			seen <- struct{}{}
			ports <- 9278
		}
		expect("many at once", 1)
		ports <- 9279
		expect("another port", 1)
		close(seen)
		expect("nobody watches any more", 0)
		time.Sleep(time.Hour) // whoever looks at a closed channel again and again would keep this from ending
		ports <- 9280
		expect("another port", 1)
		if got := n.trouble.Load(); got != nil {
			t.Errorf("got trouble %q, want none", *got)
		}
	})
}

func TestNetworkThatIsNotWatchedTellsOfThePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ports := make(chan uint16, 1)
		n := &network{
			changes: make(chan struct{}, 1), ports: ports, log: slog.New(slog.DiscardHandler),
			watch: func(context.Context) (<-chan struct{}, error) { return nil, errTwin },
		}
		changes := watched(t, n)
		if got := changes(); got != 0 {
			t.Errorf("got %d changes at the start, want none", got)
		}
		ports <- 1
		if got := changes(); got != 1 {
			t.Errorf("got %d changes, want one for the port", got)
		}
		if got := n.trouble.Load(); got == nil || !strings.Contains(*got, errTwin.Error()) {
			t.Errorf("got trouble %v, want why the network is not watched", got)
		}
	})
}

// visit is a joiner's connection from somewhere.
type visit struct {
	net.Conn
	from netip.AddrPort
}

func (v visit) RemoteAddr() net.Addr                { return net.UDPAddrFromAddrPort(v.from) }
func (v visit) Export(label string) ([]byte, error) { return make([]byte, 32), nil }

// Strangers that are refused as joiners, as often as they like, have one line a minute of each host, and are counted.
func TestRefusedJoinsFillNoLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		in := &inbound{log: slog.New(slog.NewTextHandler(&log, nil)), mesh: &mesh.Mesh{}}
		join := func(from string) {
			near, far := net.Pipe()
			go func() {
				_, _ = near.Write([]byte{0, 0, 0, 1, 0})
				_, _ = io.Copy(io.Discard, near)
			}()
			in.Join(visit{far, netip.MustParseAddrPort(from)})
			near.Close()
		}
		lines := func() (n int) {
			n = strings.Count(log.String(), "join refused")
			return n
		}
		for i := range 100 {
			join(fmt.Sprintf("198.51.100.66:%d", 1000+i))
			join(fmt.Sprintf("[2001:db8::%x]:1", i))
		}
		if got := lines(); got != 2 {
			t.Errorf("got %d lines of two hosts, want 2:\n%s", got, log.String())
		}
		time.Sleep(time.Minute)
		join("198.51.100.66:1")
		if got := lines(); got != 3 || !strings.Contains(log.String(), "skipped=99") {
			t.Errorf("got %d lines, want a third that tells of the 99 that were left out:\n%s", got, log.String())
		}
		if got := in.Dropped()["join: refused"]; got != 201 {
			t.Errorf("got %d refused, want 201", got)
		}
	})
}

// All uses of an invite are taken when the records show as many members by it.
func TestSpentInvites(t *testing.T) {
	v := viewOf()
	v.Invites = []mesh.Invite{
		{ID: identity.KeyID{1}, Terms: identity.InviteTerms{Uses: 2}, Used: []identity.NodeID{someone(1)}},
		{ID: identity.KeyID{2}, Terms: identity.InviteTerms{Uses: 2}, Used: []identity.NodeID{someone(1), someone(2)}},
	}
	m := &members{book: page{view: v}}
	for n, want := range map[byte]bool{1: false, 2: true, 3: false} {
		if got := m.Spent(identity.KeyID{n}); got != want {
			t.Errorf("invite %d: got %v, want %v", n, got, want)
		}
	}
}
