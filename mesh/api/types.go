// Package api is the local interface of the agent: HTTP and JSON over a unix socket, its types, server and client.
//
// What the answers contain is left to the Backend, which mesh/agent implements; how they are shown to a person
// is left to cmd/warren. Nothing here touches the network or the state directory.
//
// The types are values. A Server serves many connections at once and so calls the Backend concurrently; a Client
// may be used by several goroutines.
package api

import (
	"context"
	"net/netip"
	"time"
)

// Schema is the version of the JSON below. Fields are only ever added within one version; a field that is
// removed or changes its meaning makes a new one. Golden tests hold it. In 2 the "fallback" of netcheck became "streams"; in 3 a
// revocation says its scope, and is made in two steps; in 4 a peer that is not in use is "idle" and not "up", and one that owes an answer "silent".
const Schema = 4

// Backend is the running node as the API sees it. All methods may be called concurrently and end when ctx does.
// An error that is an *Error is sent as it is; any other is sent as CodeFailed with its text.
type Backend interface {
	Diagnosis
	Power
	Naming
	Devices
	// Status returns a snapshot. It never waits for the network.
	Status(ctx context.Context) (Status, error)
	// Ping sends req.Count pings and calls reply from the calling goroutine for each answer or loss.
	Ping(ctx context.Context, req PingRequest, reply func(PingReply)) error
	// Invite makes an invite, spreads its certificate, and returns the token.
	Invite(ctx context.Context, req InviteRequest) (Invite, error)
	// Leave tells the other members that this node goes, then lets the agent end by itself. It returns once some
	// member has heard of it; when no member can be reached, only req.Force makes it go on.
	Leave(ctx context.Context, req LeaveRequest) error
	// Reload reads the config file again and applies the difference. On error the old settings stay.
	Reload(ctx context.Context) (Reloaded, error)
}

// The states of an agent in Status.State.
const (
	StateStarting = "starting" // interface or store not there yet
	StateReady    = "ready"    // the interface is up and the records are loaded
	StateStopping = "stopping"
)

// The states of a peer in Peer.State. Each says what is known when the status is taken. An idle peer may be gone by then: Life.LastHeard
// says how old the last sign of it is.
const (
	PeerUp         = "up"         // a sign of life has come by its path within the last two seconds; of a static peer, five
	PeerIdle       = "idle"       // its path worked when it was last used; nothing was asked since. Static peers: nothing speaks against it
	PeerSilent     = "silent"     // there is a path, and it owes an answer, or other members miss it
	PeerConnecting = "connecting" // no path yet, or no keys; being worked on
	PeerDown       = "down"       // no path for 8 s or more; it is tried again and again
	PeerLeft       = "left"       // has left the mesh by itself
)

// Connected reports whether the way to a peer works as far as is known.
func (p Peer) Connected() bool {
	return p.State == PeerUp || p.State == PeerIdle && p.LastHeard != nil
}

// The kinds of Path.
const (
	PathNone   = "none"
	PathDirect = "direct"
	PathRelay  = "relay"
)

// Status is the answer to GET /v1/status and the output of `warren status --json`.
type Status struct {
	Schema   int       `json:"schema"`
	Time     time.Time `json:"time"`    // when the snapshot was taken
	Version  string    `json:"version"` // of the agent
	State    string    `json:"state"`
	Since    time.Time `json:"since"` // start of the agent
	Mesh     *Mesh     `json:"mesh"`  // null when the agent runs static peers only
	Self     Self      `json:"self"`
	Peers    []Peer    `json:"peers"`    // members other than this node, then static peers; each sorted by name
	Admins   []Admin   `json:"admins"`   // who may invite, revoke and promote; sorted by time
	Invites  []Invited `json:"invites"`  // known invites that can still be used, or were used too often; sorted by expiry
	Revoked  []Revoked `json:"revoked"`  // sorted by time
	Warnings []string  `json:"warnings"` // what a person should look at, in words
	// RootKey tells of the root key of the mesh; absent where it is not and never was, as far as is known.
	RootKey *RootKey `json:"root_key,omitempty"`
	// Relay says what this node forwards for others; absent when it never did.
	Relay *Relay `json:"relay,omitempty"`
	// Streams counts what has become of connections to the TCP ports on which this node takes streams, for members whose networks
	// drop UDP; absent when there was none.
	Streams *Streams `json:"streams,omitempty"`
	// Names says how the mesh's names are known on this machine; absent without a mesh.
	Names *Names `json:"names,omitempty"`
	// Dropped counts what was refused or dropped since the start, under named reasons.
	Dropped map[string]uint64 `json:"dropped"`
}

// Names says where questions about names are answered, and whether this machine's own resolver asks there.
type Names struct {
	Using   string       `json:"using"`             // "resolved", "resolver", "hosts"; "": the resolver was told nothing
	Why     string       `json:"why"`               // this way, or none, in words
	Served  []netip.Addr `json:"served"`            // this node answers here, port 53
	Trouble []string     `json:"trouble,omitempty"` // why it does not at an address of its own, in words
}

