package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"warren/mesh/identity"
)

// memberlist wants an IP address and a port for each node. Ours are made from the node ID alone, so they need no
// announcing and cannot be claimed by another; nothing ever dials them.
const syntheticPort = 1

// syntheticIP puts the first 15 bytes of the ID behind fd, in the range of unique local addresses (RFC 4193).
func syntheticIP(id identity.NodeID) net.IP {
	ip := make(net.IP, 0, net.IPv6len)
	ip = append(ip, 0xfd)
	return append(ip, id[:net.IPv6len-1]...)
}

// joinAddress is what memberlist's Join takes: NAME/[IP]:PORT.
func joinAddress(id identity.NodeID) string {
	return id.String() + "/" + net.JoinHostPort(syntheticIP(id).String(), strconv.Itoa(syntheticPort))
}

// memberAddr is the sender of a packet or the far end of a stream, as memberlist logs it.
type memberAddr identity.NodeID

func (a memberAddr) Network() string { return "mesh" }
func (a memberAddr) String() string {
	return net.JoinHostPort(syntheticIP(identity.NodeID(a)).String(), strconv.Itoa(syntheticPort))
}

var (
	errNotMember = errors.New("not a member")
	errStopped   = errors.New("gossip has stopped")
)

// maxGossipStreams bounds the streams of memberlist that are served at once.
const maxGossipStreams = 32

// transport carries memberlist over the sessions: a packet is a message, a dial a stream. It is made for one run.
type transport struct {
	sessions Sessions
	isMember func(identity.NodeID) bool // known and not put out; one that has left still is
	ctx      context.Context            // of the run, for dials: memberlist's interface has no place for one
	packets  chan *memberlist.Packet    // drops the newest when full: memberlist repeats what matters
	streams  chan net.Conn
	slots    chan struct{} // one for each stream that is being served

	stopOnce sync.Once
	stopped  chan struct{}
}

func newTransport(ctx context.Context, sessions Sessions, isMember func(identity.NodeID) bool) *transport {
	return &transport{
		sessions: sessions,
		isMember: isMember,
		ctx:      ctx,
		packets:  make(chan *memberlist.Packet, 256),
		streams:  make(chan net.Conn),
		slots:    make(chan struct{}, maxGossipStreams),
		stopped:  make(chan struct{}),
	}
}

// deliver hands memberlist a packet that has passed the gate. It never blocks and reports whether there was room.
func (t *transport) deliver(from identity.NodeID, payload []byte) bool {
	select {
	case t.packets <- &memberlist.Packet{Buf: payload, From: memberAddr(from), Timestamp: time.Now()}:
		return true
	default:
		return false
	}
}

// serve hands memberlist a stream and returns when it is done with it, or at once when too many are being served.
func (t *transport) serve(c net.Conn) error {
	defer func() { _ = c.Close() }()
	select {
	case t.slots <- struct{}{}:
	default:
		return errors.New("too many gossip streams")
	}
	defer func() { <-t.slots }()
	g := newGatedConn(c)
	select {
	case t.streams <- g:
	case <-t.stopped:
		return errStopped
	}
	select {
	case <-g.done:
		return nil
	case <-t.stopped:
		return errStopped
	}
}

// target finds the member behind an address by its name alone.
func (t *transport) target(addr memberlist.Address) (identity.NodeID, error) {
	id, err := identity.ParseNodeID(addr.Name)
	if err != nil {
		return id, fmt.Errorf("gossip to %q: %w", addr.Name, err)
	}
	if !t.isMember(id) {
		return id, &net.OpError{Op: "write", Net: "udp", Err: errNotMember}
	}
	return id, nil
}

// WriteToAddress sends one packet. The kind of its error decides what memberlist's prober thinks: a UDP write error
// makes it ask three others and then suspect the node; any other error lets the probe pass. So "no route" counts against
// the node only when this node has somebody to ask; a node that is itself alone, or has just
// started, suspects nobody.
func (t *transport) WriteToAddress(p []byte, addr memberlist.Address) (time.Time, error) {
	id, err := t.target(addr)
	if err != nil {
		return time.Time{}, err
	}
	if err := t.sessions.SendGossip(id, p); err != nil {
		if len(t.sessions.Neighbours()) > 0 {
			err = &net.OpError{Op: "write", Net: "udp", Err: err}
		}
		return time.Time{}, err
	}
	return time.Now(), nil
}

// DialAddressTimeout opens a stream. What comes back on it passes the gate like what arrives unasked.
func (t *transport) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	id, err := t.target(addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	c, err := t.sessions.OpenGossip(ctx, id)
	if err != nil {
		return nil, err
	}
	return newGatedConn(c), nil
}

// FinalAdvertiseAddr is asked once for this node's address; memberlist's settings hold it already.
func (t *transport) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	return net.ParseIP(ip), port, nil
}

// PacketCh gives memberlist the packets of deliver.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh gives memberlist the streams of serve.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown lets go of the streams that are being served.
func (t *transport) Shutdown() error {
	t.stopOnce.Do(func() { close(t.stopped) })
	return nil
}

// WriteTo is not used: node names are required.
func (t *transport) WriteTo([]byte, string) (time.Time, error) {
	return time.Time{}, errNotMember
}

// DialTimeout is not used: node names are required.
func (t *transport) DialTimeout(string, time.Duration) (net.Conn, error) {
	return nil, errNotMember
}
