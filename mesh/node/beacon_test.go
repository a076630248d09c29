package node

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/mesh/place"
	"warren/mesh/roster"
	"warren/nat/beacon"
)

func TestNeedOfNeighbours(t *testing.T) {
	anchor, plain, self := testMember(2, "203.0.113.1:9277"), testMember(3), testMember(1)
	selfAnchor := testMember(1, "203.0.113.9:9277")
	gone := testMember(4)
	gone.State = roster.Left
	for _, tt := range []struct {
		name     string
		members  []roster.Member
		up       []byte
		contacts int
		want     beacon.Need
	}{
		{"a founder without members", []roster.Member{self}, nil, 0, beacon.Quiet},
		{"all others have left", []roster.Member{self, gone}, nil, 0, beacon.Quiet},
		{"the records are lost", []roster.Member{self}, nil, 1, beacon.Alone},
		{"nobody answers", []roster.Member{self, anchor, plain}, nil, 0, beacon.Alone},
		{"an anchor answers", []roster.Member{self, anchor, plain}, []byte{2}, 0, beacon.Quiet},
		{"only others answer", []roster.Member{self, anchor, plain}, []byte{3}, 0, beacon.Apart},
		{"an anchor that is spoken to", []roster.Member{selfAnchor, plain}, []byte{3}, 0, beacon.Quiet},
		{"an anchor that nobody speaks to", []roster.Member{selfAnchor, plain}, nil, 0, beacon.Alone},
	} {
		f := testFacts(tt.members...)
		for _, n := range tt.up {
			f.sessions[id(n)] = sessionFacts{}
		}
		f.contacts = make([]place.Contact, tt.contacts)
		if got := lanNeed(f); got != tt.want {
			t.Errorf("%s: got need %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestNeighboursAreDialledWhileNoAnchorAnswers(t *testing.T) {
	left := testMember(3)
	left.State = roster.Left
	f := testFacts(testMember(1), testMember(2), left, testMember(5, "203.0.113.1:9277"))
	for n := byte(1); n <= 4; n++ {
		f.neighbours = append(f.neighbours, place.Contact{ID: id(n), Addr: netip.AddrPortFrom(netip.MustParseAddr("192.168.1.2"), uint16(n))})
	}
	if got := targetIDs(plan(f).targets); !slices.Equal(got, []byte{2, 4, 5}) {
		t.Errorf("got %v, want 2, the unknown 4 and the anchor: not self, and not 3, which has left", got)
	}
	f.sessions[id(5)] = sessionFacts{}
	if got := targetIDs(plan(f).targets); !slices.Equal(got, []byte{5}) {
		t.Errorf("got %v while an anchor answers, want it alone", got)
	}
}

// However many are heard, dialling those next in the ring connects all.
func TestNeighboursNextInTheRingConnectAll(t *testing.T) {
	const count = 100
	heard := make(map[identity.NodeID]lanNeighbour)
	for n := range byte(count) {
		heard[id(n)] = lanNeighbour{addrs: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), 9277)}}
	}
	dials := make(map[identity.NodeID][]identity.NodeID)
	for n := range byte(count) {
		l := &lan{heard: make(map[identity.NodeID]lanNeighbour)}
		for other, neighbour := range heard {
			if other != id(n) {
				l.heard[other] = neighbour
			}
		}
		for _, c := range l.contacts(id(n)) {
			dials[id(n)] = append(dials[id(n)], c.ID)
			dials[c.ID] = append(dials[c.ID], id(n))
		}
		if got := len(l.contacts(id(n))); got != lanTargets {
			t.Errorf("node %d dials %d, want %d", n, got, lanTargets)
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
	members := []roster.Member{
		secret(testMember(1), 1, roster.Left), secret(testMember(2), 0, roster.Active), impostor,
		secret(testMember(3), 3, roster.Active), secret(testMember(4), 4, roster.Active),
	}
	mine := identity.MeshID{1}
	want := []beacon.Key{beacon.MemberKey(mine, [16]byte{3}), beacon.MemberKey(mine, [16]byte{4}), beacon.MemberKey(mine, [16]byte{1})}
	if keys := memberKeys(mine, members); !reflect.DeepEqual(keys, want) {
		t.Errorf("got %d keys, want those of the active admins 3 and 4, then of 1, which has left", len(keys))
	}
	terms := identity.InviteTerms{Uses: 1, Expires: now.Add(time.Hour)}
	late := terms
	late.Expires = now.Add(-time.Second)
	invites := []mesh.Invite{
		{ID: identity.KeyID{1}, Terms: terms}, {ID: identity.KeyID{2}, Terms: terms, Used: []identity.NodeID{id(1)}},
		{ID: identity.KeyID{3}, Terms: terms, Revoked: true}, {ID: identity.KeyID{4}, Terms: late}, {ID: identity.KeyID{5}, Terms: terms},
	}
	want = []beacon.Key{beacon.InviteKey(mine, identity.KeyID{5}), beacon.InviteKey(mine, identity.KeyID{1})}
	if open := inviteKeys(mine, invites, now); !reflect.DeepEqual(open, want) {
		t.Errorf("got %d keys of invites, want those of 5 and 1: neither used, nor revoked, nor expired", len(open))
	}
}
