package stream

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/nat/nat64"
)

const (
	maxAddresses = 16                    // each at two ports
	stagger      = 50 * time.Millisecond // between the starts of two attempts
	// stallTime is how long TCP may be up without the anchor's answer: two or three round trips, of which the slowest paths take this.
	stallTime = time.Second
)

// ErrWrongMember is wrapped by the error of a dial when who answers is not the member that was meant.
var ErrWrongMember = errors.New("another member answers, or none")

// ClientOptions are what a Client needs from its node.
type ClientOptions struct {
	Members Members    // for Dial
	Way     *nat64.Way // to IPv4, where the host has none of its own; nil: none
}

// Client dials streams. See NewClient.
type Client struct {
	// constant after NewClient; all but members for tests
	members Members
	proxy   func(target *url.URL) (proxy *url.URL, err error)
	dial    func(ctx context.Context, address string, small bool) (net.Conn, error)
}

// NewClient returns a client, which goes by the proxy that the environment names now. A joiner's needs no options.
func NewClient(o ClientOptions) *Client {
	return &Client{members: o.Members, proxy: environmentProxy(), dial: dialer{o.Way}.dial}
}

// Dial returns a stream to the member id at one of its TCP addresses, the first that answers, directly or through the proxy. The stream's deadlines are its own: it fails when nothing comes for 45 s. The error wraps a
// Refusal, a ProxyError or ErrWrongMember where that was one of the reasons.
func (c *Client) Dial(ctx context.Context, id identity.NodeID, addrs []netip.AddrPort) (net.Conn, error) {
	if c.members == nil {
		return nil, errors.New("dial stream: Members is needed")
	}
	config := baseTLS(alpnMember)
	config.InsecureSkipVerify = true // names mean nothing here: VerifyConnection checks the chain and the key
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert := c.members.Credential()
		return &cert, nil
	}
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if err := checkForm(state.PeerCertificates); err != nil {
			return err
		}
		if leaf := identity.NodeIDOfCert(state.PeerCertificates[0]); leaf != id {
			return fmt.Errorf("node %s: %w", leaf.Short(), ErrWrongMember)
		}
		got, err := c.members.Verify(state.PeerCertificates)
		switch no, refusal := errors.AsType[*Refusal](err); {
		case refusal:
			return errors.New(no.Reason) // it is this node that refuses, which must not be taken for the anchor's no
		case err == nil && got != id:
			return fmt.Errorf("node %s: %w", got.Short(), ErrWrongMember)
		}
		return err
	}
	conn, err := c.race(ctx, config, unmapped(addrs))
	if err != nil {
		return nil, fmt.Errorf("dial stream to %s: %w", id.Short(), err)
	}
	return timed{conn}, nil
}

// DialJoin returns the stream of a joiner, which has no certificate yet, to the member that its token names: of mesh,
// with a node ID that starts with pin (zero: any), at one of its UDP addresses by Guess. It ends after 30 s and may carry QUIC only. The session inside
// verifies the member's whole chain; what is checked here tells the member from whatever else listens at an address.
func (c *Client) DialJoin(ctx context.Context, mesh identity.MeshID, pin [8]byte, addrs []netip.AddrPort) (net.Conn, error) {
	config := baseTLS(alpnJoin)
	config.InsecureSkipVerify = true // as in Dial
	config.VerifyConnection = func(state tls.ConnectionState) error {
		chain := state.PeerCertificates
		if err := checkForm(chain); err != nil {
			return err
		}
		leaf, root := identity.NodeIDOfCert(chain[0]), identity.KeyIDOfCert(chain[len(chain)-1])
		if !bytes.HasPrefix(root[:], mesh[:]) || pin != [8]byte{} && !bytes.HasPrefix(leaf[:], pin[:]) {
			return fmt.Errorf("node %s: %w", leaf.Short(), ErrWrongMember)
		}
		return nil
	}
	conn, err := c.race(ctx, config, Guess(addrs))
	if err != nil {
		return nil, fmt.Errorf("dial stream to join: %w", err)
	}
	return timed{conn}, nil
}

