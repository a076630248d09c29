package node

import (
	"fmt"
	"time"

	"warren/mesh/api"
	"warren/nat/natkind"
)

// evidence is what a verdict about a peer rests on: what is shown, and a little that is not.
type evidence struct {
	api.Why
	self     string // name of this node
	port     uint16 // its UDP port
	key      string // its WireGuard key
	peerPort uint16 // the peer's UDP port
	here     natkind.Self
	there    natkind.Self
	sessions int    // control sessions that are up, with whomever
	refusals string // what members say who refuse this node, in words
	skewed   bool   // the peer's last signal was refused because of its clock
	sending  bool   // packets for it have left within the last seconds
	endpoint string // of a static peer, as configured; "" for none
	sameNAT  bool   // both are seen under one address
}

// verdict is what the evidence amounts to.
type verdict struct{ word, conclusion, cause, fix string }

const (
	// youngFor is how long a first try may take until it is worth an explanation: signalling, and an attempt of 6 s.
	youngFor = 8 * time.Second
	// deafAfter is how long the session of a peer that is off may still seem to be up (QUIC's idle timeout).
	deafAfter = 45 * time.Second
)

// judge goes from what is certain to what is likely. It is pure.
func (e *evidence) judge() verdict {
	switch {
	case e.Revoked != nil:
		return e.judgeRevoked()
	case e.Peer.State == api.PeerLeft:
		return verdict{"left", e.Peer.Name + " is not reached: it has left the mesh by itself", "",
			fmt.Sprintf("to have it back: warren invite here, and warren join TOKEN on %s", e.Peer.Name)}
	case e.Peer.Static:
		return e.judgeStatic()
	}
	v := verdict{conclusion: e.how()}
	if e.Peer.Path.Kind == api.PathNone {
		v.word, v.cause, v.fix = e.unreached()
	} else {
		v.word, v.cause, v.fix = e.reached()
	}
	return v
}

func (e *evidence) judgeRevoked() verdict {
	cause := fmt.Sprintf("revoked by %s on %s", e.Revoked.By, e.Revoked.Time.UTC().Format("2 January 2006 at 15:04 UTC"))
	if e.Revoked.Reason != "" {
		cause += ": " + e.Revoked.Reason
	}
	return verdict{"revoked", e.Peer.Name + " is no member any more", cause,
		fmt.Sprintf("a revoked key stays out; to have the machine back: warren leave --force, then warren join TOKEN on %s", e.Peer.Name)}
}

// how says in one line how the peer is reached.
func (e *evidence) how() string {
	switch p := e.Peer.Path; {
	case p.Transport == api.TransportTCP && p.Kind == api.PathRelay:
		return fmt.Sprintf("%s is reached through the relay %s, by TCP", e.Peer.Name, p.Via)
	case p.Transport == api.TransportTCP:
		return e.Peer.Name + " is reached by TCP"
	case p.Kind == api.PathRelay:
		return fmt.Sprintf("%s is reached through the relay %s, not directly", e.Peer.Name, p.Via)
	case p.Kind == api.PathDirect:
		return e.Peer.Name + " is reached directly"
	}
	return e.Peer.Name + " is not reached"
}

// reached is about a peer to which there is a path.
func (e *evidence) reached() (word, cause, fix string) {
	young := e.Peer.Since != nil && e.Time.Sub(*e.Peer.Since) < youngFor
	shaken := e.Peer.LastHandshake != nil && (e.Time.Sub(*e.Peer.LastHandshake) <= idleAfter || !e.sending)
	switch {
	case !shaken && young:
		return "handshake", "the path has just come up; WireGuard's handshake is under way", ""
	case !shaken:
		return "handshake-unanswered", "the path answers, but WireGuard's handshake does not succeed over it: the two ends do not hold the same keys",
			fmt.Sprintf("keys are agreed on anew by themselves within seconds; if not, restart the agent on %s", e.Peer.Name)
	case e.Pinged && e.PingMS == 0 && e.Gossip == "dead":
		return e.off(0)
	case e.Pinged && e.PingMS == 0:
		return "silent", fmt.Sprintf("%s has not answered a ping just now: the path, or the machine, may have gone this moment", e.Peer.Name), "it is being checked: ask again in some seconds"
	case e.Peer.Path.Transport == api.TransportTCP || e.here.UDPBlocked:
		return "udp-blocked-here", "UDP gets no answer on this network, so packets go over TCP through anchors", e.letOut(e.self)
	case e.Peer.Path.Kind == api.PathDirect:
		return "direct", "", ""
	}
	if _, tried := e.lastTrial(); !tried && !e.there.UDPBlocked {
		return "trying", "a direct path is being tried; the relay carries the packets meanwhile", ""
	}
	return e.indirect()
}

