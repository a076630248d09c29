package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"warren/mesh/identity"
	"warren/mesh/session/sessiontest"
)

// intruder is a host that makes up identities by an invite and dials with them.
type intruder struct {
	w         *world
	invite    identity.Authority
	transport *quic.Transport
	conn      *sessiontest.PacketConn

	mu   sync.Mutex
	held []*quic.Conn
	told map[string]int // what it was told, when a session ended
}

func (w *world) invite() identity.Authority {
	w.t.Helper()
	invite, err := w.mesh.NewInvite()
	if err != nil {
		w.t.Fatal(err)
	}
	return invite
}

func (w *world) intruder(addr string, invite identity.Authority) *intruder {
	conn := w.net.ListenNAT(netip.MustParseAddrPort(addr))
	return &intruder{
		w: w, invite: invite, conn: conn, told: make(map[string]int),
		transport: &quic.Transport{Conn: newLane(conn, func() {}), ConnectionIDGenerator: connectionIDs{}},
	}
}

// barge makes one session by a new identity, and holds it.
func (i *intruder) barge(ctx context.Context, to *testNode) (*quic.Conn, error) {
	node, err := i.w.mesh.NewNodeBy(i.invite)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	config := dialTLS(sessiontest.Member{Node: node, Mesh: i.w.mesh}, to.ID, func(error) {})
	c, err := i.transport.Dial(ctx, net.UDPAddrFromAddrPort(to.addr), config, quicConfig())
	if err != nil {
		return nil, err
	}
	context.AfterFunc(c.Context(), func() {
		if code, reason, byPeer := closeCause(context.Cause(c.Context())); byPeer {
			i.mu.Lock()
			defer i.mu.Unlock()
			i.told[fmt.Sprint(code, " ", reason)]++
		}
	})
	if _, err := (&dialler{instance: instance(node.ID[:8])}).greet(ctx, c, func() {}); err != nil {
		c.CloseWithError(0, "")
		return nil, err
	}
	i.mu.Lock()
	i.held = append(i.held, c)
	i.mu.Unlock()
	return c, nil
}

// storm barges as fast as it can until ctx ends, and says something all the time on all sessions that it holds.
func (i *intruder) storm(ctx context.Context, to *testNode) {
	for ctx.Err() == nil {
		if _, err := i.barge(ctx, to); err != nil {
			time.Sleep(10 * time.Millisecond)
		}
		i.mu.Lock()
		i.held = slices.DeleteFunc(i.held, func(c *quic.Conn) bool { return c.Context().Err() != nil })
		held := slices.Clone(i.held)
		i.mu.Unlock()
		for _, c := range held {
			_ = c.SendDatagram(header{kind: framePing, nonce: 1}.appendTo(nil))
			_ = c.SendDatagram(append(header{kind: frameDirect, proto: ProtoSignal}.appendTo(nil), "garbage"...))
		}
	}
}

func (i *intruder) close() {
	i.transport.Close()
	i.conn.Close()
}

// strangersOf returns the most sessions of nodes that are none of the world's: in all, of one invite, of one source.
func (n *testNode) strangersOf() (all, invite, source int) {
	invites, sources := make(map[identity.KeyID]int), make(map[netip.Prefix]int)
	for _, l := range n.table.links(identity.NodeID{}) {
		if n.w.index(l.id) < 0 {
			all++
			invites[inviteOf(l.chain)]++
			sources[sourceOf(l.conn.RemoteAddr())]++
			invite, source = max(invite, invites[inviteOf(l.chain)]), max(source, sources[sourceOf(l.conn.RemoteAddr())])
		}
	}
	return all, invite, source
}

