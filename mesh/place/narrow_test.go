package place

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/nat/nat64"
	"warren/nat/stunwire"
)

// stunMember answers STUN of up to so many bytes, every second question only if it is on a bad line.
func stunMember(t *testing.T, most int, lossy bool, deaf ...int) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() { // ends with the socket
		buf := make([]byte, 2048)
		seen := make(map[stunwire.ID]bool)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			p, ok := stunwire.Inspect(buf[:n])
			first := !seen[p.ID]
			seen[p.ID] = true
			if !ok || n > most || lossy && first || slices.Contains(deaf, n) {
				continue
			}
			if raw, err := stunwire.Answer(p.ID, from, ""); err == nil {
				_, _ = c.WriteToUDPAddrPort(raw, from)
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestNarrow(t *testing.T) {
	failure := errors.New("timeout")
	for name, test := range map[string]struct {
		most  int
		lossy bool
		says  string
	}{
		"narrow":              {972, false, "packets of up to 928 bytes get there"},
		"narrow, with a loss": {972, true, "packets of up to 928 bytes get there"},
		"all of them":         {1500, false, ""},
		"none":                {0, false, ""},
	} {
		got := withSize(context.Background(), failure, stunMember(t, test.most, test.lossy), new(nat64.Way))
		if !errors.Is(got, failure) || (test.says == "") != (got == failure) || !strings.Contains(got.Error(), test.says) {
			t.Errorf("%s: got %v, want %q", name, got, test.says)
		}
	}
	if got := withSize(context.Background(), failure, stunMember(t, 972, false, 300), new(nat64.Way)); got != failure {
		t.Errorf("a small one is missing: got %v", got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for deadline := time.Now().Add(30 * time.Second); ; { // on a busy machine one try may take as long as the questions
		began := time.Now()
		got := withSize(ctx, failure, stunMember(t, 500, false), new(nat64.Way))
		took := time.Since(began)
		if got != failure || took > narrowTime && time.Now().After(deadline) {
			t.Errorf("ended: got %v after %s", got, took)
		}
		if got != failure || took <= narrowTime || time.Now().After(deadline) {
			break
		}
	}
}
