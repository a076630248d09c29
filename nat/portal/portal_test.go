package portal

import (
	"context"
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
)

var hotel = http.RedirectHandler("http://login.hotel/", http.StatusFound)

func at(l net.Listener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }

// secure serves TLS with that protocol besides HTTP; none: HTTP only.
func secure(t *testing.T, alpn ...string) netip.AddrPort {
	s := httptest.NewUnstartedServer(hotel)
	if len(alpn) > 0 {
		s.TLS = &tls.Config{NextProtos: alpn}
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return at(s.Listener)
}

func plain(t *testing.T, h http.Handler) netip.AddrPort {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return at(s.Listener)
}

func nobody([]*x509.Certificate) (identity.NodeID, error) {
	return identity.NodeID{}, errors.New("no member")
}

func anchor([]*x509.Certificate) (identity.NodeID, error) { return identity.NodeID{7}, nil }

// TestTCP holds what is told of whoever answers in an anchor's place.
func TestTCP(t *testing.T) {
	mesh, web, http := secure(t, protocol), secure(t), plain(t, hotel)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	shut := at(closed)
	for _, tt := range []struct {
		name   string
		ports  []netip.AddrPort
		verify Verifier
		who    byte
		want   State
		says   string
	}{
		{"another certificate", []netip.AddrPort{mesh}, nobody, 7, Foreign, "shows the certificate of"},
		{"another member", []netip.AddrPort{mesh}, anchor, 8, Foreign, "shows the certificate of"},
		{"the anchor's", []netip.AddrPort{mesh}, anchor, 7, Open, ""},
		{"another protocol", []netip.AddrPort{web}, anchor, 7, Foreign, "speaks TLS, but not the mesh's protocol"},
		{"not TLS", []netip.AddrPort{http}, anchor, 7, Foreign, "answers, but not with TLS"},
		{"closed", []netip.AddrPort{shut}, anchor, 7, Closed, ""},
		{"the best of all ports", []netip.AddrPort{shut, http, mesh, shut}, anchor, 7, Open, ""},
		{"no port", nil, anchor, 7, Silent, ""},
	} {
		var ports []uint16
		for _, p := range tt.ports {
			ports = append(ports, p.Port())
		}
		got := TCP(t.Context(), tt.verify, identity.NodeID{tt.who}, mesh.Addr(), ports...)
		if got.State != tt.want || !strings.Contains(got.Detail, tt.says) || (got.Detail == "") != (tt.says == "") {
			t.Errorf("%s: got %d, %q, want %d, %q", tt.name, got.State, got.Detail, tt.want, tt.says)
		}
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if got := TCP(over, anchor, identity.NodeID{7}, mesh.Addr(), mesh.Port()); got.State != Silent {
		t.Errorf("after the end of the context: got %d, want %d", got.State, Silent)
	}
}

func TestHTTP(t *testing.T) {
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("a web page")) })
	login := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNetworkAuthenticationRequired)
	})
	for _, tt := range []struct {
		name string
		h    http.Handler
		says []string
	}{
		{"redirection", hotel, []string{"answers 302", "login.hotel"}},
		{"authentication", login, []string{"answers 511"}},
		{"a web page", page, nil},
		{"a long address", http.RedirectHandler("http://login.hotel/"+strings.Repeat("x", 1000), http.StatusFound), []string{"login.hotel"}},
	} {
		got := HTTP(t.Context(), plain(t, tt.h))
		if (got == "") != (tt.says == nil) || len(got) > 200 {
			t.Errorf("%s: got %q, want %q in it", tt.name, got, tt.says)
		}
		for _, part := range tt.says {
			if !strings.Contains(got, part) {
				t.Errorf("%s: got %q, want %q in it", tt.name, got, part)
			}
		}
	}
}
