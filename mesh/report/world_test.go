package report

import (
	"net/netip"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
	"warren/mesh/verdict"
	"warren/nat/path"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

// The nodes of these tests: a is this one, gate an anchor.
var idA, idB, idGate = identity.NodeID{1}, identity.NodeID{2}, identity.NodeID{3}

// The addresses of these tests: stream is the virtual address of a stream.
var (
	atB      = netip.MustParseAddrPort("198.51.100.7:9277")
	atGate   = netip.MustParseAddrPort("203.0.113.5:9277")
	atStream = netip.MustParseAddrPort("203.0.113.5:443")
	stream   = netip.MustParseAddrPort("[100::200:0:0:1]:9")
	channel  = netip.MustParseAddrPort("[100::100:0:0:1]:9")
)

func member(id identity.NodeID, name string, endpoints ...netip.AddrPort) roster.Member {
	return roster.Member{
		ID: id, Name: name, Addr4: netip.AddrFrom4([4]byte{100, 70, 0, id[0]}), Record: record.Node{Version: "1.2.0", Endpoints: endpoints, WireGuardKey: [32]byte{id[0]}},
	}
}

// meshOf is a mesh of three, as a sees it: all is well.
func meshOf(change func(*Mesh)) *Mesh {
	m := &Mesh{
		Self: idA, ID: identity.MeshID{0xab}, Name: "home", Expires: now.Add(1000 * time.Hour),
		Records: Records{Members: []roster.Member{member(idA, "a"), member(idB, "b"), member(idGate, "gate", atGate)}, Count: 5, Missing: 2},
		Traffic: map[identity.NodeID]Traffic{
			idB:    {LastHandshake: ago(time.Minute), RxBytes: 10, TxBytes: 20, PathMTU: 1280, Flow: Flow{Heard: ago(time.Second)}},
			idGate: {LastHandshake: ago(time.Minute)},
		},
		Paths: map[identity.NodeID]path.Status{
			idB:    {Path: path.Path{Kind: path.Direct, Addr: atB}, RTT: 12500 * time.Microsecond, Since: ago(time.Hour)},
			idGate: {Path: path.Path{Kind: path.Direct, Addr: atGate}, RTT: time.Millisecond, Since: ago(time.Hour)},
		},
		Sessions:    map[identity.NodeID]Session{idGate: {Remote: atGate, RTT: 2 * time.Millisecond}},
		Introducers: []identity.NodeID{idGate},
		Streams:     Streams{State: "open"},
	}
	if change != nil {
		change(m)
	}
	return m
}

// relayedTo has b reached through gate.
func relayedTo(m *Mesh) {
	m.Paths[idB] = path.Status{
		Path: path.Path{Kind: path.Relayed, Addr: channel, Via: idGate}, RTT: 30 * time.Millisecond, Since: ago(time.Hour),
		Reason: "relayed: no direct path yet",
	}
}

// overTCP has the session with gate go by a stream.
func overTCP(m *Mesh) {
	m.Sessions[idGate] = Session{Remote: stream, RTT: 5 * time.Millisecond}
	m.Streams.Ends = map[identity.NodeID]netip.AddrPort{idGate: atStream}
	m.Streams.Used = map[identity.NodeID]bool{idGate: true}
	m.Streams.UDP, m.Streams.State, m.Streams.Reason, m.Streams.Blocked = verdict.UDPBlocked, "blocked", "no anchor answers", "no anchor answers"
}

// proved has the peer have answered a check of its path just now, and no packet.
func proved(m *Mesh) {
	way, traffic := m.Paths[idB], m.Traffic[idB]
	way.Proved, traffic.Heard = ago(time.Second), time.Time{}
	m.Paths[idB], m.Traffic[idB] = way, traffic
}

// without has no path to b.
func without(m *Mesh) {
	m.Paths[idB] = path.Status{Reason: "peer has not answered", Attempts: 1, Since: ago(time.Minute)}
	m.Traffic[idB] = Traffic{LastHandshake: ago(time.Hour)}
}
