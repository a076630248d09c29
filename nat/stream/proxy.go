package stream

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
)

// maxProxyAnswer bounds the header of a proxy's answer.
const maxProxyAnswer = 16 << 10

// proxies is what the environment says about proxies. Only addresses are dialled, never names, so that of NO_PROXY's
// rules those for addresses are enough, and the library for the whole of them (with the tables of international
// domain names) is not needed.
type proxies struct {
	proxy  *url.URL // nil: none
	err    error
	except []netip.Prefix   // to these there is none
	at     []netip.AddrPort // nor to these
}

// environmentProxy reads HTTPS_PROXY, else ALL_PROXY, and NO_PROXY, in either case: a URL, or host:port of an HTTP
// proxy; and a list of addresses, with or without a port, prefixes, or * for all.
func environmentProxy() func(*url.URL) (*url.URL, error) {
	env := func(name string) string { return cmp.Or(os.Getenv(name), os.Getenv(strings.ToLower(name))) }
	return parseProxies(cmp.Or(env("HTTPS_PROXY"), env("ALL_PROXY")), env("NO_PROXY")).find
}

func parseProxies(proxy, except string) (out proxies) {
	if proxy == "" {
		return out
	}
	if !strings.Contains(proxy, "://") {
		proxy = "http://" + proxy
	}
	if out.proxy, out.err = url.Parse(proxy); out.err != nil || out.proxy.Hostname() == "" {
		out.err = errors.New("the proxy in the environment is no URL") // which may hold a password
	}
	for entry := range strings.SplitSeq(except, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "*" {
			return proxies{}
		}
		if prefix, err := netip.ParsePrefix(entry); err == nil {
			out.except = append(out.except, prefix)
		} else if addr, err := netip.ParseAddr(strings.Trim(entry, "[]")); err == nil {
			out.except = append(out.except, netip.PrefixFrom(addr, addr.BitLen()))
		} else if at, err := netip.ParseAddrPort(entry); err == nil {
			out.at = append(out.at, at)
		}
	}
	return out
}

// find returns the proxy for a target, or nil.
func (p proxies) find(target *url.URL) (*url.URL, error) {
	at, err := netip.ParseAddrPort(target.Host)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", target.Host, err)
	}
	contains := func(prefix netip.Prefix) bool { return prefix.Contains(at.Addr()) }
	if p.proxy == nil && p.err == nil || at.Addr().IsLoopback() || slices.Contains(p.at, at) || slices.ContainsFunc(p.except, contains) {
		return nil, nil
	}
	return p.proxy, p.err
}

// connect makes a connection to host:port, through the proxy if there is one for it; small is of TCP's segments.
func (c *Client) connect(ctx context.Context, target string, small bool) (net.Conn, error) {
	proxy, err := c.proxy(&url.URL{Scheme: "https", Host: target})
	if err != nil {
		return nil, fmt.Errorf("find proxy: %w", err)
	}
	if proxy == nil {
		conn, err := c.dial(ctx, target, small)
		if err == nil {
			tune(conn)
		}
		return conn, err
	}
	conn, err := c.tunnel(ctx, proxy, target, small)
	if err != nil {
		return nil, &ProxyError{Proxy: proxy.Scheme + "://" + proxy.Host, Err: err}
	}
	return conn, nil
}

// ProxyError is wrapped by the error of a dial that failed at the proxy, before an anchor was reached.
type ProxyError struct {
	Proxy string // its URL without user name and password
	Err   error
}

// Error names the proxy and says why.
func (e *ProxyError) Error() string { return "through the proxy " + e.Proxy + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *ProxyError) Unwrap() error { return e.Err }

// tunnel asks an HTTP proxy for a tunnel (RFC 9110, section 9.3.6).
func (c *Client) tunnel(ctx context.Context, proxy *url.URL, target string, small bool) (net.Conn, error) {
	port := map[string]string{"http": "80", "https": "443"}[proxy.Scheme]
	if port == "" {
		return nil, fmt.Errorf("scheme %q: want http or https", proxy.Scheme)
	}
	conn, err := c.dial(ctx, net.JoinHostPort(proxy.Hostname(), cmp.Or(proxy.Port(), port)), small)
	if err != nil {
		return nil, err
	}
	tune(conn)
	if proxy.Scheme == "https" {
		conn = tls.Client(conn, &tls.Config{MinVersion: tls.VersionTLS12, ServerName: proxy.Hostname()})
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	rest, err := askTunnel(conn, proxy.User, target)
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		stop()
		conn.Close()
		return nil, err
	}
	if rest == nil {
		return conn, nil
	}
	return &prefixed{conn, rest}, nil
}

// askTunnel sends CONNECT and reads the answer. What came behind the answer is returned.
func askTunnel(conn io.ReadWriter, user *url.Userinfo, target string) (rest *bytes.Reader, err error) {
	request := "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n"
	if user != nil {
		password, _ := user.Password()
		request += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)) + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		return nil, err
	}
	in := bufio.NewReader(io.LimitReader(conn, maxProxyAnswer))
	answer, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
	switch {
	case err != nil:
		return nil, fmt.Errorf("read answer: %w", err)
	case answer.StatusCode == http.StatusProxyAuthRequired && user == nil:
		return nil, errors.New("it wants a user name and password: put them into the proxy's URL")
	case answer.StatusCode == http.StatusProxyAuthRequired:
		return nil, errors.New("it does not take the user name and password in its URL (Basic)")
	case answer.StatusCode == http.StatusForbidden:
		_, port, _ := net.SplitHostPort(target)
		return nil, fmt.Errorf("it forbids port %s: have an anchor accept streams on one that it allows, most likely 443", port)
	case answer.StatusCode/100 != 2:
		return nil, fmt.Errorf("it answers %s", printable(answer.Status))
	}
	if n := in.Buffered(); n > 0 {
		early, _ := in.Peek(n)
		rest = bytes.NewReader(early)
	}
	return rest, nil
}

// prefixed is a connection of which some bytes have been read too early.
type prefixed struct {
	net.Conn
	early *bytes.Reader
}

func (c *prefixed) Read(p []byte) (int, error) {
	if c.early.Len() > 0 {
		return c.early.Read(p)
	}
	return c.Conn.Read(p)
}
