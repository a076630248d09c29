package deptest

// The floors, from the ground up. A package that has none fails the test: give it one in the table below, with a glance at
// what it is to know of the others.
const (
	values   = iota // no behaviour of their own
	machines        // pure: no goroutine, socket or clock
	edges           // one kind of socket, file or kernel interface each
	owners          // those that own goroutines; they never know each other
	nodes           // decide what each owner should have; what the outside sees
	agents          // make the owners, plug them together, run them
	programs        // command lines
	tests           // in-memory twins, the lab: never part of a program
	noFloor  = -1
)

// floorNames are the floors as the map calls them.
var floorNames = [...]struct{ name, what string }{
	values:   {"values", "no behaviour of their own"},
	machines: {"machines", "pure: no goroutine, no socket, no clock; tested in virtual time"},
	edges:    {"edges", "one kind of socket, file or kernel interface each, with a twin in memory beside it"},
	owners:   {"owners", "each owns its goroutines and what they keep; none knows another one"},
	nodes:    {"nodes", "what each owner should have, and what the outside sees"},
	agents:   {"agents", "makes the owners, plugs them together, runs them; decides nothing"},
	programs: {"programs", "command lines"},
	tests:    {"tests", "twins in memory, the lab, programs that test; never part of what is installed"},
}

// place is where a package stands, and what one finds there.
type place struct {
	pkg   string
	floor int
	what  string // what it does, and what one would look for there
}