// Somebody with one old token dials with one made-up identity after the other, from one address and from many, as fast as it can: it gets
// its two places, and costs nobody else anything.
func TestStrangersAtFullSpeed(t *testing.T) {
	for name, sources := range map[string]int{"one source": 1, "many sources": 8} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 4, sessiontest.Options{Latency: 10 * time.Millisecond})
				defer w.stop()
				victim, member, newcomer, fellow := w.nodes[0], w.nodes[1], w.nodes[2], w.nodes[3]
				token := w.invite()
				for n, by := range map[*testNode]identity.Authority{newcomer: w.invite(), fellow: token} {
					node, err := w.mesh.NewNodeBy(by)
					if err != nil {
						t.Fatal(err)
					}
					n.Node = node
				}
				victim.know(book{others: true, strangers: []identity.NodeID{newcomer.ID, fellow.ID}})
				victim.start(nil)
				// A member that was here before comes again: its address is known.
				member.start(nil)
				member.target(victim)
				w.until(time.Second, "session of the member before", func() bool { return member.up(victim) })
				member.stop()

				ctx, cancel := context.WithCancel(context.Background())
				var storm sync.WaitGroup
				var intruders []*intruder
				for i := range sources {
					one := w.intruder(fmt.Sprintf("198.51.100.%d:1000", i+1), token)
					intruders = append(intruders, one)
					storm.Go(func() { one.storm(ctx, victim) })
				}
				time.Sleep(2 * time.Second)
				victim.takeEvents()

				member.start(nil)
				member.target(victim)
				newcomer.start(nil)
				newcomer.target(victim)
				most := quietTime + time.Second
				began := time.Now()
				w.until(most, "sessions of a member and a newcomer beside it", func() bool {
					all, invite, source := victim.strangersOf()
					if all > 2 || invite > maxStrangersInvite || source > maxStrangersSource {
						t.Fatalf("got %d strangers, %d of one invite, %d of one source", all, invite, source)
					}
					return member.up(victim) && victim.up(newcomer)
				})
				// The newcomer has shown its record: it is told as up once more, and stays.
				time.Sleep(500 * time.Millisecond)
				victim.know(book{others: true, strangers: []identity.NodeID{fellow.ID}})
				w.until(strangersLook+time.Millisecond, "the newcomer is told as a member", func() bool {
					return slices.ContainsFunc(victim.takeEvents(), func(e Event) bool { return e.Kind == Up && e.ID == newcomer.ID && !e.Stranger })
				})
				if sources == 1 {
					// Even one with the same token gets in at once: it comes from elsewhere.
					fellow.start(nil)
					fellow.target(victim)
					w.until(time.Second, "session of a newcomer with the same token", func() bool { return victim.up(fellow) })
				}
				for time.Since(began) < 5*time.Second {
					if all, invite, source := victim.strangersOf(); all > 2 || invite > maxStrangersInvite || source > maxStrangersSource {
						t.Fatalf("got %d strangers, %d of one invite, %d of one source", all, invite, source)
					}
					time.Sleep(50 * time.Millisecond)
				}
				expect(t, "member and newcomer are still there", member.up(victim) && victim.up(newcomer), true)
				for _, e := range victim.takeEvents() {
					if w.index(e.ID) < 0 && !e.Stranger {
						t.Fatalf("got %+v of a made-up node, want it told as a stranger's", e)
					}
				}
				expectList(t, "what they said that is taken", victim.takeMessages())
				cancel()
				storm.Wait()
				told := 0
				for _, i := range intruders {
					for text, n := range i.told {
						if !strings.HasPrefix(text, fmt.Sprint(CodeStranger, " ")) {
							t.Errorf("got told %q, want code %d", text, CodeStranger)
						}
						told += n
					}
					i.close()
				}
				t.Logf("%d were told, %d packets", told, w.net.Sent())
				if told < 100 {
					t.Errorf("got %d that were told, want a storm", told)
				}
			})
		})
	}
}

