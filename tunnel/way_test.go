package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/identity"
	"warren/tunnel/bind"
)

var (
	home  = netip.MustParseAddrPort("192.0.2.1:9277")
	away  = netip.MustParseAddrPort("198.51.100.7:4000")
	third = netip.MustParseAddrPort("[2001:db8::3]:9277")
)

// network is the sockets under a bind: it keeps where each packet went, and when.
type network struct {
	conn.Bind // nil: nothing else is called

	w    *world
	mu   sync.Mutex
	sent []string
}

func (n *network) Send(bufs [][]byte, ep conn.Endpoint) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range bufs {
		n.sent = append(n.sent, fmt.Sprintf("%v %d to %s", n.w.at(), p[0], ep.DstToString()))
	}
	return nil
}

// radio is a device in memory: it keeps what it was told, and when, and has what handshakes the test lets be done.
type radio struct {
	w         *world
	mu        sync.Mutex
	told      []string
	done      map[wgtypes.Key]time.Time
	endpoints map[wgtypes.Key]netip.AddrPort
	reads     int
	slow      time.Duration             // what reading all of it takes
	working   map[wgtypes.Key]time.Time // until when it has a response
}

func (r *radio) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, fmt.Sprintf("%v ", r.w.at())+fmt.Sprintf(format, args...))
}

func (r *radio) Initiate(m *member, fresh bool) bool {
	r.mu.Lock()
	until := r.working[m.key]
	r.mu.Unlock()
	if time.Now().Before(until) {
		return false
	}
	word := "initiate"
	if fresh {
		word = "initiate afresh"
	}
	r.note("%s %c", word, m.key[0])
	return true
}

func (r *radio) Confirm(m *member) { r.note("confirm %c", m.key[0]) }

func (r *radio) LastHandshake(m *member) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done[m.key]
}

func (r *radio) SetEndpoint(m *member) { r.note("endpoint %c", m.key[0]) }

func (r *radio) Endpoints() (map[wgtypes.Key]netip.AddrPort, error) {
	time.Sleep(r.slow)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads++
	if r.endpoints == nil {
		return nil, errors.New("no device")
	}
	return r.endpoints, nil
}

func (r *radio) SetPath(m *member, p path) {
	addr := "nowhere"
	if p.Addr.IsValid() {
		addr = p.Addr.String()
	}
	r.note("size %c %s link %d", m.key[0], addr, p.Link)
}

// roam has the device send to an address on its own account, as it does when a packet of the peer came from there.
func (r *radio) roam(key wgtypes.Key, addr netip.AddrPort) {
	r.mu.Lock()
	if r.endpoints == nil {
		r.endpoints = make(map[wgtypes.Key]netip.AddrPort)
	}
	r.endpoints[key] = addr
	r.mu.Unlock()
	_ = r.w.bind.Send([][]byte{make([]byte, 64)}, &conn.StdNetEndpoint{AddrPort: addr})
}

// world is the ways of a tunnel over a device and sockets in memory. Times are those since its beginning.
type world struct {
	*Tunnel // has no device: its methods that need none are what is tested
	t       *testing.T
	began   time.Time
	bind    *bind.Bind
	net     *network
	radio   *radio
}

