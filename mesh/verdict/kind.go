package verdict

// Kind is a verdict about a peer without its particulars. Its word is what programs may compare, so it stays.
type Kind uint8

// The kinds of a member that is reached as well as can be, or not reached at all.
const (
	Direct              Kind = iota // nothing is wrong
	Trying                          // a path, or a better one, is being looked for
	Handshaking                     // the path is there, WireGuard's handshake is under way
	HandshakeUnanswered             // the path is there, and the handshake does not succeed over it
	Silent                          // it has not answered a ping just now
	Lost                            // it has just stopped answering
	Off                             // nothing is heard of it
	Deaf                            // it is there, and answers no introduction
	OlderVersion                    // as Deaf, with an older version
	Clock                           // the two clocks are too far apart
	Isolated                        // this node has a session with nobody
	Refused                         // this node is not taken for a member
	NoWay                           // introductions do not get there
	HasLeft                         // it has left the mesh
	Revoked                         // it is no member any more
	Untied                          // it has no tunnel with this node, since another has its key
	BatchesLost                     // single packets arrive, and batches of them do not

	// The kinds of a member to which a direct path cannot be had.
	FirewallHere // this machine itself refuses to send
	UDPBlockedHere
	UDPBlockedThere
	BothMapByDestination
	MapsByDestination
	SameRouter
	NoCommonFamily
	NoCandidates
	Firewall
	FirewallThere
	Unstable
	Unexplained
	KernelBars // a rule of one of the two machines keeps packets of programs out of the tunnel, or from coming out of it
	PolicyBars // the policy lets nothing of this machine reach it
	PortTaken  // a machine behind one of the two, which is a router, has its port

	// The kinds of a static peer that is not up.
	StaticName       // the name of its endpoint does not resolve
	StaticSilent     // it has to call, and has not
	StaticUnused     // nothing was sent to it
	StaticUnanswered // nothing came back
	StaticHandshake  // something came back, and no handshake is complete
	StaticIdle       // it was up
	StaticMute       // it was up, and does not answer any more

	kinds // how many there are
)

// String returns the word that stays the same.
func (k Kind) String() string {
	return [kinds]string{
		Direct: "direct", Trying: "trying", Handshaking: "handshake", HandshakeUnanswered: "handshake-unanswered", Silent: "silent",
		Lost: "lost", Off: "off", Deaf: "deaf", OlderVersion: "older-version", Clock: "clock", Isolated: "isolated", Refused: "refused",
		NoWay: "no-route", HasLeft: "left", Revoked: "revoked", Untied: "no-tunnel", BatchesLost: "batches-lost",
		FirewallHere: "firewall-here", UDPBlockedHere: "udp-blocked-here", UDPBlockedThere: "udp-blocked-there", BothMapByDestination: "both-map-by-destination",
		MapsByDestination: "maps-by-destination", SameRouter: "same-router", NoCommonFamily: "no-common-family", NoCandidates: "no-candidates",
		Firewall: "firewall", FirewallThere: "firewall-there", Unstable: "unstable", Unexplained: "unexplained", KernelBars: "local-rule", PolicyBars: "policy", PortTaken: "port-taken",
		StaticName: "static-name", StaticSilent: "static-silent", StaticUnused: "static-unused", StaticUnanswered: "static-unanswered",
		StaticHandshake: "static-handshake", StaticIdle: "static-idle", StaticMute: "static-mute",
	}[k]
}
