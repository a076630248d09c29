package tunnel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/identity"
)

// compareEvery is how often what the device has is compared with what it should have, so that what others have changed is
// undone. SetPeers itself goes by what was last set: a thousand peers take tens of milliseconds to read.
const compareEvery = time.Minute

// peerSet is what the device was last told about its peers. It belongs to the run loop.
type peerSet struct {
	want    []Peer                        // cleaned, with the handles and preshared keys of members; nil: none was ever set
	members map[identity.NodeID]int       // where in want
	have    map[wgtypes.Key]wgtypes.Peer  // what the device has for all that is known
	unsure  bool                          // a change failed, so have may be wrong
	held    map[wgtypes.Key]holder        // as last set
	agreed  map[identity.NodeID]agreedKey // the members' preshared keys
}

// holder is whose a key of the device is.
type holder struct {
	id       identity.NodeID // zero: a static peer
	endpoint netip.AddrPort  // as given to the device; zero: none
}

// agreedKey is a preshared key that was agreed with a member while it had this key of its own.
type agreedKey struct{ key, psk wgtypes.Key }

// SetPeers makes the device have just these peers. It touches only the difference to what was last set: a peer that stays is
// never removed, and keeps its session. Once a minute the device is read and compared as well, which undoes what somebody
// else has changed.
//
// All that the device has by a key belongs to one node, or to one static peer. When two want the same key or the same prefix, a
// static peer has it, otherwise the one further up in the list, and the error wraps ErrConflict. A key that goes over from
// one to another is a new peer to the device: no preshared key, endpoint or session of the first is left.
func (t *Tunnel) SetPeers(peers []Peer) error {
	return t.do(func(o *open) error {
		want, conflicts := clean(peers, o.publicKey)
		want, members, without := t.ways.prepare(want)
		o.memory.limit(len(want))
		o.sizes.setPeers(want)
		t.opts.Filter.SetPeers(filterPeers(want))
		o.setWanted(want)
		changes, err := o.converge(false)
		t.ways.publish(members)
		if changes > 0 {
			t.log.Debug("peers changed", "count", changes)
		}
		return errors.Join(err, conflicts, without)
	})
}

// SetPresharedKey sets the preshared key that was agreed with a member, and touches that peer only. The key is kept until the
// member has another one, is set no more, or comes with another WireGuard key. The error wraps ErrNoPeer when the member is
// not set.
func (t *Tunnel) SetPresharedKey(id identity.NodeID, psk [32]byte) error {
	return t.do(func(o *open) error { return o.setPresharedKey(id, psk) })
}

// Anew has the device forget the session and the handshakes of a member whose process is another one now, if it is set. What is set for it
// stays. A handshake is refused when its time is not after that of the last one (WireGuard, section 5.1); the clock of the new process may
// be an earlier one. Handshakes of the old process could be repeated once by who has recorded them, as after a restart of this one: they
// bring about no session.
func (t *Tunnel) Anew(id identity.NodeID) {
	if m := t.ways.member(id); m != nil {
		m.endpoint.Carried().Void()
	}
	// Its error is that of a tunnel that is ending, or of a device that is set anew within a minute.
	_ = t.do(func(o *open) error { return o.anew(id) })
}

// SetPort moves the UDP socket to another port; 0 lets the kernel choose. If the port cannot be opened the old one stays
// open and the error says why.
func (t *Tunnel) SetPort(port uint16) error {
	return t.do(func(o *open) error {
		if port != 0 && port == o.bind.Port() {
			return nil
		}
		p := int(port)
		if err := o.configure(wgtypes.Config{ListenPort: &p}); err != nil {
			return err
		}
		return o.bind.refusal()
	})
}

