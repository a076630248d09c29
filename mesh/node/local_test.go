package node

import (
	"net/netip"
	"slices"
	"testing"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/mesh/place"
	"warren/nat"
	"warren/nat/standing"
	"warren/nat/streams"
)

func TestStreamsLeadToPublicAnchors(t *testing.T) {
	public, private := "203.0.113.9:9277", "192.168.1.9:9277"
	left := testMember(5, public)
	left.State = mesh.Left
	met := netip.MustParseAddrPort("203.0.113.7:9277")
	for _, tt := range []struct {
		name     string
		members  []mesh.Member
		sessions []byte
		contacts []place.Contact
		want     []identity.NodeID
		private  bool
	}{
		{"public ones", []mesh.Member{testMember(2, private), testMember(3, private, public)}, nil, nil, []identity.NodeID{id(3)}, false},
		{"the nearest first", []mesh.Member{testMember(2, public), testMember(3, public)}, []byte{3}, nil, []identity.NodeID{id(3), id(2)}, false},
		{"contacts while no anchor answers", []mesh.Member{testMember(2, public), left}, nil, []place.Contact{{ID: id(7), Addr: met}, {ID: id(5), Addr: met}, {ID: id(2), Addr: met}, {ID: id(1), Addr: met}}, []identity.NodeID{id(2), id(7)}, false},
		{"no contacts when one answers", []mesh.Member{testMember(2, public)}, []byte{2}, []place.Contact{{ID: id(7), Addr: met}}, []identity.NodeID{id(2)}, false},
		{"a mesh of private networks", []mesh.Member{testMember(2, private)}, nil, []place.Contact{{ID: id(7), Addr: netip.MustParseAddrPort(private)}}, []identity.NodeID{id(2), id(7)}, true},
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
	f.streams.Targets = map[identity.NodeID]netip.AddrPort{id(2): stream}
	got := plan(f).targets
	if len(got) != 1 || len(got[0].Addrs) != 2 || got[0].Addrs[0] != stream {
		t.Errorf("got targets %v, want one with the stream before its address", got)
	}
}

func TestWayOfAPeer(t *testing.T) {
	virtual, other := netip.MustParseAddrPort("[100::300:0:0:1]:9"), netip.MustParseAddrPort("203.0.113.8:9277")
	far, near, relay := netip.MustParseAddrPort("203.0.113.7:9277"), netip.MustParseAddrPort("192.168.1.7:9277"), netip.MustParseAddrPort("[100::200:0:0:7]:9")
	direct := func(addr netip.AddrPort) nat.Event { return nat.Event{Path: nat.Path{Kind: nat.Direct, Addr: addr}} }
	relayed := nat.Event{Path: nat.Path{Kind: nat.Relayed, Addr: relay}}
	dialled, accepted := streams.End{Virtual: virtual}, streams.End{Virtual: virtual, Accepted: true}
	for _, tt := range []struct {
		name    string
		path    nat.Event
		end     streams.End
		state   streams.State
		session netip.AddrPort
		want    netip.AddrPort
	}{
		{"a path alone", direct(far), streams.End{}, streams.Open, far, far},
		{"nothing", nat.Event{}, streams.End{}, streams.Open, far, netip.AddrPort{}},
		{"a stream where there is no path", nat.Event{}, dialled, streams.Open, far, virtual},
		{"a stream to leave soon", direct(far), dialled, streams.Open, virtual, far},
		{"UDP blocked", direct(far), dialled, streams.Blocked, virtual, virtual},
		{"UDP back, on trial", direct(far), dialled, streams.Returning, virtual, virtual},
		{"the same LAN needs no Internet", direct(near), dialled, streams.Blocked, virtual, near},
		{"relayed, UDP blocked", relayed, dialled, streams.Blocked, virtual, virtual},
		{"the member came by a stream, and speaks by it", direct(far), accepted, streams.Open, virtual, virtual},
		{"it came, and speaks by UDP", direct(far), accepted, streams.Open, other, far},
		{"it came, and has no session yet", direct(far), accepted, streams.Open, netip.AddrPort{}, virtual},
		{"it left the stream, UDP is blocked here", direct(far), accepted, streams.Blocked, other, far},
	} {
		u := underlay{sessions: make(map[identity.NodeID]sessionFacts)}
		u.streams.State = tt.state
		if tt.end.Virtual.IsValid() {
			u.streams.Ends = map[identity.NodeID]streams.End{id(2): tt.end}
		}
		if tt.session.IsValid() {
			u.sessions[id(2)] = sessionFacts{remote: tt.session}
		}
		got := planWay(id(2), tt.path, u)
		if got.addr != tt.want || slices.Contains(got.sources, virtual) != tt.end.Virtual.IsValid() {
			t.Errorf("%s: got %v from %v, want %v", tt.name, got.addr, got.sources, tt.want)
		}
	}
}

func TestStreamsAreAcceptedByAnchorsAlone(t *testing.T) {
	f := testFacts()
	f.port, f.settings.StreamPorts = 9277, []uint16{443, 9277}
	if got := listenPorts(testMember(1), f); got != nil {
		t.Errorf("got ports %v, want none: nobody reaches this node", got)
	}
	anchor := testMember(1, "203.0.113.1:9277")
	if got, want := listenPorts(anchor, f), []uint16{9277, 443}; !slices.Equal(got, want) {
		t.Errorf("got ports %v, want %v", got, want)
	}
	f.port = 0
	if got := listenPorts(anchor, f); got != nil {
		t.Errorf("got ports %v with the socket closed, want none", got)
	}
}

func TestOwnAnchorsDoNotFlicker(t *testing.T) {
	f := testFacts()
	f.preferred = []identity.NodeID{id(2), id(3), id(4), id(5)}
	for _, tt := range []struct{ before, want []identity.NodeID }{
		{nil, []identity.NodeID{id(2), id(3), id(4)}},
		{[]identity.NodeID{id(5), id(9)}, []identity.NodeID{id(5), id(2), id(3)}},
		{[]identity.NodeID{id(4), id(3), id(2)}, []identity.NodeID{id(4), id(3), id(2)}},
	} {
		if got := ownAnchors(tt.before, f); !slices.Equal(got, tt.want) {
			t.Errorf("before %v: got %v, want %v", ids(tt.before), ids(got), ids(tt.want))
		}
	}
	f.preferred = nil
	if got := ownAnchors([]identity.NodeID{id(5)}, f); !slices.Equal(got, []identity.NodeID{id(5)}) {
		t.Errorf("without a session: got %v, want what was said before", ids(got))
	}
}

// While sessions come up nothing is named that is not needed: an anchor is reached by those that stand next to it.
func TestOwnAnchorsSettle(t *testing.T) {
	for _, tt := range []struct {
		name         string
		anchor       bool
		before, want []identity.NodeID
	}{
		{"one of them is up", false, []identity.NodeID{id(9), id(3)}, []identity.NodeID{id(9), id(3)}},
		{"none is up", false, []identity.NodeID{id(9)}, []identity.NodeID{id(2), id(3)}},
		{"an anchor, none is up", true, []identity.NodeID{id(9)}, []identity.NodeID{id(9)}},
		{"an anchor that has named none", true, nil, nil},
	} {
		self := testMember(1)
		if tt.anchor {
			self = testMember(1, "203.0.113.1:9277")
		}
		f := testFacts(self, testMember(2, "203.0.113.2:9277"), testMember(3, "203.0.113.3:9277"))
		f.self, f.preferred = id(1), []identity.NodeID{id(2), id(3)}
		f.sessions = map[identity.NodeID]sessionFacts{id(2): {since: f.now}, id(3): {since: f.now}}
		if got := ownAnchors(tt.before, f); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, ids(got), ids(tt.want))
		}
		f.now = f.now.Add(anchorsSettle)
		if got := ownAnchors(tt.before, f); len(got) != 2 || slices.Contains(got, id(9)) {
			t.Errorf("%s: got %v later, want the two with a session", tt.name, ids(got))
		}
	}
}

