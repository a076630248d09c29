package node

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"warren/mesh/api"
	"warren/mesh/place"
	"warren/nat/natkind"
)

// The words of a verdict about NATs and firewalls, and what would help.

// bothMap is why two nodes do not meet whose NATs both map by destination.
func (e *evidence) bothMap() string {
	kinds := e.here.Mapping.String()
	if other := e.there.Mapping.String(); other != kinds {
		kinds += " here, " + other + " there"
	}
	return fmt.Sprintf("the routers of %s and %s both map ports by destination (%s), so neither can be told where to send", e.self, e.Peer.Name, kinds)
}

// oneMaps is why two nodes do not meet of which one has a NAT that maps by destination.
func oneMaps(hard string, nat natkind.Self, guarded string, guard natkind.Self) string {
	order := ""
	switch nat.Ports {
	case natkind.PortsRandom:
		order = ", at random"
	case natkind.PortsSequential:
		order = ", one after the other, but the one for this peer was not found"
	}
	cause := fmt.Sprintf("the router of %s maps ports by destination (%s%s), and the one of %s lets in only whom it wrote to", hard, nat.Mapping, order, guarded)
	if guard.Filtering == natkind.FilteringUnknown {
		return cause + ", as far as is known"
	}
	return cause
}

// openOne is how to let the other in at one end; that end first where it is the easiest.
func (e *evidence) openOne() string {
	here, there := openAt(e.self, e.here, e.port), openAt(e.Peer.Name, e.there, e.peerPort)
	plain := func(s natkind.Self) bool {
		return s.PortMapping == natkind.PortMappingAbsent || s.PortMapping == natkind.PortMappingUnknown
	}
	switch {
	case plain(e.here) && plain(e.there) && e.port == e.peerPort:
		return fmt.Sprintf("turn on UPnP or NAT-PMP on the router of %s or of %s, or forward UDP port %d there; one of them is enough", e.self, e.Peer.Name, e.port)
	case hopeless(e.here) && !hopeless(e.there):
		return there
	case hopeless(e.there) && !hopeless(e.here):
		return here
	}
	return here + "; or " + there
}

// hopeless reports whether nothing can be done at the router of a node.
func hopeless(s natkind.Self) bool { return s.PortMapping == natkind.PortMappedInside }

// openAt is how to let strangers in to one node, by what its router said.
func openAt(name string, s natkind.Self, port uint16) string {
	forward := fmt.Sprintf("forward UDP port %d to it", port)
	switch s.PortMapping {
	case natkind.PortMapped:
		return fmt.Sprintf("the router of %s maps a port, but nobody gets through: see whether another firewall stands before it", name)
	case natkind.PortMappingRefused:
		return fmt.Sprintf("the router of %s refuses port mappings: allow them there, or %s", name, forward)
	case natkind.PortMappedInside:
		return fmt.Sprintf("another NAT stands behind the router of %s: ask its provider for a public address or IPv6", name)
	case natkind.PortMappingOff:
		return fmt.Sprintf("%s is set to anchor = \"never\", so it asks its router for no port: set it to \"auto\", or %s", name, forward)
	case natkind.PortMappingUnneeded:
		return fmt.Sprintf("let UDP port %d in at the firewall of %s", port, name)
	}
	return fmt.Sprintf("turn on UPnP or NAT-PMP on the router of %s, or %s", name, forward)
}

func (e *evidence) letOut(name string) string {
	return fmt.Sprintf("let UDP out of the network of %s, at least to port %d of the anchors", name, place.DefaultPort)
}