// unreached is about a peer to which no path is known.
func (e *evidence) unreached() (word, cause, fix string) {
	waited := time.Duration(0)
	if e.Signals.Since != nil {
		waited = e.Time.Sub(*e.Signals.Since)
	}
	switch {
	case e.refusals != "" && e.sessions == 0:
		return "refused", "other members refuse this node: " + e.refusals, "see: warren status"
	case e.sessions == 0:
		return "isolated", "this node has a session with nobody, so nobody can introduce it to " + e.Peer.Name,
			"see whether this machine is online and an anchor is up: warren netcheck"
	case e.skewed:
		return "clock", fmt.Sprintf("the clocks of %s and %s differ by more than five minutes, so that introductions are refused", e.self, e.Peer.Name),
			"set both clocks by NTP: timedatectl set-ntp true"
	case e.Signals.Refused:
		return "refused", e.Peer.Name + " does not know this node yet: the record of one of the two is still on its way",
			fmt.Sprintf("wait some seconds; if it stays so, look at warren status on %s", e.Peer.Name)
	case e.Signals.NoRoute != "":
		return "no-route", "introductions find no way to " + e.Peer.Name + ": " + e.Signals.NoRoute, e.startIt()
	case e.Signals.Unanswered > 0 && waited < youngFor && e.Gossip != "dead" && e.Peer.LastHandshake != nil:
		return "lost", e.Peer.Name + " has just stopped answering, and is being looked for", "ask again in some seconds"
	case e.Signals.Unanswered > 0 && waited < youngFor && e.Gossip != "dead":
		return "trying", e.Peer.Name + " was asked for an introduction just now", "ask again in some seconds"
	case e.Signals.Unanswered > 0 && e.Session != nil && e.Gossip != "dead" && waited > deafAfter:
		return e.deaf()
	case e.Signals.Unanswered > 0:
		return e.off(waited)
	}
	if trial, tried := e.lastTrial(); !tried || trial.Ended == nil {
		return "trying", "a path to " + e.Peer.Name + " is being tried", "wait some seconds"
	}
	word, cause, fix = e.indirect()
	return word, cause + "; and no relay carries the packets: " + e.noRelay(), fix
}

// off is about a peer of which nothing is heard.
func (e *evidence) off(waited time.Duration) (word, cause, fix string) {
	last := e.Signals.LastHeard
	if shake := e.Peer.LastHandshake; last == nil || shake != nil && shake.After(*last) {
		last = shake
	}
	cause = fmt.Sprintf("%s has answered nothing for %s: it is switched off or offline, or its agent does not run", e.Peer.Name, coarse(waited))
	if waited == 0 {
		cause = e.Peer.Name + " does not answer: it is switched off or offline, or its agent does not run"
	}
	if last == nil {
		cause = fmt.Sprintf("%s has not been heard since this agent started: it is switched off or offline, or its agent does not run", e.Peer.Name)
	} else if gap := e.Time.Sub(*last); gap > waited+time.Minute {
		cause += fmt.Sprintf(" (last heard %s ago)", coarse(gap))
	}
	if e.Gossip == "dead" {
		cause += "; no other member hears it either"
	}
	return "off", cause, e.startIt()
}

func (e *evidence) startIt() string {
	return fmt.Sprintf("start %s, or see there: warren status, warren netcheck", e.Peer.Name)
}

// deaf is about a peer that is there, and answers no introduction.
func (e *evidence) deaf() (word, cause, fix string) {
	if older(e.Peer.Version, e.Here.Version) {
		return "older-version", fmt.Sprintf("%s is there but answers no introduction; it runs version %s, and this node %s", e.Peer.Name, e.Peer.Version, e.Here.Version),
			"update warren on " + e.Peer.Name
	}
	return "deaf", e.Peer.Name + " is there but answers no introduction", fmt.Sprintf("see there: warren why %s, warren status", e.self)
}

func (e *evidence) noRelay() string {
	switch {
	case len(e.Relays) > 0:
		return fmt.Sprintf("%s does not answer through %s", e.Peer.Name, e.Relays[0].Name)
	case e.Peer.Reason != "":
		return e.Peer.Reason
	}
	return "no anchor serves both"
}

// lastTrial is the newest attempt that has ended, else the one that runs; false when none has ended.
func (e *evidence) lastTrial() (api.Attempt, bool) {
	for _, a := range e.Attempts {
		if a.Ended != nil {
			return a, true
		}
	}
	return api.Attempt{}, false
}

// indirect is why no pair of addresses works between two nodes that do hear each other.
func (e *evidence) indirect() (word, cause, fix string) {
	trial, _ := e.lastTrial()
	sent, answered, heard, able := 0, 0, 0, 0
	for _, p := range trial.Pairs {
		sent, answered, heard = sent+p.Sent, answered+p.Answered, heard+p.Heard
		if p.Result != pairUnable {
			able++
		}
	}
	here, there := e.here.Mapping.Dependent(), e.there.Mapping.Dependent()
	switch {
	case e.here.UDPBlocked:
		return "udp-blocked-here", "UDP gets no answer on this network", e.letOut(e.self)
	case e.there.UDPBlocked:
		return "udp-blocked-there", fmt.Sprintf("UDP gets no answer on the network of %s, so its packets go over TCP through anchors", e.Peer.Name), e.letOut(e.Peer.Name)
	case len(trial.Pairs) > 0 && able == 0:
		return "no-common-family", fmt.Sprintf("%s and %s have no address family in common: one has IPv4 only, the other IPv6 only", e.self, e.Peer.Name), "give one of the two the other family too"
	case len(trial.Pairs) == 0 && e.Attempts != nil:
		return "no-candidates", e.Peer.Name + " has told no address that can be used", fmt.Sprintf("see there: warren netcheck on %s", e.Peer.Name)
	case here && there:
		return "both-map-by-destination", e.bothMap(), e.openOne()
	case e.sameNAT && sent > 0 && answered == 0:
		return "same-router", fmt.Sprintf("%s and %s are behind the same router, which does not pass packets between them", e.self, e.Peer.Name),
			"switch client isolation off on the router, or put both into one network"
	case here && !e.there.LetsIn():
		return "maps-by-destination", oneMaps(e.self, e.here, e.Peer.Name, e.there), e.openOne()
	case there && !e.here.LetsIn():
		return "maps-by-destination", oneMaps(e.Peer.Name, e.there, e.self, e.here), e.openOne()
	}
	return e.dropped(sent, answered, heard)
}
