package report

import (
	"net/netip"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
	"warren/mesh/verdict"
	"warren/nat/path"
	"warren/nat/relay"
)

// Agent is a running agent at one moment, whether it is in a mesh or not. Times are zero for never.
type Agent struct {
	Now       time.Time
	Started   time.Time
	Version   string
	State     string // one of api's
	Interface string
	Port      uint16 // of the shared socket
	PublicKey string // WireGuard's, base64
	Static    []Static
	Mesh      *Mesh            // nil: static peers only
	Warnings  []string         // of those who run the owners, in words
	Unsent    []verdict.Unsent // what the system refuses to send, the latest first
	// Dropped are the counters of the owners, by the part whose they are and the reason. Those of part "" name it themselves.
	Dropped map[string]map[string]uint64
}

// Static is a plain WireGuard peer of the config file.
type Static struct {
	Name       string
	PublicKey  string
	AllowedIPs []netip.Prefix
	Endpoint   string // as configured; "" for none
	Traffic    Traffic
}

// Traffic is what tunnel knows of a peer.
type Traffic struct {
	Endpoint      netip.AddrPort // where it is spoken to; zero when unknown
	LastHandshake time.Time
	RxBytes       uint64
	TxBytes       uint64
	PathMTU       int // 0: not known
	Flow
}

// Flow is when packets last went to a peer and came from it. Of a member it is about the way that is used now, and exact; of a static peer
// it is what the counters have shown since the agent started, and Heard is never later than it was.
type Flow struct {
	Sent, Heard time.Time
	Unanswered  time.Time // of a static peer: since when packets have gone out and none came in; zero: that is not so
}

// Vital is what other members say of one, and how it answers them and this node beside the tunnel.
type Vital struct {
	Life     verdict.Life
	Since    time.Time // of Life
	Answered time.Time // the last answer to a probe of gossip
	Told     time.Time // its last introduction
}

// Mesh is a node's mesh as the owners know it.
type Mesh struct {
	Self        identity.NodeID
	ID          identity.MeshID
	Name        string
	Records     Records
	Expires     time.Time                         // of this node's certificate
	Clocks      map[identity.NodeID]time.Duration // how far those of members are ahead of this machine's, as last heard
	NoIPv4      bool                              // the overlay has none on this machine
	NoTunnel    map[identity.NodeID]string        // members that have no tunnel with this node, and why
	Traffic     map[identity.NodeID]Traffic
	Paths       map[identity.NodeID]path.Status
	Vitals      map[identity.NodeID]Vital
	Mapped      []netip.AddrPort // under which others see the shared port
	Sessions    map[identity.NodeID]Session
	RootKey     RootKey
	Introducers []identity.NodeID // through which this node is introduced, best first
	Refusals    []verdict.Refusal
	Relay       Relay
	Streams     Streams
	Naming      Naming
	Unsent      []verdict.Unsent // as Agent's
}

// Naming is how the mesh's names are known on this machine.
type Naming struct {
	Domain  string
	Using   string                // how the machine's resolver knows them; "": it does not
	Why     string                // so, in words
	Served  []netip.Addr          // where this node answers
	Trouble map[netip.Addr]string // why not there, in words
}

// Records is what the records say.
type Records struct {
	Root     identity.KeyID  // the root's
	Members  []roster.Member // this node and those that have left included
	Invites  []Invite
	Revoked  []Revocation
	Admins   []Admin      // by the time since which they are
	Prefix4  netip.Prefix // zero: none
	Prefix6  netip.Prefix
	Count    int
	Missing  int    // that others have and that are being fetched
	Conflict string // in words: this node's key lives on another machine too
}

// Invite is one invite and what has become of it.
type Invite struct {
	ID      identity.KeyID
	By      identity.KeyID
	Terms   identity.InviteTerms
	Used    int
	Revoked bool
}

// Revocation is one key that was put out.
type Revocation struct {
	Target identity.KeyID
	Scope  record.Scope
	Invite bool   // it is an invite's key, else a node's
	Name   string // of the node, as far as known
	Time   time.Time
	By     identity.KeyID
	ByName string // of the admin; "the root" for the root
	Reason string
}

// RootKey is where the root key of the mesh is, as far as this machine knows.
type RootKey struct {
	Here     bool
	Exported time.Time // zero: never
}

// Session is a control session with an active member.
type Session struct {
	Remote netip.AddrPort // virtual for one by a stream
	RTT    time.Duration  // 0: not known
	Heard  time.Time      // when something last came in over it
}

// Relay is what this node forwards for others.
type Relay struct {
	Load    byte // as the members are told
	Limit   int  // bytes a second; 0: none
	Pairs   []relay.Pair
	Members []relay.Member
}

// Streams is what is believed of UDP, and the streams that there are.
type Streams struct {
	UDP     verdict.UDPState // what is believed
	State   string           // the same in words
	Since   time.Time
	Reason  string
	Ends    map[identity.NodeID]netip.AddrPort // of streams, the far address of TCP by member
	Used    map[identity.NodeID]bool           // members to whom packets go by a stream
	Blocked string                             // why streams are used; "": they are not
	CutOff  string                             // why none is up although they are used
	Ports   []StreamPort
	Counts  StreamCounts
}

// StreamPort is a port on which streams are to be accepted, and how that goes.
type StreamPort struct {
	Port uint16
	Err  error // nil: listening
}

// StreamCounts says what has become of connections to such ports.
type StreamCounts struct {
	Accepted uint64 // streams of members
	Joins    uint64 // streams of joiners
	Limited  uint64 // over a rate or a number
	Failed   uint64 // no handshake of ours, or not in time
	Refused  uint64 // no member, or too many streams
}
