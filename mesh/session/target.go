package session

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"warren/mesh/identity"
)

const (
	firstBackOff = 200 * time.Millisecond
	maxBackOff   = 30 * time.Second
	maxAddresses = 8
)

// target is a node to keep a session with, and how dialling it goes.
type target struct {
	id   identity.NodeID // constant
	wake chan struct{}   // constant; capacity 1: do not wait, and start over unless somebody has answered
	anew chan struct{}   // constant; capacity 1: start over, for the network is another one

	mu       sync.Mutex // guards the rest
	behind   identity.NodeID
	addrs    []netip.AddrPort
	attempts int
	stalls   int // of the dial that is under way
	lastErr  error
	next     time.Time
	doubts   doubts
}

func newTarget(id identity.NodeID) *target {
	return &target{id: id, wake: make(chan struct{}, 1), anew: make(chan struct{}, 1)}
}

// set takes other addresses and reports whether there are new ones among them: that old ones have gone is no reason to begin again.
func (t *target) set(addrs []netip.AddrPort) bool {
	clean := make([]netip.AddrPort, 0, len(addrs))
	for _, a := range addrs {
		a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		if a.IsValid() && a.Port() != 0 && !slices.Contains(clean, a) && len(clean) < maxAddresses {
			clean = append(clean, a)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	fresh := slices.ContainsFunc(clean, func(a netip.AddrPort) bool { return !slices.Contains(t.addrs, a) })
	if fresh || len(clean) != len(t.addrs) { // else the order may differ: a good address moves to the front
		t.addrs = clean
	}
	return fresh
}

// follow says in whose place the target is.
func (t *target) follow(behind identity.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.behind = behind
}

// welcome reports whether nothing is known of the far side's refusing this one: then what cannot wait goes with the hello.
func (t *target) welcome() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, refused := errors.AsType[*refusal](t.lastErr)
	_, closed := errors.AsType[*quic.ApplicationError](t.lastErr)
	return t.attempts == 0 || !refused && !closed
}

// place returns in whose place the target is, and how often dials of the target itself have failed.
func (t *target) place() (behind identity.NodeID, attempts int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.behind, t.attempts
}

// good moves the address of a session to the front and forgets the failures.
func (t *target) good(addr netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.addrs, addr); i > 0 {
		t.addrs = slices.Insert(slices.Delete(slices.Clone(t.addrs), i, i+1), 0, addr)
	}
	t.attempts, t.next = 0, time.Time{}
}

// failed notes why a dial or a session ended.
func (t *target) failed(err error, dial bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lastErr = err
	if dial {
		t.attempts++
	}
}

// pause waits for the next rung of the ladder; it reports true when the loop was roused instead.
func (t *target) pause(ctx context.Context, wait time.Duration) bool {
	t.mu.Lock()
	t.next = time.Now().Add(wait)
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		t.next = time.Time{}
		t.mu.Unlock()
	}()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return false
	case <-t.wake:
		return true
	case <-t.anew:
		return true
	}
}

// yield leaves the far side time to dial; it reports true when the network has changed meanwhile. New addresses are no reason to be sooner.
func (t *target) yield(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return false
	case <-t.anew:
		return true
	}
}

// stalled notes that the dial under way has been answered, and does not get on; no more than that it has ended.
func (t *target) stalled(ended bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stalls++; ended {
		t.stalls = 0
	}
}

// dials is Sessions.Dials.
func (t *target) dials() (attempts int, silent bool) {
	st := t.status()
	t.mu.Lock()
	defer t.mu.Unlock()
	return st.Attempts + t.stalls, st.Silent || t.stalls > 0
}

func (t *target) status() Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := Status{ID: t.id, Target: true, Attempts: t.attempts, NextDial: t.next}
	if t.lastErr != nil {
		st.LastError = strings.ReplaceAll(t.lastErr.Error(), "\n", "; ")
		st.Silent = t.attempts > 0 && (errors.Is(t.lastErr, context.DeadlineExceeded) || isTimeout(t.lastErr))
	}
	return st
}

// backOff is the ladder of waits: 0.2 s, a fifth longer each time up to 30 s, each with a quarter of jitter either way. With
// the time of the dials the wait is about a tenth of the outage: one of a minute is over some seconds after its cause.
type backOff struct{ last time.Duration }

func (b *backOff) reset() { b.last = 0 }

func (b *backOff) next() time.Duration {
	b.last = min(max(b.last+b.last/5, firstBackOff), maxBackOff)
	return b.last*3/4 + rand.N(b.last/2)
}
