package letter

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/session/sessiontest"
)

// got is a letter that came.
type got struct {
	sealed []byte
	from   netip.AddrPort
}

var (
	here  = netip.MustParseAddrPort("192.0.2.1:9277")
	there = netip.MustParseAddrPort("192.0.2.2:9277")
)

// world makes two posts, of which the second one runs and keeps what comes.
func world(t *testing.T) (n *sessiontest.Network, from, to *Post, came *[]got) {
	n, came = sessiontest.New(sessiontest.Options{Latency: 10 * time.Millisecond}), new([]got)
	a, b := n.Listen(here), n.Listen(there)
	from = New(Options{Conn: a})
	to = New(Options{Conn: b, Take: func(sealed []byte, from netip.AddrPort) { *came = append(*came, got{sealed, from}) }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- to.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: got %v, want nil", err)
		}
		a.Close()
		b.Close()
	})
	return n, from, to, came
}

func TestLetterOfAnySize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, from, _, came := world(t)
		for size, datagrams := range map[int]int{1: 1, 200: 1, half - 1: 1, half: 1, half + 1: 2, 1700: 2, Max: 2} {
			before := n.Sent()
			sealed := bytes.Repeat([]byte{byte(size), 7}, size)[:size]
			*came = nil
			if err := from.Send(there, sealed); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
			synctest.Wait()
			if len(*came) != 1 || !bytes.Equal((*came)[0].sealed, sealed) || (*came)[0].from != here {
				t.Errorf("%d bytes: got %v, want the letter once", size, *came)
			}
			if got := n.Sent() - before; got != datagrams {
				t.Errorf("%d bytes: got %d datagrams, want %d", size, got, datagrams)
			}
		}
		if err := from.Send(there, make([]byte, Max+1)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%d bytes: got %v, want %v", Max+1, err, ErrTooLarge)
		}
	})
}

// Nothing goes back, whatever comes, and halves of letters that nobody completes take no more room than there is.
func TestStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _, to, came := world(t)
		raw := n.Listen(netip.MustParseAddrPort("198.51.100.9:1000"))
		defer raw.Close()
		before := n.Sent()
		for i := range 200 {
			p := make([]byte, Size)
			copy(p, mark[:])
			p[4], p[5], p[12] = byte(i), byte(i>>8), Max>>8
			n.Listen(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i), 1}), 9)).WriteTo(p, udp(there))
		}
		raw.WriteTo(make([]byte, Size), udp(there))
		raw.WriteTo(mark[:], udp(there))
		time.Sleep(time.Second)
		synctest.Wait()
		if sent := n.Sent() - before; sent != 202 || len(*came) != 0 {
			t.Errorf("got %d packets and %d letters, want the 202 of the strangers and none", sent, len(*came))
		}
		if len(to.halves) != maxHalves {
			t.Errorf("got %d halves kept, want %d", len(to.halves), maxHalves)
		}
		want := map[string]uint64{"letter: malformed": 2, "letter: other half lost": 200 - maxHalves}
		if got := to.Dropped(); !maps.Equal(got, want) {
			t.Errorf("got drops %v, want %v", got, want)
		}
	})
}

// One host's letters are read at its rate, and take nothing from the others'.
func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, from, to, came := world(t)
		flood := New(Options{Conn: n.Listen(netip.MustParseAddrPort("198.51.100.9:1000"))})
		again := make([]byte, half+1)
		for range 100 {
			if err := flood.Send(there, again); err != nil {
				t.Fatal(err)
			}
		}
		if err := from.Send(there, []byte("once")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		var once int
		for _, g := range *came {
			if string(g.sealed) == "once" {
				once++
			}
		}
		if read := len(*came) - once; once != 1 || read < 20 || read > 22 {
			t.Errorf("got %d letters of the flood and %d of the other, want 20 and 1", read, once)
		}
		if got := to.Dropped()["letter: too many"]; got < 150 {
			t.Errorf("got %d over the limit, want most of 200", got)
		}
	})
}

func udp(a netip.AddrPort) *net.UDPAddr { return net.UDPAddrFromAddrPort(a) }

// FuzzRead: whatever comes, nothing is taken but whole letters, and nothing panics.
func FuzzRead(f *testing.F) {
	f.Add([]byte("\xa7wl\x00abcdefgh\x00\x05hello"), []byte("\xa7wl\x01abcdefgh\x00\x05"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		p := New(Options{Take: func(sealed []byte, _ netip.AddrPort) {
			if len(sealed) == 0 || len(sealed) > Max {
				t.Errorf("got a letter of %d bytes", len(sealed))
			}
		}})
		now := time.Now()
		for _, raw := range [][]byte{a, b} {
			p.read(now, raw, here)
			p.read(now, append(raw[:min(len(raw), Size):min(len(raw), Size)], make([]byte, max(0, Size-len(raw)))...), here)
		}
	})
}
