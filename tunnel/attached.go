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

// lastHandshake reads when the last handshake with a peer was done, zero if none was. The device has no accessor, and its
// configuration protocol only writes out all peers, which is too much for a question that each change of a way asks. So the
// field is read where it lies; ok is false when it is there no more.
func lastHandshake(peer *device.Peer) (at time.Time, ok bool) {
	field := reflect.ValueOf(peer).Elem().FieldByName("lastHandshakeNano")
	if !field.IsValid() || field.Type() != reflect.TypeFor[atomic.Int64]() {
		return time.Time{}, false
	}
	if nano := (*atomic.Int64)(field.Addr().UnsafePointer()).Load(); nano != 0 {
		at = time.Unix(0, nano)
	}
	return at, true
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
