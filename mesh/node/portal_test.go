package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"warren/mesh/identity"
	"warren/mesh/verdict"
)

// TestTCPLooks holds what is told of whoever answers in an anchor's place.
func TestTCPLooks(t *testing.T) {
	stranger := errors.New("no member")
	nobody := func([]*x509.Certificate) (identity.NodeID, error) { return identity.NodeID{}, stranger }
	anchor := func([]*x509.Certificate) (identity.NodeID, error) { return identity.NodeID{7}, nil }
	redirect := http.RedirectHandler("http://login.hotel/", http.StatusFound)
	plain := httptest.NewServer(redirect)
	defer plain.Close()
	secure, web := httptest.NewUnstartedServer(redirect), httptest.NewUnstartedServer(redirect)
	secure.TLS = &tls.Config{NextProtos: []string{"warren-tcp/1"}}
	for _, s := range []*httptest.Server{secure, web} {
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
		defer s.Close()
	}
	at := func(l net.Listener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, tt := range []struct {
		name   string
		to     netip.AddrPort
		verify chainVerifier
		want   verdict.TCP
	}{
		{"another certificate", at(secure.Listener), nobody, verdict.TCPForeign},
		{"the anchor's", at(secure.Listener), anchor, verdict.TCPOpen},
		{"another protocol", at(web.Listener), anchor, verdict.TCPForeign},
		{"not TLS", at(plain.Listener), anchor, verdict.TCPForeign},
		{"closed", at(closed), anchor, verdict.TCPClosed},
	} {
		got := lookTLS(t.Context(), tt.verify, identity.NodeID{7}, tt.to)
		if got.TCP != tt.want || (got.Detail == "") != (tt.want != verdict.TCPForeign) {
			t.Errorf("%s: got %+v, want %s", tt.name, got, tt.want)
		}
	}
	if got := lookTLS(t.Context(), anchor, identity.NodeID{8}, at(secure.Listener)); got.TCP != verdict.TCPForeign {
		t.Errorf("another member: got %+v, want it told", got)
	}
	if got := lookHTTP(t.Context(), at(plain.Listener)); !strings.Contains(got, "answers 302") || !strings.Contains(got, "login.hotel") {
		t.Errorf("redirection: got %q", got)
	}
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("a web page")) }))
	defer page.Close()
	if got := lookHTTP(t.Context(), at(page.Listener)); got != "" {
		t.Errorf("a web page: got %q, want nothing", got)
	}
}
