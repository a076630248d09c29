package portmap_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"warren/nat/portmap"
	"warren/nat/portmap/portmaptest"
)

var (
	gateway4 = netip.MustParseAddr("192.168.1.1")
	host4    = netip.MustParseAddr("192.168.1.10")
	outside  = netip.MustParseAddr("198.51.100.7")
	gateway6 = netip.MustParseAddr("fe80::1%eth0")
	host6    = netip.MustParseAddr("2001:db8:1::10")
	mapped   = netip.AddrPortFrom(outside, 9277)
	inside   = netip.AddrPortFrom(host4, 9277)
)

// home4 is a router that speaks nothing yet.
func home4(change func(*portmaptest.Options)) *portmaptest.Router {
	o := portmaptest.Options{Gateway: gateway4, Host: host4, External: outside}
	change(&o)
	return portmaptest.New(o)
}

// agent is a Mapper that runs in a bubble.
type agent struct {
	*portmap.Mapper
	t   *testing.T
	end func() time.Duration // ends Run and returns how long that took
}

func run(t *testing.T, r *portmaptest.Router, secret string) *agent {
	t.Helper()
	a := &agent{t: t, Mapper: portmap.New(portmap.Options{Network: r, Secret: []byte(secret)})}
	a.Set(portmap.Wanted{Port: 9277})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	a.end = func() time.Duration {
		began := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("got %v from Run, want nil", err)
		}
		return time.Since(began)
	}
	return a
}

// after lets time pass.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// only returns the one mapping.
func (a *agent) only() portmap.Mapping {
	a.t.Helper()
	got := a.Mappings()
	if len(got) != 1 {
		a.t.Fatalf("got %d mappings, want 1; status %+v", len(got), a.Snapshot())
	}
	return got[0]
}

// state returns what is known of a protocol at the first router.
func (a *agent) state(protocol string) portmap.ProtocolStatus {
	a.t.Helper()
	for _, p := range a.Snapshot().Routers[0].Protocols {
		if p.Name == protocol {
			return p
		}
	}
	a.t.Fatalf("no status of %s", protocol)
	return portmap.ProtocolStatus{}
}

// event reports whether there was news, and takes it.
func (a *agent) event() bool {
	select {
	case <-a.Events():
		return true
	default:
		return false
	}
}

// TestLife maps by each protocol, keeps the mapping for hours, and removes it.
func TestLife(t *testing.T) {
	all := func(o *portmaptest.Options) { o.PCP, o.NATPMP, o.UPnP = true, true, true }
	tests := []struct {
		name      string
		change    func(*portmaptest.Options)
		protocols []string // any of them
		v6        bool
	}{
		{"PCP", func(o *portmaptest.Options) { o.PCP = true }, []string{portmap.PCP}, false},
		{"NAT-PMP", func(o *portmaptest.Options) { o.NATPMP = true }, []string{portmap.NATPMP}, false},
		{"UPnP", func(o *portmaptest.Options) { o.UPnP = true }, []string{portmap.UPnP}, false},
		{"UPnP, permanent", func(o *portmaptest.Options) { o.UPnP, o.PermanentOnly = true, true }, []string{portmap.UPnP}, false},
		{"all", all, []string{portmap.PCP, portmap.NATPMP, portmap.UPnP}, false},
		{"short leases", func(o *portmaptest.Options) { all(o); o.MaxLife = 2 * time.Minute }, []string{portmap.PCP, portmap.NATPMP, portmap.UPnP}, false},
		{"PCP, IPv6", func(o *portmaptest.Options) { o.PCP = true }, []string{portmap.PCP}, true},
		{"UPnP, IPv6", func(o *portmaptest.Options) { o.UPnP = true }, []string{portmap.UPnP}, true},
		{"UPnP from another address, IPv6", func(o *portmaptest.Options) { o.UPnP, o.UPnPAt = true, netip.MustParseAddr("2001:db8:1::1") }, []string{portmap.UPnP}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				want, wantInside, gateway := mapped, inside, gateway4
				r := home4(func(o *portmaptest.Options) {
					tt.change(o)
					if tt.v6 {
						o.Gateway, o.Host = gateway6, host6
						want, wantInside, gateway = netip.AddrPortFrom(host6, 9277), netip.AddrPortFrom(host6, 9277), gateway6
					}
				})
				a := run(t, r, "")
				after(0)
				got := a.only()
				if got.External != want || got.Internal != wantInside || got.Gateway != gateway || !got.Public() || !strings.Contains(strings.Join(tt.protocols, " "), got.Protocol) {
					t.Errorf("got %+v, want %v for %v by one of %v", got, want, wantInside, tt.protocols)
				}
				if !a.event() {
					t.Error("got no event of the new mapping")
				}
				after(time.Minute)
				a.event() // what the router does not speak is known by now
				for range 3 * 60 {
					after(time.Minute)
					to, ok := r.Lookup(want)
					if !ok || to != wantInside {
						t.Fatalf("after a while %v leads to %v, %v, want %v", want, to, ok, wantInside)
					}
				}
				if n := len(r.Entries()); n != 1 {
					t.Errorf("got %d entries at the router, want 1: %+v", n, r.Entries())
				}
				if a.event() {
					t.Error("got an event although nothing but the expiry has changed")
				}
				if took := a.end(); took != 0 {
					t.Errorf("the end took %v although the router answers at once", took)
				}
				if left := r.Entries(); len(left) != 0 {
					t.Errorf("got %+v left at the router", left)
				}
				if len(a.Mappings()) != 0 || !a.event() {
					t.Errorf("got %+v after the end, want none and an event", a.Mappings())
				}
			})
		})
	}
}

func TestRenewedAtHalfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := home4(func(o *portmaptest.Options) { o.NATPMP = true })
		a := run(t, r, "")
		after(5 * time.Second)
		before := r.Requests("NAT-PMP")
		after(9 * time.Minute)
		if got := r.Requests("NAT-PMP"); got != before {
			t.Errorf("got %d requests in the first half of the life, want none", got-before)
		}
		after(time.Minute)
		if got := r.Requests("NAT-PMP"); got != before+2 {
			t.Errorf("got %d requests at half life, want 2", got-before)
		}
		a.end()
	})
}

// TestStates asks routers of several kinds and reads what is said of them after five seconds.
func TestStates(t *testing.T) {
	type want map[string]portmap.State
	tests := []struct {
		name   string
		change func(*portmaptest.Options)
		want   want
		reason string // in that of each protocol that is refused
		maps   bool
	}{
		{"silent", func(o *portmaptest.Options) {}, want{portmap.PCP: portmap.Absent, portmap.NATPMP: portmap.Absent, portmap.UPnP: portmap.Absent}, "", false},
		{"closed", func(o *portmaptest.Options) { o.Closed = true }, want{portmap.PCP: portmap.Absent, portmap.NATPMP: portmap.Absent, portmap.UPnP: portmap.Absent}, "", false},
		{"PCP only", func(o *portmaptest.Options) { o.PCP = true }, want{portmap.PCP: portmap.Present, portmap.NATPMP: portmap.Absent, portmap.UPnP: portmap.Absent}, "", true},
		{"NAT-PMP only", func(o *portmaptest.Options) { o.NATPMP = true }, want{portmap.PCP: portmap.Absent, portmap.NATPMP: portmap.Present, portmap.UPnP: portmap.Absent}, "", true},
		{"UPnP only", func(o *portmaptest.Options) { o.UPnP = true }, want{portmap.PCP: portmap.Absent, portmap.NATPMP: portmap.Absent, portmap.UPnP: portmap.Present}, "", true},
		{"all", func(o *portmaptest.Options) { o.PCP, o.NATPMP, o.UPnP = true, true, true }, want{portmap.PCP: portmap.Present, portmap.NATPMP: portmap.Present, portmap.UPnP: portmap.Present}, "", true},
		{"forbidden", func(o *portmaptest.Options) { o.PCP, o.NATPMP, o.UPnP, o.Refuse = true, true, true, true }, want{portmap.PCP: portmap.Refused, portmap.NATPMP: portmap.Refused, portmap.UPnP: portmap.Refused}, "settings forbid it", false},
		{"public host", func(o *portmaptest.Options) { o.PCP, o.Host = true, outside.Next() }, want{portmap.PCP: portmap.Unneeded, portmap.NATPMP: portmap.Unneeded, portmap.UPnP: portmap.Unneeded}, "", false},
		{"line down", func(o *portmaptest.Options) { o.UPnP, o.External = true, netip.IPv4Unspecified() }, want{portmap.PCP: portmap.Absent, portmap.NATPMP: portmap.Absent, portmap.UPnP: portmap.Refused}, "line is down", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := home4(tt.change)
				a := run(t, r, "")
				after(5 * time.Second)
				for protocol, want := range tt.want {
					got := a.state(protocol)
					if got.State != want || got.State == portmap.Refused && !strings.Contains(got.Reason, tt.reason) {
						t.Errorf("got %+v, want %s with %q", got, want, tt.reason)
					}
					if got.State == portmap.Absent && got.Reason == "" {
						t.Errorf("got no reason why %s is absent", protocol)
					}
				}
				if got := len(a.Mappings()) == 1; got != tt.maps {
					t.Errorf("got %+v, want a mapping: %v", a.Mappings(), tt.maps)
				}
				a.end()
			})
		})
	}
}

