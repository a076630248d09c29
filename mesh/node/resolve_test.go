package node

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestResolverNeverMakesTheLoopWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResolver()
		current := netip.MustParseAddr("198.51.100.1")
		var asked atomic.Int32
		r.lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			asked.Add(1)
			select {
			case <-time.After(3 * time.Second):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			if host == "nowhere.example" {
				return nil, errors.New("no such host")
			}
			return []netip.Addr{current}, nil
		}
		static := []StaticPeer{
			{Name: "fixed", Endpoint: "192.0.2.1:51820"}, {Name: "mapped", Endpoint: "[::ffff:192.0.2.2]:51820"},
			{Name: "named", Endpoint: "vpn.example:51820"}, {Name: "lost", Endpoint: "nowhere.example:1"}, {Name: "calls us"},
		}
		start := time.Now()
		got := r.Resolve(static)
		if len(got) != 2 || got["fixed"].String() != "192.0.2.1:51820" || got["mapped"].String() != "192.0.2.2:51820" {
			t.Errorf("got %v at once, want the two addresses that need no look-up", got)
		}
		r.Resolve(static)
		if took := time.Since(start); took != 0 {
			t.Errorf("resolving took %s, want no waiting", took)
		}
		<-r.Changes()
		if got := r.Resolve(static); got["named"] != netip.AddrPortFrom(current, 51820) {
			t.Errorf("got %v after the answer, want %v", got["named"], current)
		}
		synctest.Wait()
		r.Resolve(static)
		if n := asked.Load(); n != 2 {
			t.Errorf("asked %d times, want once for each name: neither while a look-up is under way nor right after it failed", n)
		}

		current = netip.MustParseAddr("198.51.100.2")
		r.Refresh()
		<-r.Changes()
		if got := r.Resolve(static); got["named"].Addr() != current {
			t.Errorf("got %v, want the new address %v", got["named"], current)
		}
		time.Sleep(time.Minute) // the last look-ups end
	})
}
