package verdict

import (
	"fmt"
	"net/netip"

	"warren/nat/natkind"
)

// NetKind is a verdict about this node's network without its particulars. Its word is what programs may compare, so it stays.
type NetKind uint8

// The kinds of network, as far as direct connections are concerned.
const (
	NetUnknown NetKind = iota // too little evidence
	NetOpen                   // strangers reach this node
	NetEasy                   // direct paths to all but the hardest peers
	NetHard                   // the NAT maps by destination
	NetBlocked                // UDP gets no answer
	NetPortal                 // something answers in the anchors' place
	NetOffline                // nothing gets an answer
	netKinds                  // how many there are
)

// String returns the word that stays the same.
func (k NetKind) String() string {
	return [netKinds]string{
		NetUnknown: "unknown", NetOpen: "open", NetEasy: "easy", NetHard: "hard", NetBlocked: "blocked", NetPortal: "portal", NetOffline: "offline",
	}[k]
}

// NetVerdict says what to expect of direct connections, and what would better that.
type NetVerdict struct {
	Kind       NetKind
	Conclusion Sentence
	Advice     Sentence // nil when nothing is wrong
}

// Words puts the verdict into words; advice is empty where there is none.
func (v NetVerdict) Words() (conclusion, advice string) {
	return words(v.Conclusion, nil), words(v.Advice, nil)
}

// Network is what a verdict about this node's network rests on.
type Network struct {
	Port    uint16 // the shared UDP port
	IPv4    Family
	IPv6    Family
	Open    netip.AddrPort // at which a member has reached this node unasked; invalid: nowhere
	Routers []Router       // those asked for a port mapping
	Streams bool           // packets go by streams
	Unsent  []Unsent       // what this machine refuses to send, the latest first
	Looks   []Look         // at anchors, by TCP
	Portal  Portal
	Batches bool // single packets get through, and batches of them do not
}

// Router is a router that was asked to keep the shared port open.
type Router struct {
	Gateway   netip.Addr
	Mapped    bool
	External  netip.AddrPort // where the port is mapped to
	Public    bool           // External is one of the Internet
	RefusedBy string         // the protocol by which the router refuses; "" when it does not
	Reason    string         // of the refusal
}

// The conclusions that are always the same.
const (
	LetsStrangersIn   Plain = "direct connections: likely with every peer that can send UDP; the NAT lets strangers in through a port in use"
	LikelyWithAll     Plain = "direct connections: likely with every peer that can send UDP"
	LikelyWithMost    Plain = "direct connections: likely with all peers but those whose NAT maps by destination"
	KeepsStrangersOut Plain = LikelyWithMost + "; a firewall keeps strangers out"
	NoneByUDP         Plain = "direct connections: none over the Internet; this network drops UDP, so packets go by TCP streams through anchors, more slowly"
	NoneYet           Plain = "direct connections: none over the Internet; no anchor answers by UDP, and one does by TCP: if that lasts, packets go by TCP streams through anchors"
	NoneAtAll         Plain = "direct connections: none over the Internet; no anchor answers, neither by UDP nor by TCP"
	NoNetwork         Plain = "direct connections: none; this machine has no address on any network"
	NobodyToAsk       Plain = "direct connections: not known; there is no other anchor on the Internet to ask"
)

// The advice that is always the same.
const (
	SecondAnchor  Plain = "make a second member reachable from the Internet, so that two can be asked"
	AnotherAnchor Plain = "make a second member reachable from the Internet: then each can ask the other"
	LogIn         Plain = "open a web page in a browser here and log in"
	SeeOnline     Plain = "see whether this machine is online, and the anchors are up"
	SegmentsOff   Plain = "batches of packets are lost on the way, and large transfers stall so: switch the offload off at the interface that leads out: sudo ethtool -K INTERFACE tx-udp-segmentation off tx off"
	Connect       Plain = "connect it to a network"
)

// JudgeNetwork says what to expect of direct connections. That batches are lost is worse than what else could be bettered.
func JudgeNetwork(n Network) NetVerdict {
	v := n.refusedHere(n.judge())
	if n.Batches {
		v.Advice = SegmentsOff
	}
	return v
}

// judge is JudgeNetwork without what this machine refuses itself.
func (n *Network) judge() NetVerdict {
	family := n.IPv4 // a NAT is IPv4's business; IPv6 counts where it is all there is
	if n.IPv4.UDP() != UDPWorks && n.IPv6.UDP() == UDPWorks {
		family = n.IPv6
	}
	switch {
	case family.UDP() != UDPWorks:
		return n.withoutUDP()
	case n.Open.IsValid():
		return NetVerdict{NetOpen, ReachedAt{n.Open}, nil}
	case family.Filtering == natkind.FilteredNot:
		return NetVerdict{NetOpen, LetsStrangersIn, nil}
	case family.Mapping.Dependent():
		return NetVerdict{NetHard, OnlyWithOpen{family.Mapping}, n.openPort()}
	case family.Mapping == natkind.MappingUnknown:
		return NetVerdict{NetUnknown, KindUnknown{family.Lack()}, SecondAnchor}
	case family.Filtering == natkind.FilteredByAddress:
		return NetVerdict{NetEasy, LikelyWithAll, nil}
	case family.Mapping == natkind.Unmapped:
		return NetVerdict{NetEasy, KeepsStrangersOut, LetIn{n.Port}}
	}
	return NetVerdict{NetEasy, LikelyWithMost, nil}
}