func TestDoubleNAT(t *testing.T) {
	for external, want := range map[string]string{"10.0.0.5": "double NAT", "192.168.0.2": "double NAT", "100.64.3.4": "carrier-grade", "192.0.0.2": "carrier-grade", "198.51.100.7": ""} {
		t.Run(external, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := home4(func(o *portmaptest.Options) { o.PCP, o.External = true, netip.MustParseAddr(external) })
				a := run(t, r, "")
				after(time.Second)
				if got := a.only().Public(); got != (want == "") {
					t.Errorf("got public %v", got)
				}
				if got := a.Snapshot().Routers[0].Remark; (got == "") != (want == "") || !strings.Contains(got, want) {
					t.Errorf("got remark %q, want %q in it", got, want)
				}
				a.end()
			})
		})
	}
}

// TestPortTaken has another host of the LAN hold the port.
func TestPortTaken(t *testing.T) {
	for name, change := range map[string]func(*portmaptest.Options){
		"PCP":     func(o *portmaptest.Options) { o.PCP = true },
		"NAT-PMP": func(o *portmaptest.Options) { o.NATPMP = true },
		"UPnP":    func(o *portmaptest.Options) { o.UPnP = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := home4(change)
				r.Occupy(9277)
				a := run(t, r, "")
				after(time.Second)
				got := a.only()
				if to, _ := r.Lookup(got.External); got.External.Port() == 9277 || to != inside {
					t.Errorf("got %v, which leads to %v, want another port that leads to %v", got.External, to, inside)
				}
				after(time.Hour)
				if again := a.only(); again.External != got.External {
					t.Errorf("got %v after renewals, want %v still", again.External, got.External)
				}
				a.end()
				if to, ok := r.Lookup(mapped); !ok || to == inside || len(r.Entries()) != 1 {
					t.Errorf("got %+v at the router, want only the other host's", r.Entries())
				}
			})
		})
	}
}

// TestSet maps what Set says from then on, at once, and nothing for port 0.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := home4(func(o *portmaptest.Options) { o.NATPMP = true })
		a := run(t, r, "")
		after(10 * time.Second)
		for _, want := range []portmap.Wanted{{Port: 9999}, {Port: 9999, TCP: true}, {}, {Port: 9277, TCP: true}} {
			a.event()
			a.Set(want)
			after(0)
			udp, tcp := a.Mappings(), a.TCPMappings()
			if (len(udp) == 1) != (want.Port != 0) || (len(tcp) == 1) != want.TCP || !a.event() {
				t.Fatalf("%+v: got %v and %v mapped, want that and an event", want, udp, tcp)
			}
			if want.Port != 0 && udp[0].External.Port() != want.Port {
				t.Errorf("got %v, want port %d", udp[0].External, want.Port)
			}
			after(10 * time.Second)
			a.event()
			a.Set(want)
			if after(0); a.event() {
				t.Errorf("%+v again: got an event, want none", want)
			}
		}
		a.end()
	})
}

