package neighbours

import (
	"cmp"
	"hash/maphash"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/nat/beacon"
)

// maxDialled bounds the neighbours that are dialled, those that stand next to this node in the ring of IDs: a LAN of
// a hundred members that start together is connected, and nobody keeps a hundred sessions for that.
const maxDialled = 16

// maxUnknown bounds those among them that are no members here: whoever knows the LAN secret can make up as many as it likes. A node that knows
// no other member, its records being lost, dials as many as of members.
const maxUnknown = 4

// contacts returns where to dial neighbours: members whose IDs are next to self in the ring, which connects all of them however many there
// are, and a few others by chance, which is another one with each seed.
func contacts(heard map[identity.NodeID]neighbour, known map[identity.NodeID]bool, self identity.NodeID, seed maphash.Seed) (out []Contact) {
	var ring, others []identity.NodeID
	for id := range heard {
		if known[id] {
			ring = append(ring, id)
		} else {
			others = append(others, id)
		}
	}
	slices.SortFunc(ring, identity.NodeID.Compare)
	if at, _ := slices.BinarySearchFunc(ring, self, identity.NodeID.Compare); len(ring) > maxDialled {
		from := at - maxDialled/2 + len(ring)
		near := make([]identity.NodeID, maxDialled)
		for i := range near {
			near[i] = ring[(from+i)%len(ring)]
		}
		ring = near
	}
	most := maxUnknown
	if len(known) == 0 {
		most = maxDialled
	}
	slices.SortFunc(others, func(a, b identity.NodeID) int {
		return cmp.Compare(maphash.Comparable(seed, a), maphash.Comparable(seed, b))
	})
	others = others[:min(len(others), most)]
	slices.SortFunc(others, identity.NodeID.Compare)
	for _, id := range append(ring, others...) {
		for _, addr := range heard[id].addrs() {
			out = append(out, Contact{ID: id, Addr: addr})
		}
	}
	return out
}

// need says how much this node wants to hear of neighbours.
func need(self identity.NodeID, d *Desired) beacon.Need {
	others, anchorUp, selfIsAnchor := false, false, false
	for _, m := range d.Members {
		anchor := len(m.Record.Endpoints) > 0
		switch {
		case m.ID == self:
			selfIsAnchor = anchor
		case m.State == roster.Active:
			others = true
			_, up := d.Sessions[m.ID]
			anchorUp = anchorUp || anchor && up
		}
	}
	switch {
	case !others && !d.Contacts: // nobody is missing; who comes, asks
		return beacon.Quiet
	case len(d.Sessions) == 0:
		return beacon.Alone
	case anchorUp || selfIsAnchor:
		return beacon.Quiet
	}
	return beacon.Apart
}

// secrets returns the LAN secrets that are known, in the order in which the admins were admitted, those that have left last:
// members that know the same records speak under the same one.
func secrets(members []roster.Member) (out [][16]byte) {
	for _, active := range []bool{true, false} {
		for _, m := range members {
			if s := m.Record.LANSecret; m.Admin && s != [16]byte{} && (m.State == roster.Active) == active && !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out[:min(len(out), beacon.MaxSecrets)]
}

// open returns the invites that a joiner may come with, the newest first.
func open(invites []Invite, now time.Time) (out []identity.KeyID) {
	for _, invite := range slices.Backward(invites) {
		if invite.Revoked || invite.Used >= invite.Uses || now.After(invite.Expires) || len(out) == beacon.MaxInvites {
			continue
		}
		out = append(out, invite.ID)
	}
	return out
}

// keys makes the keys of beacons, and remembers the last ones: to derive them all costs more than all else that Set leads to.
type keys struct {
	mesh identity.MeshID // constant

	secrets [][16]byte
	members []beacon.Key
	open    []identity.KeyID
	invites []beacon.Key
}

// of returns the keys of the members' beacons and of the open invites.
func (k *keys) of(d *Desired, now time.Time) (members, invites []beacon.Key) {
	if s := secrets(d.Members); !slices.Equal(s, k.secrets) {
		k.secrets, k.members = s, nil
		for _, secret := range s {
			k.members = append(k.members, beacon.MemberKey(k.mesh, secret))
		}
	}
	if o := open(d.Invites, now); !slices.Equal(o, k.open) {
		k.open, k.invites = o, nil
		for _, id := range o {
			k.invites = append(k.invites, beacon.InviteKey(k.mesh, id))
		}
	}
	return k.members, k.invites
}
