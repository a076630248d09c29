package dns64

import (
	"net"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"

	"warren/nat/nat64"
)

const (
	// advertTime is how long routers have to answer: they may wait for half a second (RFC 4861, section 6.2.6).
	advertTime = time.Second
	// settles is how old an advertisement may be when the network changes to be one of the new network: the addresses that the change
	// is about came with it.
	settles = 5 * time.Second
)

// told is what a router has advertised last.
type told struct {
	mu     sync.Mutex
	link   int
	prefix nat64.Prefix // zero: none
	at     time.Time
	until  time.Time
}

// known returns the prefix that is good now; the zero Prefix: none.
func (t *told) known(now time.Time) nat64.Prefix {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !now.Before(t.until) {
		return nat64.Prefix{}
	}
	return t.prefix
}

// take notes an advertised prefix, which no life takes back. It reports whether anything is other than before. The last one counts: of two
// routers either will do.
func (t *told) take(now time.Time, link int, p nat64.Prefix, life time.Duration) (changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.prefix
	if !now.Before(t.until) {
		was = nat64.Prefix{}
	}
	if life == 0 {
		if p != was || link != t.link {
			return false
		}
		p = nat64.Prefix{}
	}
	t.link, t.prefix, t.at, t.until = link, p, now, now.Add(life)
	return p != was
}

// doubt forgets what was heard in the network before.
func (t *told) doubt(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.at) > settles {
		t.prefix = nat64.Prefix{}
	}
}

// solicit asks the routers of all links for an advertisement (RFC 4861, section 4.1), which the system takes as it does any other.
// Without the right to do so it does nothing: routers advertise by themselves now and then.
func solicit() {
	links, err := net.Interfaces()
	if err != nil {
		return
	}
	c, err := icmp.ListenPacket("ip6:ipv6-icmp", "::")
	if err != nil {
		return
	}
	defer c.Close()
	question, err := (&icmp.Message{Type: ipv6.ICMPTypeRouterSolicitation, Body: &icmp.RawBody{Data: make([]byte, 4)}}).Marshal(nil)
	if err != nil || c.IPv6PacketConn().SetMulticastHopLimit(255) != nil {
		return
	}
	for _, link := range links {
		if link.Flags&(net.FlagUp|net.FlagMulticast) == net.FlagUp|net.FlagMulticast && link.Flags&(net.FlagLoopback|net.FlagPointToPoint) == 0 {
			_, _ = c.WriteTo(question, &net.IPAddr{IP: net.IPv6linklocalallrouters, Zone: link.Name})
		}
	}
}
