//go:build linux

package e2e

import (
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// echoPort is where the services of these tests answer, by TCP and UDP.
const echoPort = 7007

// echoService answers what comes by TCP and UDP with the same.
func (b *bed) echoService(h *natlab.Host) {
	b.t.Helper()
	var tcp net.Listener
	b.must(h.Do(func() (err error) {
		tcp, err = net.ListenTCP("tcp", &net.TCPAddr{Port: echoPort})
		return err
	}))
	udp, err := h.ListenUDP(netip.AddrPortFrom(netip.IPv6Unspecified(), echoPort))
	b.must(err)
	b.t.Cleanup(func() { tcp.Close(); udp.Close() })
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := udp.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			udp.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
}

// dial connects to a service from inside a host.
func dial(h *natlab.Host, network string, to netip.Addr, wait time.Duration) (c net.Conn, err error) {
	err = h.Do(func() error {
		c, err = net.DialTimeout(network, netip.AddrPortFrom(to, echoPort).String(), wait)
		return err
	})
	return c, err
}

// echoesBack reports whether a service answers over a connection.
func echoesBack(c net.Conn, wait time.Duration) bool {
	c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write([]byte("hello")); err != nil {
		return false
	}
	got := make([]byte, 5)
	_, err := io.ReadFull(c, got)
	return err == nil && string(got) == "hello"
}

// answersAt reports whether a service answers to a new connection.
func answersAt(h *natlab.Host, network string, to netip.Addr, wait time.Duration) bool {
	c, err := dial(h, network, to, wait)
	if err != nil {
		return false
	}
	defer c.Close()
	return echoesBack(c, wait)
}

// TestIncoming switches a machine's incoming off and on again: what others begin is refused, by TCP, UDP and ICMP, over both families; what goes
// on, what this machine begins, and warren's own pings are not.
func TestIncoming(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 3*time.Minute)
	shy, other := bed.node("shy", nil), bed.node("other", bed.Router("home", natlab.EIMAPDF))
	config := bed.configure(shy, "")
	bed.must(shy.Create(bed.ctx, "home"))
	bed.must(shy.Start(bed.ctx, "--config", config))
	bed.must(Admit(bed.ctx, shy, other))
	bed.meshed(shy, other)
	bed.echoService(shy.Host)
	bed.echoService(other.Host)
	there, err := shy.Overlay(bed.ctx)
	bed.must(err)
	back, err := other.Overlay(bed.ctx)
	bed.must(err)
	var held []net.Conn
	for _, to := range there {
		for _, network := range []string{"tcp", "udp"} {
			bed.eventually(network+" to "+to.String()+" is answered", func() bool { return answersAt(other.Host, network, to, 5*time.Second) })
		}
		c, err := dial(other.Host, "tcp", to, 10*time.Second)
		bed.must(err)
		defer c.Close()
		held = append(held, c)
	}
	bed.step("incoming = false")
	bed.configure(shy, "[mesh]\nincoming = false\n")
	bed.must(shy.Agent().Signal(syscall.SIGHUP))
	bed.eventually("nothing new is taken", func() bool { return !answersAt(other.Host, "udp", there[0], 500*time.Millisecond) })
	for i, to := range there {
		for _, network := range []string{"tcp", "udp"} {
			if answersAt(other.Host, network, to, 1500*time.Millisecond) {
				t.Errorf("%s to %s is answered, want it refused", network, to)
			}
			bed.eventually(network+" from the machine itself to "+back[i].String(), func() bool { return answersAt(shy.Host, network, back[i], 5*time.Second) })
		}
		if _, err := other.Host.Run(bed.ctx, "ping", "-n", "-c", "1", "-W", "1", to.String()); err == nil {
			t.Errorf("%s answers ping, want it refused", to)
		}
		if !echoesBack(held[i], 10*time.Second) {
			t.Errorf("the connection to %s that was there before is cut", to)
		}
	}
	bed.must(shy.pingAll(bed.ctx, []string{back[0].String(), back[1].String()}))
	if out, err := other.Warren(bed.ctx, "", "ping", "-c", "1", "shy"); err != nil || !strings.Contains(out, "pong from shy") {
		t.Errorf("warren ping: got %q, %v, want an answer", out, err)
	}
	found, err := shy.Client().Denials(bed.ctx)
	bed.must(err)
	for _, protocol := range []string{"tcp", "udp", "icmp"} {
		if !slices.ContainsFunc(found.Denied, func(d api.Denied) bool {
			return d.Protocol == protocol && d.From == "other" && d.To == "shy" && d.Reason == "incoming is off" && (d.Port == echoPort || protocol == "icmp")
		}) {
			t.Errorf("policy log: got %+v, want %s of other in it", found.Denied, protocol)
		}
	}
	bed.step("incoming = true")
	bed.configure(shy, "")
	ctx, cancel := context.WithTimeout(bed.ctx, 30*time.Second)
	defer cancel()
	_, err = shy.Warren(ctx, "", "up", "--config", config)
	bed.must(err)
	for _, to := range there {
		bed.eventually("tcp to "+to.String()+" is answered again", func() bool { return answersAt(other.Host, "tcp", to, 5*time.Second) })
	}
}
