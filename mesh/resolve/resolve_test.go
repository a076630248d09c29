package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// zone is a DNS in memory that takes three seconds for each answer.
type zone struct {
	start time.Time

	mu    sync.Mutex
	addrs map[string][]netip.Addr // a host that is missing does not exist
	mute  bool                    // it answers nothing
	lazy  time.Duration           // how long a look-up goes on that nobody waits for
	asked []string                // "time host", and "time host ended" of one that got no answer
}

const answerTime = 3 * time.Second

func (z *zone) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	z.mu.Lock()
	z.asked = append(z.asked, fmt.Sprintf("%s %s", time.Since(z.start), host))
	wait, lazy := answerTime, z.lazy
	if z.mute {
		wait = time.Hour
	}
	z.mu.Unlock()
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		time.Sleep(lazy)
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if ctx.Err() != nil {
		z.asked = append(z.asked, fmt.Sprintf("%s %s ended", time.Since(z.start), host))
		return nil, ctx.Err()
	}
	addrs, ok := z.addrs[host]
	if !ok || network != "ip" {
		return nil, errors.New("no such host")
	}
	return addrs, nil
}

func (z *zone) LookupPort(_ context.Context, network, service string) (int, error) {
	if service == "wireguard" && network == "udp" {
		return 51820, nil
	}
	return strconv.Atoi(service)
}

func (z *zone) set(host string, addrs ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.addrs[host] = nil
	for _, addr := range addrs {
		z.addrs[host] = append(z.addrs[host], netip.MustParseAddr(addr))
	}
}

func (z *zone) setMute(mute bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.mute = mute
}

// questions returns what was asked since the last call, in order.
func (z *zone) questions() []string {
	synctest.Wait()
	z.mu.Lock()
	defer z.mu.Unlock()
	asked := z.asked
	z.asked = nil
	slices.Sort(asked)
	return asked
}

// start runs a resolver until the test ends.
func start(t *testing.T) (r *Resolver, z *zone) {
	z = &zone{start: time.Now(), addrs: make(map[string][]netip.Addr)}
	r = New(Options{DNS: z})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("got %v at the end, want nil", err)
		}
	})
	return r, z
}

func answerOf(r *Resolver, name string) string {
	synctest.Wait()
	if addr, ok := r.Answer(name); ok {
		return addr.String()
	}
	return ""
}

// changed reports whether a change was told.
func changed(r *Resolver) bool {
	synctest.Wait()
	select {
	case <-r.Changes():
		return true
	default:
		return false
	}
}

func TestNobodyWaitsForAName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, z := start(t)
		z.set("vpn.example", "198.51.100.1", "198.51.100.9")
		names := []string{"192.0.2.1:51820", "[::ffff:192.0.2.2]:51820", "vpn.example:wireguard", "vpn.example:wireguard", "nowhere.example:1"}
		for range 3 {
			r.Set(names)
		}
		for name, want := range map[string]string{
			"192.0.2.1:51820": "192.0.2.1:51820", "[::ffff:192.0.2.2]:51820": "192.0.2.2:51820", "vpn.example:wireguard": "", "nowhere.example:1": "", "": "",
		} {
			if got := answerOf(r, name); got != want {
				t.Errorf("%s: got %q at once, want %q", name, got, want)
			}
		}
		if took := time.Since(z.start); took != 0 {
			t.Errorf("took %s, want no waiting", took)
		}
		<-r.Changes()
		if took := time.Since(z.start); took != answerTime {
			t.Errorf("a change was told after %s, want %s", took, answerTime)
		}
		if got, want := answerOf(r, "vpn.example:wireguard"), "198.51.100.1:51820"; got != want {
			t.Errorf("got %q after the answer, want %q", got, want)
		}
		if got, want := z.questions(), []string{"0s nowhere.example", "0s vpn.example"}; !slices.Equal(got, want) {
			t.Errorf("got questions %q, want %q: once for each name", got, want)
		}
		r.Set(names)
		time.Sleep(time.Second / 2)
		if got := z.questions(); len(got) != 0 {
			t.Errorf("got questions %q after the same list again, want none", got)
		}
	})
}

func TestNamesAreLookedUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, z := start(t)
		z.set("vpn.example", "198.51.100.1")
		r.Set([]string{"vpn.example:1", "lost.example:1"})
		time.Sleep(30 * time.Second)
		// One without an answer is asked again a second after it failed, then two, and so on; one with an answer after 20 s.
		want := []string{
			"0s lost.example", "0s vpn.example", "16s lost.example", "20s vpn.example", "27s lost.example", "4s lost.example", "9s lost.example",
		}
		if got := z.questions(); !slices.Equal(got, want) {
			t.Errorf("got questions %q, want %q", got, want)
		}
		if !changed(r) {
			t.Error("the first answer was not told")
		}
		z.set("vpn.example", "198.51.100.2")
		z.set("lost.example", "2001:db8::1")
		time.Sleep(20 * time.Second)
		want = []string{"40s vpn.example", "46s lost.example"}
		if got := z.questions(); !slices.Equal(got, want) {
			t.Errorf("got questions %q, want %q", got, want)
		}
		if got := answerOf(r, "vpn.example:1"); got != "198.51.100.2:1" || !changed(r) {
			t.Errorf("got %q, want the new address, and a change told", got)
		}
		if got := answerOf(r, "lost.example:1"); got != "[2001:db8::1]:1" {
			t.Errorf("got %q for the name that exists now", got)
		}
		time.Sleep(time.Minute)
		if changed(r) {
			t.Error("got a change for the same addresses")
		}
	})
}

// What was known stays known while DNS is away; a look-up without an answer ends by itself.
func TestAnswersOutliveDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, z := start(t)
		z.set("vpn.example", "198.51.100.1")
		r.Set([]string{"vpn.example:1"})
		time.Sleep(10 * time.Second)
		z.questions()
		z.setMute(true)
		time.Sleep(58 * time.Second)
		want := []string{ // pauses of 1, 2, 4 s
			"1m7s vpn.example ended", "20s vpn.example", "30s vpn.example ended", "31s vpn.example", "41s vpn.example ended", "43s vpn.example",
			"53s vpn.example ended", "57s vpn.example",
		}
		if got := z.questions(); !slices.Equal(got, want) {
			t.Errorf("got questions %q, want %q", got, want)
		}
		time.Sleep(10 * time.Minute)
		if got := z.questions(); len(got) > 2*10*60/30+2 {
			t.Errorf("got %d questions in ten minutes, want one in 30 s in the end", len(got)/2)
		}
		if got := answerOf(r, "vpn.example:1"); got != "198.51.100.1:1" {
			t.Errorf("got %q without DNS, want what was known", got)
		}
	})
}

func TestNamesThatAreTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, z := start(t)
		z.set("vpn.example", "198.51.100.1")
		r.Set([]string{"vpn.example:1"})
		time.Sleep(time.Second) // in the middle of the look-up
		r.Set(nil)
		time.Sleep(time.Second)
		r.Set([]string{"vpn.example:1"}) // it is another one
		time.Sleep(2 * time.Second)
		if got, want := z.questions(), []string{"0s vpn.example", "1s vpn.example ended", "2s vpn.example"}; !slices.Equal(got, want) || answerOf(r, "vpn.example:1") != "" {
			t.Errorf("got questions %q and %q, want %q and no answer to the first", got, answerOf(r, "vpn.example:1"), want)
		}
		time.Sleep(time.Second)
		if got := answerOf(r, "vpn.example:1"); got != "198.51.100.1:1" || !changed(r) {
			t.Errorf("got %q, want the answer to the second question, told", got)
		}
		r.Set(nil)
		time.Sleep(time.Hour)
		if got := answerOf(r, "vpn.example:1"); got != "" || changed(r) {
			t.Errorf("got %q for a name that is not wanted, want nothing, and no change told", got)
		}
		if got := z.questions(); len(got) != 0 {
			t.Errorf("got questions %q, want none", got)
		}
	})
}

func TestWhatIsNoNameIsNeverAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, z := start(t)
		r.Set([]string{"no port", "vpn.example:no-such-service", "192.0.2.1:1"})
		time.Sleep(time.Hour)
		if got := z.questions(); len(got) != 0 || changed(r) {
			t.Errorf("got questions %q, want none", got)
		}
	})
}

