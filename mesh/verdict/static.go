package verdict

import (
	"fmt"
	"net/netip"
	"time"
)

// StaticPeer is what a verdict about a plain WireGuard peer of the config file rests on.
type StaticPeer struct {
	Now           time.Time
	Name          string
	Endpoint      string         // as configured; "" for none
	Addr          netip.AddrPort // where it is spoken to; invalid: nowhere
	LastHandshake time.Time      // zero: never
	Heard         time.Time      // the last packet of it, as its counters show it to whoever looks; zero: never
	Unanswered    time.Time      // since when its counters show packets to it and none of it; zero: that is not so
	RxBytes       uint64
	TxBytes       uint64
	Port          uint16 // of this node
	PublicKey     string // of this node
	Unsent        []Unsent
}

// Remedies for static peers that are the same whichever it is.
const (
	CorrectEndpoint  Plain = "correct endpoint in the config file, or see whether DNS works here"
	PingIt           Plain = "ping its address, or set persistent_keepalive"
	PingAndAsk       Plain = "if it should be up, ping its address and ask again"
	SamePresharedKey Plain = "set the same preshared key at both ends, or none"
)

// Causes of static peers that are the same whichever it is.
const (
	HasNotCalled Plain = "it has not called, and no endpoint is configured to call it at"
	NothingSent  Plain = "nothing was sent to it yet: WireGuard speaks when there is something to say"
	HalfShaken   Plain = "it answers, but no handshake is complete: the preshared keys may differ"
)

// LastHeard is the last sign of life; zero: none.
func (p StaticPeer) LastHeard() time.Time { return later(p.LastHandshake, p.Heard) }

// owes reports whether packets were sent for long and nothing has come back. A peer that never answered has no time for that.
func (p StaticPeer) owes() bool {
	if p.LastHeard().IsZero() {
		return p.TxBytes > 0 && p.RxBytes == 0 && p.Addr.IsValid()
	}
	return !p.Unanswered.IsZero() && p.Now.Sub(p.Unanswered) >= answersWithin
}

// Contact judges. Nothing but WireGuard's counters and its last handshake is known of such a peer.
func (p StaticPeer) Contact() Contact {
	last := p.LastHeard()
	switch {
	case p.Endpoint != "" && !p.Addr.IsValid():
		return Down
	case p.owes():
		return Mute
	case !last.IsZero() && p.Now.Sub(last) < staticFresh:
		return Up
	}
	return Idle
}

// staticFresh is how long a sign of a static peer counts as one of now: counters are compared when somebody looks, and `warren status
// --watch` looks every two seconds.
const staticFresh = 5 * time.Second

// JudgeStatic says why a static peer is reached as it is.
func JudgeStatic(p StaticPeer) Verdict {
	v := Verdict{Conclusion: HowStatic{p.Name, StaticUnreached}}
	quiet := p.Now.Sub(p.LastHeard())
	switch {
	case p.Endpoint != "" && !p.Addr.IsValid():
		v.Kind, v.Cause, v.Fix = StaticName, Unresolved{p.Endpoint}, CorrectEndpoint
	case !p.Addr.IsValid() && p.LastHeard().IsZero():
		v.Kind, v.Cause, v.Fix = StaticSilent, HasNotCalled, CallHere{p.Name, p.Port, p.PublicKey}
	case p.LastHeard().IsZero() && p.TxBytes == 0:
		v.Kind, v.Cause, v.Fix = StaticUnused, NothingSent, PingIt
	case p.LastHeard().IsZero() && p.RxBytes == 0:
		v.Kind, v.Cause, v.Fix = StaticUnanswered, NothingBack{p.TxBytes, p.Addr}, CompareKeys{p.PublicKey, p.Addr.Port()}
	case p.LastHandshake.IsZero():
		v.Kind, v.Cause, v.Fix = StaticHandshake, HalfShaken, SamePresharedKey
	case p.owes():
		v.Kind, v.Conclusion = StaticMute, HowStatic{p.Name, StaticDeaf}
		v.Cause, v.Fix = OwesAnswer{Since: quiet}, PingAndAsk
	case p.Contact() == Up:
		v.Kind, v.Conclusion = Direct, HowStatic{p.Name, StaticReached}
	default:
		v.Kind, v.Conclusion = StaticIdle, HowStatic{p.Name, StaticQuiet}
		v.Cause, v.Fix = QuietFor{quiet}, PingAndAsk
	}
	if list := RefusedTo(p.Unsent, p.Addr); len(list) > 0 && v.Kind != Direct {
		v.Kind, v.Cause, v.Fix = FirewallHere, Refuses{list}, AllowOut{list[0]}
	}
	return v
}

// HowStatic is how a static peer is reached.
type HowStatic struct {
	Name  string
	State StaticState
}

// StaticState is whether a static peer is reached.
type StaticState uint8

// The states.
const (
	StaticUnreached StaticState = iota
	StaticReached
	StaticQuiet // it was reached before
	StaticDeaf  // it was reached before, and does not answer
)

// Words says it in one line.
func (h HowStatic) Words(Names) string {
	switch h.State {
	case StaticReached:
		return h.Name + " is a static peer, and reached directly"
	case StaticQuiet:
		return h.Name + " is a static peer, and idle"
	case StaticDeaf:
		return h.Name + " is a static peer, and does not answer"
	}
	return h.Name + " is a static peer, and not reached"
}

// Unresolved is an endpoint whose name has no address.
type Unresolved struct{ Endpoint string }

// Words says which.
func (c Unresolved) Words(Names) string {
	return fmt.Sprintf("its endpoint %s is not known: the name does not resolve", c.Endpoint)
}

// NothingBack is a peer that never answered.
type NothingBack struct {
	Bytes uint64 // sent
	To    netip.AddrPort
}

// Words says what may be: WireGuard tells no stranger.
func (c NothingBack) Words(Names) string {
	return fmt.Sprintf("%s were sent to %s, and nothing came back: WireGuard does not answer a wrong key, a firewall drops it, or the endpoint is wrong", sized(c.Bytes), c.To)
}

// QuietFor is a peer that was up.
type QuietFor struct{ Time time.Duration }

// Words says how long ago.
func (c QuietFor) Words(Names) string {
	return fmt.Sprintf("last heard %s ago; whether it is there now is not known", coarse(c.Time))
}

// CallHere is how a peer is configured that has to call.
type CallHere struct {
	Name      string
	Port      uint16
	PublicKey string
}

// Words says what to set there.
func (f CallHere) Words(Names) string {
	return fmt.Sprintf("on %s set the endpoint to this machine, UDP port %d, and the public key to %s", f.Name, f.Port, f.PublicKey)
}

// CompareKeys is what to look at when a peer does not answer.
type CompareKeys struct {
	PublicKey string // of this node
	Port      uint16 // of the peer
}

// Words says what to compare.
func (f CompareKeys) Words(Names) string {
	return fmt.Sprintf("compare: there, the public key of this node has to be %s; here, public_key has to be the one that wg show prints there; and let UDP port %d in there", f.PublicKey, f.Port)
}
