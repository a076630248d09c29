// Package portal finds out whether something stands between this node and its anchors that answers in their place: a captive
// portal, or a proxy that breaks TLS open.
//
// Nobody but the anchors is asked, so that it is a guess, worth making only where UDP gets no answer. Which anchors, and what a
// person is told of it, is decided above.
//
// Its functions may be called concurrently; each ends what it has started before it returns.
package portal

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"warren/mesh/identity"
)

// dialTime bounds each connection; what takes longer is of no use to a stream either.
const dialTime = 1200 * time.Millisecond

// protocol is what is spoken in streams (ALPN): who shows the mesh's certificate only with it is an anchor too.
const protocol = "warren-tcp/1"

// errSeen ends a handshake that has told what was to be known: whose certificate is shown.
var errSeen = errors.New("certificate seen")

// State is what a TCP connection to an anchor ended at.
type State uint8

// The states, by what they are worth as evidence.
const (
	Silent  State = iota // no answer
	Closed               // refused
	Foreign              // something else answered
	Open                 // it showed the mesh's certificate
)

// Look is what was seen at an anchor.
type Look struct {
	State  State
	Detail string // of Foreign, in words
}

// Verifier says whose chain it is, or why it is no member's.
type Verifier func(chain []*x509.Certificate) (identity.NodeID, error)

// TCP connects to the ports of an anchor, all at once, and hangs up when it has seen who answers. The best look counts. It takes
// 1.2 s at most, less where ctx ends before.
func TCP(ctx context.Context, verify Verifier, anchor identity.NodeID, addr netip.Addr, ports ...uint16) Look {
	ports = slices.Compact(slices.Sorted(slices.Values(ports)))
	looks := make(chan Look, len(ports))
	for _, port := range ports {
		go func() { looks <- lookTLS(ctx, verify, anchor, netip.AddrPortFrom(addr, port)) }()
	}
	best := Look{}
	for range ports {
		if look := <-looks; look.State > best.State {
			best = look
		}
	}
	return best
}

func lookTLS(ctx context.Context, verify Verifier, anchor identity.NodeID, at netip.AddrPort) Look {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", at.String())
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return Look{State: Closed}
	case err != nil:
		return Look{State: Silent}
	}
	defer raw.Close()
	look := Look{State: Silent}
	err = tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, // what is shown is judged below, and nothing is said
		NextProtos: []string{protocol},
		VerifyConnection: func(s tls.ConnectionState) error {
			if got, err := verify(s.PeerCertificates); err == nil && got == anchor {
				look.State = Open
			} else {
				look = Look{Foreign, fmt.Sprintf("%s shows the certificate of %q", at, s.PeerCertificates[0].Subject.CommonName)}
			}
			return errSeen
		},
	}).HandshakeContext(ctx)
	var notTLS tls.RecordHeaderError
	var alert *net.OpError
	switch {
	case errors.As(err, &notTLS):
		look = Look{Foreign, at.String() + " answers, but not with TLS"}
	case errors.As(err, &alert) && alert.Op == "remote error": // as crypto/tls has an alert of the other side
		look = Look{Foreign, at.String() + " speaks TLS, but not the mesh's protocol"}
	}
	return look
}

// HTTP asks an anchor's address for a web page, as a browser in a hotel would: none is expected to be there. It returns what
// answered, in words; empty for nothing that sends people elsewhere.
func HTTP(ctx context.Context, at netip.AddrPort) string {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return ""
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at.String()+"/", nil)
	if err != nil || request.Write(c) != nil {
		return ""
	}
	answer, err := http.ReadResponse(bufio.NewReader(io.LimitReader(c, 16<<10)), request)
	if err != nil {
		return ""
	}
	answer.Body.Close()
	// A redirection, or 511 Network Authentication Required (RFC 6585, section 6).
	if answer.StatusCode/100 != 3 && answer.StatusCode != http.StatusNetworkAuthenticationRequired {
		return ""
	}
	detail := fmt.Sprintf("http://%s answers %d", at, answer.StatusCode)
	if to := answer.Header.Get("Location"); to != "" {
		detail += fmt.Sprintf(" and leads to %.100q", to)
	}
	return detail
}
