package standing

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/nat/natkind"
	"warren/nat/natprobe"
	"warren/nat/natprobe/natprobetest"
	"warren/nat/portmap"
)

// TestMeasure takes the whole way: two members are asked, help, and tell from where.
func TestMeasure(t *testing.T) {
	for _, filtering := range []natkind.Filtering{natkind.FilteredNot, natkind.FilteredByAddress, natkind.FilteredByAddressAndPort} {
		t.Run(filtering.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, natprobetest.Options{Mapping: natkind.MappedByAddress, Filtering: filtering})
				w.public(2)
				w.public(3)
				w.home.run()
				w.home.Set(w.helped(Desired{}))
				after(time.Second)
				w.home.news()
				start := time.Now()
				w.home.Measure(t.Context())
				if took := time.Since(start); took > measureTime {
					t.Errorf("took %s, want %s at most", took, measureTime)
				}
				got, ok := w.home.Snapshot().Measured(true)
				if !ok || got.Report.Mapping != natkind.MappedByAddress || got.Report.Filtering != filtering || !got.At.Equal(start) || !w.home.news() {
					t.Errorf("got %+v, want what the NAT does, as of the start, and an event", got)
				}
				if got := w.home.Snapshot(); got.Mapping() != natkind.MappedByAddress {
					t.Errorf("got mapping %s, want %s", got.Mapping(), natkind.MappedByAddress)
				}
				if v6, ok := w.home.Snapshot().Measured(false); !ok || v6.Err != nil || len(v6.Report.Answers) != 0 {
					t.Errorf("got %+v of a family without an address, want it looked at, and nothing seen", v6)
				}
				if w.home.probes != 1 {
					t.Errorf("got the shared socket looked at %d times, want once", w.home.probes)
				}
				if len(w.home.waiting) != 0 {
					t.Errorf("got %d words of helpers waited for after the end, want none", len(w.home.waiting))
				}
			})
		})
	}
}

// TestMeasurementsGrowOld measures on a wish only if what is known is vague or old.
func TestMeasurementsGrowOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, router)
		a, b := w.public(2), w.public(3)
		w.home.run()
		w.home.Set(w.helped(Desired{}))
		// measures reports whether a wish leads to a measurement now.
		measures := func() bool {
			before := time.Now()
			w.home.Want()
			after(measureTime)
			got, ok := w.home.Snapshot().Measured(true)
			return ok && got.At.Equal(before)
		}
		if !w.home.Vague() || !measures() || w.home.Vague() {
			t.Error("nothing measured: got no measurement, or nothing known after it")
		}
		if measures() {
			t.Error("measured just now: got another measurement")
		}
		w.home.news()
		begun := w.home.Snapshot().IPv4.At
		after(time.Until(begun.Add(measuredFor)) - 1)
		if _, ok := w.home.Snapshot().Measured(true); !ok || w.home.Vague() || w.home.news() {
			t.Error("measured some minutes ago: got nothing known")
		}
		after(1)
		if _, ok := w.home.Snapshot().Measured(true); ok || !w.home.Vague() || !w.home.news() {
			t.Error("measured ten minutes ago: got what was measured then, or no event of its end")
		}
		if !measures() {
			t.Error("measured ten minutes ago: got no measurement")
		}
		// Without help a wish is granted again after half a minute, one of a person always.
		a.set(func() { a.noFamily = true })
		b.set(func() { b.noFamily = true })
		w.home.Measure(t.Context())
		begun = w.home.Snapshot().IPv4.At
		if got := w.home.Snapshot().IPv4.Report.Filtering; got != natkind.FilteringUnknown || w.home.Vague() {
			t.Errorf("got filtering %s without help, want it unknown, and left alone", got)
		}
		after(time.Until(begun.Add(vagueFor)))
		if w.home.Vague() {
			t.Error("half a minute after a measurement without help: got a wish for more, want none yet")
		}
		after(1)
		if !w.home.Vague() || !measures() {
			t.Error("more than half a minute after a measurement without help: got no other one")
		}
		// Another network makes it count no more.
		w.home.network <- struct{}{}
		after(0)
		if _, ok := w.home.Snapshot().Measured(true); ok || !w.home.Vague() || !measures() {
			t.Error("after a change of the network: got what was measured before, or no measurement")
		}
	})
}

