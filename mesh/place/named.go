package place

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
)

const (
	// nameHead is how long the addresses of a token wait for its name, which is more likely to be right.
	nameHead = 500 * time.Millisecond
	// nameTime bounds the look-up of a name, and maxNamed how many of its addresses are asked.
	nameTime = 10 * time.Second
	maxNamed = 4
)

// named is what a name of a token has come to.
type named struct {
	anchor identity.TokenAnchor
	addrs  []netip.Addr
	err    error
}

// look asks the system's resolver for the addresses of a name. What a DNS64 made of an IPv4 address is that address again.
func (o JoinOptions) look(ctx context.Context, anchor identity.TokenAnchor) named {
	ctx, cancel := context.WithTimeout(ctx, nameTime)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", anchor.Name)
	n := named{anchor: anchor, err: err}
	for _, addr := range found {
		addr = o.way.In(netip.AddrPortFrom(addr.Unmap(), anchor.Addr.Port())).Addr()
		if !slices.Contains(n.addrs, addr) {
			n.addrs = append(n.addrs, addr)
		}
	}
	n.addrs = some(n.addrs)
	return n
}

// some returns as many of the addresses as are asked, of both families in turn.
func some(addrs []netip.Addr) (out []netip.Addr) {
	var families [2][]netip.Addr // the first one is the resolver's choice
	for _, a := range addrs {
		i := 0
		if a.Is4() != addrs[0].Is4() {
			i = 1
		}
		families[i] = append(families[i], a)
	}
	for i := range max(len(families[0]), len(families[1])) {
		for _, family := range families {
			if i < len(family) && len(out) < maxNamed {
				out = append(out, family[i])
			}
		}
	}
	return out
}

// begin asks the first member, that of a name if it is found at once.
func (a *asking) begin(ctx context.Context) {
	if a.open > 0 { // only names so far
		wait := time.NewTimer(nameHead)
		defer wait.Stop()
		select {
		case n := <-a.named:
			a.open--
			a.lookedUp(ctx, n)
			return
		case <-wait.C:
		case <-ctx.Done():
		}
	}
	a.askNext(ctx)
}

// lookedUp asks at the addresses of a name, ahead of those that have not been asked.
func (a *asking) lookedUp(ctx context.Context, n named) {
	a.next = append(a.fresh(n), a.next...)
	a.askNext(ctx)
}

// fresh returns the addresses of a name that have not been asked, and takes them out of those to come.
func (a *asking) fresh(n named) (fresh []identity.TokenAnchor) {
	if n.err != nil {
		a.failures = append(a.failures, fmt.Errorf("%s: %w", n.anchor, reasonOf(n.err)))
	}
	for _, addr := range n.addrs {
		at := identity.TokenAnchor{Addr: netip.AddrPortFrom(addr, n.anchor.Addr.Port()), ID: n.anchor.ID}
		if slices.Contains(a.asked, at.Addr) {
			continue
		}
		a.next = slices.DeleteFunc(a.next, func(other identity.TokenAnchor) bool { return other.Addr == at.Addr })
		fresh = append(fresh, at)
	}
	return fresh
}

// reasonOf says why a name has no address, for a person.
func reasonOf(err error) error {
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return errors.New("this name is not known to the resolver of this machine")
	}
	return fmt.Errorf("the name cannot be looked up: %w", err)
}