// newWorld runs until the bubble's test ends.
func newWorld(t *testing.T) *world {
	w := &world{t: t, began: time.Now()}
	w.net, w.radio = &network{w: w}, &radio{w: w, done: make(map[wgtypes.Key]time.Time), working: make(map[wgtypes.Key]time.Time)}
	quiet := slog.New(slog.DiscardHandler)
	w.bind = bind.New(bind.Options{Inner: w.net, Logger: quiet})
	var err error
	if w.Tunnel, err = New(Options{PrivateKey: key('s'), Bind: w.bind, Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	w.ways.linkMTU = func(a netip.Addr) (int, error) {
		if a.Is6() {
			return 0, errors.New("no way there")
		}
		return 1500, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		w.ways.run(ctx, w.radio)
		close(ended)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return w
}

func (w *world) at() time.Duration { return time.Since(w.began) }

// set gives the tunnel its peers, as SetPeers does beside the device.
func (w *world) set(peers ...Peer) {
	w.t.Helper()
	_, table, err := w.ways.prepare(peers)
	if err != nil {
		w.t.Fatal(err)
	}
	w.ways.publish(table)
}

// expect waits until the time has come, and wants that the device was told just this since the last call.
func (w *world) expect(at time.Duration, want ...string) {
	w.t.Helper()
	if at > w.at() {
		time.Sleep(at - w.at())
	}
	synctest.Wait()
	w.radio.mu.Lock()
	got := w.radio.told
	w.radio.told = nil
	w.radio.mu.Unlock()
	same(w.t, "device", got, want)
}

// forgetSizes drops what the device was told of sizes of packets.
func (r *radio) forgetSizes() {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = slices.DeleteFunc(r.told, func(s string) bool { return strings.Contains(s, " size ") })
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\ngot  %s\nwant %s", what, strings.Join(got, "; "), strings.Join(want, "; "))
	}
}

// endpoint returns that of the member that has a key now.
func (w *world) endpoint(key wgtypes.Key) *bind.Endpoint {
	w.t.Helper()
	for _, m := range *w.ways.members.Load() {
		if m.key == key {
			return m.endpoint
		}
	}
	w.t.Fatalf("no member has the key %c", key[0])
	return nil
}

// path wants that a member's packets go there now.
func (w *world) path(id identity.NodeID, want netip.AddrPort) {
	w.t.Helper()
	synctest.Wait()
	if _, got := w.Activity(id); got != want {
		w.t.Errorf("at %v: got path %v, want %v", w.at(), got, want)
	}
}

// events returns those that wait.
func (w *world) events() (got []string) {
	for {
		synctest.Wait()
		select {
		case e := <-w.Events():
			kind := map[EventKind]string{Roamed: "roamed", Stirred: "stirred", Stale: "stale"}[e.Kind]
			if e.Addr.IsValid() {
				kind += " " + e.Addr.String()
			}
			got = append(got, fmt.Sprintf("%s %c", kind, e.ID[0]))
		default:
			return got
		}
	}
}

// send has the device send something to a peer.
func (w *world) send(key wgtypes.Key, p []byte) {
	w.t.Helper()
	if err := w.bind.Send([][]byte{p}, w.endpoint(key)); err != nil {
		w.t.Fatal(err)
	}
}

func (r *radio) finish(key wgtypes.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done[key] = time.Now()
}

// id makes a node ID out of one letter.
func id(letter byte) (id identity.NodeID) { return identity.NodeID(key(letter)) }

// a is a member to which this side has the first word, and b one that has it.
var (
	peerA = Peer{ID: id('a'), PublicKey: key('a'), Controlling: true}
	peerB = Peer{ID: id('b'), PublicKey: key('b')}
)

// tries writes what is told at each multiple of every up to last.
func tries(every, last time.Duration, what string) (out []string) {
	for at := every; at <= last; at += every {
		out = append(out, fmt.Sprintf("%v %s", at, what))
	}
	return out
}

func TestControllingSideInitiatesAndRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.set(peerA, peerB)
		w.SetWay(id('x'), Way{Addr: home}) // unknown: ignored
		w.SetWay(id('a'), Way{Addr: home})
		w.radio.forgetSizes()
		want := []string{"0s initiate afresh a"}
		for _, at := range []string{"700ms", "1.4s", "2.8s", "5.6s", "10.5s", "15.4s"} {
			want = append(want, at+" initiate afresh a")
		}
		w.expect(time.Minute-1, want...)
		w.path(id('a'), home)
		w.path(id('x'), netip.AddrPort{})
	})
}

func TestHandshakeIsConfirmedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.set(peerA)
		w.SetWay(id('a'), Way{Addr: home})
		w.radio.forgetSizes()
		time.Sleep(time.Second)
		w.radio.finish(key('a'))
		w.expect(time.Minute, "0s initiate afresh a", "700ms initiate afresh a", "1.4s confirm a", "2.1s confirm a")
		// Good keys need none by another way, unless the member has lost its own.
		w.SetWay(id('a'), Way{Addr: away})
		w.radio.forgetSizes()
		w.expect(time.Minute)
		w.path(id('a'), away)
		w.SetWay(id('a'), Way{Addr: away}) // the same again
		w.SetWay(id('a'), Way{Addr: away, Restarted: true})
		w.SetWay(id('a'), Way{Addr: away}) // does not take it back
		w.radio.forgetSizes()
		w.expect(time.Minute, "1m0s initiate afresh a")
		// Two at once are one: the second would be taken for a flood.
		time.Sleep(handshakeRetry - 1)
		w.SetWay(id('a'), Way{Addr: home, Restarted: true})
		w.radio.forgetSizes()
		w.expect(time.Minute + 2*handshakeRetry - 2)
		w.radio.finish(key('a'))
		w.expect(2*time.Minute, "1m1.399999999s confirm a", "1m2.099999999s confirm a")
		// Keys are good for 150 s.
		time.Sleep(time.Minute + 1399999998 + goodKeys - w.at() - 1)
		w.SetWay(id('a'), Way{Addr: away})
		w.radio.forgetSizes()
		w.expect(w.at())
		time.Sleep(time.Nanosecond)
		w.SetWay(id('a'), Way{Addr: home})
		w.radio.forgetSizes()
		w.expect(w.at(), fmt.Sprintf("%v initiate afresh a", w.at()))
	})
}

func TestOtherSideTakesItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.set(peerB)
		w.SetWay(id('b'), Way{Addr: home})
		w.radio.forgetSizes()
		w.expect(time.Minute-1, tries(handshakeTurn, 24*time.Second, "initiate b")...)
		// It looks at most once when the peer's was done, even before the way was known.
		w.radio.finish(key('b'))
		w.SetWay(id('b'), Way{Addr: away, Restarted: true})
		w.radio.forgetSizes()
		w.expect(2 * time.Minute)
	})
}

func TestHeldInitiationCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.set(peerA)
		first := make([]byte, device.MessageInitiationSize)
		first[0] = device.MessageInitiationType
		w.send(key('a'), first)
		time.Sleep(time.Second)
		w.SetWay(id('a'), Way{Addr: home})
		w.radio.forgetSizes()
		w.expect(2*time.Second, "1.7s initiate afresh a")
		same(t, "network", w.net.sent, []string{"1s 1 to 192.0.2.1:9277"})
		// Without a way nothing is tried, and what was due is due when there is one.
		w.SetWay(id('a'), Way{Restarted: true})
		w.radio.forgetSizes()
		w.radio.finish(key('a'))
		w.expect(30 * time.Second)
		w.path(id('a'), netip.AddrPort{})
		w.SetWay(id('a'), Way{Addr: home})
		w.radio.forgetSizes()
		w.expect(30*time.Second, "30s initiate afresh a")
	})
}

func TestAgreedKeysAreTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.set(peerA)
		one, two := [8]byte{1}, [8]byte{2}
		w.Agreed(id('a'), one) // no way yet: the one that comes sees to it
		w.Agreed(id('x'), one)
		w.SetWay(id('a'), Way{Addr: home})
		w.radio.forgetSizes()
		w.expect(0, "0s initiate afresh a")
		time.Sleep(100 * time.Millisecond)
		w.radio.finish(key('a'))
		w.expect(10*time.Second, "700ms confirm a", "1.4s confirm a")
		w.Agreed(id('a'), one) // its keys are good
		w.expect(10 * time.Second)
		w.Agreed(id('a'), two) // a new process
		w.expect(10*time.Second, "10s initiate afresh a")
		time.Sleep(time.Second)
		w.Agreed(id('a'), two) // what was tried before could not succeed
		w.expect(11*time.Second, "10.7s initiate afresh a", "11s initiate afresh a")
	})
}

func TestStrayIsFollowedAndRecalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.set(peerA, peerB)
		w.radio.finish(key('a'))
		w.SetWay(id('a'), Way{Addr: home})
		w.radio.forgetSizes()
		time.Sleep(5 * time.Second)
		w.radio.roam(key('a'), away)
		w.expect(5*time.Second+strayPause, "5.1s endpoint a")
		w.path(id('a'), away)
		same(t, "events", w.events(), []string{"roamed 198.51.100.7:4000 a"})
		time.Sleep(strayFor - 1)
		w.SetWay(id('a'), Way{Addr: home}) // the same again, as a loop that reconciles tells it
		w.path(id('a'), away)
		time.Sleep(time.Nanosecond)
		w.path(id('a'), home)
		w.expect(20 * time.Second)

		// Another way ends it at once.
		w.radio.roam(key('a'), away)
		time.Sleep(time.Second)
		w.SetWay(id('a'), Way{Addr: third})
		w.radio.forgetSizes()
		w.path(id('a'), third)
		w.expect(30*time.Second, "20.1s endpoint a")
		w.path(id('a'), third)
		same(t, "events", w.events(), []string{"roamed 198.51.100.7:4000 a"})

		// What a relay or a stream brought says nothing of where to send, and a handle only that two were mixed up.
		relay := netip.MustParseAddrPort("[100::200:0:0:1]:9")
		w.radio.roam(key('a'), relay)
		w.expect(30*time.Second+strayPause, "30.1s endpoint a")
		w.radio.roam(key('a'), w.endpoint(key('b')).Handle())
		w.expect(30*time.Second+2*strayPause, "30.2s endpoint b")
		w.path(id('a'), third)
		same(t, "events", w.events(), nil)
	})
}

