package api

import (
	"context"
	"net/netip"
	"time"
)

// Diagnosis is the part of Backend that says why things are as they are.
type Diagnosis interface {
	// Netcheck measures what this network does with UDP. It takes up to about three seconds.
	Netcheck(ctx context.Context) (Netcheck, error)
	// Why gathers the evidence about one peer and judges it. It may take as long as Netcheck.
	Why(ctx context.Context, req WhyRequest) (Why, error)
	// Denials returns what was stopped lately.
	Denials(ctx context.Context) (Denials, error)
}

// Netcheck is the answer to POST /v1/netcheck and the output of `warren netcheck --json`.
type Netcheck struct {
	Schema     int           `json:"schema"`
	Time       time.Time     `json:"time"`
	TookMS     float64       `json:"took_ms"`
	Name       string        `json:"name"` // of this node
	Port       uint16        `json:"port"` // the shared UDP port
	Verdict    string        `json:"verdict"`
	Conclusion string        `json:"conclusion"` // what to expect of direct connections, in words
	Advice     string        `json:"advice"`     // what would better it, in words; "" when nothing is wrong
	IPv4       Family        `json:"ipv4"`
	IPv6       Family        `json:"ipv6"`
	Routers    []Router      `json:"routers"`   // those asked for a port mapping
	Reachable  []Reachable   `json:"reachable"` // addresses of this node that members tried to reach unasked
	Anchors    []AnchorCheck `json:"anchors"`
	Bursts     []Bursts      `json:"bursts"` // sent to anchors through the tunnel
	Streams    StreamUse     `json:"streams"`
	Portal     Portal        `json:"portal"`
}

// Bursts is what came of sending packets to a member through the tunnel one by one, and as many in batches, which the system hands on in one
// piece (GSO) and some hosts and routers lose.
type Bursts struct {
	Name    string `json:"name"`    // of the member
	Size    int    `json:"size"`    // of a packet, in bytes
	Sent    int    `json:"sent"`    // of either kind
	Singles int    `json:"singles"` // answered, of those sent one by one
	Batched int    `json:"batched"` // answered, of those sent in batches
	Lost    bool   `json:"lost"`    // batches do not get there, and single packets do
}

// The verdicts of Netcheck.
const (
	NetOpen    = "open"    // strangers reach this node
	NetEasy    = "easy"    // direct paths to all but the hardest peers
	NetHard    = "hard"    // the NAT maps by destination
	NetBlocked = "blocked" // UDP gets no answer
	NetPortal  = "portal"  // something answers in the anchors' place
	NetOffline = "offline" // nothing gets an answer
	NetUnknown = "unknown" // too little evidence
)

// Family is what was found out about UDP over IPv4 or IPv6.
type Family struct {
	UDP       string           `json:"udp"`
	Addresses []netip.Addr     `json:"addresses"` // of this host
	Seen      []netip.AddrPort `json:"seen"`      // the shared port as anchors see it
	Mapping   string           `json:"mapping"`   // a term of RFC 4787, "none" without a NAT, or "unknown"
	Filtering string           `json:"filtering"`
	PortKept  *bool            `json:"port_kept"` // the NAT leaves a socket its port; null when unknown
	Hairpin   *bool            `json:"hairpin"`   // the NAT brings two hosts behind it together; null when unknown
	Asked     int              `json:"asked"`     // anchors that were asked
	Answered  int              `json:"answered"`
	Reason    string           `json:"reason"` // why something is unknown, in words
}

// The states of Family.UDP.
const (
	UDPWorks  = "works"
	UDPSilent = "silent"  // no anchor answers
	UDPUnused = "unused"  // this host has no address of the family
	UDPUnsure = "unknown" // there is no anchor to ask
)

// Router is one router that was asked to keep the shared port open.
type Router struct {
	Gateway   netip.Addr       `json:"gateway"`
	Protocols []RouterProtocol `json:"protocols"`
	Mapping   *PortMapping     `json:"mapping"` // null: none
	Remark    string           `json:"remark"`
}