// Streams counts connections since the start of the agent. Whoever connects is counted once.
type Streams struct {
	Accepted uint64 `json:"accepted"` // streams of members
	Joins    uint64 `json:"joins"`    // streams of nodes that join
	Refused  uint64 `json:"refused"`  // whoever called is no member, or there are too many streams
	Limited  uint64 `json:"limited"`  // over a rate or a number
	Failed   uint64 `json:"failed"`   // nothing that speaks the mesh's protocol, or not in time
}

// Relay describes what this node forwards between members that cannot reach each other. It sees their ciphertext only.
type Relay struct {
	Load     int           `json:"load"`      // 0 to 255, as the members are told
	LimitBPS uint64        `json:"limit_bps"` // bits a second, 0: no limit
	Pairs    []RelayPair   `json:"pairs"`
	Members  []RelayMember `json:"members"`
}

// RelayPair is a relayed path between two members.
type RelayPair struct {
	A      string  `json:"a"` // name
	B      string  `json:"b"`
	Joined bool    `json:"joined"` // both have opened their half
	FromA  Relayed `json:"from_a"` // since they were joined
	FromB  Relayed `json:"from_b"`
}

// RelayMember sums up what was forwarded for one member since the agent started.
type RelayMember struct {
	Name     string  `json:"name"`
	Channels int     `json:"channels"` // open now
	Sent     Relayed `json:"sent"`
}

// Relayed counts what somebody has sent through a relay.
type Relayed struct {
	Packets uint64     `json:"packets"`
	Bytes   uint64     `json:"bytes"`
	Dropped uint64     `json:"dropped"` // packets: over the limit, or more than the uplink carries
	Last    *time.Time `json:"last"`    // null: never
}

// Mesh describes the mesh as a whole.
type Mesh struct {
	Name    string       `json:"name"`
	Domain  string       `json:"domain"`  // under which members have names
	ID      string       `json:"id"`      // 32 hexadecimal digits
	Prefix4 netip.Prefix `json:"prefix4"` // "" in JSON when the mesh has no IPv4
	Prefix6 netip.Prefix `json:"prefix6"`
	Members int          `json:"members"` // active members, this node included
	Records int          `json:"records"` // in the store
	Syncing int          `json:"syncing"` // records known to be missing here, 0 when in step
}

// Self describes this node.
type Self struct {
	ID        string           `json:"id"`   // 52 characters of base32; "" without a mesh
	Name      string           `json:"name"` // display name, unique in the mesh
	Addresses []netip.Addr     `json:"addresses"`
	Interface string           `json:"interface"`
	Port      uint16           `json:"port"`
	PublicKey string           `json:"public_key"` // WireGuard's, base64
	Admin     bool             `json:"admin"`
	Power     string           `json:"power,omitempty"` // PowerPromoted, PowerDemoted; absent when what it came as still stands
	Tags      []string         `json:"tags"`
	Anchor    bool             `json:"anchor"`    // serves others as an anchor now
	Endpoints []netip.AddrPort `json:"endpoints"` // underlay addresses that others see or were told
	Anchors   []string         `json:"anchors"`   // names of the members through which this node is introduced
}

// Peer describes another member or a static peer.
type Peer struct {
	ID        string         `json:"id"` // 52 characters of base32; "" for a static peer
	Name      string         `json:"name"`
	Static    bool           `json:"static"`
	Addresses []netip.Addr   `json:"addresses"` // overlay addresses, IPv4 first
	Routes    []netip.Prefix `json:"routes"`    // further prefixes behind it
	PublicKey string         `json:"public_key"`
	State     string         `json:"state"`
	Reason    string         `json:"reason"` // why it is not up, or not directly, in words; "" when all is well
	Path      Path           `json:"path"`
	LatencyMS float64        `json:"latency_ms"` // 0 when unknown
	PathMTU   int            `json:"path_mtu"`   // largest packet inside the tunnel that is verified to pass; 0 when unknown
	RxBytes   uint64         `json:"rx_bytes"`
	TxBytes   uint64         `json:"tx_bytes"`
	Life
	Version string   `json:"version"` // "" when unknown
	Admin   bool     `json:"admin"`
	Anchor  bool     `json:"anchor"`
	Tags    []string `json:"tags"`
	Origin
}

// Life is when a peer gave signs of life.
type Life struct {
	LastHandshake *time.Time `json:"last_handshake"` // null when there was none
	LastHeard     *time.Time `json:"last_heard"`     // any sign: packets, answers to checks, its control session, gossip; null when there was none
	Since         *time.Time `json:"since"`          // when its present path was taken, or the last one lost; null when unknown
}

// Origin is how a peer came in, and what has become of it since.
type Origin struct {
	AdmittedBy string `json:"admitted_by"`      // name of the member that admitted it; "" for the founder
	Invite     string `json:"invite,omitempty"` // ID of the invite by which it came; absent for the founder
	Power      string `json:"power,omitempty"`  // as Self's
}