// TestAnswersOfRoutersAreTold: what a router does not speak is news too, once.
func TestAnswersOfRoutersAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := run(t, home4(func(*portmaptest.Options) {}), "")
		after(0)
		if !a.event() || a.state(portmap.PCP).State != portmap.Asking {
			t.Errorf("got %+v and no event, want the router asked", a.Snapshot())
		}
		after(time.Minute)
		if !a.event() || a.state(portmap.PCP).State != portmap.Absent {
			t.Errorf("got %+v and no event, want its silence told", a.Snapshot())
		}
		if after(time.Hour); a.event() {
			t.Error("got an event of a router that is still silent, want none")
		}
		a.end()
	})
}

func TestPortChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := home4(func(o *portmaptest.Options) { o.PCP, o.UPnP = true, true })
		a := run(t, r, "")
		after(10 * time.Second)
		a.event()
		a.Set(portmap.Wanted{Port: 9999})
		after(0)
		want := netip.AddrPortFrom(outside, 9999)
		if got := a.only(); got.External != want || !a.event() {
			t.Errorf("got %v, want %v at once, and an event", got.External, want)
		}
		if to, ok := r.Lookup(mapped); ok {
			t.Errorf("the old port still leads to %v", to)
		}
		// There and back: the removal of the first must not hit the last.
		for range 10 {
			a.Set(portmap.Wanted{Port: 9277})
			a.Set(portmap.Wanted{Port: 9999})
		}
		a.Set(portmap.Wanted{Port: 9277})
		after(5 * time.Second)
		if to, _ := r.Lookup(mapped); to != inside || len(r.Entries()) != 1 {
			t.Errorf("got %+v at the router, want only %v", r.Entries(), inside)
		}
		a.Set(portmap.Wanted{})
		after(5 * time.Second)
		if len(a.Mappings()) != 0 || len(r.Entries()) != 0 {
			t.Errorf("got %+v without a port", r.Entries())
		}
		a.end()
	})
}

func TestRouterRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := home4(func(o *portmaptest.Options) { o.NATPMP, o.UPnP = true, true })
		a := run(t, r, "")
		after(5 * time.Second)
		r.Restart()
		after(10 * time.Minute)
		if to, _ := r.Lookup(mapped); to != inside {
			t.Errorf("got %v half a life after the router's restart, want %v", to, inside)
		}
		r.Restart()
		a.Changed()
		after(0)
		if to, _ := r.Lookup(mapped); to != inside {
			t.Errorf("got %v at once when told, want %v", to, inside)
		}
		a.event()
		r.Set(func(o *portmaptest.Options) { o.External = outside.Next() })
		a.Changed()
		after(0)
		if got := a.only().External.Addr(); got != outside.Next() || !a.event() {
			t.Errorf("got %v when the line has another address, want %v and an event", got, outside.Next())
		}
		a.end()
	})
}

// TestAskedSoonAgainAfterAChange begins the ladder anew with each change: a router that is just starting is not asked again ten minutes
// later because another one did not answer for hours.
func TestAskedSoonAgainAfterAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := home4(func(*portmaptest.Options) {})
		a := run(t, r, "")
		after(3 * time.Hour)
		a.Changed()
		after(15 * time.Second) // nobody answers yet
		r.Set(func(o *portmaptest.Options) { o.PCP = true })
		after(30 * time.Second)
		if got := a.Mappings(); len(got) != 1 {
			t.Errorf("got %+v 45 s after the change, want the mapping; %+v", got, a.Snapshot())
		}
		a.end()
	})
}

