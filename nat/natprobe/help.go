package natprobe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"warren/nat/stunwire"
)

// Help does what a member asked for: it sends Binding requests with that transaction to addr, from a socket of its
// own, and answers requests with the same transaction that come to it. It calls told with the port of that socket, and takes 3 s,
// less if ctx ends.
func Help(ctx context.Context, sockets Sockets, id [12]byte, addr netip.AddrPort, told func(port uint16)) error {
	c, err := sockets.Listen()
	if err != nil {
		return fmt.Errorf("help to measure NAT: %w", err)
	}
	s, err := newSocket(c)
	if err != nil {
		c.Close()
		return err
	}
	events := make(chan event, maxAnswers)
	go s.read(events)
	defer func() {
		c.Close()
		<-s.done
	}()
	told(s.port)
	start := time.Now()
	sent, answers := 0, 0
	for {
		now := time.Now()
		next := start.Add(guardTime)
		if !now.Before(next) {
			return nil
		}
		if sent < len(helpTimes) {
			if !now.Before(start.Add(helpTimes[sent])) {
				s.write(stunwire.Bare(id), addr)
				sent++
				continue
			}
			next = start.Add(helpTimes[sent])
		}
		timer := time.NewTimer(next.Sub(now))
		select {
		case e := <-events:
			if e.id == id && !e.mapped.IsValid() && e.padded && answers < maxAnswers {
				answers++
				s.write(answer(id, e.from), e.from)
			}
		case <-timer.C:
		case <-s.done:
			return errors.New("help to measure NAT: the socket failed")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