// A name whose answer is doubted is looked up at once, and no more often than every two seconds. One that is doubted again and again
// has another of its addresses.
func TestDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, z := start(t)
		z.set("vpn.example", "198.51.100.1")
		z.set("two.example", "203.0.113.2", "203.0.113.1")
		r.Set([]string{"vpn.example:1", "two.example:1"})
		time.Sleep(5 * time.Second)
		z.questions()
		changed(r)
		old, one := netip.MustParseAddrPort("198.51.100.1:1"), netip.MustParseAddrPort("203.0.113.2:1")
		z.set("vpn.example", "198.51.100.2")
		for range 100 { // at 5 s, and none at 5 s and at 8 s again
			r.Doubt(old)
			r.Doubt(netip.MustParseAddrPort("192.0.2.9:1"))
		}
		time.Sleep(answerTime)
		if got, want := z.questions(), []string{"5s vpn.example"}; !slices.Equal(got, want) || answerOf(r, "vpn.example:1") != "198.51.100.2:1" || !changed(r) {
			t.Errorf("got questions %q and %q, want %q and the new address, told", got, answerOf(r, "vpn.example:1"), want)
		}
		r.Doubt(old) // it is nobody's answer any more
		time.Sleep(time.Second)
		if got := z.questions(); len(got) != 0 {
			t.Errorf("got questions %q, want none", got)
		}
		// Once is no reason for another address; twice is, and then every time.
		r.Doubt(one)
		time.Sleep(5 * time.Second)
		if got := answerOf(r, "two.example:1"); got != one.String() {
			t.Errorf("got %q after one doubt, want the address as before", got)
		}
		for _, want := range []string{"203.0.113.1:1", "203.0.113.2:1", "203.0.113.1:1"} {
			known, _ := r.Answer("two.example:1")
			r.Doubt(known)
			time.Sleep(5 * time.Second)
			if got := answerOf(r, "two.example:1"); got != want || !changed(r) {
				t.Errorf("got %q after another doubt, want %q, told", got, want)
			}
		}
		// Where all is well a handshake begins every two minutes.
		for range 5 {
			time.Sleep(2 * time.Minute)
			r.Doubt(netip.MustParseAddrPort("203.0.113.1:1"))
		}
		if got := answerOf(r, "two.example:1"); got != "203.0.113.1:1" || changed(r) {
			t.Errorf("got %q after a doubt now and then, want the address as before", got)
		}
	})
}

// The order of the addresses of a name says nothing: resolvers turn it.
func TestAddressesInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, z := start(t)
		z.set("two.example", "203.0.113.2", "203.0.113.1")
		r.Set([]string{"two.example:1"})
		time.Sleep(5 * time.Second)
		changed(r)
		z.set("two.example", "203.0.113.1", "203.0.113.2")
		time.Sleep(5 * time.Minute)
		if got := answerOf(r, "two.example:1"); got != "203.0.113.2:1" || changed(r) {
			t.Errorf("got %q, want the address as before, and no change told", got)
		}
	})
}

// Many names are looked up more seldom each.
func TestManyNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, z := start(t)
		var names []string
		for i := range 200 {
			host := fmt.Sprintf("n%d.example", i)
			z.set(host, "203.0.113.2")
			names = append(names, host+":1")
		}
		r.Set(names)
		time.Sleep(time.Minute)
		z.questions()
		time.Sleep(10 * time.Minute)
		if got := len(z.questions()); got < 2900 || got > 3100 {
			t.Errorf("got %d questions in ten minutes for 200 names, want five a second", got)
		}
	})
}

// An answer that comes when its name was taken away, and given again, is none to that name.
func TestLateAnswerIsDropped(t *testing.T) {
	r := New(Options{})
	r.names["vpn.example:1"] = new(name)
	r.take(result{text: "vpn.example:1", name: new(name), addrs: []netip.AddrPort{netip.MustParseAddrPort("198.51.100.1:1")}})
	r.take(result{text: "old.example:1", name: new(name), addrs: []netip.AddrPort{netip.MustParseAddrPort("198.51.100.1:1")}})
	if got := len(*r.answers.Load()); got != 0 {
		t.Errorf("got %d answers, want none", got)
	}
}

// Run ends when the last look-up has, and that is told to end at once.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{start: time.Now(), addrs: make(map[string][]netip.Addr), mute: true, lazy: 2 * time.Second}
		r := New(Options{DNS: z})
		r.Set([]string{"vpn.example:1"}) // before Run
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		if err := r.Run(ctx); err != nil {
			t.Errorf("got %v, want nil", err)
		}
		if got := time.Since(z.start); got != 3*time.Second {
			t.Errorf("ended after %s, want 3s", got)
		}
		if got, want := z.questions(), []string{"0s vpn.example", "3s vpn.example ended"}; !slices.Equal(got, want) {
			t.Errorf("got questions %q, want %q", got, want)
		}
		if err := r.Run(context.Background()); err == nil {
			t.Error("got no error from a second Run")
		}
	})
}
