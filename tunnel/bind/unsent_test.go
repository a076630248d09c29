package bind

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// shown is what Unsent returns, in short.
func shown(b *Bind) (out []string) {
	for _, u := range b.Unsent() {
		out = append(out, fmt.Sprintf("%v %v %d", u.To, u.Reason, u.Count))
	}
	return out
}

// What the system refuses is kept by address and reason, whichever way it was to leave: from an endpoint, a plain one, both lanes.
func TestUnsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s, _ := scripted(t)
		one, two := addr("192.0.2.1:1"), addr("[2001:db8::2]:2")
		e := b.NewEndpoint([32]byte{1})
		e.SetPath(one)
		transmit(t, b, e, message(4))
		if got := b.Unsent(); got != nil {
			t.Fatalf("got %v of what was sent, want nothing", got)
		}
		began := time.Now()
		s.refuse = os.NewSyscallError("sendmmsg", syscall.EPERM)
		transmit(t, b, e, message(4))
		time.Sleep(time.Second)
		for _, send := range []func() error{
			func() error { _, err := b.STUN().(*lane).WriteToUDPAddrPort(make([]byte, 20), one); return err },
			func() error { _, err := b.QUIC().(*lane).WriteToUDPAddrPort(make([]byte, 20), one); return err },
		} {
			if err := send(); err != nil {
				t.Errorf("got %v from a lane, want what only counts", err)
			}
		}
		_ = b.Send([][]byte{message(4)}, &conn.StdNetEndpoint{AddrPort: one})
		s.refuse = conn.ErrUDPGSODisabled{RetryErr: syscall.ENETUNREACH}
		_ = b.Send([][]byte{message(4)}, &conn.StdNetEndpoint{AddrPort: two})
		want := []string{"192.0.2.1:1 refused by this machine's firewall 4", "[2001:db8::2]:2 no route 1"}
		if got := shown(b); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		got := b.Unsent()[0]
		if !got.First.Equal(began) || !got.Last.Equal(began.Add(time.Second)) || !got.Sent.IsZero() {
			t.Errorf("got %v to %v, sent %v, want a second from %v, never", got.First, got.Last, got.Sent, began)
		}
		// What passes again is no evidence any more.
		s.refuse = nil
		time.Sleep(time.Second)
		transmit(t, b, e, message(4))
		if got := b.Unsent()[0]; !got.Sent.Equal(began.Add(2 * time.Second)) {
			t.Errorf("got sent at %v, want two seconds after %v", got.Sent, began)
		}
		// A switch of GSO is none.
		s.refuse = conn.ErrUDPGSODisabled{}
		_ = b.Send([][]byte{message(4)}, &conn.StdNetEndpoint{AddrPort: addr("192.0.2.3:3")})
		if got := shown(b); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v as before", got, want)
		}
	})
}

func TestUnsentKinds(t *testing.T) {
	for errno, want := range map[error]Refusal{
		syscall.EPERM: Filtered, syscall.EACCES: Prohibited, syscall.EINVAL: Discarded, syscall.ENETUNREACH: NoRoute, syscall.EHOSTUNREACH: NoHost,
		syscall.ENOBUFS: NoBuffer, syscall.EMSGSIZE: Oversized, syscall.EIO: Failed, os.ErrDeadlineExceeded: Failed,
	} {
		if got := refusalOf(fmt.Errorf("send: %w", os.NewSyscallError("sendmsg", errno))); got != want {
			t.Errorf("%v: got %v, want %v", errno, got, want)
		}
	}
}

func TestUnsentIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s, _ := scripted(t)
		s.refuse = syscall.EPERM
		for port := range uint16(2 * maxUnsent) {
			time.Sleep(time.Millisecond)
			_ = b.Send([][]byte{message(4)}, &conn.StdNetEndpoint{AddrPort: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port+1)})
		}
		got := b.Unsent()
		if len(got) != maxUnsent || got[0].To.Port() != 2*maxUnsent || got[maxUnsent-1].To.Port() != maxUnsent+1 {
			t.Errorf("got %d addresses, from %v to %v, want the last %d", len(got), got[0].To, got[len(got)-1].To, maxUnsent)
		}
	})
}
