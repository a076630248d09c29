package tunnel

import (
	"fmt"
	"net/netip"
	"reflect"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// attached is the device of a tunnel as its ways see it. Unless it says otherwise a method touches one peer, and waits for
// nothing but the locks of the device that its packets take too. Without a device, or for a member that is not set, nothing happens.
type attached struct{ t *Tunnel }

// lookup returns what the device has for a key, or nil.
func (a attached) lookup(key wgtypes.Key) *device.Peer {
	if dev := a.t.running.Load(); dev != nil {
		return dev.LookupPeer(device.NoisePublicKey(key))
	}
	return nil
}

// peer looks up what the device has for a member, or returns nil. Before its key becomes another node's the member's endpoint is removed,
// and for that node the device makes the peer anew: so what was found before the endpoint was removed never is the other's.
func (a attached) peer(m *member) *device.Peer {
	peer := a.lookup(m.key)
	if m.endpoint.Removed() {
		return nil
	}
	return peer
}

// Initiate implements wireGuard. The handshake goes by the member's own endpoint, wherever the device has roamed to: that way was chosen,
// and where the device has heard the member last may be a stream that has ended.
func (a attached) Initiate(m *member, fresh bool) bool {
	a.SetEndpoint(m)
	return m.endpoint.Carried().Anew(a.LastHandshake(m), func() { initiate(a.peer(m), fresh) })
}

func initiate(peer *device.Peer, fresh bool) {
	if peer == nil {
		return
	}
	if fresh {
		peer.ExpireCurrentKeypairs()
	}
	// Its error (no endpoint, network unreachable) is logged by the device, whose timers try again.
	_ = peer.SendHandshakeInitiation(false)
}

// Confirm implements wireGuard.
func (a attached) Confirm(m *member) {
	if peer := a.peer(m); peer != nil {
		peer.SendKeepalive()
	}
}

// SetEndpoint implements wireGuard. The device does the same with the endpoint of a packet that it has authenticated.
func (a attached) SetEndpoint(m *member) {
	if peer := a.peer(m); peer != nil {
		peer.SetEndpointFromPacket(m.endpoint)
	}
}

// LastHandshake implements wireGuard. It waits for the whole device to be read only where lastHandshake cannot.
func (a attached) LastHandshake(m *member) time.Time {
	peer := a.peer(m)
	if peer == nil {
		return time.Time{}
	}
	if nano, ok := lastHandshake(peer); ok {
		return a.t.shakes.at(m.key, nano, time.Now())
	}
	stats, err := a.t.Snapshot()
	if s := stats[m.key]; err == nil && s.ID == m.id {
		return s.LastHandshake
	}
	return time.Time{}
}

// lastHandshake reads when the last handshake with a peer was done, in nanoseconds since 1970 by the clock as it was then, 0 if none was;
// ok is false when the device has it there no more.
func lastHandshake(peer *device.Peer) (nano int64, ok bool) {
	last := inside[atomic.Int64](peer, "lastHandshakeNano")
	if last == nil {
		return 0, false
	}
	return last.Load(), true
}

// Authentic returns how many bytes of a member the device has authenticated so far, in UDP payload; false when there is no such
// peer.
func (a attached) Authentic(m *member) (n uint64, ok bool) {
	peer := a.peer(m)
	if peer == nil {
		return 0, false
	}
	return authentic(peer)
}

func authentic(peer *device.Peer) (n uint64, ok bool) {
	if bytes := inside[atomic.Uint64](peer, "rxBytes"); bytes != nil {
		return bytes.Load(), true
	}
	return 0, false
}

// inside returns a field of the device's peer, nil when it has none of that name and type. The device has no accessor, and its
// configuration protocol only writes out all peers, which is too much for a question that each look at a way asks. So the field
// is read where it lies.
func inside[T any](peer *device.Peer, name string) *T {
	field := reflect.ValueOf(peer).Elem().FieldByName(name)
	if !field.IsValid() || field.Type() != reflect.TypeFor[T]() {
		return nil
	}
	return (*T)(field.Addr().UnsafePointer())
}

// Endpoints implements wireGuard. It asks the device itself: what the control socket tells has no virtual addresses (plain.go), and the
// device may send to one.
func (a attached) Endpoints() (map[wgtypes.Key]netip.AddrPort, error) {
	dev := a.t.running.Load()
	if dev == nil {
		return nil, ErrNotRunning
	}
	said, err := dev.IpcGet()
	if err != nil {
		return nil, fmt.Errorf("read endpoints of the device: %w", err)
	}
	return endpointsIn(said), nil
}

// SetPath implements wireGuard.
func (a attached) SetPath(m *member, p path) {
	// Its error is that of a tunnel that is ending.
	_ = a.t.do(func(o *open) error {
		o.sizes.setPath(m, p)
		return nil
	})
}
