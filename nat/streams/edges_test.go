package streams

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session"
	"warren/nat/stream"
	"warren/tunnel/bind"
)

// Probe implements STUN.
func (w *world) Probe() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.probes++
	if w.udp || w.stun {
		at := w.want.Anchors[0].UDP[0]
		time.AfterFunc(rtt, func() { w.Answered(at) })
	}
}

// Activity implements Traffic.
func (w *world) Activity(peer identity.NodeID) (bind.Activity, netip.AddrPort) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.traffic[peer], w.ways[peer]
}

// Dial implements Client: TCP, TLS, and the anchor's answer, three round trips, and 10 ms more for each further anchor.
func (w *world) Dial(ctx context.Context, id identity.NodeID, addrs []netip.AddrPort) (net.Conn, error) {
	w.mu.Lock()
	w.note("dial %d at %v", id[0], addrs)
	a, there := w.anchors[id]
	w.mu.Unlock()
	if there {
		select {
		case <-time.After(3*rtt + time.Duration(id[0]-1)*10*time.Millisecond):
			if a.err != nil {
				return nil, fmt.Errorf("dial stream to %s: %w", id.Short(), a.err)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			return &twinConn{id: id, local: w.local + ":40000", remote: addrs[0].String()}, nil
		case <-ctx.Done():
		}
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// Attach implements Socket.
func (w *world) Attach(c net.Conn, o bind.StreamOptions) (netip.AddrPort, <-chan struct{}, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.full {
		return netip.AddrPort{}, nil, bind.ErrTooManyStreams
	}
	s := c.(*twinConn)
	w.serial++
	a := netip.MustParseAddr("100::300:0:0:0").As16()
	binary.BigEndian.PutUint32(a[12:], uint32(w.serial))
	s.virtual, s.done, s.o = netip.AddrPortFrom(netip.AddrFrom16(a), 9), make(chan struct{}), o
	w.streams[s.virtual] = s
	return s.virtual, s.done, nil
}

// Detach implements Socket.
func (w *world) Detach(virtual netip.AddrPort) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.streams[virtual]; s != nil {
		delete(w.streams, virtual)
		w.note("stream of %d ends", s.id[0])
		close(s.done)
	}
}

// streamTo returns the stream to or from a member.
func (w *world) streamTo(n byte) netip.AddrPort {
	w.mu.Lock()
	defer w.mu.Unlock()
	for virtual, s := range w.streams {
		if s.id == anchor(n) {
			return virtual
		}
	}
	return netip.AddrPort{}
}

// serverTwin takes streams when accept is called.
type serverTwin struct{ w *world }

func (s serverTwin) Run(ctx context.Context, t stream.Taker) error {
	s.w.mu.Lock()
	s.w.taker = t
	s.w.mu.Unlock()
	err := error(nil)
	select {
	case <-ctx.Done():
		err = ctx.Err()
	case err = <-s.w.broken:
	}
	s.w.mu.Lock()
	all := slices.Collect(maps.Keys(s.w.streams))
	s.w.mu.Unlock()
	for _, virtual := range all {
		s.w.Detach(virtual)
	}
	return err
}

func (s serverTwin) SetPorts(ports ...uint16) {
	s.w.mu.Lock()
	before := s.w.ports
	s.w.ports = nil
	for _, p := range ports {
		port := stream.Port{Port: p}
		if p < 1024 {
			port.Err = errors.New("taken")
		}
		s.w.ports = append(s.w.ports, port)
	}
	same := len(before) == len(ports)
	t := s.w.taker
	s.w.mu.Unlock()
	if !same && t != nil {
		t.PortsChanged()
	}
}

func (s serverTwin) Ports() []stream.Port {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return slices.Clone(s.w.ports)
}

func (s serverTwin) Counts() stream.Counts { return stream.Counts{Accepted: 7} }

func (s serverTwin) Drop(id identity.NodeID) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.note("drop streams of %d", id[0])
}

// accept has a member open a stream to this node.
func (w *world) accept(n byte) netip.AddrPort {
	w.Helper()
	c := &twinConn{local: w.local + ":9277", remote: "198.51.100.7:40001"}
	if n > 0 {
		c.id = anchor(n)
	}
	if _, err := w.taker.Accept(c.id, c); err != nil {
		w.Fatal(err)
	}
	synctest.Wait()
	return c.virtual
}

// sessionsTwin dials anew whatever is dropped or lost, where it was told: a session takes two round trips.
type sessionsTwin struct{ w *world }

func (s sessionsTwin) Drop(id identity.NodeID, code uint64, reason string) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	target := "none"
	if _, ok := s.w.targets[id]; ok {
		target = "stream"
	}
	s.w.note("drop %d: %s; target %s", id[0], reason, target)
	e, up := s.w.want.Sessions[id]
	if !up {
		return
	}
	delete(s.w.want.Sessions, id)
	if code == session.CodeLost || code == session.CodeUnresponsive {
		go s.w.SessionLost(id, e.Remote) // as the user does for each session that this side found dead
	}
	go s.w.redial(id)
	go s.w.poke()
}

func (s sessionsTwin) Dials(id identity.NodeID) (int, bool) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.w.failed[id], s.w.failed[id] > 0
}

// Knock takes as long as a session, and gets no answer where UDP does not pass.
func (s sessionsTwin) Knock(ctx context.Context, id identity.NodeID, addrs []netip.AddrPort) error {
	time.Sleep(2 * rtt)
	s.w.mu.Lock()
	udp := s.w.udp
	s.w.note("knock at %d: %t", id[0], udp)
	s.w.mu.Unlock()
	if udp {
		return nil
	}
	select {
	case <-time.After(4 * time.Second):
	case <-ctx.Done():
	}
	return errors.New("no answer")
}

// redial keeps dialling a session, for a minute at most.
func (w *world) redial(id identity.NodeID) {
	for try := range 600 {
		time.Sleep(2 * rtt)
		w.mu.Lock()
		if w.failing && try%15 == 14 {
			w.failed[id]++
		}
		remote, by := w.targets[id], "a stream"
		if w.streams[remote] == nil {
			remote, by = public(id[0]), "UDP"
		}
		if by == "UDP" && !w.udp {
			w.mu.Unlock()
			continue
		}
		w.want.Sessions[id] = Session{Remote: remote, Since: time.Now()}
		w.failed[id] = 0
		w.note("session with %d by %s", id[0], by)
		w.mu.Unlock()
		w.poke()
		return
	}
}

// session has a session with an anchor come up.
func (w *world) session(n byte, remote netip.AddrPort) {
	w.change(func() { w.want.Sessions[anchor(n)] = Session{Remote: remote, Since: time.Now()} })
}
