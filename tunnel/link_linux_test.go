package tunnel

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"warren/tunnel/osnet"
	"warren/tunnel/osnet/osnettest"
)

// gated are links whose kernel does nothing until it is let.
type gated struct {
	*osnettest.Machine
	begun chan struct{} // a Set waits
	let   chan struct{} // closed: all may go on
}

func (g *gated) Open(name string, file *os.File) (osnet.Link, error) {
	link, err := g.Machine.Open(name, file)
	return gatedLink{link, g}, err
}

type gatedLink struct {
	osnet.Link
	g *gated
}

func (l gatedLink) Set(config osnet.Config) error {
	l.g.begun <- struct{}{}
	<-l.g.let
	return l.Link.Set(config)
}

// TestNobodyWaitsForTheLinkInNamespace has a kernel that does not come back from setting an address, while a real device is given
// peers and preshared keys.
func TestNobodyWaitsForTheLinkInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	g := &gated{osnettest.New(), make(chan struct{}), make(chan struct{})}
	a := node(t, "wa", g)
	let := sync.OnceFunc(func() { close(g.let) })
	t.Cleanup(let) // before the tunnel ends, which waits for its link
	set := make(chan error, 1)
	config := osnet.Config{Addrs: []netip.Prefix{netip.MustParsePrefix("100.70.1.2/32")}, Up: true}
	go func() { set <- a.SetLink(config) }()
	<-g.begun
	other := make(chan error, 1)
	go func() {
		var errs []error
		errs = append(errs, a.SetPeers([]Peer{{ID: id('b'), PublicKey: key('b'), AllowedIPs: prefixes("10.0.0.2/32"), Controlling: true}}))
		errs = append(errs, a.SetPresharedKey(id('b'), key(7)))
		_, err := a.Snapshot()
		other <- errors.Join(append(errs, err)...)
	}()
	select {
	case err := <-other:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatalf("peers and preshared keys: still waiting for the link after %v", patience)
	}
	if got, want := run(t, "wg", "show", "wa", "preshared-keys"), key('b').String()+" "+key(7).String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	select {
	case err := <-set:
		t.Fatalf("link: got %v before the kernel was done", err)
	default:
	}
	let()
	if err := <-set; err != nil {
		t.Error(err)
	}
	if got, _ := g.Config("wa"); len(got.Addrs) != 1 || !got.Up {
		t.Errorf("got %+v, want what was set", got)
	}
}
