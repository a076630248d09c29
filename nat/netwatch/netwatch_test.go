package netwatch

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func addrs(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, t := range texts {
		list = append(list, netip.MustParseAddr(t))
	}
	return list
}

func TestChoose(t *testing.T) {
	links := []link{
		{name: "lan1", addrs: addrs("10.9.0.2", "fd00::2", "fe80::1")},
		{name: "eth0", gateway: true, addrs: addrs("192.168.1.5", "2001:db8::5", "fe80::2%eth0", "169.254.3.3")},
		{name: "docker0", virtual: true, addrs: addrs("172.17.0.1")},
		{name: "br-0123456789ab", virtual: true, addrs: addrs("172.18.0.1")},
		{name: "br-lan", addrs: addrs("192.168.7.1")},
		{name: "office", virtual: true, addrs: addrs("10.50.0.1")},
		{name: "mine", addrs: addrs("100.64.1.1")},
		{name: "eth2", addrs: addrs("fe80::3", "169.254.7.8")},
		{name: "eth1", addrs: addrs("2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::3", "2001:db8:1::4")},
	}
	got := choose(links, func(name string) bool { return name == "mine" })
	want := addrs("192.168.1.5", "2001:db8::5", "10.9.0.2", "192.168.7.1", "fd00::2", "2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::3", "169.254.7.8")
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestWatchCoalescesAndCompares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		notices, changes := make(chan struct{}, 1), make(chan struct{}, 1)
		var now atomic.Pointer[network]
		now.Store(&network{addrs: addrs("192.168.1.5"), routes: []string{"a"}})
		look := func() (network, bool) { return *now.Load(), true }
		first, _ := look()
		go watch(ctx, notices, first, look, changes)
		synctest.Wait()
		expect := func(what string, want bool) {
			t.Helper()
			time.Sleep(time.Second)
			select {
			case <-changes:
				if !want {
					t.Errorf("%s: got a change, want none", what)
				}
			default:
				if want {
					t.Errorf("%s: got no change, want one", what)
				}
			}
		}
		notices <- struct{}{}
		expect("a notice without a difference", false)
		now.Store(&network{addrs: addrs("10.0.0.5"), routes: []string{"a"}})
		for range 10 {
			notices <- struct{}{}
			time.Sleep(20 * time.Millisecond)
		}
		expect("another address", true)
		expect("nothing", false)
		now.Store(&network{addrs: addrs("10.0.0.5"), routes: []string{"b"}})
		notices <- struct{}{}
		expect("another route", true)
		cancel()
		if _, open := <-changes; open {
			t.Error("got a value after the end, want the channel closed")
		}
	})
}

func TestWatchIsPrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notices, changes := make(chan struct{}, 1), make(chan struct{}, 1)
		calls := 0
		look := func() (network, bool) {
			calls++
			return network{addrs: addrs("192.168.1.5"), routes: []string{string(rune('a' + calls))}}, true
		}
		ctx, cancel := context.WithCancel(t.Context())
		first, _ := look()
		go watch(ctx, notices, first, look, changes)
		synctest.Wait()
		begin := time.Now()
		notices <- struct{}{}
		<-changes
		if took := time.Since(begin); took > 60*time.Millisecond {
			t.Errorf("got the change after %s, want 50 ms", took)
		}
		cancel()
		synctest.Wait()
	})
}

func TestHasSlept(t *testing.T) {
	for _, c := range []struct {
		monotonic, wall time.Duration
		want            bool
	}{
		{5 * time.Second, 5 * time.Second, false},
		{5 * time.Second, 8 * time.Hour, true},
		{5 * time.Second, -time.Hour, false},
		{time.Minute, time.Minute + time.Second, false},
	} {
		if got := hasSlept(c.monotonic, c.wall); got != c.want {
			t.Errorf("%s and %s: got %v, want %v", c.monotonic, c.wall, got, c.want)
		}
	}
}

// The real system, whichever it is, can be asked and watched.
func TestSystem(t *testing.T) {
	list, err := Addresses(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range list {
		if !addr.IsGlobalUnicast() || addr.IsLoopback() {
			t.Errorf("got address %s, want only global unicast", addr)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	changes, err := Watch(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	deadline := time.After(5 * time.Second)
	for {
		select {
		case _, open := <-changes:
			if !open {
				return
			}
		case <-deadline:
			t.Fatal("got no end of the watch within 5 s after its context, want one")
		}
	}
}

// A change whose notice came while the system could not be asked is told all the same.
func TestWatchLooksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		notices, changes := make(chan struct{}, 1), make(chan struct{}, 1)
		calls := 0
		look := func() (network, bool) {
			calls++
			switch calls {
			case 1:
				return network{addrs: addrs("192.168.1.5")}, true
			case 2:
				return network{}, false
			}
			return network{addrs: addrs("10.0.0.5")}, true
		}
		first, _ := look()
		go watch(ctx, notices, first, look, changes)
		synctest.Wait()
		notices <- struct{}{}
		time.Sleep(3 * time.Second)
		select {
		case <-changes:
		default:
			t.Error("got no change, want one once the system can be asked")
		}
		cancel()
		synctest.Wait()
	})
}

// A change of which there was no notice is found all the same, and a quiet network is looked at seldom.
func TestWatchPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		changes := make(chan struct{}, 1)
		var calls atomic.Int64
		var moved atomic.Bool
		look := func() (network, bool) {
			calls.Add(1)
			if moved.Load() {
				return network{addrs: addrs("10.0.0.5")}, true
			}
			return network{addrs: addrs("192.168.1.5")}, true
		}
		first, _ := look()
		go watch(ctx, make(chan struct{}), first, look, changes)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if most := int64(10*time.Minute/pollEvery) + 1; calls.Load() > most {
			t.Errorf("got %d looks in ten quiet minutes, want %d at most", calls.Load(), most)
		}
		moved.Store(true)
		time.Sleep(pollEvery + sleepCheck)
		synctest.Wait()
		select {
		case <-changes:
		default:
			t.Errorf("got no change within %v, want one", pollEvery+sleepCheck)
		}
		cancel()
		synctest.Wait()
	})
}