// table is the one list of all packages. The map of the code is made from it.
var table = []place{
	{"mesh/identity", values, "keys and IDs, certificates and one step of their chain, tokens, overlay addresses that follow from an ID"},
	{"mesh/record", values, "the signed statements that all members keep: encoding, signing, verifying one of them; which of two is the newer"},
	{"nat/natkind", values, "what NATs and firewalls do, in the terms of RFC 4787, and how it is judged from what was seen"},
	{"nat/due", values, "things by the time when something of each is due"},
	{"nat/ranges", values, "ranges of underlay addresses: what is on the Internet, private, a carrier's"},
	{"packaging", values, "the systemd unit and the launchd plist, and handing them to the system"},

	{"config", machines, "warren.toml: its keys, and the errors that name line and column"},
	{"mesh/rings", machines, "which of many anchors keep sessions with each other: several orders in which all know their neighbours"},
	{"mesh/roster", machines, "who is a member: admissions, uses of invites, revocations, granted names and addresses, as a function of the set of records"},
	{"mesh/signal", machines, "sealing of introductions, refusal of replays, the hybrid key agreement that makes the preshared key"},
	{"mesh/verdict", machines, "why two nodes are not connected directly, and what would help: causes and fixes of `warren why` and `warren netcheck`"},
	{"mesh/zone", machines, "what the names of a mesh mean: addresses of a name, the name of an address, which questions are the mesh's"},
	{"nat/limit", machines, "rates for each of many sources and for all of them together"},
	{"nat/nat64", machines, "IPv4 addresses in the prefix of a NAT64, and the prefix in the answers of a DNS64"},
	{"nat/path", machines, "the path to one peer: who offers when, ICE, relay and spare, when a path is in doubt or dead; messages of introductions"},
	{"nat/reach", machines, "which of this node's addresses strangers reach: whom to ask, and what to believe"},
	{"nat/stunwire", machines, "STUN messages: the check before any library sees them, reading and writing"},
	{"tunnel/filter", machines, "which packets may pass: packets read, the table of flows, rules, fragments, errors; what was stopped lately"},
	{"tunnel/noise", machines, "WireGuard's protocol: handshakes, cookies, sessions, timers; packets sealed and opened where they lie"},
	{"tunnel/pathmtu", machines, "the size of packet that a path carries (RFC 8899): when to probe, and what follows"},

	{"mesh/disk", edges, "changes of files that survive a crash, step by step; a disk whose steps fail, for tests"},
	{"mesh/hosting", edges, "an admin has another member host a device: the two messages, and their exchange"},
	{"mesh/join", edges, "the conversation in which a stranger with an invite becomes a member, both sides of it"},
	{"mesh/letter", edges, "introductions straight from address to address, as two datagrams; what strangers may send of them"},
	{"mesh/resolve", edges, "host names of endpoints, looked up in the background, again and again"},
	{"mesh/session", edges, "control sessions: QUIC with mutual TLS, whom to dial, frames, forwarding for others, limits towards strangers"},
	{"mesh/store", edges, "records on disk, crash-safe; a damaged file is set aside"},
	{"nat/beacon", edges, "encrypted multicast on the LAN: the packets, their keys, when one is sent"},
	{"nat/dns64", edges, "whether this host reaches IPv4 by a NAT64 only, and by which prefix, as a router or the system's resolver tells"},
	{"nat/natprobe", edges, "measuring a NAT from sockets made for it: mapping, filtering, hairpin; sending for a member that measures"},
	{"nat/netwatch", edges, "the host's own addresses and links, changes of the network, and sleep"},
	{"nat/portal", edges, "looks at anchors by TCP and HTTP: a captive portal, a proxy that breaks TLS open"},
	{"nat/portmap", edges, "ports mapped by routers: PCP, NAT-PMP, UPnP IGD, pinholes over IPv6"},
	{"nat/relay", edges, "asking for relay channels and granting them, the load of a relay, who was relayed how much; the data pass through tunnel/bind"},
	{"nat/rtnl", edges, "rtnetlink of Linux: a few routes asked for out of many, and notices of what changes"},
	{"nat/stream", edges, "one stream, datagrams in TLS over TCP: listening, dialling, proxies, limits"},
	{"tunnel/bind", edges, "the one UDP port: telling packets apart, endpoints of peers, relay channels, streams as sockets, forwarding"},
	{"tunnel/echo", edges, "pings through the tunnel: asking and answering on overlay addresses"},
	{"tunnel/fit", edges, "between TUN and WireGuard: probes of the path MTU, packets cut or refused, the segment size of TCP"},
	{"tunnel/gate", edges, "between TUN and WireGuard: what tunnel/filter stops goes no further, and its sender is told"},
	{"tunnel/hostsfile", edges, "lines of a mesh in /etc/hosts, among those of others"},
	{"tunnel/resolved", edges, "systemd-resolved told about one link, by D-Bus"},
	{"tunnel/osnet", edges, "addresses, routes and MTU of the interface: netlink on Linux, tools on macOS"},
	{"tunnel/sockets", edges, "WireGuard's UDP sockets, mended for hosts that speak IPv4 and IPv6 at once; DF"},
	{"tunnel/tun", edges, "the TUN interface: many packets at a wake-up, large segments taken apart and put together where they lie"},

	{"mesh", owners, "the set of records in step with the other members': gossip, sync, who seems alive, admitting, expelling"},
	{"mesh/courier", owners, "introductions on their way: sealed, opened, one lane for each peer, the preshared key set in time"},
	{"mesh/dns", owners, "the names of the mesh answered over DNS: whose questions are taken, and what is said"},
	{"tunnel/osnames", owners, "this machine's own resolver told of the names: by systemd-resolved, /etc/resolver or /etc/hosts, and taken back"},
	{"mesh/neighbours", owners, "what is said and heard on local networks, and which members are there"},
	// Contacts is an owner, and Join takes edges of its own: sessions, the store, beacons and streams, before an agent runs.
	{"mesh/place", owners, "the state directory, file by file; create, join and leave; addresses at which members were met"},
	{"nat", owners, "the best path to each peer: runs the machines of nat/path, ICE agents, STUN on the shared port, predicted ports"},
	{"nat/standing", owners, "where this node stands: own addresses, router's mappings, dialling back, the NAT measured; the same for others who ask"},
	{"nat/streams", owners, "whether UDP is blocked, and the streams held while it is; those that others open to this node"},
	{"tunnel", owners, "the interface and the WireGuard device: peers, the way of each member, handshakes, preshared keys"},

	{"mesh/api", nodes, "the local interface: HTTP and JSON on a unix socket, its types, server and client"},
	{"mesh/node", nodes, "the hub: facts, plan and reconcile; what follows from what the owners know"},
	{"mesh/report", nodes, "snapshots of the owners put into the API's types: status, why, netcheck, warnings"},

	{"mesh/agent", agents, "one running node: what is made, who hears what from whom, the API's verbs"},

	{"cmd/warren", programs, "subcommands, flags, tables, exit codes"},
	{"cmd/warren-bench", programs, "throughput beside plain wireguard-go, and through a relay beside pion's TURN"},

	{"cmd/deptest", tests, "the rules of the house: floors, imports, sizes, mutexes, log keys, this map"},
	{"cmd/warren-demo", tests, "`make demo`: the real program in the lab, told as a story"},
	{"cmd/warren/e2e", tests, "the real program in the lab: scenarios, the grid of NATs, events, soak"},
	{"mesh/hostile", tests, "a member that attacks its mesh, for the lab: in programs that are built with the tag hostile, and no others"},
	{"mesh/meshtest", tests, "control sessions in memory, for tests of mesh"},
	{"mesh/session/sessiontest", tests, "packet connections in memory with latency, loss, NATs"},
	{"nat/beacon/beacontest", tests, "a LAN in memory"},
	{"nat/due/duetest", tests, "what is to be done later in a time that no clock tells; how many schedules are run"},
	{"nat/natlab", tests, "hosts, routers and NATs out of network namespaces and nftables"},
	{"nat/natprobe/natprobetest", tests, "public hosts and one NAT in memory"},
	{"nat/portmap/portmaptest", tests, "a router in memory that maps ports"},
	{"tunnel/bind/bindtest", tests, "WireGuard's UDP sockets in memory"},
	{"tunnel/osnet/osnettest", tests, "interfaces in memory; a network namespace for a test"},
	{"tunnel/tun/tuntest", tests, "a TUN interface in memory"},
}