// All places are taken by holders of many tokens, from many sources: one from elsewhere finds a place at once, and the one that gives
// way is told.
func TestStrangersGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, sessiontest.Options{Latency: time.Millisecond})
		defer w.stop()
		victim := w.nodes[0]
		victim.know(book{others: true})
		victim.start(nil)
		var intruders []*intruder
		for i := range maxStrangers / maxStrangersInvite {
			one := w.intruder(fmt.Sprintf("198.51.100.%d:%d", 1+i/2, 1000+i), w.invite())
			intruders = append(intruders, one)
			for range maxStrangersInvite {
				if _, err := one.barge(t.Context(), victim); err != nil {
					t.Fatal(err)
				}
				time.Sleep(50 * time.Millisecond)
			}
		}
		synctest.Wait()
		all, invite, source := victim.strangersOf()
		expect(t, "strangers, of one invite, of one source", [3]int{all, invite, source}, [3]int{maxStrangers, maxStrangersInvite, maxStrangersSource})
		for _, i := range intruders {
			i.mu.Lock()
			expect(t, "told before", len(i.told), 0)
			i.mu.Unlock()
		}
		fresh := w.intruder("203.0.113.9:1000", w.invite())
		if _, err := fresh.barge(t.Context(), victim); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		all, _, _ = victim.strangersOf()
		expect(t, "strangers", all, maxStrangers)
		told := 0
		for _, i := range intruders {
			i.mu.Lock()
			told += i.told[fmt.Sprint(CodeStranger, " ", noPlaceText)]
			i.mu.Unlock()
		}
		expect(t, "told to give way", told, 1)
		expect(t, "told the one that has just come", len(fresh.told), 0)
		for _, i := range append(intruders, fresh) {
			i.close()
		}
	})
}

// A stranger has its time to become a member, a shorter one if the uses of its invite are taken. Then it is told what to do.
func TestStrangersTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, sessiontest.Options{Latency: 10 * time.Millisecond})
		defer w.stop()
		victim, old := w.nodes[0], w.nodes[1]
		spent := w.invite()
		victim.know(book{others: true, spent: []identity.KeyID{identity.KeyIDOfCert(spent.Cert)}})
		victim.start(nil)
		old.start(nil)
		old.target(victim)
		for _, c := range []struct {
			invite identity.Authority
			time   time.Duration
			text   string
		}{{w.invite(), strangerTime, fmt.Sprintf(noTimeText, strangerTime)}, {spent, strangerSpentTime, spentText}} {
			i := w.intruder("198.51.100.1:1000", c.invite)
			conn, err := i.barge(t.Context(), victim)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			<-conn.Context().Done()
			if took := time.Since(began); took < c.time-50*time.Millisecond || took > c.time+strangersLook+50*time.Millisecond {
				t.Errorf("a stranger's session ended after %v, want %v", took, c.time)
			}
			code, reason, byPeer := closeCause(context.Cause(conn.Context()))
			expect(t, "what it is told", fmt.Sprint(code, reason, byPeer), fmt.Sprint(CodeStranger, c.text, true))
			i.close()
		}
		expect(t, "the member's session", victim.up(old), true)
		expect(t, "places taken", victim.strangers.places.Taken(nil), 0)
	})
}

// One who lost all records takes in, like everybody, those whom it dials itself, and is told of them as ever.
func TestStrangersThatAreDialled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6, sessiontest.Options{Latency: 10 * time.Millisecond})
		defer w.stop()
		forgetful := w.nodes[0]
		forgetful.know(book{strangers: ids(w.nodes[1:]...)})
		for _, n := range w.nodes {
			n.start(nil)
		}
		forgetful.target(w.nodes[1:]...)
		time.Sleep(strangerTime + 5*time.Second)
		for _, e := range forgetful.takeEvents() {
			if e.Stranger || e.Kind != Up {
				t.Errorf("got %+v, want a session like others", e)
			}
		}
		for _, n := range w.nodes[1:] {
			expect(t, "session", forgetful.up(n), true)
		}
	})
}

func ids(nodes ...*testNode) (out []identity.NodeID) {
	for _, n := range nodes {
		out = append(out, n.ID)
	}
	return out
}

