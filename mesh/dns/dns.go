// Package dns answers the mesh's names and addresses over DNS (RFC 1034, 1035) on this node's overlay addresses, port 53, by UDP and TCP.
//
// It answers from what it was last told and asks nobody, so that it answers when everything else is down. Which names there are is told by
// mesh/zone; that the machine's own resolver asks here is left to tunnel/osnames. Questions are taken from this machine, members and hosted
// devices alone; what is not the mesh's to answer is refused.
//
// Set, Snapshot and Dropped may be called by any goroutine at any time; Run is called once. Files in the order of a question: dns.go (the sockets),
// source.go (whose question is taken), answer.go (what is said; pure).
package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"warren/mesh/zone"
)

const (
	port = 53
	// retryFirst is how soon a socket is tried again that could not be opened, twice that the next time: the address comes with the interface.
	retryFirst = 50 * time.Millisecond
	retryMost  = 5 * time.Second
	// tcpConns bounds connections in all, tcpTime how long one may take for a question, tcpQuestions how many it may ask.
	tcpConns     = 32
	tcpTime      = 5 * time.Second
	tcpQuestions = 100
	// maxQuestion is more than a question can have: a name of 255 bytes, and what EDNS adds.
	maxQuestion = 4096
)

// Desired is what is to be served, and to whom.
type Desired struct {
	Zone  *zone.Zone     // nil: nothing
	Addrs []netip.Addr   // of this node, to listen on
	From  []netip.Prefix // whose questions are taken, beside those of Addrs
}

// Server is the owner of the sockets.
type Server struct {
	// constant after New
	port   uint16
	change chan struct{} // something was set
	events chan struct{}
	slots  chan struct{} // TCP connections

	// atomic
	desired atomic.Pointer[Desired]
	snap    atomic.Pointer[Snapshot]
	counts  [reasons]atomic.Uint64

	sources *sources

	// owned by Run
	open map[netip.Addr]*listener
}

// Snapshot is where questions are taken.
type Snapshot struct {
	Addrs   []netip.Addr          // listening
	Trouble map[netip.Addr]string // why not there, in words
}

// reason is why a question got no answer.
type reason uint8

const (
	malformed reason = iota
	stranger
	limited
	unsent
	reasons
)

var reasonNames = [reasons]string{"malformed question", "question of a stranger", "question over the limit", "answer not sent"}

// New returns a server that listens nowhere yet.
func New() *Server {
	s := &Server{
		port: port, change: make(chan struct{}, 1), events: make(chan struct{}, 1), slots: make(chan struct{}, tcpConns),
		sources: newSources(), open: make(map[netip.Addr]*listener),
	}
	s.desired.Store(&Desired{})
	s.snap.Store(&Snapshot{})
	return s
}

// Set says what to serve from now on. Nothing of d may be changed after.
func (s *Server) Set(d Desired) {
	before := s.desired.Swap(&d)
	if slices.Equal(before.Addrs, d.Addrs) {
		return // the answers come out of what was set
	}
	select {
	case s.change <- struct{}{}:
	default:
	}
}

// Events has a value when the server listens elsewhere than before.
func (s *Server) Events() <-chan struct{} { return s.events }

// Snapshot returns where the server listens. Nothing of it may be changed.
func (s *Server) Snapshot() Snapshot { return *s.snap.Load() }

// Dropped counts the questions that got no answer, by reason.
func (s *Server) Dropped() map[string]uint64 {
	out := make(map[string]uint64)
	for i := range s.counts {
		if n := s.counts[i].Load(); n > 0 {
			out[reasonNames[i]] = n
		}
	}
	return out
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	defer func() {
		for _, l := range s.open {
			l.close()
		}
	}()
	retry, timer := retryFirst, time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.change:
			retry = retryFirst
		case <-timer.C:
		}
		if s.listen(ctx, &serving) {
			timer.Stop()
			continue
		}
		timer.Reset(retry)
		retry = min(2*retry, retryMost)
	}
}

