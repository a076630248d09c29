// Package resolved tells systemd-resolved about one link: which servers know which domains (org.freedesktop.resolve1(5)).
//
// When it is told, and what, is left to the caller. What was told goes with the link, so that after a crash nothing is left. A Client may be used
// by one goroutine at a time.
package resolved

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// ErrAbsent says that systemd-resolved does not run here, or that there is no bus to ask.
var ErrAbsent = errors.New("systemd-resolved does not run here")

// callTime bounds one call: the service answers from memory.
const callTime = 3 * time.Second

// Domain is one domain of a link.
type Domain struct {
	Name  string // without a dot at its end
	Route bool   // names below it go to the link's servers; false: names without a dot are tried below it, too
}

// Link is what is told about a link.
type Link struct {
	Index   int // of the interface
	Servers []netip.Addr
	Domains []Domain
}

// bus is a connection to the system's bus; a twin stands in for it in tests.
type bus interface {
	// call calls a method of the manager. Its error wraps ErrAbsent when nobody is there to take it.
	call(ctx context.Context, method string, args ...any) error
	// owned reports whether the service runs.
	owned(ctx context.Context) (bool, error)
	// changes has a value when the service has begun or ended; nil: that is not told.
	changes() <-chan struct{}
	close() error
}

// Client speaks to the service.
type Client struct{ bus bus }

// Dial connects to the system's bus. The error wraps ErrAbsent where there is none.
func Dial(ctx context.Context) (*Client, error) {
	b, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	return &Client{b}, nil
}

// Close ends the connection. What was told stays.
func (c *Client) Close() error { return c.bus.close() }

// Changes has a value when the service has begun or ended since. It is closed with the connection.
func (c *Client) Changes() <-chan struct{} { return c.bus.changes() }

// Running reports whether the service runs. It is not started by the question.
func (c *Client) Running(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return c.bus.owned(ctx)
}

// address is one server: its family, and its bytes.
type address struct {
	Family int32
	Bytes  []byte
}

// route is one domain.
type route struct {
	Name  string
	Route bool
}

const (
	family4 = 2  // AF_INET of Linux
	family6 = 10 // AF_INET6
)

// Set tells what a link's servers know. All else of the link goes to nobody new: it never becomes the way for other names, and of what its
// servers say no signatures are wanted, for there are none below a private domain.
func (c *Client) Set(ctx context.Context, l Link) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	index, servers, domains := int32(l.Index), []address{}, []route{}
	for _, s := range l.Servers {
		family := int32(family6)
		if s.Is4() {
			family = family4
		}
		servers = append(servers, address{family, s.AsSlice()})
	}
	for _, d := range l.Domains {
		domains = append(domains, route(d))
	}
	// First what narrows, then what widens: at no moment is the link the way for everything.
	for _, step := range []struct {
		method   string
		optional bool // versions before 240 lack it, or were built without
		args     []any
	}{
		{"SetLinkDefaultRoute", true, []any{index, false}},
		{"SetLinkLLMNR", true, []any{index, "no"}},
		{"SetLinkMulticastDNS", true, []any{index, "no"}},
		{"SetLinkDNSSEC", true, []any{index, "no"}},
		{"SetLinkDNSOverTLS", true, []any{index, "no"}},
		{"SetLinkDomains", false, []any{index, domains}},
		{"SetLinkDNS", false, []any{index, servers}},
	} {
		err := c.bus.call(ctx, step.method, step.args...)
		if err != nil && (!step.optional || errors.Is(err, ErrAbsent)) {
			return fmt.Errorf("tell systemd-resolved: %s: %w", step.method, err)
		}
	}
	return nil
}

// Clear takes everything about a link back.
func (c *Client) Clear(ctx context.Context, index int) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if err := c.bus.call(ctx, "RevertLink", int32(index)); err != nil {
		return fmt.Errorf("tell systemd-resolved: RevertLink: %w", err)
	}
	return nil
}