// TestTheNetworkChangesMeanwhile begins again at once: who waits gets what holds in the new network.
func TestTheNetworkChangesMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, natprobetest.Options{Mapping: natkind.MappedIndependent, Filtering: natkind.FilteredNot, Deaf: true})
		w.public(2)
		w.public(3)
		w.home.run()
		w.home.Set(w.helped(Desired{}))
		after(0)
		start := time.Now()
		time.AfterFunc(time.Second, func() {
			w.net.Set(func(o *natprobetest.Options) { o.Deaf = false })
			w.home.network <- struct{}{}
		})
		w.home.Measure(t.Context())
		if got, ok := w.home.Snapshot().Measured(true); !ok || !got.At.Equal(start.Add(time.Second)) || got.Report.Filtering != natkind.FilteredNot {
			t.Errorf("got %+v, want what was measured from the change on", got)
		}
	})
}

// TestWhoWaits: all get one measurement; nobody waits longer than its context, or for an owner that has ended.
func TestWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, natprobetest.Options{Mapping: natkind.MappedIndependent, Deaf: true})
		w.public(2)
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		w.home.Measure(short) // nothing runs yet
		if took := time.Since(start); took != time.Second {
			t.Errorf("got Measure's end after %s, want that of its context", took)
		}
		w.home.run()
		after(time.Minute) // nor was it said who can be asked
		if !w.home.Vague() {
			t.Error("got a measurement before Set, want none")
		}
		w.home.Set(w.helped(Desired{}))
		start = time.Now()
		took := make(chan time.Duration, 5)
		for n := range cap(took) {
			w.tasks.Go(func() {
				time.Sleep(time.Duration(n) * 100 * time.Millisecond)
				w.home.Measure(t.Context())
				took <- time.Since(start)
			})
		}
		for range cap(took) {
			if got := <-took; got != 1500*time.Millisecond {
				t.Errorf("got Measure's end after %s, want that of the one measurement, 1.5 s", got)
			}
		}
		w.tasks.Go(func() { w.home.Measure(context.Background()); took <- 0 })
		after(0)
		w.end()
		<-took
		w.home.Measure(context.Background()) // returns at once
	})
}

func TestServersOf(t *testing.T) {
	server := func(id byte, addr string) natprobe.Server {
		return natprobe.Server{ID: identity.NodeID{id}, Addr: netip.MustParseAddrPort(addr)}
	}
	all := []natprobe.Server{
		server(3, "[2001:db8::3]:1"), server(3, "203.0.113.3:1"), server(3, "203.0.113.33:1"), server(1, "203.0.113.1:1"), server(2, "203.0.113.9:1"), server(2, "203.0.113.2:1"),
	}
	local := func(a netip.Addr) bool { return a == netip.MustParseAddr("203.0.113.9") }
	for v4, want := range map[bool][]natprobe.Server{true: {all[1], all[3], all[5]}, false: {all[0]}} {
		got := serversOf(all, v4, local)
		if len(got) != len(want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("got %v, want %v", got, want)
			}
		}
	}
}

