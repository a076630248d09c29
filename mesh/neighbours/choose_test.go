package neighbours

import (
	"hash/maphash"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/nat/beacon"
)

func id(n byte) identity.NodeID { return identity.NodeID{n} }

func testMember(n byte, endpoints ...string) roster.Member {
	m := roster.Member{ID: id(n)}
	for _, text := range endpoints {
		m.Record.Endpoints = append(m.Record.Endpoints, netip.MustParseAddrPort(text))
	}
	return m
}

func TestNeedOfNeighbours(t *testing.T) {
	anchor, plain, self := testMember(2, "203.0.113.1:9277"), testMember(3), testMember(1)
	selfAnchor := testMember(1, "203.0.113.9:9277")
	gone := testMember(4, "203.0.113.4:9277")
	gone.State = roster.Left
	for _, tt := range []struct {
		name     string
		members  []roster.Member
		up       []byte
		contacts bool
		want     beacon.Need
	}{
		{"a founder without members", []roster.Member{self}, nil, false, beacon.Quiet},
		{"all others have left", []roster.Member{self, gone}, nil, false, beacon.Quiet},
		{"the records are lost", []roster.Member{self}, nil, true, beacon.Alone},
		{"nobody answers", []roster.Member{self, anchor, plain}, nil, false, beacon.Alone},
		{"an anchor answers", []roster.Member{self, anchor, plain}, []byte{2}, false, beacon.Quiet},
		{"only others answer", []roster.Member{self, anchor, plain}, []byte{3}, false, beacon.Apart},
		{"an anchor answers that has left", []roster.Member{self, gone, plain}, []byte{4}, false, beacon.Apart},
		{"an anchor that is spoken to", []roster.Member{selfAnchor, plain}, []byte{3}, false, beacon.Quiet},
		{"an anchor that nobody speaks to", []roster.Member{selfAnchor, plain}, nil, false, beacon.Alone},
	} {
		d := Desired{Members: tt.members, Contacts: tt.contacts, Sessions: make(map[identity.NodeID]netip.AddrPort)}
		for _, n := range tt.up {
			d.Sessions[id(n)] = netip.AddrPort{}
		}
		if got := need(id(1), &d); got != tt.want {
			t.Errorf("%s: got need %d, want %d", tt.name, got, tt.want)
		}
	}
}

// However many are heard, dialling those next in the ring connects all.
func TestNeighboursNextInTheRingConnectAll(t *testing.T) {
	const count = 100
	everybody, known := make(map[identity.NodeID]neighbour), make(map[identity.NodeID]bool)
	for n := range byte(count) {
		known[id(n)] = true
		everybody[id(n)] = neighbour{told: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), 9277)}}
	}
	dials := make(map[identity.NodeID][]identity.NodeID)
	for n := range byte(count) {
		heard := make(map[identity.NodeID]neighbour)
		for other, neighbour := range everybody {
			if other != id(n) {
				heard[other] = neighbour
			}
		}
		chosen := contacts(heard, known, id(n), maphash.MakeSeed())
		for _, c := range chosen {
			dials[id(n)] = append(dials[id(n)], c.ID)
			dials[c.ID] = append(dials[c.ID], id(n))
		}
		if got := len(chosen); got != maxDialled {
			t.Errorf("node %d dials %d, want %d", n, got, maxDialled)
		}
	}
	reached := map[identity.NodeID]bool{id(0): true}
	for todo := []identity.NodeID{id(0)}; len(todo) > 0; todo = todo[1:] {
		for _, next := range dials[todo[0]] {
			if !reached[next] {
				reached[next] = true
				todo = append(todo, next)
			}
		}
	}
	if len(reached) != count {
		t.Errorf("%d of %d are connected", len(reached), count)
	}
}

func TestKeysOfBeacons(t *testing.T) {
	now := time.Now()
	secret := func(m roster.Member, n byte, state roster.State) roster.Member {
		m.Record.LANSecret, m.State, m.Admin = [16]byte{n}, state, n != 0
		return m
	}
	impostor := testMember(9)
	impostor.Record.LANSecret = [16]byte{9} // no admin
	late := now.Add(-time.Second)
	d := Desired{
		Members: []roster.Member{
			secret(testMember(1), 1, roster.Left), secret(testMember(2), 0, roster.Active), impostor,
			secret(testMember(3), 3, roster.Active), secret(testMember(4), 4, roster.Active),
		},
		Invites: []Invite{
			{ID: identity.KeyID{1}, Uses: 1, Expires: now.Add(time.Hour)}, {ID: identity.KeyID{2}, Uses: 1, Used: 1, Expires: now.Add(time.Hour)},
			{ID: identity.KeyID{3}, Uses: 1, Expires: now.Add(time.Hour), Revoked: true}, {ID: identity.KeyID{4}, Uses: 1, Expires: late},
			{ID: identity.KeyID{5}, Uses: 2, Used: 1, Expires: now.Add(time.Hour)},
		},
	}
	mine := identity.MeshID{1}
	k := keys{mesh: mine}
	wantMembers := []beacon.Key{beacon.MemberKey(mine, [16]byte{3}), beacon.MemberKey(mine, [16]byte{4}), beacon.MemberKey(mine, [16]byte{1})}
	wantInvites := []beacon.Key{beacon.InviteKey(mine, identity.KeyID{5}), beacon.InviteKey(mine, identity.KeyID{1})}
	for range 2 { // made, and remembered
		members, invites := k.of(&d, now)
		if !reflect.DeepEqual(members, wantMembers) {
			t.Errorf("got %d keys, want those of the active admins 3 and 4, then of 1, which has left", len(members))
		}
		if !reflect.DeepEqual(invites, wantInvites) {
			t.Errorf("got %d keys of invites, want those of 5 and 1: neither used up, nor revoked, nor expired", len(invites))
		}
	}
	members, invites := k.of(&d, now.Add(2*time.Hour))
	if len(members) != 3 || len(invites) != 0 {
		t.Errorf("got %d keys and %d of invites, want the invites expired", len(members), len(invites))
	}
	many := Desired{}
	for n := range byte(50) {
		many.Members = append(many.Members, secret(testMember(n), n+1, roster.Active))
		many.Invites = append(many.Invites, Invite{ID: identity.KeyID{n}, Uses: 1, Expires: now})
	}
	if members, invites := k.of(&many, now); len(members) != beacon.MaxSecrets || len(invites) != beacon.MaxInvites {
		t.Errorf("got %d and %d keys, want them bounded to %d and %d", len(members), len(invites), beacon.MaxSecrets, beacon.MaxInvites)
	}
	if slices.Equal(k.open, []identity.KeyID{{5}, {1}}) {
		t.Error("got the keys of before remembered")
	}
}
