package session

import (
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"warren/nat/due"
)

// connectionIDPrefix begins every connection ID of ours. In a short header the ID stands right behind the first byte,
// so bytes 2 and 3, which ChannelData (RFC 8656, section 12.4) would read as a length, are 0xffff and never fit.
var connectionIDPrefix = [3]byte{0xff, 0xff, 0xff}

const connectionIDLen = 12

// connectionIDs generates connection IDs: the prefix and nine random bytes.
type connectionIDs struct{}

func (connectionIDs) GenerateConnectionID() (quic.ConnectionID, error) {
	var b [connectionIDLen]byte
	rand.Read(b[:])
	copy(b[:], connectionIDPrefix[:])
	return quic.ConnectionIDFromBytes(b[:]), nil
}

func (connectionIDs) ConnectionIDLen() int { return connectionIDLen }

// lane is the QUIC lane as quic-go shall see it. A failed write would end the connection it was for, although the
// network may be back in a second: the lane swallows it, and tells only whoever dials that address.
type lane struct {
	net.PacketConn
	strange func() // constant; called when a short-header packet goes to an address that is no session's; must not block

	known atomic.Pointer[map[netip.AddrPort]bool] // addresses of sessions, copied on write

	dialling atomic.Int32                // dials in the map
	answered atomic.Pointer[time.Time]   // when an address that is dialled answered last; nil: never
	trip     atomic.Pointer[due.Answers] // how long first answers take at present; nil: not known
	busy     atomic.Pointer[time.Time]   // when this machine was last late with dials; nil: never

	mu    sync.Mutex
	dials map[netip.AddrPort]map[*dialWatch]bool // guarded by mu
}

// dialWatch is told about a failed write to the address being dialled, and notes that something came from there.
type dialWatch struct {
	failed func(error)
	heard  *atomic.Bool
	began  time.Time
	first  atomic.Bool // something has come
}

// busyLasts is how long a machine counts as busy that was late once.
const busyLasts = time.Second

func newLane(conn net.PacketConn, strange func()) *lane {
	l := &lane{PacketConn: conn, strange: strange, dials: make(map[netip.AddrPort]map[*dialWatch]bool)}
	l.known.Store(&map[netip.AddrPort]bool{})
	return l
}

// watch calls failed, once or more, when writes to addr fail, and sets heard when a packet comes from there, until the returned function
// is called.
func (l *lane) watch(addr netip.AddrPort, failed func(error), heard *atomic.Bool) (stop func()) {
	w := &dialWatch{failed: failed, heard: heard, began: time.Now()}
	l.dialling.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dials[addr] == nil {
		l.dials[addr] = make(map[*dialWatch]bool)
	}
	l.dials[addr][w] = true
	return func() {
		l.dialling.Add(-1)
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.dials[addr], w)
		if len(l.dials[addr]) == 0 {
			delete(l.dials, addr)
		}
	}
}

// ReadFrom implements net.PacketConn.
func (l *lane) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := l.PacketConn.ReadFrom(p)
	if l.dialling.Load() > 0 && err == nil {
		l.hear(addrPortOf(from))
	}
	return n, from, err
}

// hear notes that an address answers.
func (l *lane) hear(from netip.AddrPort) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.dials[from] {
		w.heard.Store(true)
		now := time.Now()
		if !w.first.Swap(true) {
			l.first(now, now.Sub(w.began))
		}
		l.answered.Store(&now)
	}
}

// first notes how long the first answer of an address took, from when the dial began.
func (l *lane) first(now time.Time, took time.Duration) {
	a := l.answers().Note(now, took)
	l.trip.Store(&a)
}

// answers is how long first answers take at present.
func (l *lane) answers() due.Answers {
	if a := l.trip.Load(); a != nil {
		return *a
	}
	return due.Answers{}
}

// late notes how late this machine was for something of its dials. Answers lie unread for as long, here and most likely there.
func (l *lane) late(now time.Time, late time.Duration) {
	if late >= due.Busy {
		l.busy.Store(&now)
	}
}

// isBusy reports whether it was late within the last moment.
func (l *lane) isBusy(now time.Time) bool {
	at := l.busy.Load()
	return at != nil && now.Sub(*at) < busyLasts
}

// WriteTo implements net.PacketConn. It reports an error only when the lane is closed.
func (l *lane) WriteTo(p []byte, addr net.Addr) (int, error) {
	to := addrPortOf(addr)
	if len(p) >= 4 && p[0]&0xc0 == 0x40 {
		// A stateless reset (RFC 9000, section 10.3) is random up to its last 16 bytes. It gets the prefix
		// of our connection IDs, by which the far side's demultiplexer knows QUIC.
		if [3]byte(p[1:4]) != connectionIDPrefix {
			p = append([]byte(nil), p...)
			copy(p[1:], connectionIDPrefix[:])
		}
		if !(*l.known.Load())[to] {
			defer l.strange()
		}
	}
	_, err := l.PacketConn.WriteTo(p, addr)
	if errors.Is(err, net.ErrClosed) {
		return 0, err
	}
	if err != nil {
		l.tell(to, err)
	}
	return len(p), nil
}

func (l *lane) tell(addr netip.AddrPort, err error) {
	l.mu.Lock()
	var told []*dialWatch
	for w := range l.dials[addr] {
		told = append(told, w)
	}
	l.mu.Unlock()
	for _, w := range told {
		w.failed(err)
	}
}

// SetReadBuffer and SetWriteBuffer do nothing: the sizes are the bind's affair. Without them quic-go would log a complaint.
func (l *lane) SetReadBuffer(int) error  { return nil }
func (l *lane) SetWriteBuffer(int) error { return nil }

// addrPortOf returns the address of a packet, unmapped; the zero value for anything that is not an IP address and port.
func addrPortOf(addr net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := addr.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case nil:
	default:
		ap, _ = netip.ParseAddrPort(a.String())
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