// TestSelf puts together what is known from three sides.
func TestSelf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, natprobetest.Options{Mapping: natkind.MappedByAddressAndPort, Filtering: natkind.FilteredByAddress})
		a, b := w.public(2), w.public(3)
		if self, at := w.home.Self(); self != (natkind.Self{Ports: natkind.PortsKept}) || !at.IsZero() {
			t.Errorf("got %+v at %s before anything is known, want only what the socket says", self, at)
		}
		w.home.run()
		w.home.Set(w.helped(Desired{}))
		after(0)
		w.home.Self()
		seen := time.Now()
		stranger := netip.MustParseAddrPort("198.51.100.99:9277")
		w.home.set(func() {
			w.home.sights = []natkind.Sighting{
				{Server: a.shared.Addr(), Mapped: netip.MustParseAddrPort("203.0.113.99:1"), At: seen.Add(-time.Second)},
				{Server: b.shared.Addr(), Mapped: netip.MustParseAddrPort("203.0.113.99:2"), At: seen},
				{Server: stranger, Mapped: netip.MustParseAddrPort("10.0.0.1:2"), At: seen},
			}
		})
		if got := w.home.Standing.Sightings(true); len(got) != 2 || len(w.home.Standing.Sightings(false)) != 0 {
			t.Errorf("got %v, want those of the two anchors", got)
		}
		after(toldFor)
		if self, _ := w.home.Self(); self.Mapping != natkind.MappingUnknown {
			t.Errorf("got %s within a second, want what was told before", self.Mapping)
		}
		after(1)
		if self, at := w.home.Self(); self.Mapping != natkind.MappedDependent || !at.Equal(seen) {
			t.Errorf("got %s at %s, want %s at %s", self.Mapping, at, natkind.MappedDependent, seen)
		}
		// The measurement knows more of the same kind.
		w.home.Measure(t.Context())
		measured := w.home.Snapshot().IPv4.At
		want := natkind.Self{Mapping: natkind.MappedByAddressAndPort, Filtering: natkind.FilteredByAddress, Ports: natkind.PortsKept}
		if self, at := w.home.Self(); self != want || !at.Equal(measured) {
			t.Errorf("got %+v at %s, want %+v at %s", self, at, want, measured)
		}
		// A router, and UDP that gets no answer, are told at once.
		w.home.mapper.maps(outside)
		w.home.Set(w.helped(Desired{UDPBlocked: true}))
		after(0)
		want.PortMapping, want.UDPBlocked = natkind.PortMapped, true
		if self, _ := w.home.Self(); self != want || w.home.Pack() != want.Pack() {
			t.Errorf("got %+v, packed %d, want %+v, packed %d", self, w.home.Pack(), want, want.Pack())
		}
		// What the socket was told last counts for two minutes; what one sees does not depend on the destination then.
		w.home.set(func() {
			w.home.sights = []natkind.Sighting{
				{Server: a.shared.Addr(), Mapped: outside, At: time.Now()}, {Server: b.shared.Addr(), Mapped: outside, At: time.Now()},
			}
		})
		seen = time.Now()
		after(toldFor + 1)
		if self, at := w.home.Self(); self.Mapping != natkind.MappedIndependent || !at.Equal(seen) {
			t.Errorf("got %s at %s, want %s at %s: it is newer", self.Mapping, at, natkind.MappedIndependent, seen)
		}
		after(sightingFor)
		if self, at := w.home.Self(); self.Mapping != natkind.MappedByAddressAndPort || !at.Equal(measured) {
			t.Errorf("got %s at %s, want what was measured when the answers are old", self.Mapping, at)
		}
		w.home.network <- struct{}{}
		after(0)
		if self, at := w.home.Self(); self.Mapping != natkind.MappingUnknown || self.Filtering != natkind.FilteringUnknown || !at.IsZero() {
			t.Errorf("got %+v at %s in another network, want nothing known", self, at)
		}
	})
}

func TestPortMappingOf(t *testing.T) {
	states := func(list ...portmap.State) (r portmap.RouterStatus) {
		for _, s := range list {
			r.Protocols = append(r.Protocols, portmap.ProtocolStatus{State: s})
		}
		return r
	}
	mapped := func(external string) portmap.RouterStatus {
		r := states(portmap.Present)
		r.Mapping = &portmap.Mapping{External: netip.MustParseAddrPort(external)}
		return r
	}
	public, inside := mapped("203.0.113.9:9277"), mapped("10.0.0.1:9277")
	for _, tt := range []struct {
		mode    Mode
		routers []portmap.RouterStatus
		want    natkind.PortMapping
	}{
		{Auto, nil, natkind.PortMappingUnknown},
		{Auto, []portmap.RouterStatus{states()}, natkind.PortMappingUnknown},
		{Auto, []portmap.RouterStatus{states(portmap.Absent, portmap.Asking)}, natkind.PortMappingUnknown},
		{Auto, []portmap.RouterStatus{states(portmap.Absent, portmap.Absent)}, natkind.PortMappingAbsent},
		{Auto, []portmap.RouterStatus{states(portmap.Absent, portmap.Refused)}, natkind.PortMappingRefused},
		{Auto, []portmap.RouterStatus{states(portmap.Unneeded)}, natkind.PortMappingUnneeded},
		{Auto, []portmap.RouterStatus{inside}, natkind.PortMappedInside},
		{Always, []portmap.RouterStatus{states(portmap.Refused), inside, public, states(portmap.Absent)}, natkind.PortMapped},
		{Never, []portmap.RouterStatus{public}, natkind.PortMappingOff},
	} {
		if got := portMapping(tt.mode, tt.routers); got != tt.want {
			t.Errorf("%s, %+v: got %s, want %s", tt.mode, tt.routers, got, tt.want)
		}
	}
}
