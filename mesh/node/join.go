package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"warren/mesh/identity"
	"warren/mesh/join"
	"warren/mesh/session"
	"warren/mesh/store"
)

// Timing of Join. Each anchor has joinTimeout; the next one is tried joinStagger after the last, or at once when that
// has failed, so that a dead anchor at the head of a token costs a second.
const (
	joinTimeout = 15 * time.Second
	joinStagger = time.Second
)

// Join asks the anchors of the token for admission until one admits this machine or ctx ends, and writes the state
// directory. progress, which may be nil, is called from the calling goroutine only. Nothing is left behind when it
// fails. The error says in words why (expired, used by whom, revoked, mistyped, clock wrong by how much, nobody answered).
func Join(ctx context.Context, o JoinOptions, progress func(JoinProgress)) (Membership, error) {
	if err := ValidName(o.Name); err != nil {
		return Membership{}, err
	}
	token, err := identity.ParseToken(o.Token)
	if err != nil {
		return Membership{}, err
	}
	if len(token.Anchors) == 0 {
		return Membership{}, errors.New("join: the token names no member to ask; make a new one on a machine that others can reach")
	}
	if progress == nil {
		progress = func(JoinProgress) {}
	}
	s, err := newState()
	if err != nil {
		return Membership{}, err
	}
	s.settings.Name = o.Name
	own, err := s.ownRecord(s.wireGuard, o.Version)
	if err != nil {
		return Membership{}, err
	}
	joiner := join.NewJoiner(join.Options{Seed: token.Seed, Key: s.key, Own: own})
	admitted, anchor, err := askAll(ctx, token, joiner, progress)
	if err != nil {
		return Membership{}, err
	}
	s.chain = admitted.Chain
	terms, err := identity.RootTermsOf(s.root())
	if err != nil {
		return Membership{}, fmt.Errorf("join: %w", err)
	}
	if err := ValidName(terms.Name); err != nil || terms.Name == StaticMesh {
		return Membership{}, fmt.Errorf("join: the mesh is called %q, which cannot be kept here: %w", terms.Name, errors.Join(err, ErrName))
	}
	s.settings = stored{
		Schema: storedSchema, Mesh: terms.Name, Name: o.Name, Port: o.Port, Endpoints: o.Endpoints, Admission: &admitted.Admission,
		Contacts: []netip.AddrPort{anchor}, Admitter: admitted.Admission.Signer,
	}
	dir := filepath.Join(o.StateRoot, terms.Name)
	if _, err := os.Stat(dir); err == nil {
		return Membership{}, fmt.Errorf("join mesh %s: %s is there already: leave that mesh first, or use another state directory: %w", terms.Name, dir, os.ErrExist)
	}
	progress(JoinProgress{Stage: StageAdmitted, Mesh: terms.Name, By: admitted.ByName})
	if err := s.write(dir, func(dir string) error { return writeRecords(dir, admitted) }); err != nil {
		return Membership{}, err
	}
	progress(JoinProgress{Stage: StageSynced, Mesh: terms.Name, Records: len(admitted.Records)})
	out := s.membership()
	out.AdmittedBy, out.Members = admitted.ByName, admitted.Members
	return out, nil
}

// writeRecords gives the new state the records that came with the admission. The agent verifies them when it starts.
func writeRecords(dir string, admitted *join.Result) error {
	records, _, err := store.Open(recordsPath(dir))
	if err != nil {
		return err
	}
	defer records.Close()
	var batch store.Batch
	for _, r := range admitted.Records {
		raw, err := r.Marshal()
		if err != nil {
			return err
		}
		decoded, err := r.Decode()
		if err != nil {
			return err
		}
		batch.Put = append(batch.Put, store.Item{Key: decoded.Key, Value: raw})
	}
	return records.Apply(batch)
}

// attempt is what asking one anchor came to.
type attempt struct {
	anchor   netip.AddrPort
	admitted *join.Result
	err      error
}

// askAll asks the anchors in turn, overlapping, and takes the first admission. A refusal by a member that
// knows the invite is final; everything else leaves the next anchor to ask.
func askAll(ctx context.Context, token identity.Token, joiner *join.Joiner, progress func(JoinProgress)) (*join.Result, netip.AddrPort, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan attempt, len(token.Anchors))
	ask := func(i int) {
		a := token.Anchors[i]
		progress(JoinProgress{Stage: StageContacting, Anchor: a.Addr})
		go func() {
			ctx, cancel := context.WithTimeout(ctx, joinTimeout)
			defer cancel()
			admitted, err := askOne(ctx, token.Mesh, a, joiner)
			results <- attempt{a.Addr, admitted, err}
		}()
	}
	stagger := time.NewTicker(joinStagger)
	defer stagger.Stop()
	ask(0)
	asked, failures := 1, []error(nil)
	for {
		select {
		case r := <-results:
			var denied *join.Refusal
			switch {
			case r.err == nil:
				return r.admitted, r.anchor, nil
			case errors.As(r.err, &denied) && denied.Final():
				return nil, netip.AddrPort{}, r.err
			}
			failures = append(failures, fmt.Errorf("%s: %w", r.anchor, r.err))
			if len(failures) == len(token.Anchors) {
				return nil, netip.AddrPort{}, explainJoin(failures)
			}
		case <-stagger.C:
		case <-ctx.Done():
			return nil, netip.AddrPort{}, ctx.Err()
		}
		if asked < len(token.Anchors) {
			ask(asked)
			asked++
		}
	}
}

// explainJoin says in one line that nobody admitted us, and why: what a member said counts for more than members that
// did not answer, and those for more than addresses that this machine has no route to.
func explainJoin(failures []error) error {
	rank := func(err error) int {
		var said *join.Refusal
		switch {
		case errors.As(err, &said):
			return 0
		case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EAFNOSUPPORT):
			return 2
		}
		return 1
	}
	slices.SortStableFunc(failures, func(a, b error) int { return rank(a) - rank(b) })
	best := rank(failures[0])
	var texts []string
	for _, f := range failures {
		if rank(f) == best {
			texts = append(texts, f.Error())
		}
	}
	if len(failures) == 1 {
		return fmt.Errorf("join: %w", failures[0])
	}
	return fmt.Errorf("join: none of the %d members in the token admitted this machine: %s", len(failures), strings.Join(texts, "; "))
}

// askOne asks one anchor, on a socket of its own.
func askOne(ctx context.Context, mesh identity.MeshID, a identity.TokenAnchor, joiner *join.Joiner) (*join.Result, error) {
	socket, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	defer socket.Close()
	conn, root, _, err := session.DialJoin(ctx, socket, a.Addr, mesh, a.ID)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return joiner.Join(ctx, conn, root)
}
