package place

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"warren/mesh/identity"
	"warren/mesh/join"
	"warren/nat/beacon"
	"warren/nat/netwatch"
)

// Timing of askAll. The next address is tried joinStagger after the last, or at once when that has failed, so that a dead
// anchor at the head of a token costs a second. A member on the LAN has lanSearch to answer before the joiner gives up, which
// is time for five seeks; without an anchor there is nothing else to hope for, and the cable may still be in the hand.
const (
	joinStagger   = time.Second
	lanSearch     = 6 * time.Second
	lanSearchOnly = 20 * time.Second
	maxLANAsked   = 16 // addresses on the LAN
)

// errNobodyHere is why a joiner without anchors has failed.
var errNobodyHere = errors.New("no member answered on the local network, and the token names none to ask elsewhere: " +
	"connect to the network of a member that is switched on, or make a new token on a machine that others can reach")

// attempt is what asking one member came to.
type attempt struct {
	anchor   identity.TokenAnchor
	admitted *join.Result
	err      error
}

// asking is the search for a member that admits us.
type asking struct {
	token    identity.Token
	joiner   *join.Joiner
	options  JoinOptions
	progress func(JoinProgress)
	results  chan attempt
	asks     *sync.WaitGroup        // those that run
	next     []identity.TokenAnchor // to be asked, in turn
	named    chan named             // names of the token, looked up
	asked    []netip.AddrPort
	open     int // asked and not answered
	lan      int // addresses on the LAN so far
	failures []error
	refused  bool // by a member that the token names
}

// askAll asks the anchors of the token in turn, overlapping, and members that answer on the local network, from the
// start, and takes the first admission. A refusal by a member that the token names and that knows the invite is final, and so is
// that this mesh cannot be on this machine; everything else leaves the others to ask.
func askAll(ctx context.Context, token identity.Token, joiner *join.Joiner, o JoinOptions, progress func(JoinProgress)) (*join.Result, netip.AddrPort, error) {
	ctx, cancel := context.WithCancel(ctx)
	o.way = wayToIPv4(ctx, o.Logger)
	var asks sync.WaitGroup
	defer asks.Wait()
	defer cancel()
	found, stop := seek(ctx, token, o.Logger)
	defer stop()
	a := &asking{
		token: token, joiner: joiner, options: o, progress: progress, asks: &asks, named: make(chan named, len(token.Anchors)),
		results: make(chan attempt, len(token.Anchors)*maxNamed+maxLANAsked), // nobody takes the last ones
	}
	for _, anchor := range token.Anchors {
		if anchor.Name == "" {
			a.next = append(a.next, anchor)
			continue
		}
		a.open++
		asks.Go(func() { a.named <- o.look(ctx, anchor) })
	}
	search := lanSearch
	if len(token.Anchors) == 0 {
		search = lanSearchOnly
		progress(JoinProgress{Stage: StageSeeking})
	}
	given := time.NewTimer(search)
	defer given.Stop()
	stagger := time.NewTicker(joinStagger)
	defer stagger.Stop()
	searching := true
	for a.begin(ctx); ; {
		select {
		case n := <-a.named:
			a.open--
			a.lookedUp(ctx, n)
		case r := <-a.results:
			if admitted, err := a.take(r); admitted || err != nil {
				return r.admitted, r.anchor.Addr, err
			}
			a.askNext(ctx)
		case f := <-found:
			a.hear(ctx, f)
		case <-stagger.C:
			a.askNext(ctx)
		case <-given.C:
			searching = false
		case <-ctx.Done():
			return nil, netip.AddrPort{}, ctx.Err()
		}
		if (!searching || a.refused) && a.open == 0 && len(a.next) == 0 {
			if len(a.failures) == 0 {
				return nil, netip.AddrPort{}, fmt.Errorf("join: %w", errNobodyHere)
			}
			return nil, netip.AddrPort{}, explainJoin(a.failures)
		}
	}
}

// take notes what asking one member came to. It reports an admission, or the error that ends the search.
func (a *asking) take(r attempt) (admitted bool, final error) {
	a.open--
	var denied *join.Refusal
	said := errors.As(r.err, &denied) && r.anchor.ID != [8]byte{}
	_, hopeless := errors.AsType[unfit](r.err)
	switch {
	case r.err == nil:
		return true, nil
	case hopeless:
		return false, r.err
	case said && denied.Final():
		return false, r.err
	}
	a.refused = a.refused || said
	a.failures = append(a.failures, fmt.Errorf("%s: %w", r.anchor.Addr, r.err))
	return false, nil
}

// askNext asks the next member, if there is one.
func (a *asking) askNext(ctx context.Context) {
	if len(a.next) == 0 {
		return
	}
	anchor := a.next[0]
	a.next = a.next[1:]
	a.asked = append(a.asked, anchor.Addr)
	a.open++
	a.progress(JoinProgress{Stage: StageContacting, Anchor: anchor.Addr})
	a.asks.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, joinTimeout)
		defer cancel()
		admitted, err := askOne(ctx, a.token.Mesh, anchor, a.joiner, a.options)
		a.results <- attempt{anchor, admitted, err}
	})
}

// hear asks a member that answered on the LAN at once, ahead of the anchors that have not been asked; its other addresses
// come after it. The token does not name it, so any member of the mesh will do: it has to prove that it is one.
func (a *asking) hear(ctx context.Context, f beacon.Found) {
	var fresh []identity.TokenAnchor
	for _, addr := range f.Addrs {
		known := slices.Contains(a.asked, addr) || slices.ContainsFunc(a.next, func(n identity.TokenAnchor) bool { return n.Addr == addr })
		if !known && a.lan < maxLANAsked {
			a.lan++
			fresh = append(fresh, identity.TokenAnchor{Addr: addr})
		}
	}
	if len(fresh) > 0 {
		a.next = append(fresh, a.next...)
		a.askNext(ctx)
	}
}

// seek looks for members on the local network until stop is called, by the key of the token's invite.
func seek(ctx context.Context, token identity.Token, logger *slog.Logger) (found <-chan beacon.Found, stop func()) {
	b := beacon.New(beacon.Options{Logger: logger})
	invite := identity.KeyIDOf(ed25519.NewKeyFromSeed(token.Seed[:]).Public().(ed25519.PublicKey))
	var links []beacon.Link
	for _, link := range netwatch.Links(nil) {
		links = append(links, beacon.Link(link))
	}
	b.Set(beacon.State{Links: links, Invites: []beacon.Key{beacon.InviteKey(token.Mesh, invite)}, Need: beacon.Alone})
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := b.Run(ctx); err != nil && logger != nil {
			logger.Warn("no search on the local network", "error", err)
		}
	}()
	return b.Found(), func() { cancel(); <-done }
}