// RouterProtocol is what came of asking by one protocol.
type RouterProtocol struct {
	Name   string `json:"name"`  // PCP, NAT-PMP or UPnP
	State  string `json:"state"` // asking, absent, present, refused or unneeded
	Reason string `json:"reason"`
}

// PortMapping is a port that a router keeps open.
type PortMapping struct {
	Protocol string         `json:"protocol"`
	External netip.AddrPort `json:"external"`
	Public   bool           `json:"public"`  // the external address is one of the Internet
	Expires  *time.Time     `json:"expires"` // renewed long before; null: never
}

// Reachable is one address of this node, tried by a member from a socket that this node never wrote to.
type Reachable struct {
	Address netip.AddrPort `json:"address"`
	State   string         `json:"state"` // untested, reachable or unreachable
}

// AnchorCheck is one anchor as seen from here.
type AnchorCheck struct {
	Name      string         `json:"name"`
	Address   netip.AddrPort `json:"address"`
	Session   bool           `json:"session"`    // a control session is up
	SessionMS float64        `json:"session_ms"` // its round trip; 0 when unknown
	STUNMS    float64        `json:"stun_ms"`    // of a question by UDP; 0: no answer
	TCP       string         `json:"tcp"`
}

// What a TCP connection to an anchor ended at, in AnchorCheck.TCP.
const (
	TCPOpen    = "open"    // it showed the mesh's certificate
	TCPClosed  = "closed"  // refused
	TCPSilent  = "silent"  // no answer
	TCPForeign = "foreign" // something else answered
)

// StreamUse is whether packets go by streams because UDP does not get through.
type StreamUse struct {
	State  string     `json:"state"` // open, in doubt, blocked or answering again: what is believed of UDP
	InUse  bool       `json:"in_use"`
	Since  *time.Time `json:"since"`
	Reason string     `json:"reason"`
}

// Portal is whether a captive portal, or a proxy, seems to stand between. No server but the anchors is asked.
type Portal struct {
	Suspected bool   `json:"suspected"`
	Reason    string `json:"reason"` // in words, either way
}

// WhyRequest is the body of POST /v1/why.
type WhyRequest struct {
	Peer string `json:"peer"` // name, overlay address or the start of an ID; also of a static peer or a revoked node
}

// Asked is what came of asking a peer for an answer just now. Its fields are those of Why.
type Asked struct {
	Pinged bool     `json:"pinged"`  // it was asked through the tunnel
	PingMS float64  `json:"ping_ms"` // the round trip; 0: no answer
	Silent []string `json:"silent"`  // its overlay addresses that did not answer; null: all did, or none was asked
}

// Why is the answer to POST /v1/why and the output of `warren why --json`. Its verdicts are: direct, trying, handshake,
// handshake-unanswered, silent, lost, off, deaf, older-version, clock, isolated, refused, no-route, left, revoked, no-tunnel; of a direct
// path that cannot be had: firewall-here, udp-blocked-here, udp-blocked-there, both-map-by-destination, maps-by-destination, same-router,
// no-common-family, no-candidates, firewall, firewall-there, unstable, unexplained; of static peers: direct, static-name,
// static-silent, static-unused, static-unanswered, static-handshake, static-idle.
type Why struct {
	Schema     int       `json:"schema"`
	Time       time.Time `json:"time"`
	Peer       Peer      `json:"peer"`       // as in Status; of a revoked node only ID and Name are known
	Verdict    string    `json:"verdict"`    // a short word that stays the same; more may come
	Conclusion string    `json:"conclusion"` // how the peer is reached, in words
	Cause      string    `json:"cause"`      // why, in words; "" when all is well
	Fix        string    `json:"fix"`        // the most likely remedy, in words; "" when there is none or none is needed
	Here       Standing  `json:"here"`       // where this node stands
	There      Standing  `json:"there"`      // where the peer stands, by its own word
	Attempts   []Attempt `json:"attempts"`   // the latest to reach it directly, newest first
	Changes    []Change  `json:"changes"`    // of the path, newest first
	Signals    Signals   `json:"signals"`
	Session    *Session  `json:"session"` // the control session with it; null: none
	Asked
	Bursts   *Bursts      `json:"bursts"` // null: not tried
	Gossip   string       `json:"gossip"` // what other members say of it: alive, dead or unknown
	GossipAt *time.Time   `json:"gossip_at"`
	Relays   []RelayCheck `json:"relays"` // the one in use first, then those that stand by
	Revoked  *Revoked     `json:"revoked"`
}