// A peer's handshake may come a moment before the word of the path that it takes.
func TestStrayThatBecomesThePathCostsNoRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.set(peerA, peerB)
		w.radio.roam(key('b'), third)
		time.Sleep(strayPause - 1)
		w.SetWay(id('b'), Way{Addr: third})
		time.Sleep(5 * time.Second)
		same(t, "events", w.events(), nil)
		w.path(id('b'), third)
		if w.radio.reads != 0 {
			t.Errorf("got %d reads of the device, want none", w.radio.reads)
		}
	})
}

func TestManyRoamersCostOneRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.radio.slow = 3 * time.Second
		var peers []Peer
		for i := range byte(20) {
			peers = append(peers, Peer{ID: id('A' + i), PublicKey: key('A' + i), Controlling: true})
		}
		w.set(peers...)
		w.radio.roam(key('A'), away)
		time.Sleep(strayPause)
		synctest.Wait() // it is being read
		for i := range byte(19) {
			w.radio.roam(key('B'+i), netip.AddrPortFrom(away.Addr(), 5000+uint16(i)))
		}
		// No handshake waits meanwhile.
		w.SetWay(id('A'), Way{Addr: home})
		w.radio.forgetSizes()
		w.expect(strayPause, "100ms initiate afresh A")
		time.Sleep(7 * time.Second)
		if got := len(w.events()); got != 20 || w.radio.reads != 2 {
			t.Errorf("got %d events and %d reads of the device, want 20 and 2", got, w.radio.reads)
		}
	})
}

func TestStirsAndStaleKeysAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.radio.finish(key('a'))
		w.set(peerA, peerB)
		w.SetWay(id('a'), Way{Addr: home})
		w.SetWay(id('b'), Way{Addr: away})
		w.radio.forgetSizes()
		w.expect(0)
		packet := make([]byte, 64)
		packet[0] = device.MessageTransportType
		for range 30 { // three minutes
			time.Sleep(6 * time.Second)
			w.send(key('a'), packet)
			w.send(key('b'), packet)
		}
		time.Sleep(time.Second)
		w.expect(w.at(), append(tries(handshakeTurn, 24*time.Second, "initiate b"), "1m6s initiate b", "1m12s initiate b", "1m18s initiate b", "1m24s initiate b",
			"2m6s initiate b", "2m12s initiate b", "2m18s initiate b", "2m24s initiate b")...)
		// The keys of a are 181 s old, but that is looked at once a minute; b never had any. Of each the latest waits.
		same(t, "events", w.events(), []string{"stirred a", "stirred b", "stale b"})
		time.Sleep(59*time.Second - 1)
		w.send(key('a'), packet)
		same(t, "events", w.events(), []string{"stale b", "stirred a"})
		time.Sleep(time.Nanosecond)
		same(t, "events", w.events(), []string{"stale a"})
		time.Sleep(time.Minute - 2)
		same(t, "events", w.events(), []string{"stale b"})
		// Nothing was sent for a minute: nobody misses the keys of a.
		time.Sleep(2 * time.Nanosecond)
		same(t, "events", w.events(), nil)
	})
}

// Handshakes in vain by a way that works are told of after the last of them, on either side: another introduction is due, for the two may
// have different preshared keys.
func TestTriesInVainAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.set(peerA, peerB)
		w.SetWay(id('a'), Way{Addr: home})
		w.SetWay(id('b'), Way{Addr: away})
		last := retryAfter(handshakeTries - 1)
		time.Sleep(last)
		same(t, "events", w.events(), nil)
		time.Sleep(handshakeRetry + time.Millisecond)
		same(t, "events", w.events(), []string{"stale a"})
		time.Sleep((handshakeTurns+1)*handshakeTurn - last)
		same(t, "events", w.events(), []string{"stale b"})
	})
}

func TestMembersComeChangeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.set(peerA, peerB)
		old := w.endpoint(key('a'))
		w.radio.finish(key('a'))
		w.SetWay(id('a'), Way{Addr: home, Sources: []netip.AddrPort{away}})
		w.expect(0, "0s size a 192.0.2.1:9277 link 1500")
		time.Sleep(time.Second)

		// Another key: another peer to the device, by the same way.
		rekeyed := peerA
		rekeyed.PublicKey = key('k')
		w.set(rekeyed, peerB)
		synctest.Wait()
		if old.Path().IsValid() || w.endpoint(key('k')).Path() != home {
			t.Errorf("got old path %v and new path %v, want none and %v", old.Path(), w.endpoint(key('k')).Path(), home)
		}
		w.path(id('a'), home)
		time.Sleep(100 * time.Millisecond)
		w.radio.finish(key('k'))
		w.expect(4*time.Second, "1s initiate afresh k", "1s size k 192.0.2.1:9277 link 1500", "1.7s confirm k", "2.4s confirm k")

		// A key that goes over to another member is another peer too.
		taken := peerB
		taken.PublicKey = key('k')
		rekeyed.PublicKey = key('a')
		was := w.endpoint(key('k'))
		w.set(rekeyed, taken)
		synctest.Wait()
		if got := w.endpoint(key('k')); got == was || got.Path().IsValid() {
			t.Errorf("got the endpoint of the old owner, or path %v, want a new one without", got.Path())
		}
		w.path(id('a'), home)
		w.path(id('b'), netip.AddrPort{})

		// What waits for one that goes, goes.
		w.radio.roam(key('a'), away)
		time.Sleep(strayPause)
		synctest.Wait()
		w.SetWay(id('a'), Way{Addr: third})
		w.set(taken)
		same(t, "events", w.events(), nil)
		w.path(id('a'), netip.AddrPort{})
		w.set(peerA)
		w.path(id('a'), netip.AddrPort{})
	})
}

// TestStaticPeersRoamByThemselves has no members: whoever strays is none of ours, and the device is not read.
func TestStaticPeersRoamByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.set(Peer{PublicKey: key('a'), Endpoint: home})
		w.radio.roam(key('a'), away)
		w.expect(time.Hour)
		if w.radio.reads != 0 {
			t.Errorf("got %d reads of the device, want none", w.radio.reads)
		}
	})
}

// A handshake that an introduction has carried is confirmed by the way that comes, twice; one that the device has not taken is begun by it, at once.
func TestWayAfterACarriedHandshake(t *testing.T) {
	for _, c := range []struct {
		name string
		done bool
		want []string
	}{
		{"done", true, []string{"1s confirm a", "1.7s confirm a"}},
		{"not done", false, append([]string{"1s initiate afresh a"}, tries(handshakeRetry, 7*time.Second, "initiate afresh a")...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.set(peerA)
				if c.done {
					w.radio.finish(key('a'))
				}
				w.ways.putAgreed(id('a'), agreement{instance: [8]byte{1}, keyed: true})
				w.Agreed(id('a'), [8]byte{1}) // an answer that is repeated takes nothing back
				time.Sleep(time.Second)
				// Whoever opens a stream may have lost its keys; but not these.
				w.SetWay(id('a'), Way{Addr: home, Restarted: c.done})
				w.radio.forgetSizes()
				if !c.done {
					w.expect(w.at(), c.want[0])
					return
				}
				w.expect(time.Minute, c.want...)
			})
		})
	}
}

// While the device works out a response, a way that comes up does not begin another handshake; when nothing has come of it, it does soon.
func TestWayWhileTheDeviceHasAResponse(t *testing.T) {
	for _, c := range []struct {
		name string
		done time.Duration // the response, after the way has come; 0: never
		want []string
	}{
		{"nothing comes of it", 0, []string{"1.06s initiate afresh a", "1.76s initiate afresh a"}},
		{"the handshake is done", 30 * time.Millisecond, []string{"1.04s confirm a", "1.74s confirm a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.set(peerA)
				time.Sleep(time.Second)
				w.radio.mu.Lock()
				w.radio.working[key('a')] = time.Now().Add(50 * time.Millisecond)
				w.radio.mu.Unlock()
				w.SetWay(id('a'), Way{Addr: home})
				w.Agreed(id('a'), [8]byte{1}) // the two come together
				w.radio.forgetSizes()
				if c.done != 0 {
					time.Sleep(c.done)
					w.radio.finish(key('a'))
				}
				w.expect(2*time.Second, c.want...)
			})
		})
	}
}
