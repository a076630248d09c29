package agent

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh"
	"warren/mesh/verdict"
	"warren/tunnel/echo"
	"warren/tunnel/osnet"
)

func TestPassages(t *testing.T) {
	four, six := netip.MustParseAddr("100.91.0.2"), netip.MustParseAddr("fd91::2")
	peer := mesh.Member{Addr6: six, Addr4: four}
	type answers func(to netip.Addr, asked int) error
	silent := func(which netip.Addr) answers {
		return func(to netip.Addr, _ int) error {
			if to == which || !which.IsValid() {
				return echo.ErrNoAnswer
			}
			return nil
		}
	}
	for name, test := range map[string]struct {
		answers answers
		leaving osnet.Leaving
		broken  bool   // the kernel cannot be asked
		comes   uint64 // with each question, by the tunnel
		want4   verdict.Fault
		want6   verdict.Fault
		took    time.Duration
	}{
		"both answer":              {answers: func(netip.Addr, int) error { return nil }},
		"a route away":             {answers: silent(four), leaving: osnet.Leaving{Interface: "tailscale0", Table: 52, Rule: 5270}, want4: verdict.RouteStolen, took: againTime},
		"no route":                 {answers: silent(four), leaving: osnet.Leaving{Refusal: "blackhole"}, want4: verdict.RouteRefuses, took: againTime},
		"no route, and no answers": {answers: silent(netip.Addr{}), leaving: osnet.Leaving{Refusal: "blackhole"}, want4: verdict.RouteRefuses, want6: verdict.RouteRefuses, took: pingTime},
		"a filter on the way out": {answers: func(to netip.Addr, _ int) error {
			if to == four {
				return syscall.EPERM
			}
			return nil
		}, want4: verdict.FilteredOut},
		"a filter on the way in":      {answers: silent(four), comes: answerSize, want4: verdict.FilteredIn, took: 3 * againTime},
		"the same of IPv6":            {answers: silent(six), comes: answerSize, want6: verdict.FilteredIn, took: 3 * againTime},
		"lost beyond":                 {answers: silent(four), want4: verdict.LostBeyond, took: 3 * againTime},
		"a keepalive comes meanwhile": {answers: silent(four), comes: 32, want4: verdict.LostBeyond, took: 3 * againTime},
		"nobody listens": {answers: func(to netip.Addr, _ int) error {
			if to == six {
				return syscall.ECONNREFUSED
			}
			return nil
		}, want6: verdict.NoListener, took: againTime},
		"nobody listens yet": {answers: func(to netip.Addr, asked int) error {
			if to == six && asked == 1 {
				return syscall.ECONNREFUSED
			}
			return nil
		}, took: againTime},
		"nothing answers at all": {answers: silent(netip.Addr{}), took: pingTime},
		"one packet was lost": {answers: func(to netip.Addr, asked int) error {
			if to == four && asked == 1 {
				return echo.ErrNoAnswer
			}
			return nil
		}, took: againTime},
		"the path was away for a second, and other packets come": {answers: func(to netip.Addr, asked int) error {
			if to == four && asked <= 2 {
				return echo.ErrNoAnswer
			}
			return nil
		}, comes: answerSize, took: 2 * againTime},
		"a kernel that says nothing": {answers: silent(four), broken: true, want4: verdict.LostBeyond, took: 3 * againTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked, received := make(map[netip.Addr]int), uint64(1000)
				var mu sync.Mutex // guards both
				k := kernel{ifname: "warren0"}
				k.ask = func(ctx context.Context, to netip.Addr, timeout time.Duration) (time.Duration, error) {
					mu.Lock()
					asked[to]++
					err := test.answers(to, asked[to])
					silent := errors.Is(err, echo.ErrNoAnswer)
					if silent {
						received += test.comes
					}
					mu.Unlock()
					if silent {
						select {
						case <-time.After(timeout):
						case <-ctx.Done():
						}
					}
					return time.Millisecond, err
				}
				k.leaving = func(to netip.Addr) (osnet.Leaving, error) {
					if test.broken {
						return osnet.Leaving{}, errors.ErrUnsupported
					}
					if test.leaving != (osnet.Leaving{}) {
						return test.leaving, nil
					}
					return osnet.Leaving{Interface: "warren0"}, nil
				}
				k.received = func(wgtypes.Key) (uint64, bool) { return received, true }
				began := time.Now()
				got, _ := k.passages(t.Context(), peer, overlayOf(peer, false))
				if took := time.Since(began); took != test.took {
					t.Errorf("took %s, want %s", took, test.took)
				}
				if len(got) != 2 || got[0].Fault != test.want6 || got[1].Fault != test.want4 {
					t.Fatalf("got %+v, want faults %d, %d", got, test.want6, test.want4)
				}
				time.Sleep(pingTime) // timers end
			})
		})
	}
	if got := overlayOf(peer, true); len(got) != 1 || got[0] != six {
		t.Errorf("without IPv4: got %v", got)
	}
}
