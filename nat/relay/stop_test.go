package relay

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
)

// dialOnce reaches the relay once, and then no more.
type dialOnce struct {
	stream net.Conn
	dials  *atomic.Int32
}

func (d dialOnce) DialRelay(ctx context.Context, _ identity.NodeID, _ bool) (net.Conn, netip.AddrPort, error) {
	if d.dials.Add(1) == 1 {
		return d.stream, netip.MustParseAddrPort("203.0.113.1:9277"), nil
	}
	<-ctx.Done()
	return nil, netip.AddrPort{}, ctx.Err()
}

// A client whose anchor has gone is dialling it again when it is to end, and does not wait for that.
func TestRunDoesNotWaitForAnAnchorThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		var dials atomic.Int32
		client := NewClient(ClientOptions{
			Dialer: dialOnce{near, &dials}, Channels: &lane{mine: make(map[netip.AddrPort]Half)},
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); client.Run(ctx) }()
		go func() {
			if _, _, err := readRequest(far); err == nil {
				writeReply(far, granted, 0x4001)
			}
		}()
		if _, err := client.Open(ctx, identity.NodeID{1}, identity.NodeID{2}); err != nil {
			t.Fatal(err)
		}
		far.Close()
		time.Sleep(time.Second)
		if dials.Load() < 2 {
			t.Fatalf("got %d dials, want the anchor dialled again", dials.Load())
		}
		begin := time.Now()
		cancel()
		<-ended
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("Run took %v to end, want it at once", took)
		}
	})
}
