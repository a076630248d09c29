package node

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/signal"
	"warren/nat"
	"warren/nat/natkind"
	"warren/nat/natprobe"
	"warren/nat/portmap"
)

func TestMeasurementsGrowOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutlook()
		if !o.vague() {
			t.Error("nothing measured: got a clear view")
		}
		put := func(f natkind.Filtering) {
			o.measured[true] = measurement{report: natprobe.Report{Filtering: f}, at: time.Now(), network: o.network}
		}
		put(natkind.FilteredByAddress)
		time.Sleep(measuredFor - time.Second)
		if _, ok := o.latest(true); !ok || o.vague() {
			t.Error("measured some minutes ago: got nothing known")
		}
		o.networkChanged()
		if _, ok := o.latest(true); ok || !o.vague() {
			t.Error("after a change of the network: got what was measured before")
		}
		put(natkind.FilteringUnknown)
		if o.vague() {
			t.Error("measured just now, without help: got a wish for more")
		}
		time.Sleep(vagueFor + time.Second)
		if !o.vague() {
			t.Error("measured some time ago, without help: got no wish for more")
		}
		put(natkind.FilteredNot)
		time.Sleep(measuredFor)
		if !o.vague() {
			t.Error("measured long ago: got a clear view")
		}
	})
}

func TestWhatPeersTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, peer := newOutlook(), identity.NodeID{7}
		o.refused(peer, signal.ErrReplayed)
		if got := o.of(peer); got != (toldStanding{}) {
			t.Errorf("a replay: got %+v, want nothing remembered", got)
		}
		o.refused(peer, fmt.Errorf("open: %w", signal.ErrClockSkew))
		if got := o.of(peer); got.skewed.IsZero() || !got.heard.IsZero() {
			t.Errorf("another clock: got %+v, want it remembered", got)
		}
		self := natkind.Self{Mapping: natkind.MappedByAddress}
		o.heard(peer, nat.Message{NAT: self.Pack()})
		said := time.Now()
		time.Sleep(time.Minute)
		o.heard(peer, nat.Message{}) // one that does not know, or a kind that does not say
		if got := o.of(peer); got.nat != self || !got.at.Equal(said) || !got.heard.Equal(time.Now()) || !got.skewed.IsZero() {
			t.Errorf("got %+v, want what it said a minute ago, and that it was heard now", got)
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
	mapped := states(portmap.Present)
	mapped.Mapping = &portmap.Mapping{} // to no address of the Internet
	for _, tt := range []struct {
		r    portmap.RouterStatus
		want natkind.PortMapping
	}{
		{states(), natkind.PortMappingUnknown},
		{states(portmap.Absent, portmap.Asking), natkind.PortMappingUnknown},
		{states(portmap.Absent, portmap.Absent), natkind.PortMappingAbsent},
		{states(portmap.Absent, portmap.Refused), natkind.PortMappingRefused},
		{states(portmap.Unneeded), natkind.PortMappingUnneeded},
		{mapped, natkind.PortMappedInside},
	} {
		if got := portMappingOf(tt.r); got != tt.want {
			t.Errorf("%+v: got %s, want %s", tt.r, got, tt.want)
		}
	}
}

func TestTold(t *testing.T) {
	raw := encodeTry([12]byte{7}, netip.MustParseAddrPort("192.0.2.1:9277"))
	if raw[0] != tryVersion || len(raw) != 19 {
		t.Errorf("got %x, want an ask of version 2", raw)
	}
	for _, raw := range [][]byte{nil, {3}, make([]byte, 15), append([]byte{3}, make([]byte, 15)...)} {
		if got, err := decodeTold(raw); err == nil {
			t.Errorf("%x: got %+v, want it refused", raw, got)
		}
	}
}

func FuzzTold(f *testing.F) {
	f.Add(append([]byte{3}, make([]byte, 14)...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if told, err := decodeTold(raw); err == nil && string(encodeTold(told)) != string(raw) {
			t.Errorf("%x: got %+v, which is encoded in another way", raw, told)
		}
	})
}