// Snapshot returns what the device knows about its peers. It reads all of it.
func (t *Tunnel) Snapshot() (map[wgtypes.Key]PeerStats, error) {
	var stats map[wgtypes.Key]PeerStats
	err := t.do(func(o *open) error {
		have, err := o.read()
		if err != nil {
			return err
		}
		verified := o.fit.Verified()
		stats = make(map[wgtypes.Key]PeerStats, len(have.Peers))
		now, keys := time.Now(), make(map[wgtypes.Key]bool, len(have.Peers))
		for _, p := range have.Peers {
			stats[p.PublicKey] = PeerStats{
				ID: o.peers.held[p.PublicKey].id, Endpoint: addrPort(p.Endpoint), LastHandshake: t.shakes.at(p.PublicKey, nanoOf(p.LastHandshakeTime), now),
				RxBytes: uint64(p.ReceiveBytes), TxBytes: uint64(p.TransmitBytes), PathMTU: verified[p.PublicKey],
			}
			keys[p.PublicKey] = true
		}
		t.shakes.keep(keys)
		return nil
	})
	return stats, err
}

// addrPort converts; zero for nil.
func addrPort(a *net.UDPAddr) netip.AddrPort {
	if a == nil {
		return netip.AddrPort{}
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// setWanted notes what peers there should be, the members with the preshared keys that were agreed with them.
func (o *open) setWanted(want []Peer) {
	agreed, members := make(map[identity.NodeID]agreedKey, len(want)), make(map[identity.NodeID]int, len(want))
	for i, p := range want {
		if p.ID.IsZero() {
			continue
		}
		members[p.ID] = i
		want[i].PresharedKey = wgtypes.Key{}
		if a, ok := o.peers.agreed[p.ID]; ok && a.key == p.PublicKey {
			want[i].PresharedKey, agreed[p.ID] = a.psk, a
		}
	}
	o.peers.want, o.peers.agreed, o.peers.members = want, agreed, members
}

// converge makes the device have the peers that are wanted, and returns how many it has changed. It goes by what the device was
// last told, or by the device itself when all of it is to be read or that is not known.
func (o *open) converge(all bool) (changes int, err error) {
	p := &o.peers
	if all || p.unsure {
		have, err := o.read()
		if err != nil {
			return 0, err
		}
		p.have, p.unsure = make(map[wgtypes.Key]wgtypes.Peer, len(have.Peers)), false
		for _, h := range have.Peers {
			p.have[h.PublicKey] = h
		}
	}
	todo := plan(p.have, p.want, p.held)
	removed := 0
	for _, peer := range todo {
		if peer.Remove {
			removed++
		}
	}
	defer o.memory.removed(removed)
	if len(todo) > 0 {
		if err := o.configure(wgtypes.Config{Peers: todo}); err != nil {
			p.unsure = true
			return 0, err
		}
	}
	if all || len(todo) > 0 {
		p.have = make(map[wgtypes.Key]wgtypes.Peer, len(p.want))
		for _, w := range p.want {
			p.have[w.PublicKey] = as(w)
		}
	}
	clear(p.held)
	for _, w := range p.want {
		p.held[w.PublicKey] = holder{w.ID, w.Endpoint}
	}
	return len(todo), nil
}

// anew removes a member and adds it again.
func (o *open) anew(id identity.NodeID) error {
	p := &o.peers
	i, set := p.members[id]
	if !set {
		return nil
	}
	w := p.want[i]
	err := o.configure(wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: w.PublicKey, Remove: true}, added(w)}})
	if err != nil {
		p.unsure = true
	}
	return err
}

// setPresharedKey changes one member's preshared key and nothing else.
func (o *open) setPresharedKey(id identity.NodeID, psk wgtypes.Key) error {
	p := &o.peers
	i, set := p.members[id]
	if !set {
		return fmt.Errorf("set preshared key of %s: %w", id.Short(), ErrNoPeer)
	}
	key := p.want[i].PublicKey
	if p.want[i].PresharedKey == psk {
		return nil
	}
	if err := o.configure(wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: key, UpdateOnly: true, PresharedKey: &psk}}}); err != nil {
		p.unsure = true
		return err
	}
	p.want[i].PresharedKey = psk
	p.agreed[id] = agreedKey{key, psk}
	if h, ok := p.have[key]; ok {
		h.PresharedKey = psk
		p.have[key] = h
	}
	return nil
}