// listen opens and closes sockets as desired. It reports whether all are open.
func (s *Server) listen(ctx context.Context, serving *sync.WaitGroup) bool {
	wanted := s.desired.Load().Addrs
	for addr, l := range s.open {
		if !slices.Contains(wanted, addr) {
			l.close()
			delete(s.open, addr)
		}
	}
	snap := Snapshot{Trouble: make(map[netip.Addr]string)}
	for _, addr := range wanted {
		if s.open[addr] == nil {
			l, err := open(ctx, netip.AddrPortFrom(addr, s.port))
			if err != nil {
				snap.Trouble[addr] = explained(addr, err)
				continue
			}
			s.open[addr] = l
			serving.Go(func() { s.packets(ctx, l.udp) })
			serving.Go(func() { s.connections(ctx, l.tcp, serving) })
		}
		snap.Addrs = append(snap.Addrs, addr)
	}
	if before := s.snap.Swap(&snap); !slices.Equal(before.Addrs, snap.Addrs) {
		select {
		case s.events <- struct{}{}:
		default:
		}
	}
	return len(snap.Trouble) == 0
}

// explained says why a socket cannot be had, and what to do.
func explained(addr netip.Addr, err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Sprintf("another program has port 53 on all addresses, %s included: have it listen on its own (dnsmasq: bind-dynamic; unbound: interface; bind: listen-on)", addr)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Sprintf("port 53 on %s may not be opened: the service needs CAP_NET_BIND_SERVICE; warren service install writes a unit that has it", addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Sprintf("%s is not on the interface yet", addr)
	}
	return err.Error()
}

// listener are the two sockets of an address.
type listener struct {
	udp *net.UDPConn
	tcp *net.TCPListener
}

func open(ctx context.Context, at netip.AddrPort) (*listener, error) {
	var c net.ListenConfig
	packets, err := c.ListenPacket(ctx, "udp", at.String())
	if err != nil {
		return nil, fmt.Errorf("listen for names: %w", err)
	}
	udp := packets.(*net.UDPConn)
	tcp, err := c.Listen(ctx, "tcp", at.String())
	if err != nil {
		udp.Close()
		return nil, fmt.Errorf("listen for names: %w", err)
	}
	return &listener{udp, tcp.(*net.TCPListener)}, nil
}

func (l *listener) close() {
	l.udp.Close()
	l.tcp.Close()
}

// packets answers the questions of a UDP socket, one after the other: an answer takes microseconds.
func (s *Server) packets(ctx context.Context, c *net.UDPConn) {
	own := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	buf := make([]byte, maxQuestion)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) || !pause(ctx, retryFirst) {
				return
			}
			continue
		}
		reply := s.reply(own, from.Addr(), buf[:n], true)
		if reply == nil {
			continue
		}
		if _, err := c.WriteToUDPAddrPort(reply, from); err != nil {
			s.counts[unsent].Add(1)
		}
	}
}

// pause waits; false: ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// connections takes connections of a TCP socket.
func (s *Server) connections(ctx context.Context, l *net.TCPListener, serving *sync.WaitGroup) {
	own := l.Addr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || !pause(ctx, retryFirst) {
				return
			}
			continue
		}
		select {
		case s.slots <- struct{}{}:
		default:
			s.counts[limited].Add(1)
			c.Close()
			continue
		}
		serving.Go(func() {
			defer func() { <-s.slots }()
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			s.connection(own, c)
		})
	}
}

// connection answers the questions of one connection (RFC 7766), each behind its length in two bytes.
func (s *Server) connection(own netip.Addr, c net.Conn) {
	from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
	buf := make([]byte, maxQuestion)
	for range tcpQuestions {
		c.SetDeadline(time.Now().Add(tcpTime))
		if _, err := io.ReadFull(c, buf[:2]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(buf))
		if n > len(buf) {
			s.counts[malformed].Add(1)
			return
		}
		if _, err := io.ReadFull(c, buf[:n]); err != nil {
			return
		}
		reply := s.reply(own, from, buf[:n], false)
		if reply == nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			s.counts[unsent].Add(1)
			return
		}
	}
}

// reply is what to send back; nil: nothing.
func (s *Server) reply(own, from netip.Addr, question []byte, udp bool) []byte {
	d := s.desired.Load()
	from = from.Unmap().WithZone("")
	if from != own && !slices.Contains(d.Addrs, from) && !slices.ContainsFunc(d.From, func(p netip.Prefix) bool { return p.Contains(from) }) {
		s.counts[stranger].Add(1)
		return nil
	}
	if !s.sources.allow(from, time.Now()) {
		s.counts[limited].Add(1)
		return nil
	}
	reply, err := Answer(d.Zone, question, udp)
	if err != nil {
		s.counts[malformed].Add(1)
	}
	return reply
}