// Standing is where a node stands in the network.
type Standing struct {
	Name        string     `json:"name"`
	Known       bool       `json:"known"`
	Time        *time.Time `json:"time"` // of the knowledge
	Mapping     string     `json:"mapping"`
	Filtering   string     `json:"filtering"`
	PortMapping string     `json:"port_mapping"` // mapped, absent, refused, inside, unneeded, off or unknown
	Ports       string     `json:"ports"`        // how a NAT that maps by destination picks them: kept, sequential, random or unknown
	UDPBlocked  bool       `json:"udp_blocked"`
	Version     string     `json:"version"`
}

// Attempt is one run of ICE (RFC 8445) with the peer.
type Attempt struct {
	Started time.Time  `json:"started"`
	Ended   *time.Time `json:"ended"` // null: it runs
	Pairs   []Pair     `json:"pairs"`
	More    int        `json:"more"` // pairs that are not listed
	Result  string     `json:"result"`
}

// Pair is what came of one address of the peer.
type Pair struct {
	Remote   netip.AddrPort `json:"remote"`
	Type     string         `json:"type"`     // host, srflx or prflx
	Sent     int            `json:"sent"`     // checks sent to it
	Answered int            `json:"answered"` // answers
	Heard    int            `json:"heard"`    // checks of the peer from it
	Result   string         `json:"result"`   // in words
}

// Change is one change of the path.
type Change struct {
	Time   time.Time `json:"time"`
	Path   Path      `json:"path"`
	Reason string    `json:"reason"`
}

// Signals is how the introduction goes that is under way, and the last one.
type Signals struct {
	Unanswered int        `json:"unanswered"` // offers, or requests for one, that the peer has not answered
	Since      *time.Time `json:"since"`      // the first of them
	NoRoute    string     `json:"no_route"`   // why there is no way for them; "" when there is
	Refused    bool       `json:"refused"`    // the peer says that it does not know this node
	LastHeard  *time.Time `json:"last_heard"` // the last message of the peer
	NextTry    *time.Time `json:"next_try"`
}

// Session is a control session.
type Session struct {
	Address   netip.AddrPort `json:"address"` // "" in JSON for one by a stream
	Transport string         `json:"transport,omitempty"`
	LatencyMS float64        `json:"latency_ms"`
}

// RelayCheck is a relay between this node and the peer.
type RelayCheck struct {
	Name  string `json:"name"`
	Ready bool   `json:"ready"` // the peer has answered through it
	InUse bool   `json:"in_use"`
}

func (r *WhyRequest) check() error {
	if r.Peer == "" || len(r.Peer) > 255 {
		return refuse("why: want the name, address or ID of a peer")
	}
	return nil
}

// complete fills in what a Backend may leave out, so that lists are [] and never null.
func (n Netcheck) complete() Netcheck {
	n.Schema = Schema
	for _, f := range []*Family{&n.IPv4, &n.IPv6} {
		f.Addresses, f.Seen = orEmpty(f.Addresses), orEmpty(f.Seen)
	}
	n.Routers, n.Reachable, n.Anchors = append([]Router{}, n.Routers...), orEmpty(n.Reachable), orEmpty(n.Anchors)
	n.Bursts = orEmpty(n.Bursts)
	for i := range n.Routers {
		n.Routers[i].Protocols = orEmpty(n.Routers[i].Protocols)
	}
	return n
}

func (w Why) complete() Why {
	w.Schema = Schema
	w.Peer = w.Peer.complete()
	w.Attempts, w.Changes, w.Relays = append([]Attempt{}, w.Attempts...), orEmpty(w.Changes), orEmpty(w.Relays)
	for i := range w.Attempts {
		w.Attempts[i].Pairs = orEmpty(w.Attempts[i].Pairs)
	}
	return w
}
