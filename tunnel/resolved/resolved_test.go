package resolved

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// twin is a service in memory.
type twin struct {
	calls   []string
	refuses map[string]error
	changed chan struct{}
}

func (b *twin) call(_ context.Context, method string, args ...any) error {
	b.calls = append(b.calls, fmt.Sprint(method, args))
	return b.refuses[method]
}
func (b *twin) owned(context.Context) (bool, error) { return true, nil }
func (b *twin) changes() <-chan struct{}            { return b.changed }
func (b *twin) close() error                        { return nil }

func TestSet(t *testing.T) {
	b := &twin{refuses: map[string]error{"SetLinkDNSOverTLS": errors.New("unknown method")}}
	c := &Client{b}
	link := Link{Index: 7, Servers: []netip.Addr{netip.MustParseAddr("100.125.0.7"), netip.MustParseAddr("fd00::7")}, Domains: []Domain{{"home.internal", false}, {"125.100.in-addr.arpa", true}}}
	if err := c.Set(t.Context(), link); err != nil {
		t.Fatal(err)
	}
	domains := slices.Index(b.calls, "SetLinkDomains[7 [{home.internal false} {125.100.in-addr.arpa true}]]")
	servers := slices.Index(b.calls, "SetLinkDNS[7 [{2 [100 125 0 7]} {10 [253 0 0 0 0 0 0 0 0 0 0 0 0 0 0 7]}]]")
	if b.calls[0] != "SetLinkDefaultRoute[7 false]" || domains < 0 || servers < domains {
		t.Errorf("got %q, want the default route first, and the servers last", b.calls)
	}
	b.refuses["SetLinkDomains"] = errors.New("link is managed by networkd")
	if err := c.Set(t.Context(), link); err == nil || !strings.Contains(err.Error(), "SetLinkDomains: link is managed") {
		t.Errorf("refused: got %v", err)
	}
	b.refuses = map[string]error{"SetLinkDefaultRoute": ErrAbsent}
	if err := c.Set(t.Context(), link); !errors.Is(err, ErrAbsent) {
		t.Errorf("absent: got %v", err)
	}
	b.calls = nil
	if err := c.Clear(t.Context(), 7); err != nil || !slices.Equal(b.calls, []string{"RevertLink[7]"}) {
		t.Errorf("clear: got %q, %v", b.calls, err)
	}
}
