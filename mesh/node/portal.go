package node

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
	"syscall"
	"time"

	"warren/mesh/identity"
	"warren/mesh/verdict"
	"warren/nat/fallback"
)

// Whether something stands between this node and its anchors that answers in their place: a captive portal, or a proxy that
// breaks TLS open. Nobody but the anchors is asked, so that it is a guess, made only where UDP gets no answer.

// tcpTime bounds each connection; what takes longer is of no use to a stream either.
const tcpTime = 1200 * time.Millisecond

// errSeen ends a handshake that has told what was to be known: whose certificate is shown.
var errSeen = errors.New("certificate seen")

// chainVerifier says whose chain it is, or why it is no member's.
type chainVerifier func([]*x509.Certificate) (identity.NodeID, error)

// lookTCP connects to an anchor where it takes streams, and on port 443, and hangs up when it has seen who answers.
func lookTCP(ctx context.Context, verify chainVerifier, id identity.NodeID, addr netip.AddrPort) verdict.Look {
	looks := make(chan verdict.Look, 2)
	ports := []uint16{addr.Port()}
	if addr.Port() != fallback.AlternatePort {
		ports = append(ports, fallback.AlternatePort)
	}
	for _, port := range ports {
		go func() { looks <- lookTLS(ctx, verify, id, netip.AddrPortFrom(addr.Addr(), port)) }() // ends with ctx
	}
	best := verdict.Look{TCP: verdict.TCPSilent}
	for range ports {
		if look := <-looks; look.TCP > best.TCP {
			best = look
		}
	}
	return best
}

func lookTLS(ctx context.Context, verify chainVerifier, id identity.NodeID, at netip.AddrPort) verdict.Look {
	ctx, cancel := context.WithTimeout(ctx, tcpTime)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", at.String())
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return verdict.Look{TCP: verdict.TCPClosed}
	case err != nil:
		return verdict.Look{TCP: verdict.TCPSilent}
	}
	defer raw.Close()
	look := verdict.Look{TCP: verdict.TCPSilent}
	err = tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, // what is shown is judged below, and nothing is said
		NextProtos: []string{"warren-tcp/1"},
		VerifyConnection: func(s tls.ConnectionState) error {
			if got, err := verify(s.PeerCertificates); err == nil && got == id {
				look.TCP = verdict.TCPOpen
			} else {
				look = verdict.Look{TCP: verdict.TCPForeign, Detail: fmt.Sprintf("%s shows the certificate of %q", at, s.PeerCertificates[0].Subject.CommonName)}
			}
			return errSeen
		},
	}).HandshakeContext(ctx)
	var notTLS tls.RecordHeaderError
	var alert *net.OpError
	switch {
	case errors.As(err, &notTLS):
		look = verdict.Look{TCP: verdict.TCPForeign, Detail: at.String() + " answers, but not with TLS"}
	case errors.As(err, &alert) && alert.Op == "remote error": // as crypto/tls has an alert of the other side
		look = verdict.Look{TCP: verdict.TCPForeign, Detail: at.String() + " speaks TLS, but not the mesh's protocol"}
	}
	return look
}

// lookHTTP asks an anchor's address for a web page, as a browser in a hotel would: none is expected to be there. It returns
// what answered, empty for nothing that sends people elsewhere.
func lookHTTP(ctx context.Context, at netip.AddrPort) string {
	ctx, cancel := context.WithTimeout(ctx, tcpTime)
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
