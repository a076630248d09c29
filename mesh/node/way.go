package node

import (
	"net/netip"
	"slices"

	"warren/mesh/identity"
	"warren/nat"
	"warren/nat/streams"
	"warren/tunnel/bind"
)

// way is where a member's packets go, and what that was decided from.
type way struct {
	addr    netip.AddrPort // zero: nowhere
	sources []netip.AddrPort
	stream  streams.End // the one that leads to or from the member; zero: none
}

// byStream reports whether the packets go through a stream.
func (w way) byStream() bool { return bind.IsStream(w.addr.Addr()) }

func (w way) equal(o way) bool {
	return w.addr == o.addr && slices.Equal(w.sources, o.sources) && w.stream == o.stream
}

// underlay is what the way of a peer depends on beside nat's path.
type underlay struct {
	streams  streams.Snapshot
	private  bool // addresses of private networks count as evidence about UDP
	sessions map[identity.NodeID]sessionFacts
}

func (f facts) underlay() underlay {
	return underlay{streams: f.streams, private: f.private, sessions: f.sessions}
}

// planWay chooses between nat's path to a peer and a stream: the stream, when UDP is taken to be blocked and the path goes by
// UDP over the Internet or by a relay, or when there is no path. Whoever opened a stream to this node may take UDP to be blocked,
// and is the one to know: its session tells. The other way's address is one that the peer may still send from.
func planWay(id identity.NodeID, path nat.Event, u underlay) way {
	w := way{addr: path.Path.Addr, sources: path.Sources, stream: u.streams.Ends[id]}
	if !w.stream.Virtual.IsValid() {
		return w
	}
	w.sources = append([]netip.AddrPort{w.stream.Virtual}, path.Sources...)
	wanted := u.streams.State == streams.Blocked || u.streams.State == streams.Returning
	if w.stream.Accepted {
		// A session may be about to come by the stream when there is none. A peer that has left a stream, or never
		// used it, goes on speaking by UDP; the end of the stream may be told late or never.
		s, up := u.sessions[id]
		wanted = !up || s.remote == w.stream.Virtual
	}
	prefer := wanted && (path.Path.Kind == nat.Relayed || streams.Counts(path.Path.Addr.Addr(), u.private))
	if prefer || !w.addr.IsValid() {
		w.addr = w.stream.Virtual
	}
	return w
}