// Before it is known where this node stands, its record goes on saying what it said.
func TestOwnEndpointsBeforeAnythingIsKnown(t *testing.T) {
	self := testMember(1, "203.0.113.1:9277")
	self.Record.Streams = []netip.AddrPort{netip.MustParseAddrPort("203.0.113.1:443")}
	f := testFacts(self)
	for _, settled := range []bool{false, true} {
		f.standing = &standing.Snapshot{Settled: settled}
		own := planOwn(self, f)
		if kept := slices.Equal(own.Endpoints, self.Record.Endpoints) && slices.Equal(own.Streams, self.Record.Streams); kept == settled {
			t.Errorf("settled %v: got %v and %v, want %v and %v only before", settled, own.Endpoints, own.Streams, self.Record.Endpoints, self.Record.Streams)
		}
	}
}

// A session that comes up leads to its far side, and to those without a path which that one keeps sessions with, unless another session led there.
func TestLed(t *testing.T) {
	behind := func(n byte, anchors ...identity.NodeID) mesh.Member {
		m := testMember(n)
		m.Record.Anchors = anchors
		return m
	}
	f := testFacts(testMember(1), behind(5, id(2)), behind(6, id(2), id(3)), behind(7, id(3)), behind(8, id(2)), testMember(2), testMember(3))
	f.sessions = map[identity.NodeID]sessionFacts{id(2): {}, id(3): {}}
	f.peers = make(map[identity.NodeID]peerFacts)
	for n := byte(2); n <= 8; n++ {
		f.peers[id(n)] = peerFacts{}
	}
	f.peers[id(8)] = peerFacts{path: nat.Event{Path: nat.Path{Kind: nat.Direct}}}
	for _, tt := range []struct{ came, want []identity.NodeID }{
		{nil, nil},
		{[]identity.NodeID{id(2)}, []identity.NodeID{id(2), id(5)}},
		{[]identity.NodeID{id(3)}, []identity.NodeID{id(3), id(7)}},
		{[]identity.NodeID{id(2), id(3)}, []identity.NodeID{id(2), id(3), id(5), id(6), id(7)}},
	} {
		got := f.led(tt.came)
		slices.SortFunc(got, identity.NodeID.Compare)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%v came up: got %v, want %v", ids(tt.came), ids(got), ids(tt.want))
		}
	}
}

// TestOneVoice has members that let others in: what those say counts as theirs, but for admins and this node.
func TestOneVoice(t *testing.T) {
	by := func(n, admitter byte, admin bool) mesh.Member {
		m := testMember(n)
		m.AdmittedBy, m.Admin = id(admitter), admin
		return m
	}
	founder := testMember(2)
	founder.Admin = true
	f := testFacts(by(1, 2, false), founder, by(3, 2, true), by(4, 2, false), by(5, 4, false), by(6, 5, false), by(7, 3, false), by(8, 1, false), by(9, 99, false))
	for n, want := range map[byte]byte{2: 2, 3: 3, 4: 4, 5: 4, 6: 4, 7: 7, 8: 8, 9: 9, 50: 50} {
		if got := f.voice(id(n)); got != id(want) {
			t.Errorf("member %d: got the voice of %v, want that of %v", n, got.Short(), id(want).Short())
		}
	}
}
