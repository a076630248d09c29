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
	"warren/tunnel/bind"
)

/* Dialling back
 *
 * A node asks a member elsewhere, over its control session, to send to an address that the node believes to have. The
 * helper sends a STUN Binding request (RFC 8489) with the transaction that the node chose, three times, from a socket
 * made for it: a stranger to every NAT and firewall on the way. If it arrives, strangers can reach that address.
 *
 *	ask (session message, protocol 6):  version 1 (1) ‖ transaction (12) ‖ port (2, big endian) ‖ address (4 or 16)
 *
 * A member can make others send 60 bytes to an address of its choice, a few times a second, and no more.
 */

const (
	dialBackVersion = 1
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

// dialBack finds out which of this node's addresses strangers reach, and helps others to. The machine belongs to the
// loop; expect and arrived are shared with nat's goroutine.
type dialBack struct {
	machine  *reach.Machine
	timer    *time.Timer
	arrivals chan [12]byte

	mu     sync.Mutex
	expect map[[12]byte]time.Time // transactions under way, and when they are forgotten

	// What is sent for others.
	second int64
	sent   int
}

func newDialBack() *dialBack {
	d := &dialBack{timer: time.NewTimer(time.Hour), arrivals: make(chan [12]byte, 16), expect: make(map[[12]byte]time.Time)}
	d.timer.Stop()
	d.machine = reach.New(func() (id [12]byte) { rand.Read(id[:]); return id })
	return d
}

// stranger is called by nat for each bare Binding request: only those asked for go further.
func (d *dialBack) stranger(id [12]byte, _ netip.AddrPort) {
	d.mu.Lock()
	_, asked := d.expect[id]
	delete(d.expect, id)
	d.mu.Unlock()
	if asked {
		select {
		case d.arrivals <- id:
		default: // a test more: the machine asks again
		}
	}
}

func (d *dialBack) remember(id [12]byte, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for old, until := range d.expect {
		if now.After(until) {
			delete(d.expect, old)
		}
	}
	d.expect[id] = now.Add(10 * time.Second)
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
		d.remember(ask.ID, now)
		if err := m.sessions.Send(ask.Helper, session.ProtoAsk, encodeDialBack(ask)); err != nil {
			m.dropped.add("dial back: not asked")
		}
	}
	if !wake.IsZero() {
		d.timer.Reset(time.Until(wake))
	}
}

// reached notes that a test came in.
func (m *member) reached(id [12]byte) {
	m.back.machine.Seen(time.Now(), id)
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
	go sendDialBack(id, addr)
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

// sendDialBack sends the Binding request from a fresh socket and ends within a second.
func sendDialBack(id [12]byte, addr netip.AddrPort) {
	c, err := (&net.Dialer{}).DialContext(context.Background(), "udp", addr.String())
	if err != nil {
		return // this node does not have the address family: to the other it looks like a closed door
	}
	defer c.Close()
	request := []byte{0x00, 0x01, 0x00, 0x00, 0x21, 0x12, 0xa4, 0x42} // Binding request without attributes, magic cookie
	request = append(request, id[:]...)
	start := time.Now()
	for _, at := range dialBackTimes {
		time.Sleep(time.Until(start.Add(at)))
		c.Write(request)
	}
}
