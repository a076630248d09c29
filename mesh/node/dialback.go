package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session"
	"warren/nat/reach"
	"warren/nat/stunwire"
	"warren/tunnel/bind"
)

/* Dialling back
 *
 * A node asks a member elsewhere, over its control session, to send to an address that the node believes to have. The
 * helper sends a STUN Binding request (RFC 8489) with the transaction that the node chose, three times, from a socket
 * made for it: a stranger to every NAT and firewall on the way. If it arrives, strangers can reach that address.
 *
 *	ask (session message, protocol 6):  version 1 (1) ‖ transaction (12) ‖ port (2, big endian) ‖ address (4 or 16)
 *	unable (the helper's answer, if it cannot send there):  version 4 (1) ‖ transaction (12)
 *
 * A member can make others send 60 bytes to an address of its choice, a few times a second, and no more.
 */

const (
	dialBackVersion = 1
	unableVersion   = 4
	// dialBacksPerSecond bounds what this node sends for others, all together.
	dialBacksPerSecond = 8
)

// dialBackTimes are when the helper sends: a loss must not look like a firewall.
var dialBackTimes = []time.Duration{0, 250 * time.Millisecond, 500 * time.Millisecond}

// errDialBack is wrapped by what is wrong with an ask.
var errDialBack = errors.New("malformed request to dial back")

func encodeDialBack(a reach.Ask) []byte {
	raw := append([]byte{dialBackVersion}, a.ID[:]...)
	raw = binary.BigEndian.AppendUint16(raw, a.Addr.Port())
	return append(raw, a.Addr.Addr().AsSlice()...)
}

func decodeDialBack(raw []byte) (id [12]byte, addr netip.AddrPort, err error) {
	if len(raw) != 15+4 && len(raw) != 15+16 || raw[0] != dialBackVersion {
		return id, addr, fmt.Errorf("%d bytes: %w", len(raw), errDialBack)
	}
	ip, _ := netip.AddrFromSlice(raw[15:])
	addr = netip.AddrPortFrom(ip, binary.BigEndian.Uint16(raw[13:]))
	if ip.Is4In6() || !ip.IsGlobalUnicast() || addr.Port() == 0 {
		return id, netip.AddrPort{}, fmt.Errorf("address %s: %w", addr, errDialBack)
	}
	return [12]byte(raw[1:13]), addr, nil
}

func encodeUnable(id [12]byte) []byte { return append([]byte{unableVersion}, id[:]...) }

func decodeUnable(raw []byte) (id [12]byte, err error) {
	if len(raw) != 13 || raw[0] != unableVersion {
		return id, fmt.Errorf("%d bytes: %w", len(raw), errDialBack)
	}
	return [12]byte(raw[1:]), nil
}

// dialBackNews is what became of a test: the packet came in, or the helper has said that it cannot send it.
type dialBackNews struct {
	id     [12]byte
	unable identity.NodeID // zero: it came in
}

// dialBack finds out which of this node's addresses strangers reach, and helps others to. The machine belongs to the
// loop.
type dialBack struct {
	machine *reach.Machine
	timer   *time.Timer
	news    chan dialBackNews

	// What is sent for others.
	mu     sync.Mutex
	second int64
	sent   int
}

func newDialBack() *dialBack {
	d := &dialBack{timer: time.NewTimer(time.Hour), news: make(chan dialBackNews, 16)}
	d.timer.Stop()
	d.machine = reach.New(func() (id [12]byte) { rand.Read(id[:]); return id })
	return d
}

func (d *dialBack) tell(news dialBackNews) {
	select {
	case d.news <- news:
	default: // a test more: the machine asks again
	}
}

// testReach has the addresses that this node believes to have tested, as far as they are due.
func (m *member) testReach(candidates []netip.AddrPort) {
	now := time.Now()
	d := m.back
	d.machine.SetCandidates(now, candidates)
	var helpers []reach.Helper
	for id := range m.up {
		if remote, ok := m.sessions.Remote(id); ok && m.active(id) && !bind.IsVirtual(remote.Addr()) { // UDP from a network that blocks it proves nothing
			helpers = append(helpers, reach.Helper{ID: id, Addr: remote.Addr()})
		}
	}
	slices.SortFunc(helpers, func(a, b reach.Helper) int { return a.ID.Compare(b.ID) })
	d.machine.SetHelpers(helpers)
	asks, wake := d.machine.Step(now)
	for _, ask := range asks {
		m.nat.Expect(ask.ID, now.Add(10*time.Second))
		if err := m.sessions.Send(ask.Helper, session.ProtoAsk, encodeDialBack(ask)); err != nil {
			m.dropped.add("dial back: not asked")
		}
	}
	if !wake.IsZero() {
		d.timer.Reset(time.Until(wake))
	}
}

// dialledBack notes what became of a test.
func (m *member) dialledBack(news dialBackNews) {
	if news.unable.IsZero() {
		m.back.machine.Seen(time.Now(), news.id)
	} else {
		m.back.machine.Unable(time.Now(), news.unable, news.id)
	}
}

// takeUnable takes the word of a helper. It is called by session and must not block.
func (m *member) takeUnable(from identity.NodeID, raw []byte) {
	id, err := decodeUnable(raw)
	if err != nil {
		m.dropped.add("dial back: refused")
		return
	}
	m.back.tell(dialBackNews{id: id, unable: from})
}

// helpDialBack sends for another member. It is called by session, must not block, and ends its own goroutine.
func (m *member) helpDialBack(from identity.NodeID, raw []byte) {
	id, addr, err := decodeDialBack(raw)
	if err != nil || !m.active(from) || m.inOverlay(addr.Addr()) {
		m.dropped.add("dial back: refused")
		return
	}
	if !m.back.maySend(time.Now()) {
		m.dropped.add("dial back: too many")
		return
	}
	go func() {
		if sendDialBack(id, addr) == nil {
			return
		}
		if err := m.sessions.Send(from, session.ProtoAsk, encodeUnable(id)); err != nil {
			m.dropped.add("dial back: not answered")
		}
	}()
}

func (d *dialBack) maySend(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := now.Unix(); s != d.second {
		d.second, d.sent = s, 0
	}
	d.sent++
	return d.sent <= dialBacksPerSecond
}

// sendDialBack sends the Binding request from a fresh socket and ends within a second. An error means that nothing has left
// this host: it has no address of the family, or no route.
func sendDialBack(id [12]byte, addr netip.AddrPort) error {
	c, err := (&net.Dialer{}).DialContext(context.Background(), "udp", addr.String())
	if err != nil {
		return err
	}
	defer c.Close()
	request := stunwire.Bare(id)
	start := time.Now()
	for i, at := range dialBackTimes {
		time.Sleep(time.Until(start.Add(at)))
		if _, err := c.Write(request); err != nil && i == 0 { // later ones may be what the far side has answered
			return err
		}
	}
	return nil
}
