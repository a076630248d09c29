package node

import (
	"net/netip"
	"slices"
	"testing"

	"warren/mesh/identity"
	"warren/mesh/place"
	"warren/mesh/roster"
)

func TestStreamsLeadToPublicAnchors(t *testing.T) {
	public, private := "203.0.113.9:9277", "192.168.1.9:9277"
	left := testMember(5, public)
	left.State = roster.Left
	met := netip.MustParseAddrPort("203.0.113.7:9277")
	for _, tt := range []struct {
		name     string
		members  []roster.Member
		sessions []byte
		contacts []place.Contact
		want     []identity.NodeID
		private  bool
	}{
		{"public ones", []roster.Member{testMember(2, private), testMember(3, private, public)}, nil, nil, []identity.NodeID{id(3)}, false},
		{"the nearest first", []roster.Member{testMember(2, public), testMember(3, public)}, []byte{3}, nil, []identity.NodeID{id(3), id(2)}, false},
		{"contacts while no anchor answers", []roster.Member{testMember(2, public), left}, nil, []place.Contact{{ID: id(7), Addr: met}, {ID: id(5), Addr: met}, {ID: id(2), Addr: met}, {ID: id(1), Addr: met}}, []identity.NodeID{id(2), id(7)}, false},
		{"no contacts when one answers", []roster.Member{testMember(2, public)}, []byte{2}, []place.Contact{{ID: id(7), Addr: met}}, []identity.NodeID{id(2)}, false},
		{"a mesh of private networks", []roster.Member{testMember(2, private)}, nil, []place.Contact{{ID: id(7), Addr: netip.MustParseAddrPort(private)}}, []identity.NodeID{id(2), id(7)}, true},
		{"nobody", nil, nil, nil, nil, true},
	} {
		f := testFacts(append(tt.members, testMember(1, public))...)
		f.contacts = tt.contacts
		for _, n := range tt.sessions {
			f.sessions[id(n)] = sessionFacts{}
		}
		if got, private := streamAnchors(f); !slices.Equal(got, tt.want) || private != tt.private {
			t.Errorf("%s: got %v (private %t), want %v (private %t)", tt.name, got, private, tt.want, tt.private)
		}
	}
}

func TestSessionsGoByStreamsFirst(t *testing.T) {
	f := testFacts(testMember(1), testMember(2, "203.0.113.9:9277"))
	stream := netip.MustParseAddrPort("[100::300:0:0:1]:9")
	f.streams = map[identity.NodeID]netip.AddrPort{id(2): stream}
	got := plan(f).targets
	if len(got) != 1 || len(got[0].Addrs) != 2 || got[0].Addrs[0] != stream {
		t.Errorf("got targets %v, want one with the stream before its address", got)
	}
}
