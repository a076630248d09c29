package node

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/mesh/place"
	"warren/mesh/roster"
	"warren/nat/beacon"
	"warren/nat/netwatch"
)

const (
	// lanHold is how long a neighbour on the LAN is dialled after its last beacon; one with a session stays.
	lanHold = 5 * time.Minute
	// lanTargets bounds the neighbours that are dialled, those that stand next to this node in the ring of IDs: a LAN of
	// a hundred members that start together is connected, and nobody keeps a hundred sessions for that.
	lanTargets = 2 * smallMesh
	// maxLAN bounds the neighbours that are remembered.
	maxLAN = 256
)

// lan is what a member says and hears on its local networks.
type lan struct {
	// constant
	beacon  *beacon.Beacon
	mesh    identity.MeshID
	foreign func(ifname string) bool // interfaces that are no underlay
	warn    func(text string)        // "" takes it back

	// Owned by the loop.
	links []beacon.Link
	stale time.Time // when links are read again
	clock uint64    // beacons dropped over the clock until then
	heard map[identity.NodeID]lanNeighbour
}

// lanNeighbour is a member that was heard.
type lanNeighbour struct {
	addrs []netip.AddrPort
	until time.Time
}

func newLAN(n *node, m *member) (*lan, error) {
	b, err := beacon.New(beacon.Options{Self: m.self, Port: m.socket.Port, Logger: n.options.Logger})
	if err != nil {
		return nil, err
	}
	return &lan{
		beacon: b, mesh: m.meshID, foreign: n.foreign, warn: func(text string) { n.status.warn("LAN", text) },
		heard: make(map[identity.NodeID]lanNeighbour),
	}, nil
}

// networkChanged has the interfaces read again.
func (l *lan) networkChanged() { l.stale = time.Time{} }

// update tells the beacon what is known and wanted now.
func (l *lan) update(now time.Time, f facts, invites []mesh.Invite) {
	for id, n := range l.heard {
		if _, up := f.sessions[id]; !up && now.After(n.until) {
			delete(l.heard, id)
		}
	}
	if f.settings.NoLAN {
		l.beacon.Set(beacon.State{})
		return
	}
	if !now.Before(l.stale) {
		l.links, l.stale = lanLinks(l.foreign), now.Add(tickEvery)
		l.checkClock()
	}
	l.beacon.Set(beacon.State{
		Links: l.links, Members: memberKeys(l.mesh, f.members), Invites: inviteKeys(l.mesh, invites, now), Need: lanNeed(f),
	})
}

// checkClock warns of a clock that differs from that of a neighbour: the two would be introduced in vain. Without the
// Internet, clocks that have no battery are wrong after each start.
func (l *lan) checkClock() {
	before := l.clock
	l.clock = l.beacon.Dropped()[beacon.ClocksDiffer]
	if l.clock == before {
		l.warn("")
		return
	}
	l.warn(fmt.Sprintf("a member on the local network has a clock that is more than %.0f minutes off this one: set the one that is wrong, or the two do not connect", beacon.Window.Minutes()))
}

// lanLinks are the interfaces to speak on.
func lanLinks(foreign func(string) bool) (out []beacon.Link) {
	for _, link := range netwatch.Links(foreign) {
		out = append(out, beacon.Link{Index: link.Index, Name: link.Name, Prefixes: link.Prefixes})
	}
	return out
}

// memberKeys returns the keys of the LAN secrets that are known, in the order in which the admins were admitted, those
// that have left last: members that know the same records speak under the same one.
func memberKeys(id identity.MeshID, members []roster.Member) (keys []beacon.Key) {
	var secrets [][16]byte
	for _, active := range []bool{true, false} {
		for _, m := range members {
			if s := m.Record.LANSecret; m.Admin && s != [16]byte{} && (m.State == roster.Active) == active && !slices.Contains(secrets, s) {
				secrets = append(secrets, s)
			}
		}
	}
	for _, s := range secrets[:min(len(secrets), beacon.MaxSecrets)] {
		keys = append(keys, beacon.MemberKey(id, s))
	}
	return keys
}

// inviteKeys returns the keys of the invites that a joiner may come with, the newest first.
func inviteKeys(id identity.MeshID, invites []mesh.Invite, now time.Time) (keys []beacon.Key) {
	for _, invite := range slices.Backward(invites) {
		if invite.Revoked || len(invite.Used) >= invite.Terms.Uses || now.After(invite.Terms.Expires) || len(keys) == beacon.MaxInvites {
			continue
		}
		keys = append(keys, beacon.InviteKey(id, invite.ID))
	}
	return keys
}

// lanNeed says how much this node wants to hear of neighbours.
func lanNeed(f facts) beacon.Need {
	others := slices.ContainsFunc(f.members, func(m roster.Member) bool { return m.ID != f.self && m.State == roster.Active })
	_, anchorsUp := planAnchors(f)
	selfIsAnchor := slices.ContainsFunc(f.members, func(m roster.Member) bool { return m.ID == f.self && len(m.Record.Endpoints) > 0 })
	switch {
	case !others && len(f.contacts) == 0: // nobody is missing; who comes, asks
		return beacon.Quiet
	case len(f.sessions) == 0:
		return beacon.Alone
	case anchorsUp > 0 || selfIsAnchor:
		return beacon.Quiet
	}
	return beacon.Apart
}

// heardOnLAN notes a neighbour and reports whether that is news.
func (m *member) heardOnLAN(f beacon.Found) bool {
	l := m.lan
	addrs := slices.DeleteFunc(f.Addrs, func(a netip.AddrPort) bool { return m.inOverlay(a.Addr()) })
	before, known := l.heard[f.ID]
	if f.ID == m.self || len(addrs) == 0 || !known && len(l.heard) >= maxLAN {
		return false
	}
	l.heard[f.ID] = lanNeighbour{addrs: addrs, until: time.Now().Add(lanHold)}
	if known && slices.Equal(before.addrs, addrs) {
		return false
	}
	m.log.Debug("neighbour heard", "peer", m.nameOf(f.ID), "address", addrs[0].String())
	return true
}

// contacts returns where to dial neighbours: those whose IDs are next to self in the ring, which connects all of them
// however many there are.
func (l *lan) contacts(self identity.NodeID) (out []place.Contact) {
	var ring []identity.NodeID
	for id := range l.heard {
		ring = append(ring, id)
	}
	slices.SortFunc(ring, identity.NodeID.Compare)
	if at, _ := slices.BinarySearchFunc(ring, self, identity.NodeID.Compare); len(ring) > lanTargets {
		from := at - lanTargets/2 + len(ring)
		near := make([]identity.NodeID, lanTargets)
		for i := range near {
			near[i] = ring[(from+i)%len(ring)]
		}
		ring = near
	}
	for _, id := range ring {
		for _, addr := range l.heard[id].addrs {
			out = append(out, place.Contact{ID: id, Addr: addr})
		}
	}
	return out
}
