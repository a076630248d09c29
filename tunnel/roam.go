package tunnel

import (
	"context"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/identity"
	"warren/tunnel/bind"
)

// strayFor is how long a member's packets follow it to an address that nobody chose. By then nat has found its own path
// dead and moved, or alive.
const strayFor = 2 * time.Second

// strayPause is waited before the whole device is looked at, which takes some milliseconds for hundreds of peers: what comes up meanwhile
// is looked for together, and needs no look if the peer's handshake was but a moment before the word of its path, as
// happens when many come up at once. The device answers a roaming peer where it is by itself.
const strayPause = 100 * time.Millisecond

// manyStrays bounds how many are looked for at once. What is left over comes up again while it lasts.
const manyStrays = 64

// roamer is a member that WireGuard has heard from an address that is not known.
type roamer struct {
	id   identity.NodeID
	addr netip.AddrPort
}

// findRoamers finds out who it is that the device sends to on its own account, until ctx ends. That takes a look at
// the whole device, so what has come up meanwhile is looked for together.
func (w *ways) findRoamers(ctx context.Context) {
	if w.bind == nil {
		return
	}
	for {
		var first netip.AddrPort
		select {
		case first = <-w.bind.Strays():
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(strayPause):
		case <-ctx.Done():
			return
		}
		for _, r := range w.whoIs(moreStrays(first, w.bind.Strays())) {
			select {
			case w.roamers <- r:
			case <-ctx.Done():
				return
			}
		}
	}
}

// moreStrays takes what else has come up.
func moreStrays(first netip.AddrPort, from <-chan netip.AddrPort) map[netip.AddrPort]bool {
	strays := map[netip.AddrPort]bool{first: true}
	for len(strays) < manyStrays {
		select {
		case addr := <-from:
			strays[addr] = true
		default:
			return strays
		}
	}
	return strays
}

// whoIs finds the members that the device sends to there. A handle says by itself whose it is: the device has mixed that
// member up with another one. An address that has become a member's path needs nothing: the next packet from there puts things right.
func (w *ways) whoIs(strays map[netip.AddrPort]bool) (found []roamer) {
	members := *w.members.Load()
	byKey := make(map[wgtypes.Key]identity.NodeID, len(members))
	for id, m := range members {
		byKey[m.key] = id
		if handle := m.endpoint.Handle(); strays[handle] {
			found = append(found, roamer{id, handle})
			delete(strays, handle)
		}
		delete(strays, m.endpoint.Path())
	}
	if len(strays) == 0 || len(members) == 0 {
		return found
	}
	endpoints, err := w.device.Endpoints()
	if err != nil {
		w.log.Debug("roaming peers not found", "error", err)
		return found
	}
	for key, addr := range endpoints {
		if id, ok := byKey[key]; ok && strays[addr] {
			found = append(found, roamer{id, addr})
		}
	}
	return found
}

// roamed deals with a member that WireGuard has authenticated from an address that was not chosen. The device gets its endpoint
// back at once; the packets to it go there for a moment, while nat looks at its own path. Where a relay or a stream brought the
// packet says nothing of where to send, but that more may come by it: they must not have the device roam again and again.
func (w *ways) roamed(r roamer, now time.Time) {
	p := w.peers[r.id]
	if p == nil {
		return
	}
	w.log.Debug("peer roamed", "id", r.id.Short(), "address", r.addr.String())
	if !bind.IsVirtual(r.addr.Addr()) {
		p.endpoint.SetPath(r.addr)
		p.strayed = now
		w.attend(p)
		w.tell(Roamed, r.id, r.addr)
	} else if r.addr != p.endpoint.Handle() {
		p.endpoint.Remember(r.addr)
	}
	w.device.SetEndpoint(p.member)
}

// recall sends a member's packets by its way again when it has strayed long enough.
func (p *followed) recall(now time.Time) {
	if p.strayed.IsZero() || now.Sub(p.strayed) < strayFor {
		return
	}
	p.strayed = time.Time{}
	if p.way.Addr.IsValid() {
		p.endpoint.SetPath(p.way.Addr)
	}
}