// withoutUDP is JudgeNetwork where no answer came by UDP.
func (n *Network) withoutUDP() NetVerdict {
	silent := n.IPv4.UDP() == UDPSilent || n.IPv6.UDP() == UDPSilent
	switch {
	case n.Portal.Suspected:
		return NetVerdict{NetPortal, BehindPortal{n.Portal.Reason}, LogIn}
	case silent && n.Streams:
		return NetVerdict{NetBlocked, NoneByUDP, LetUDPOut{n.Port}}
	case silent && anyOpen(n.Looks):
		return NetVerdict{NetBlocked, NoneYet, LetUDPOut{n.Port}}
	case silent:
		return NetVerdict{NetOffline, NoneAtAll, SeeOnline}
	case !n.IPv4.Present && !n.IPv6.Present:
		return NetVerdict{NetOffline, NoNetwork, Connect}
	}
	return NetVerdict{NetUnknown, NobodyToAsk, AnotherAnchor}
}

// openPort is how to let strangers in through the router, by what it said when it was asked.
func (n *Network) openPort() Sentence {
	for _, r := range n.Routers {
		if r.Mapped || r.RefusedBy != "" {
			return OpenRouter{r, n.Port}
		}
	}
	if len(n.Routers) > 0 {
		return OpenRouter{n.Routers[0], n.Port}
	}
	return Forward{n.Port}
}

// ReachedAt is a network in which a member has reached this node unasked.
type ReachedAt struct{ Addr netip.AddrPort }

// Words says where.
func (c ReachedAt) Words(Names) string {
	return fmt.Sprintf("direct connections: with every peer that can send UDP; strangers reach this node at %s", c.Addr)
}

// OnlyWithOpen is a network whose NAT maps by destination.
type OnlyWithOpen struct{ Mapping natkind.Mapping }

// Words says how it does.
func (c OnlyWithOpen) Words(Names) string {
	return fmt.Sprintf("direct connections: only with peers that strangers can reach; this NAT's mapping is %s", c.Mapping)
}

// KindUnknown is a network whose NAT could not be told.
type KindUnknown struct{ Lack Sentence }

// Words says what is missing.
func (c KindUnknown) Words(names Names) string {
	return "direct connections: likely, but how this NAT maps ports is not known; " + words(c.Lack, names)
}

// BehindPortal is a network in which something answers in the anchors' place.
type BehindPortal struct{ Reason string }

// Words says what.
func (c BehindPortal) Words(Names) string {
	return "direct connections: none; something answers in the anchors' place, probably a captive portal (" + c.Reason + ")"
}

// LetIn is the advice for a host with a public address and a firewall.
type LetIn struct{ Port uint16 }

// Words says which port.
func (f LetIn) Words(Names) string {
	return fmt.Sprintf("to be reachable for all, and an anchor, let UDP port %d in", f.Port)
}

// LetUDPOut is the advice for a network that drops UDP.
type LetUDPOut struct{ Port uint16 }

// Words says at least whereto.
func (f LetUDPOut) Words(Names) string {
	return fmt.Sprintf("let UDP out, at least to port %d of the anchors", f.Port)
}

// Forward is the advice for a router that was not found.
type Forward struct{ Port uint16 }

// Words says which port.
func (f Forward) Words(Names) string { return "on the router, " + forward(f.Port) }

func forward(port uint16) string { return fmt.Sprintf("forward UDP port %d to this machine", port) }

// OpenRouter is the advice for a router that was asked for a mapping.
type OpenRouter struct {
	Router Router
	Port   uint16
}

// Words goes by what the router said.
func (f OpenRouter) Words(Names) string {
	switch r := f.Router; {
	case r.Mapped && !r.Public:
		return fmt.Sprintf("the router %s maps the port, but another NAT stands behind it: ask the provider for a public address or IPv6", r.Gateway)
	case r.Mapped:
		return fmt.Sprintf("the router %s maps the port to %s, but nobody gets through: see whether another firewall stands before it", r.Gateway, r.External)
	case r.RefusedBy != "":
		return fmt.Sprintf("the router %s refuses port mappings by %s (%s): allow them there, or %s", r.Gateway, r.RefusedBy, r.Reason, forward(f.Port))
	}
	return fmt.Sprintf("turn on UPnP or NAT-PMP on the router %s, or %s", f.Router.Gateway, forward(f.Port))
}