// The values of Power: an admin that came as a member, and a member that has been an admin.
const (
	PowerPromoted = "promoted"
	PowerDemoted  = "demoted"
)

// Admin is a member that may invite, revoke and promote.
type Admin struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"` // overlay address
	Since   time.Time  `json:"since"`
	By      string     `json:"by"` // name of the admin that made it one, or "the root"
	Left    bool       `json:"left,omitempty"`
	Power   string     `json:"power,omitempty"` // PowerPromoted; absent when it came as an admin
}

// RootKey tells of the key that has the last word in the mesh.
type RootKey struct {
	Here     bool       `json:"here"`     // in the state directory of this machine
	Exported *time.Time `json:"exported"` // when a copy was last made; null: never, as far as is known here
}

// Path is the way packets take to a peer.
type Path struct {
	Kind    string         `json:"kind"`
	Address netip.AddrPort `json:"address"` // underlay address spoken to: the peer's, or the relay's; "" in JSON when none
	Via     string         `json:"via"`     // name of the relaying member; "" unless Kind is relay
	// Transport is how datagrams go to Address: "tcp" where UDP is blocked, else absent for UDP.
	Transport string `json:"transport,omitempty"`
	// Standby is the name of the member through which a second relayed path is held ready; absent when none is.
	Standby string `json:"standby,omitempty"`
}

// TransportTCP is a Path's Transport.
const TransportTCP = "tcp"

// Invited describes an invite that is known to the mesh. The token is not in it: it is shown once, when made.
type Invited struct {
	ID      string     `json:"id"` // 52 characters of base32
	Uses    int        `json:"uses"`
	Used    int        `json:"used"`
	Expires *time.Time `json:"expires"` // null: never
	Admin   bool       `json:"admin"`
	Tags    []string   `json:"tags"`
	By      string     `json:"by"` // name of the admin that made it
}

// Revoked describes a revocation.
type Revoked struct {
	ID     string    `json:"id"`    // key ID of the node or invite
	Kind   string    `json:"kind"`  // "node" or "invite"
	Scope  string    `json:"scope"` // ScopeWhole: it is out; ScopePower: it is a member, and no admin
	Name   string    `json:"name"`  // of the node, "" for an invite
	Time   time.Time `json:"time"`
	By     string    `json:"by"`
	Reason string    `json:"reason"`
}

// The scopes of Revoked.
const (
	ScopeWhole = "whole"
	ScopePower = "power"
)

// PingRequest is the body of POST /v1/ping.
type PingRequest struct {
	Peer       string `json:"peer"`        // name, overlay address or the start of an ID
	Count      int    `json:"count"`       // 1 to MaxPings
	IntervalMS int    `json:"interval_ms"` // between pings, MinPingInterval at least
	TimeoutMS  int    `json:"timeout_ms"`  // for each answer
}

// PingReply is one line of the answer to POST /v1/ping.
type PingReply struct {
	Seq       int        `json:"seq"` // from 1
	Name      string     `json:"name"`
	Address   netip.Addr `json:"address"` // overlay address
	Path      Path       `json:"path"`
	LatencyMS float64    `json:"latency_ms"`
	Forbidden string     `json:"forbidden,omitempty"` // that the policy lets nothing else from here to the peer, in words
	Error     string     `json:"error"`               // why there was no answer, in words; "" when there was one
}

// InviteRequest is the body of POST /v1/invite.
type InviteRequest struct {
	Uses       int      `json:"uses"`         // at least 1
	ValidForMS int64    `json:"valid_for_ms"` // life of the invite in milliseconds, more than 0
	Admin      bool     `json:"admin"`
	Tags       []string `json:"tags"`
}

// Invite is the answer to POST /v1/invite. Token is a secret.
type Invite struct {
	Schema  int       `json:"schema"`
	ID      string    `json:"id"`
	Token   string    `json:"token"`
	Uses    int       `json:"uses"`
	Expires time.Time `json:"expires"`
	Admin   bool      `json:"admin"`
	Tags    []string  `json:"tags"`
	Anchors []string  `json:"anchors"` // host:port of the anchors in the token; empty: nobody outside the LAN can use it yet
	Reach   string    `json:"reach"`   // ReachAnywhere and the like
}

// Reloaded is the answer to POST /v1/reload.
type Reloaded struct {
	Schema  int      `json:"schema"`
	Pending []string `json:"pending"` // settings that wait until the agent starts again: key, value and what runs, in words
}

// From where the addresses in a token are reached, as far as is known.
const (
	ReachAnywhere = "anywhere" // one of them at least is on the Internet, and announced by who has it
	ReachUnproven = "unproven" // those on the Internet are this node's, and nobody has reached it there unasked
	ReachLocal    = "local"    // all are of private networks
	ReachNone     = "none"     // there is no address: members on the local network are looked for
)

// LeaveRequest is the body of POST /v1/leave.
type LeaveRequest struct {
	Force bool `json:"force"` // also when nobody can be told, or when the root key of the mesh would be lost
}