// floors says on which floor a package stands.
var floors = func() map[string]int {
	floors := make(map[string]int, len(table))
	for _, p := range table {
		floors[p.pkg] = p.floor
	}
	return floors
}()

// floor returns the floor of a package.
func floor(name string) int {
	if f, ok := floors[name]; ok {
		return f
	}
	return noFloor
}

// sign leads from a question to where its answer is in the code.
type sign struct {
	looking string // for what
	file    string
	name    string // declared in the file; in what is not Go, a text in it
}

// signs are the index at the end of the map, in the order of a reader who comes from outside.
var signs = []sign{
	{"a packet on its way out", "tunnel/bind/send.go", "Send"},
	{"a packet on its way in", "tunnel/bind/receive.go", "receiver"},
	{"where a packet goes: the way of a peer is chosen", "mesh/node/way.go", "planWay"},
	{"where a packet goes: the way of a peer is taken", "tunnel/way.go", "SetWay"},
	{"where a packet goes: one port, told apart by first bytes", "tunnel/bind/classify.go", "Classify"},
	{"where a packet goes: allowed IPs of a member", "mesh/node/plan.go", "planPeers"},
	{"two want the same key or address", "mesh/node/claims.go", "newClaims"},
	{"the overlay has no IPv4 on this machine", "mesh/node/claims.go", "ipv4"},
	{"a packet that the policy stops", "tunnel/filter/filter.go", "Decide"},
	{"what the sender of a refused packet is told", "tunnel/gate/refusal.go", "refuse4"},
	{"large segments of the TUN interface", "tunnel/tun/segments.go", "Split"},
	{"a packet that is too large", "tunnel/fit/toobig.go", "tooBig"},
	{"who starts the WireGuard handshake, and how often", "tunnel/handshake.go", "awaited"},
	{"WireGuard: what a message is answered with", "tunnel/noise/receive.go", "Receive"},
	{"WireGuard: packets sealed and opened", "tunnel/noise/pair.go", "Seal"},
	{"WireGuard: when what is due", "tunnel/noise/timers.go", "Step"},
	{"WireGuard: which session packets are sealed with", "tunnel/noise/sessions.go", "answer"},
	{"who offers first", "nat/path/machine.go", "Controlling"},
	{"what an offer says", "nat/path/message.go", "Message"},
	{"when a preshared key is set", "mesh/courier/carry.go", "adopt"},
	{"the handshake that an introduction carries", "tunnel/carried.go", "Initiation"},
	{"who relays: which relay two peers agree on", "nat/path/choice.go", "chooseRelays"},
	{"who relays: whom this node asks for channels", "nat/relay/follow.go", "Follow"},
	{"who relays: for whom this node does, and how much", "nat/relay/server.go", "Serve"},
	{"is this peer there", "mesh/verdict/contact.go", "Contact"},
	{"why is this peer relayed", "mesh/verdict/judge.go", "Judge"},
	{"why is this peer relayed: the evidence of its attempts", "nat/evidence.go", "Evidence"},
	{"when a path is in doubt, or dead", "nat/path/life.go", "judge"},
	{"UDP is blocked: when that is believed", "nat/streams/machine.go", "Machine"},
	{"UDP is blocked: the stream itself", "nat/stream/client.go", "Dial"},
	{"what the NAT before this node does", "nat/standing/measure.go", "measure"},
	{"whether strangers reach this node: who is an anchor", "nat/reach/reach.go", "Machine"},
	{"ports mapped on the router", "nat/portmap/portmap.go", "Mapper"},
	{"predicted ports", "nat/path/predict.go", "Predicted"},
	{"members on the LAN", "nat/beacon/machine.go", "Machine"},
	{"who is a member", "mesh/roster/standing.go", "members"},
	{"who is put out, and why", "mesh/roster/standing.go", "whyOut"},
	{"who has which name, address and routes", "mesh/roster/give.go", "give"},
	{"what an admin's agent grants, and when", "mesh/roster/granter.go", "Step"},
	{"an admission, countersigned", "mesh/admit.go", "Admit"},
	{"what comes of a record that arrived", "mesh/intake.go", "intake"},
	{"how a node hears that it is out: the records for it", "mesh/evidence.go", "caseAgainst"},
	{"how a node hears that it is out: on the wire", "mesh/session/proof.go", "proofs"},
	{"records that were missed", "mesh/timetable.go", "timetable"},
	{"records that were missed: the exchange", "mesh/sync.go", "conversation"},
	{"whom control sessions are dialled to", "mesh/node/targets.go", "planTargets"},
	{"a message for a member without a session", "mesh/session/hops.go", "hops"},
	{"what this node says of itself", "mesh/node/own.go", "planOwn"},
	{"the order in which the owners are told", "mesh/node/reconcile.go", "setMesh"},
	{"who hears what from whom", "mesh/agent/plug.go", "inbound"},
	{"attacks from within, and what has to bear them", "cmd/warren/e2e/hostile_test.go", "TestHostile"},
	{"where the hostile program takes hold of an agent", "mesh/agent/hostile.go", "guise"},
	{"the state directory is damaged", "mesh/place/files.go", "remedies"},
	{"the store of records is damaged", "mesh/store/store.go", "SetAside"},
	{"names of what is dropped: at the shared port", "tunnel/bind/counters.go", "Drop"},
	{"names of what is dropped: STUN", "nat/mux.go", "Reason"},
	{"names of what is dropped: introductions", "mesh/courier/reason.go", "reason"},
	{"names of what is dropped: records", "mesh/roster/reason.go", "Reason"},
	{"names of what is dropped: control messages", "mesh/session/counters.go", "reason"},
	{"names of what is dropped: inside the tunnel", "tunnel/fit/drop.go", "Drop"},
	{"what this machine lets others begin", "mesh/node/rules.go", "planRules"},
	{"names of what is dropped: by the policy, and as no honest packet", "tunnel/filter/reason.go", "Reason"},
	{"names of what is dropped: as status shows all of them", "mesh/report/status.go", "dropped"},
	{"a line of `warren status`", "cmd/warren/status.go", "shownPath"},
	{"a warning in `warren status`", "mesh/report/warnings.go", "warnings"},
	{"a sentence of `warren why`", "mesh/verdict/causes.go", "Words"},
	{"fields of the JSON", "mesh/api/types.go", "Status"},
	{"a route that would swallow the tunnel", "nat/ranges/swallow.go", "Swallowing"},
	{"what the system refuses to send", "tunnel/bind/unsent.go", "Refusal"},
	{"when a change of a setting takes effect", "mesh/node/effects.go", "Effects"},
	{"a key of the config file", "config/parse.go", "meshTable"},
	{"every wire format and state machine", "mesh/PROTOCOL.md", "## 17. The path machine"},
	{"how a release differs from the one before", "CHANGELOG.md", "## Unreleased"},
}
