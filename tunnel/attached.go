package tunnel

import (
	"net/netip"
	"reflect"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// attached is the device of a tunnel as its ways see it. Unless it says otherwise a method touches one peer, and waits for
// nothing but the locks of the device that its packets take too. Without a device, or for a peer that is not set, nothing happens.
type attached struct{ t *Tunnel }

// peer looks one up, or returns nil.
func (a attached) peer(key wgtypes.Key) *device.Peer {
	if dev := a.t.running.Load(); dev != nil {
		return dev.LookupPeer(device.NoisePublicKey(key))
	}
	return nil
}

// Initiate implements wireGuard.
func (a attached) Initiate(key wgtypes.Key, fresh bool) {
	peer := a.peer(key)
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
func (a attached) Confirm(key wgtypes.Key) {
	if peer := a.peer(key); peer != nil {
		peer.SendKeepalive()
	}
}

// SetEndpoint implements wireGuard. The device does the same with the endpoint of a packet that it has authenticated.
func (a attached) SetEndpoint(key wgtypes.Key, e conn.Endpoint) {
	if peer := a.peer(key); peer != nil {
		peer.SetEndpointFromPacket(e)
	}
}

// LastHandshake implements wireGuard. It waits for the whole device to be read only where lastHandshake cannot.
func (a attached) LastHandshake(key wgtypes.Key) time.Time {
	peer := a.peer(key)
	if peer == nil {
		return time.Time{}
	}
	if at, ok := lastHandshake(peer); ok {
		return at
	}
	stats, err := a.t.Snapshot()
	if err != nil {
		return time.Time{}
	}
	return stats[key].LastHandshake
}

// lastHandshake reads when the last handshake with a peer was done, zero if none was; ok is false when the device has it there
// no more.
func lastHandshake(peer *device.Peer) (at time.Time, ok bool) {
	last := inside[atomic.Int64](peer, "lastHandshakeNano")
	if last == nil {
		return time.Time{}, false
	}
	if nano := last.Load(); nano != 0 {
		at = time.Unix(0, nano)
	}
	return at, true
}

// Authentic returns how many bytes of a peer the device has authenticated so far, in UDP payload; false when there is no such
// peer.
func (a attached) Authentic(key wgtypes.Key) (n uint64, ok bool) {
	peer := a.peer(key)
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

// Endpoints implements wireGuard.
func (a attached) Endpoints() (map[wgtypes.Key]netip.AddrPort, error) {
	stats, err := a.t.Snapshot()
	out := make(map[wgtypes.Key]netip.AddrPort, len(stats))
	for key, s := range stats {
		out[key] = s.Endpoint
	}
	return out, err
}

// SetPath implements wireGuard.
func (a attached) SetPath(key wgtypes.Key, p path) {
	// Its error is that of a tunnel that is ending.
	_ = a.t.do(func(o *open) error {
		o.sizes.setPath(key, p)
		return nil
	})
}