// Who says nothing during or after its handshake, from many addresses, keeps nobody out: neither a member, nor somebody new.
func TestHalfOpenIsBoundedBySource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, sessiontest.Options{Latency: 10 * time.Millisecond})
		defer w.stop()
		victim, member, other := w.nodes[0], w.nodes[1], w.nodes[2]
		victim.start(nil)
		ctx, cancel := context.WithCancel(context.Background())
		var silent sync.WaitGroup
		var intruders []*intruder
		token := w.invite()
		node, err := w.mesh.NewNodeBy(token)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 24 {
			one := w.intruder(fmt.Sprintf("198.51.100.%d:1000", i+1), token)
			intruders = append(intruders, one)
			for range 12 { // at once; a handshake, and no hello
				silent.Go(func() {
					for ctx.Err() == nil {
						config := dialTLS(sessiontest.Member{Node: node, Mesh: w.mesh}, victim.ID, func(error) {})
						if c, err := one.transport.Dial(ctx, net.UDPAddrFromAddrPort(victim.addr), config, quicConfig()); err == nil {
							select {
							case <-c.Context().Done():
							case <-ctx.Done():
								c.CloseWithError(0, "")
							}
						}
						select {
						case <-time.After(20 * time.Millisecond):
						case <-ctx.Done():
						}
					}
				})
			}
		}
		time.Sleep(3 * time.Second)
		g := victim.reception.gate
		if taken := g.halfOpen.Taken(nil); taken < retryAbove/2 || taken > maxHalfOpen {
			t.Errorf("got %d half-open connections, want many, and %d at most", taken, maxHalfOpen)
		}
		member.start(nil)
		member.target(victim)
		other.start(nil)
		other.target(victim)
		w.until(quietTime+time.Second, "sessions beside those who say nothing", func() bool {
			for i := range 24 {
				source := netip.MustParsePrefix(fmt.Sprintf("198.51.100.%d/32", i+1))
				if n := g.halfOpen.Taken(source); n > maxHalfOpenSource {
					t.Fatalf("got %d half-open connections of one source, want %d at most", n, maxHalfOpenSource)
				}
			}
			return member.up(victim) && other.up(victim)
		})
		cancel()
		silent.Wait()
		for _, i := range intruders {
			i.close()
		}
	})
}

// Forged packets in a member's name do not take the places of its own connections.
func TestForgedSourcesTakeNoPlaces(t *testing.T) {
	g := newGate()
	victim := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:9277"))
	retries := 0
	for range 1000 {
		if g.wantRetry(victim) {
			retries++ // what is forged does not answer it
		} else if _, err := g.enter(context.Background(), &quic.ClientInfo{RemoteAddr: victim}); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, "asked to prove where they are", retries, 1000-retryAboveSource)
	for i := range maxHalfOpenSource {
		if _, err := g.enter(context.Background(), &quic.ClientInfo{RemoteAddr: victim, AddrVerified: true}); err != nil {
			t.Fatalf("connection %d from the true source: got %v", i+1, err)
		}
	}
	if _, err := g.enter(context.Background(), &quic.ClientInfo{RemoteAddr: victim, AddrVerified: true}); !errors.Is(err, errTooMany) {
		t.Errorf("one more: got %v, want errTooMany", err)
	}
}

// Where members were met is remembered, two sources of each, and no more members than are met.
func TestFriends(t *testing.T) {
	g := newGate()
	f := &g.met
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	has := func(i int) bool { return f.has(sourceOf(net.UDPAddrFromAddrPort(netip.AddrPortFrom(at(i), 1)))) }
	m := identity.NodeID{1}
	f.add(m, netip.MustParseAddr("100::200:0:0:7")) // a stream: nowhere
	for i := range 3 {
		f.add(m, at(i))
		f.add(m, at(i))
	}
	f.add(identity.NodeID{2}, at(2))
	expect(t, "first, second, third source", [3]bool{has(0), has(1), has(2)}, [3]bool{false, true, true})
	for i := range 3 * maxFriends {
		f.add(identity.NodeID{3, byte(i >> 8), byte(i), byte(i >> 16)}, at(1000+i))
	}
	if len(f.from) > maxFriends || len(f.count) > 2*maxFriends+1 {
		t.Errorf("got %d members and %d sources remembered, want %d at most", len(f.from), len(f.count), maxFriends)
	}
	expect(t, "the last one", has(1000+3*maxFriends-1), true)
}