// TestRouterFallsSilent keeps the mapping until it must be over, and finds another protocol when there is one.
func TestRouterFallsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := home4(func(o *portmaptest.Options) { o.PCP = true })
		a := run(t, r, "")
		after(5 * time.Second)
		a.event()
		r.Set(func(o *portmaptest.Options) { o.PCP = false })
		after(14 * time.Minute)
		if got := a.state(portmap.PCP); len(a.Mappings()) != 1 || got.State != portmap.Absent {
			t.Errorf("got %+v, %+v before the end of the life, want the mapping, and PCP absent", a.Mappings(), got)
		}
		after(6 * time.Minute)
		if len(a.Mappings()) != 0 || !a.event() {
			t.Errorf("got %+v after its life, want none and an event", a.Mappings())
		}
		r.Set(func(o *portmaptest.Options) { o.UPnP = true })
		after(10*time.Minute + 5*time.Second)
		if got := a.only().Protocol; got != portmap.UPnP || !a.event() {
			t.Errorf("got %s, want UPnP and an event", got)
		}
		r.Set(func(o *portmaptest.Options) { o.UPnP = false })
		if took := a.end(); took > 2*time.Second {
			t.Errorf("the end took %v with a silent router, want at most 2 s", took)
		}
	})
}

// TestKilledAgentTakesOver leaves a mapping behind as a killed agent does, and starts another.
// TestTCP maps the TCP port of the number too, by each protocol, for as long as it is wanted.
func TestTCP(t *testing.T) {
	for _, only := range []struct {
		protocol string
		change   func(*portmaptest.Options)
		v6       bool
	}{
		{portmap.PCP, func(o *portmaptest.Options) { o.PCP = true }, false},
		{portmap.NATPMP, func(o *portmaptest.Options) { o.NATPMP = true }, false},
		{portmap.UPnP, func(o *portmaptest.Options) { o.UPnP = true }, false},
		{portmap.PCP, func(o *portmaptest.Options) { o.PCP = true }, true},
		{portmap.UPnP, func(o *portmaptest.Options) { o.UPnP = true }, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			want := mapped
			r := home4(func(o *portmaptest.Options) {
				only.change(o)
				if only.v6 {
					o.Gateway, o.Host = gateway6, host6
					want = netip.AddrPortFrom(host6, 9277)
				}
			})
			a := run(t, r, "lasting")
			after(time.Minute)
			if got := a.TCPMappings(); len(got) != 0 || len(r.Entries()) != 1 {
				t.Errorf("%s: got %+v although TCP is not wanted, and %+v at the router", only.protocol, got, r.Entries())
			}
			a.Set(portmap.Wanted{Port: 9277, TCP: true})
			after(3 * time.Hour)
			got := a.TCPMappings()
			if _, ok := r.LookupTCP(want); !ok || len(got) != 1 || got[0].External != want || len(r.Entries()) != 2 {
				t.Errorf("%s: got %+v and %+v at the router, want one for each", only.protocol, got, r.Entries())
			}
			if got := a.only(); got.External != want || len(a.Snapshot().Routers) != 1 {
				t.Errorf("%s: got %+v for UDP, and %+v", only.protocol, got, a.Snapshot())
			}
			a.Set(portmap.Wanted{Port: 9277})
			after(time.Minute)
			if _, ok := r.LookupTCP(want); ok || len(r.Entries()) != 1 || len(a.TCPMappings()) != 0 {
				t.Errorf("%s: got %+v at the router when it is no longer wanted", only.protocol, r.Entries())
			}
			a.Set(portmap.Wanted{Port: 9277, TCP: true})
			after(time.Minute)
			a.end()
			if left := r.Entries(); len(left) != 0 {
				t.Errorf("%s: got %+v left at the router", only.protocol, left)
			}
		})
	}
}

func TestKilledAgentTakesOver(t *testing.T) {
	for secret, want := range map[string]portmap.State{"lasting": portmap.Present, "": portmap.Refused} {
		synctest.Test(t, func(t *testing.T) {
			r := home4(func(o *portmaptest.Options) { o.PCP = true })
			a := run(t, r, secret)
			after(5 * time.Second)
			r.Set(func(o *portmaptest.Options) { o.PCP = false })
			a.end()
			r.Set(func(o *portmaptest.Options) { o.PCP = true })
			b := run(t, r, secret)
			after(time.Second)
			if got := b.state(portmap.PCP); got.State != want {
				t.Errorf("secret %q: got %+v, want %s", secret, got, want)
			}
			b.end()
		})
	}
}