// dropped is why checks get lost that no NAT explains.
func (e *evidence) dropped(sent, answered, heard int) (word, cause, fix string) {
	blind := e.self
	if e.here.Mapping != natkind.MappingUnknown {
		blind = e.Peer.Name
	}
	switch {
	case answered > 0:
		return "unstable", fmt.Sprintf("%s answered %s, but no pair of addresses held", e.Peer.Name, counted(answered, "check")), "it is tried again by itself; if it stays so, packets get lost on the way"
	case heard > 0:
		return "firewall-there", fmt.Sprintf("checks of %s come in here, but none of the %d sent there is answered: what stands before %s lets nothing in", e.Peer.Name, sent, e.Peer.Name),
			openAt(e.Peer.Name, e.there, e.peerPort)
	case e.here.Mapping == natkind.MappingUnknown || e.there.Mapping == natkind.MappingUnknown:
		return "unexplained", fmt.Sprintf("none of %s was answered; what the router of %s does is not known", counted(sent, "check"), blind),
			fmt.Sprintf("see on %s: warren netcheck (it takes two anchors to tell)", blind)
	}
	return "firewall", fmt.Sprintf("none of %s was answered and none came in, though both NATs would let them: a firewall between %s and %s drops UDP", counted(sent, "check"), e.self, e.Peer.Name),
		fmt.Sprintf("let UDP port %d pass at both ends, or at one: %s", e.port, openAt(e.self, e.here, e.port))
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if strings.HasSuffix(what, "s") {
		return fmt.Sprintf("%d %ses", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// judgeStatic is about a plain WireGuard peer of the config file.
func (e *evidence) judgeStatic() verdict {
	p := e.Peer
	v := verdict{conclusion: p.Name + " is a static peer, and not reached"}
	fresh := p.LastHandshake != nil && e.Time.Sub(*p.LastHandshake) < idleAfter
	switch {
	case fresh && p.Path.Kind == api.PathDirect:
		v.word, v.conclusion = "direct", p.Name+" is a static peer, and reached directly"
	case e.endpoint != "" && !p.Path.Address.IsValid():
		v.word, v.cause, v.fix = "static-name", fmt.Sprintf("its endpoint %s is not known: the name does not resolve", e.endpoint), "correct endpoint in the config file, or see whether DNS works here"
	case !p.Path.Address.IsValid():
		v.word, v.cause = "static-silent", "it has not called, and no endpoint is configured to call it at"
		v.fix = fmt.Sprintf("on %s set the endpoint to this machine, UDP port %d, and the public key to %s", p.Name, e.port, e.key)
	case p.LastHandshake == nil && p.TxBytes == 0:
		v.word, v.cause, v.fix = "static-unused", "nothing was sent to it yet: WireGuard speaks when there is something to say", "ping its address, or set persistent_keepalive"
	case p.LastHandshake == nil && p.RxBytes == 0:
		v.word, v.cause = "static-unanswered", fmt.Sprintf("%s were sent to %s, and nothing came back: WireGuard does not answer a wrong key, a firewall drops it, or the endpoint is wrong", sized(p.TxBytes), p.Path.Address)
		v.fix = fmt.Sprintf("compare: there, the public key of this node has to be %s; here, public_key has to be the one that wg show prints there; and let UDP port %d in there", e.key, p.Path.Address.Port())
	case p.LastHandshake == nil:
		v.word, v.cause, v.fix = "static-handshake", "it answers, but no handshake is complete: the preshared keys may differ", "set the same preshared key at both ends, or none"
	default:
		v.word, v.conclusion = "static-idle", p.Name+" is a static peer, and idle"
		v.cause, v.fix = fmt.Sprintf("nothing was exchanged for %s", coarse(e.Time.Sub(*p.LastHandshake))), "if it should be up, ping its address and ask again"
	}
	return v
}

func sized(bytes uint64) string { return counted(int(bytes), "byte") }

// coarse prints a duration as a person would say it.
func coarse(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return counted(int(max(d, 0)/time.Second), "second")
	case d < 2*time.Hour:
		return counted(int(d/time.Minute), "minute")
	case d < 48*time.Hour:
		return counted(int(d/time.Hour), "hour")
	}
	return counted(int(d/(24*time.Hour)), "day")
}

// older reports whether version a is surely older than b: both are numbers with dots, or one is no version at all.
func older(a, b string) bool {
	x, y := numbers(a), numbers(b)
	return x != nil && y != nil && slices.Compare(x, y) < 0
}

func numbers(version string) (out []int) {
	release, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), "-")
	for part := range strings.SplitSeq(release, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil
		}
		out = append(out, n)
	}
	return out
}

// What is said of a pair that was not tried.
const pairUnable = "not tried: this node has no address of its family"

// pairResult puts what came of a pair into words.
func pairResult(p api.Pair, unable, won, running bool) string {
	switch {
	case unable:
		return pairUnable
	case won:
		return "answered, chosen"
	case p.Answered > 0:
		return "answered, not chosen"
	case p.Heard > 0 && p.Sent == 0:
		return "its checks came in, none was sent back"
	case p.Heard > 0:
		return fmt.Sprintf("its checks came in; no answer to %d", p.Sent)
	case p.Sent == 0 && running:
		return "not tried yet"
	case p.Sent == 0:
		return "not tried: the attempt ended before"
	}
	return fmt.Sprintf("no answer to %s", counted(p.Sent, "check"))
}
