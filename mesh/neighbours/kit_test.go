package neighbours

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/nat/beacon/beacontest"
	"warren/nat/netwatch"
)

var meshID = identity.MeshID{7}

// machine is one with a node on a LAN, and its kernel.
type machine struct {
	*Neighbours
	t       *testing.T
	start   time.Time
	desired Desired
	stop    func()

	mu    sync.Mutex
	links []netwatch.Link
	slow  time.Duration // how long the kernel takes
	reads []string      // when it was asked
}

// Links implements Host.
func (m *machine) Links() []netwatch.Link {
	m.mu.Lock()
	m.reads = append(m.reads, time.Since(m.start).String())
	links, slow := m.links, m.slow
	m.mu.Unlock()
	time.Sleep(slow)
	return links
}

// asked returns when the kernel was asked since the last call.
func (m *machine) asked() []string {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	reads := m.reads
	m.reads = nil
	return reads
}

// start runs node n, with the address 10.0.0.n, which knows the records of nodes 1 to 9. Node 1 is the admin, and nobody an anchor.
func start(t *testing.T, lan *beacontest.LAN, n byte) *machine {
	t.Helper()
	m := &machine{t: t, start: time.Now(), links: []netwatch.Link{linkOf(n)}}
	m.desired = Desired{Port: 9277, Network: 1, Overlay: []netip.Prefix{netip.MustParsePrefix("100.70.0.0/16"), netip.MustParsePrefix("fd77::/48")}}
	for other := byte(1); other < 10; other++ {
		member := testMember(other)
		member.Admin, member.Record.LANSecret = other == 1, [16]byte{other}
		m.desired.Members = append(m.desired.Members, member)
	}
	var err error
	m.Neighbours, err = New(Options{Self: id(n), Mesh: meshID, Host: m, Network: lan.Network(1)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("got %v at the end, want nil", err)
		}
	})
	t.Cleanup(m.stop)
	return m
}

func linkOf(n byte, more ...string) netwatch.Link {
	link := netwatch.Link{Index: 1, Name: "eth0", Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), 16)}}
	for _, text := range more {
		link.Prefixes = append(link.Prefixes, netip.MustParsePrefix(text))
	}
	return link
}

// set says what is wanted, after a change of it.
func (m *machine) set(change func(*Desired)) {
	if change != nil {
		change(&m.desired)
	}
	m.Set(m.desired)
}

// contacts returns where neighbours are said to be, after the wait.
func (m *machine) contacts(wait time.Duration) string {
	time.Sleep(wait)
	synctest.Wait()
	var out []string
	for _, c := range m.Snapshot().Contacts {
		out = append(out, fmt.Sprintf("%d %s", c.ID[0], c.Addr))
	}
	return strings.Join(out, ", ")
}

// news reports whether an event was told.
func (m *machine) news() bool {
	synctest.Wait()
	select {
	case <-m.Events():
		return true
	default:
		return false
	}
}

// up is sessions with these nodes, at addresses of no LAN.
func up(ids ...byte) map[identity.NodeID]netip.AddrPort {
	out := make(map[identity.NodeID]netip.AddrPort)
	for _, n := range ids {
		out[id(n)] = netip.AddrPort{}
	}
	return out
}
