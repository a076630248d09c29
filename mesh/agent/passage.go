package agent

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/mesh/verdict"
	"warren/tunnel/echo"
	"warren/tunnel/osnet"
)

const (
	// againTime is for asking once more where the first question got no answer and the path is known to carry packets: what comes back does
	// so within a round trip.
	againTime = time.Second
	// answerSize is what one answer to a ping takes inside WireGuard (24 bytes, UDP, IP, padding, and its own 32), at least.
	answerSize = 96
)

// kernel is this machine as far as packets of its programs pass it.
type kernel struct {
	ask     func(ctx context.Context, to netip.Addr, timeout time.Duration) (time.Duration, error)
	leaving func(to netip.Addr) (osnet.Leaving, error)
	// received returns how many bytes came from a peer.
	received func(key wgtypes.Key) (uint64, bool)
	ifname   string // of the mesh
}

func (a *agent) kernel() kernel {
	return kernel{
		ask: echo.Ask, leaving: osnet.LeavingFor, ifname: a.tunnel.Name(),
		received: func(key wgtypes.Key) (uint64, bool) {
			stats, err := a.tunnel.Snapshot()
			return stats[key].RxBytes, err == nil
		},
	}
}

// passages asks a peer at these addresses, all at once, and finds out what is in the way where it does not answer. The first round-trip
// time is that of the first address that answered.
func (k kernel) passages(ctx context.Context, peer mesh.Member, to []netip.Addr) (out []verdict.Passage, rtt time.Duration) {
	out = make([]verdict.Passage, len(to))
	times, failures := make([]time.Duration, len(to)), make([]error, len(to))
	// Once one has answered the others are not far.
	answered, stop := context.WithCancel(ctx)
	defer stop()
	var first sync.Once
	var asks sync.WaitGroup
	for i, addr := range to {
		asks.Go(func() {
			if times[i], failures[i] = k.ask(answered, addr, pingTime); failures[i] == nil {
				first.Do(func() { time.AfterFunc(againTime, stop) })
			}
		})
	}
	asks.Wait()
	passes := false
	for i, addr := range to {
		out[i] = verdict.Passage{To: addr, Answered: failures[i] == nil}
		if passes = passes || out[i].Answered; out[i].Answered && rtt == 0 {
			rtt = times[i]
		}
	}
	for i := range out {
		if !out[i].Answered {
			k.find(ctx, peer, &out[i], failures[i], passes)
		}
	}
	return out, rtt
}

// find says why an address did not answer. passes says that another one did.
func (k kernel) find(ctx context.Context, peer mesh.Member, p *verdict.Passage, failure error, passes bool) {
	way, err := k.leaving(p.To)
	switch {
	case err == nil && way.Refusal != "":
		p.Fault, p.Detail, p.Table, p.Rule = verdict.RouteRefuses, way.Refusal, way.Table, way.Rule
	case err == nil && way.Interface != k.ifname:
		p.Fault, p.Interface, p.Table, p.Rule = verdict.RouteStolen, way.Interface, way.Table, way.Rule
	case errors.Is(failure, syscall.EPERM), errors.Is(failure, syscall.EACCES):
		p.Fault = verdict.FilteredOut
	case errors.Is(failure, syscall.ECONNREFUSED):
		p.Fault = k.refused(ctx, p)
	case passes:
		p.Fault = k.lost(ctx, peer, p.To)
	}
	if p.Fault == verdict.NoFault && passes {
		p.Answered = true // it was the one packet that was lost
	}
}

// refused finds out whether nobody listens at the address. An agent that starts or stops has one of its addresses before the other.
func (k kernel) refused(ctx context.Context, p *verdict.Passage) verdict.Fault {
	select {
	case <-time.After(againTime):
	case <-ctx.Done():
	}
	_, err := k.ask(ctx, p.To, againTime)
	p.Answered = err == nil
	if errors.Is(err, syscall.ECONNREFUSED) {
		return verdict.NoListener
	}
	return verdict.NoFault
}

// lost finds out on which side packets are lost of which nothing more is known, while the peer sends nothing else. It returns NoFault when
// the peer answers this time.
func (k kernel) lost(ctx context.Context, peer mesh.Member, to netip.Addr) verdict.Fault {
	key := wgtypes.Key(peer.Record.WireGuardKey)
	// The path may have been away for a moment, with the question, while others of the peer's packets come now: so there is another one.
	if _, err := k.ask(ctx, to, againTime); err == nil {
		return verdict.NoFault
	}
	before, known := k.received(key)
	if _, err := k.ask(ctx, to, againTime); err == nil {
		return verdict.NoFault
	}
	after, still := k.received(key)
	if known && still && after >= before+answerSize {
		return verdict.FilteredIn
	}
	return verdict.LostBeyond
}

// barred says why a ping of an address got no answer, where it is a matter of the kernels; empty: it is not known to be.
func (b *backend) barred(ctx context.Context, peer mesh.Member, to netip.Addr) string {
	k := b.kernel()
	found, _ := k.passages(ctx, peer, overlayOf(peer, b.hub.Board().NoIPv4))
	for i, p := range found {
		if p.To == to && verdict.Bars(found, i) {
			return verdict.Barred{Passage: p, Peer: peer.ID}.Words(func(identity.NodeID) string { return peer.Name })
		}
	}
	return ""
}

// overlayOf returns the addresses at which a peer is asked: of both families, IPv4 only where this machine has it in the mesh.
func overlayOf(peer mesh.Member, noIPv4 bool) []netip.Addr {
	out := []netip.Addr{peer.Addr6}
	if peer.Addr4.IsValid() && !noIPv4 {
		out = append(out, peer.Addr4)
	}
	return out
}