func checkForm(chain []*x509.Certificate) error {
	if len(chain) == 0 || len(chain) > identity.MaxChain {
		return fmt.Errorf("chain of %d certificates: %w", len(chain), ErrWrongMember)
	}
	for _, cert := range chain {
		if err := identity.CheckForm(cert); err != nil {
			return fmt.Errorf("%w: %w", ErrWrongMember, err)
		}
	}
	return nil
}

// Guess returns where a member may accept streams of which only UDP addresses are known: on the same port numbers, and on
// 443.
func Guess(addrs []netip.AddrPort) (out []netip.AddrPort) {
	for _, a := range addrs {
		out = append(out, a, netip.AddrPortFrom(a.Addr(), AlternatePort))
	}
	return unmapped(out)
}

// unmapped brings addresses into the one form in which they are dialled, each once, and bounds them.
func unmapped(addrs []netip.AddrPort) (out []netip.AddrPort) {
	for _, a := range addrs {
		at := netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		if at.IsValid() && at.Port() != 0 && !slices.Contains(out, at) && len(out) < maxAddresses {
			out = append(out, at)
		}
	}
	return out
}

// race tries all targets, one after the other but not waiting for each, and returns the first stream that is taken.
func (c *Client) race(ctx context.Context, config *tls.Config, targets []netip.AddrPort) (net.Conn, error) {
	if len(targets) == 0 {
		return nil, errors.New("no address")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result)
	started, ended := 0, 0
	start := func() {
		at := targets[started]
		started++
		go func() {
			conn, err := c.attempt(ctx, config, at)
			if err != nil {
				err = fmt.Errorf("%v: %w", at, err)
			}
			results <- result{conn, err}
		}()
	}
	start()
	next := time.NewTicker(stagger)
	defer next.Stop()
	var failures []error
	for ended < started || started < len(targets) {
		select {
		case r := <-results:
			ended++
			if r.err != nil {
				failures = append(failures, r.err)
				if started < len(targets) && ctx.Err() == nil {
					start()
				} else if ctx.Err() != nil {
					targets = targets[:started]
				}
				continue
			}
			cancel()
			for ; ended < started; ended++ { // they have heard cancel, or are done
				if late := <-results; late.conn != nil {
					go late.conn.Close()
				}
			}
			return r.conn, nil
		case <-next.C:
			if started < len(targets) {
				start()
			}
		}
	}
	return nil, errors.Join(failures...)
}

// attempt makes one stream. When TCP comes up and nothing more, the path may swallow segments of the usual size and say nothing (a
// tunnel on the way, ICMP filtered): then a second connection, with small ones, is tried beside the first.
func (c *Client) attempt(ctx context.Context, config *tls.Config, at netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results, up := make(chan result, 2), make(chan struct{})
	try := func(small bool, up func()) {
		conn, err := c.once(ctx, config, at, small, up)
		results <- result{conn, err}
	}
	go try(false, func() { close(up) })
	var stalled <-chan time.Time
	var first error
	for open := 1; ; {
		select {
		case <-up:
			up, stalled = nil, time.After(stallTime)
		case <-stalled:
			stalled = nil
			open++
			go try(true, func() {})
		case r := <-results:
			open--
			if r.err == nil || open == 0 {
				cancel()
				for ; open > 0; open-- { // it has heard cancel, or is done
					if late := <-results; late.conn != nil {
						late.conn.Close()
					}
				}
				if r.err != nil && first != nil {
					return nil, first
				}
				return r.conn, r.err
			}
			first = r.err
		}
	}
}

// once makes one stream: TCP or a tunnel through the proxy, then up is called; TLS, and the anchor's answer.
func (c *Client) once(ctx context.Context, config *tls.Config, at netip.AddrPort, small bool, up func()) (net.Conn, error) {
	raw, err := c.connect(ctx, at.String(), small)
	if err != nil {
		return nil, err
	}
	up()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	conn := tls.Client(raw, config)
	err = conn.HandshakeContext(ctx)
	if err == nil {
		err = readGreeting(conn)
	}
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		stop()
		raw.Close()
		return nil, err
	}
	return conn, nil
}
