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

// An address that comes a moment later is soon answered at.
func TestAddressThatComesLater(t *testing.T) {
	here := netip.MustParseAddr("127.0.7.9")
	taken, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(here, Port)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	r, done := New(), make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.Set([]netip.Addr{here})
	time.Sleep(retryFirst)
	taken.Close()
	for free := time.Now(); ; {
		if _, err := Ask(ctx, here, 100*time.Millisecond); err == nil {
			break
		}
		if time.Since(free) > retryLast/2 {
			t.Fatal("no answer, although the address is there")
		}
		time.Sleep(20 * time.Millisecond)
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

// TestBurst counts what comes back of packets sent one by one and at once: all of both, or, from somebody who takes no more than one packet
// in a millisecond, hardly any of those sent at once.
func TestBurst(t *testing.T) {
	serve := func(pause time.Duration) netip.AddrPort {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			buf := make([]byte, 2048)
			var last time.Time
			for {
				n, from, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				if now := time.Now(); now.Sub(last) >= pause && n == 1152 {
					buf[len(magic)] = answer
					c.WriteTo(buf[:size], from)
					last = now
				}
			}
		}()
		return c.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	got, err := burstAt(t.Context(), serve(0), 1200, 5*time.Second)
	if want := (Bursts{Size: 1200, Sent: burstCount, Singles: burstCount, Batched: burstCount}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if got, err = burstAt(t.Context(), serve(time.Hour), 1200, 200*time.Millisecond); err != nil || got.Singles != 1 || got.Batched != 0 {
		t.Errorf("got %+v, %v, want one answer", got, err)
	}
	if _, err := burstAt(t.Context(), serve(0), 60, time.Second); err == nil {
		t.Error("packets too small for a question: got no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := burstAt(ctx, serve(0), 1200, time.Second); err == nil {
		t.Error("after the end of the context: got no error")
	}
}
