package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"warren/mesh/api"
)

// probePort is where every node answers probes, on its overlay addresses only: what comes there has passed WireGuard.
const probePort = 9278

// A probe is 24 bytes and so is its answer: the magic, a zero or one byte, three zero bytes, and 12 bytes that the
// sender chose and gets back.
var probeMagic = []byte("warren-p")

const (
	probeSize   = 24
	probeAsk    = 0
	probeAnswer = 1
)

// answerProbes answers on the overlay addresses until ctx ends, also when they are not there yet or change.
func (m *member) answerProbes(ctx context.Context) error {
	retry := time.NewTicker(5 * time.Second)
	defer retry.Stop()
	listening := make(map[netip.Addr]net.PacketConn)
	gone := make(chan netip.Addr)
	defer func() {
		for _, c := range listening {
			c.Close()
		}
		for range listening {
			<-gone
		}
	}()
	for {
		if self, ok := m.mesh.View().Member(m.self); ok {
			for _, addr := range []netip.Addr{self.Addr4, self.Addr6} {
				if !addr.IsValid() || listening[addr] != nil {
					continue
				}
				c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, probePort)))
				if err != nil {
					continue // the interface does not have the address yet
				}
				listening[addr] = c
				go func() { answer(c); gone <- addr }()
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case addr := <-gone:
			listening[addr].Close()
			delete(listening, addr)
		case <-m.linkSet:
		case <-retry.C:
		}
	}
}

// answer sends probes back until the socket fails.
func answer(c net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if n == probeSize && bytes.HasPrefix(buf, probeMagic) && buf[len(probeMagic)] == probeAsk {
			buf[len(probeMagic)] = probeAnswer
			c.WriteTo(buf[:n], from)
		}
	}
}

// errNoAnswer is what a probe without answer says.
var errNoAnswer = errors.New("no answer")

// probe sends one probe through the tunnel and returns the round-trip time. The first one may wait for the handshake,
// so that it is repeated within timeout. The error wraps errNoAnswer when none came.
func probe(ctx context.Context, to netip.Addr, timeout time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "udp", netip.AddrPortFrom(to, probePort).String())
	if err != nil {
		return 0, fmt.Errorf("probe %s: %w", to, err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Now()) })
	defer stop()
	ask := make([]byte, probeSize)
	copy(ask, probeMagic)
	rand.Read(ask[12:])
	sent := time.Now()
	if _, err := c.Write(ask); err != nil {
		return 0, fmt.Errorf("probe %s: %w", to, err)
	}
	buf := make([]byte, 64)
	for {
		n, err := c.Read(buf)
		if ctx.Err() != nil {
			return 0, fmt.Errorf("probe %s: %w", to, errNoAnswer)
		}
		if err != nil { // a port unreachable ends the read, not the wait
			return 0, fmt.Errorf("probe %s: %w", to, err)
		}
		if n == probeSize && buf[len(probeMagic)] == probeAnswer && bytes.Equal(buf[12:n], ask[12:]) {
			return time.Since(sent), nil
		}
	}
}

// pingOne probes a peer and puts the result into words.
func (m *member) pingOne(ctx context.Context, seq int, name string, to netip.Addr, timeout time.Duration) api.PingReply {
	reply := api.PingReply{Seq: seq, Name: name, Address: to}
	rtt, err := probe(ctx, to, timeout)
	if err != nil {
		reply.Error = err.Error()
		if errors.Is(err, errNoAnswer) {
			reply.Error = fmt.Sprintf("no answer within %s", timeout)
		}
		return reply
	}
	reply.LatencyMS = float64(rtt.Microseconds()) / 1000
	return reply
}
