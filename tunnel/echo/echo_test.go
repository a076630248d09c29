package echo

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestAnswers(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	loopback := netip.MustParseAddr("127.0.0.1")
	r, done := New(), make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.Set([]netip.Addr{loopback, netip.MustParseAddr("192.0.2.1")}) // the second one is no address of this machine
	deadline := time.Now().Add(10 * time.Second)
	for {
		rtt, err := Ask(ctx, loopback, 200*time.Millisecond)
		if err == nil {
			if rtt <= 0 || rtt > 200*time.Millisecond {
				t.Errorf("got a round trip of %v, want some, below 200ms", rtt)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %v, want an answer within 10 s", err)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("got %v, want nil at the end", err)
	}
}

func TestNoAnswerFromAStranger(t *testing.T) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() { // sends back what it got, as a question still, and with another's choice of bytes
		buf := make([]byte, 64)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			c.WriteTo(buf[:n], from)
			buf[len(magic)], buf[20] = answer, buf[20]^1
			c.WriteTo(buf[:n], from)
		}
	}()
	to := c.LocalAddr().(*net.UDPAddr).AddrPort()
	if _, err := askAt(t.Context(), to, 150*time.Millisecond); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("got %v, want ErrNoAnswer", err)
	}
}
