package node

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/mesh/neighbours"
	"warren/mesh/place"
	"warren/nat"
	"warren/nat/ranges"
	"warren/nat/standing"
	"warren/nat/streams"
	"warren/tunnel/osnet"
)

// facts is all that plan decides from: a snapshot, so that plan is a function. Gathering it changes nothing anywhere.
type facts struct {
	now      time.Time
	self     identity.NodeID
	view     *mesh.View // without a mesh: nobody, no prefixes
	settings Settings
	// names are the resolved addresses of host:port texts; a missing one is left as it is.
	names map[string]netip.AddrPort
	// stateEndpoints are this node's own endpoints as kept in the state directory, for settings that name none.
	stateEndpoints []string
	port           uint16 // of the shared socket; 0: not open
	peers          map[identity.NodeID]peerFacts
	sessions       map[identity.NodeID]sessionFacts // that are up
	preferred      []identity.NodeID                // active members with a session, anchors first, nearest first
	standing       *standing.Snapshot
	streams        streams.Snapshot
	relays         []identity.NodeID         // anchors on which this node has or wants a channel
	loads          map[identity.NodeID]uint8 // of relays, as they told
	contacts       []place.Contact           // addresses at which members were reached before
	neighbours     neighbours.Snapshot
	private        bool // addresses of private networks count as the Internet: no anchor has another one
	here           hereFacts
}

// hereFacts is what this machine has beside the mesh, and has given before.
type hereFacts struct {
	key       wgtypes.Key    // this node's own, public
	noIPv4    bool           // as create or join settled: for settings that say nothing
	claimed   []netip.Prefix // see facts.claims
	elsewhere []osnet.Route
	gateways  []netip.Addr
	held      map[wgtypes.Key]identity.NodeID // members that had a tunnel in the last round, by their keys
	move      move                            // as the last round had it
}

// peerFacts is what is known of the way to one member.
type peerFacts struct {
	path nat.Event // the last one of nat; zero: none
}

// sessionFacts is one control session.
type sessionFacts struct {
	rtt    time.Duration
	remote netip.AddrPort
	since  time.Time // of remote
	met    bool      // this node has dialled it there, and it is not kept yet that a member was reached there
}

// gather reads what the owners have to say.
func (h *Hub) gather(now time.Time) facts {
	_, port := h.o.Tunnel.Running()
	f := facts{
		now: now, self: h.o.Self, view: &mesh.View{}, settings: h.settings, stateEndpoints: h.o.Endpoints, port: port,
		names: make(map[string]netip.AddrPort), standing: &standing.Snapshot{}, here: hereFacts{key: h.o.Key, noIPv4: h.o.NoIPv4},
	}
	if h.last != nil {
		f.here.held, f.here.move = h.last.want.held, h.last.want.move
	}
	for _, name := range f.wantedNames() {
		if addr, ok := h.o.Names.Answer(name); ok {
			f.names[name] = addr
		}
	}
	o := h.o.Owners
	if o == nil {
		h.lookAround(&f)
		return f
	}
	f.view, f.preferred = o.Records.View(), o.Sessions.Preferred()
	f.standing, f.streams, f.neighbours, f.contacts = o.Standing.Snapshot(), o.Streams.Snapshot(), o.Neighbours.Snapshot(), o.Contacts.Snapshot()
	f.sessions = maps.Clone(h.sessions)
	for id, s := range f.sessions {
		if rtt, ok := o.Sessions.RTT(id); ok {
			s.rtt = rtt
			f.sessions[id] = s
		}
	}
	f.relays, f.loads = o.Relays.Wanted(), make(map[identity.NodeID]uint8)
	for _, id := range f.preferred {
		if load := o.Relays.Load(id); load != 0 {
			f.loads[id] = load
		}
	}
	f.peers = make(map[identity.NodeID]peerFacts, len(h.peers))
	for id, p := range h.peers {
		f.peers[id] = peerFacts{path: p.path}
	}
	_, f.private = streamAnchors(f)
	h.lookAround(&f)
	return f
}

// claims are the networks in whose place nothing that this machine reaches by other interfaces may lie: the overlay's, and what static
// peers are to have. What is too wide for a peer is left out anyway (ranges.Swallowing).
func (f facts) claims() []netip.Prefix {
	list := f.overlays()
	for _, s := range f.settings.Static {
		for _, p := range s.AllowedIPs {
			if !ranges.IsWide(p) {
				list = append(list, p)
			}
		}
	}
	return list
}

// lookAround notes what this machine reaches by other interfaces in the place of what is claimed, and its routers. They are read anew on
// another network, for other claims, and once a minute.
func (h *Hub) lookAround(f *facts) {
	f.here.claimed = f.claims()
	if h.last != nil {
		before := &h.last.facts
		f.here.elsewhere, f.here.gateways = before.here.elsewhere, before.here.gateways
		if !h.stale && before.standing.Network == f.standing.Network && slices.Equal(before.here.claimed, f.here.claimed) {
			return
		}
	}
	f.here.gateways = h.o.Tunnel.Gateways()
	routes, err := h.o.Tunnel.Elsewhere(f.here.claimed...)
	if err != nil {
		h.log.Warn("routes not read", "error", err)
		return
	}
	f.here.elsewhere = routes
}

// active reports whether a node is an active member.
func (f facts) active(id identity.NodeID) bool {
	m, ok := f.view.Member(id)
	return ok && m.State == mesh.Active
}

// wantedNames are the host:port texts that have to be turned into addresses.
func (f facts) wantedNames() (names []string) {
	for _, s := range f.settings.Static {
		if s.Endpoint != "" {
			names = append(names, s.Endpoint)
		}
	}
	return append(names, f.ownEndpoints()...)
}

// ownEndpoints are the texts that say where this node is reached.
func (f facts) ownEndpoints() []string {
	if len(f.settings.Endpoints) > 0 {
		return f.settings.Endpoints
	}
	return f.stateEndpoints
}

// byUDP reports whether a session with a member goes over the Internet by UDP: what happens to it is evidence about UDP.
func (f facts) byUDP(id identity.NodeID) bool {
	s, up := f.sessions[id]
	return up && streams.Counts(s.remote.Addr(), f.private)
}
