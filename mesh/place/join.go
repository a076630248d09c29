package place

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"warren/mesh/disk"
	"warren/mesh/identity"
	"warren/mesh/join"
	"warren/mesh/session"
	"warren/mesh/store"
	"warren/nat/nat64"
	"warren/nat/stream"
)

// JoinOptions say how to join a mesh with a token.
type JoinOptions struct {
	Token     string // as typed: may hold spaces and line breaks; never logged
	StateRoot string // the state is made in StateRoot/MESH, MESH being the name in the root certificate
	Name      string // wanted name of this node, a ValidName
	Endpoints []string
	Port      uint16  // 0: the first free one from DefaultPort on; kept in the state directory, as is the name of the interface
	Claims    []Claim // what is taken on this machine beside what Claims finds: by config files
	NoIPv4    bool    // the overlay has no IPv4 on this machine; kept in the state directory
	Version   string
	Logger    *slog.Logger

	ifname string
	way    *nat64.Way // to IPv4, where this machine has none of its own
	disk   disk.Disk
	ask    func(context.Context, identity.Token, *join.Joiner, JoinOptions, func(JoinProgress)) (*join.Result, netip.AddrPort, error) // nil: askAll
}

// JoinStage is a step of Join.
type JoinStage int

// The steps of Join, in order. StageContacting comes once for each address that is tried.
const (
	StageContacting JoinStage = iota + 1
	StageAdmitted
	StageSynced
	StageSeeking // in place of the first when the token names nobody: members on the local network are looked for
	StageWaiting // before the others: another join or create is at work on this machine
)

// JoinProgress tells a step that Join has reached.
type JoinProgress struct {
	Stage   JoinStage
	Anchor  netip.AddrPort // StageContacting: who is asked
	Mesh    string         // from StageAdmitted on
	By      string         // StageAdmitted: name of the member that admitted us
	Records int            // StageSynced: records received with the admission
}

const (
	joinTimeout = 15 * time.Second
	// busyPause, and up to as much again, is between two asks of a member that has no place for a joiner: as many machines may join at once behind
	// one NAT as a person switches on.
	busyPause = time.Second / 2
	joinByTCP = 1500 * time.Millisecond // without an answer by UDP
)

// Join asks the anchors of the token, and members on the local network, for admission until one admits this machine or ctx ends, and writes the state
// directory. progress, which may be nil, is called from the calling goroutine only.
//
// It looks before it asks: of a machine that is in the mesh already it returns the Membership as it stands, with Already set. The keys are on disk before
// the first packet goes out, and the place has its name at the end: a join that breaks off anywhere in between can be repeated with the same token,
// and is the same member. Nothing is left behind when it fails and nobody can have admitted this machine.
//
// The error says in words why (expired, used by whom, revoked, mistyped, clock wrong by how much, nobody answered). It wraps
// ErrOverlap when the mesh's networks overlap those of this machine, and os.ErrExist when another mesh of that name is here; nobody is asked for admission then.
func Join(ctx context.Context, o JoinOptions, progress func(JoinProgress)) (Membership, error) {
	if err := ValidName(o.Name); err != nil {
		return Membership{}, err
	}
	token, err := identity.ParseToken(o.Token)
	if err != nil {
		return Membership{}, err
	}
	if progress == nil {
		progress = func(JoinProgress) {}
	}
	if here, err := placeIn(o.StateRoot, token.Mesh); here != nil || err != nil {
		return already(here), err
	}
	unlock, err := lockRoot(ctx, o.disk, o.StateRoot, func() { progress(JoinProgress{Stage: StageWaiting}) })
	if err != nil {
		return Membership{}, err
	}
	defer unlock()
	if here, err := placeIn(o.StateRoot, token.Mesh); here != nil || err != nil { // by the join that this one has waited for
		return already(here), err
	}
	o.Claims = append(Claims(o.StateRoot), o.Claims...)
	ifname, port, err := settle(o.Claims, o.Port)
	if err != nil {
		return Membership{}, fmt.Errorf("join: %w", err)
	}
	o.ifname, o.Port = ifname, port
	p, err := openPending(o.disk, o.StateRoot, token)
	if err != nil {
		return Membership{}, err
	}
	return o.join(ctx, token, p, progress)
}

// join is Join from where the keys are on disk.
func (o JoinOptions) join(ctx context.Context, token identity.Token, p *pending, progress func(JoinProgress)) (Membership, error) {
	s := p.state
	s.Settings.Name = o.Name
	own, err := s.OwnRecord(token.Mesh, s.WireGuard, o.Version)
	if err != nil {
		_ = p.end(p.cert != nil)
		return Membership{}, err
	}
	joiner := join.NewJoiner(join.Options{Seed: token.Seed, Key: s.Key, Own: own, Cert: p.cert, Keep: p.keep})
	ask := o.ask
	if ask == nil {
		ask = askAll
	}
	admitted, anchor, err := ask(ctx, token, joiner, o, progress)
	if err != nil {
		if joiner.Unsure() {
			err = fmt.Errorf("%w; %s", err, again)
		}
		_ = p.end(p.cert != nil || joiner.Unsure())
		return Membership{}, err
	}
	s.Chain = admitted.Chain
	terms, err := identity.RootTermsOf(s.Root())
	if err != nil {
		return Membership{}, fmt.Errorf("join: %w", err)
	}
	s.Settings = Settings{
		Schema: storedSchema, Mesh: terms.Name, Name: o.Name, Interface: o.ifname, Port: o.Port, Endpoints: o.Endpoints, Admission: &admitted.Admission,
		Contacts: []netip.AddrPort{anchor}, Admitter: admitted.Admission.Signer, NoIPv4: o.NoIPv4,
	}
	progress(JoinProgress{Stage: StageAdmitted, Mesh: terms.Name, By: admitted.ByName})
	if err := p.finish(filepath.Join(o.StateRoot, terms.Name), func(dir string) error { return writeRecords(o.disk, dir, admitted) }); err != nil {
		return Membership{}, fmt.Errorf("join: this machine is admitted, and its place cannot be kept: %w; %s", err, again)
	}
	forgetPending(o.disk, o.StateRoot, token.Mesh)
	progress(JoinProgress{Stage: StageSynced, Mesh: terms.Name, Records: len(admitted.Records)})
	out := s.membership()
	out.AdmittedBy, out.Members, out.Ahead = admitted.ByName, admitted.Members, admitted.Ahead
	return out, nil
}

// again is what to do about a join that broke off when a member may have admitted this machine.
const again = "repeat it with the same token: it takes up where it was, and uses the invite once"

// placeIn returns the state of this machine in a mesh, nil when it has none. The error is about a state that is damaged.
func placeIn(root string, mesh identity.MeshID) (*State, error) {
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	for _, e := range entries {
		if ValidName(e.Name()) != nil {
			continue
		}
		s := &State{Dir: filepath.Join(root, e.Name())}
		if s.readChain() == nil && s.MeshID() == mesh {
			return Load(s.Dir)
		}
	}
	return nil, nil
}

// already is the membership of a machine that was in the mesh before; zero for nil.
func already(s *State) Membership {
	if s == nil {
		return Membership{}
	}
	out := s.membership()
	out.Already = true
	return out
}

// writeRecords gives the new state the records that came with the admission. The agent verifies them when it starts.
func writeRecords(d disk.Disk, dir string, admitted *join.Result) error {
	return d.Do("write", filepath.Join(dir, fileRecords), func() error { return putRecords(dir, admitted) })
}

func putRecords(dir string, admitted *join.Result) error {
	records, _, err := store.Open(filepath.Join(dir, fileRecords))
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
	return fmt.Errorf("join: none of the %d members asked admitted this machine: %s", len(failures), strings.Join(texts, "; "))
}

// askOne asks one anchor, on a socket of its own, and by a stream as well when that gets no answer.
func askOne(ctx context.Context, mesh identity.MeshID, a identity.TokenAnchor, joiner *join.Joiner, o JoinOptions) (*join.Result, error) {
	socket, err := openSocket(o.way)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	defer socket.Close()
	for {
		result, err := askOn(ctx, socket, mesh, a, joiner, o)
		switch {
		case err == nil:
			return result, nil
		case joiner.Renew(err):
		case !session.NoPlace(err) || !pause(ctx, busyPause+rand.N(busyPause)):
			return nil, err
		}
	}
}

// pause waits; false when ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// askOn asks one anchor once.
func askOn(ctx context.Context, socket net.PacketConn, mesh identity.MeshID, a identity.TokenAnchor, joiner *join.Joiner, o JoinOptions) (*join.Result, error) {
	var dials sync.WaitGroup
	defer dials.Wait() // nothing dials on the socket when it is closed
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := greet(ctx, &dials, socket, mesh, a, o.way)
	if g.err != nil && isSilence(g.err) {
		return nil, withSize(ctx, g.err, a.Addr, o.way)
	}
	if g.err != nil {
		return nil, g.err
	}
	defer g.conn.Close()
	if err := o.fits(g.root, mesh); err != nil {
		return nil, err
	}
	return joiner.Join(ctx, g.conn, g.root)
}

// greeting is a connection to a member that may admit us, or why there is none.
type greeting struct {
	conn session.JoinConn
	root *x509.Certificate
	err  error
}

// greet connects to a member by UDP and, when that fails or takes long, by a stream as well. The first connection wins. What
// still runs then is counted by dials, and ends with ctx.
func greet(ctx context.Context, dials *sync.WaitGroup, socket net.PacketConn, mesh identity.MeshID, a identity.TokenAnchor, way *nat64.Way) greeting {
	byUDP, byTCP := make(chan greeting, 1), make(chan greeting, 1)
	dials.Go(func() {
		conn, root, _, err := session.DialJoin(ctx, socket, a.Addr, mesh, a.ID)
		byUDP <- greeting{conn, root, err}
	})
	var failed error
	select {
	case g := <-byUDP:
		if failed = g.err; failed == nil {
			return g
		}
		byUDP = nil
	case <-time.After(joinByTCP):
	}
	dials.Go(func() { byTCP <- greetByTCP(ctx, mesh, a, way) })
	for range 2 {
		select {
		case g := <-byUDP:
			if g.err == nil {
				dials.Go(func() { dismiss(byTCP) })
				return g
			}
			byUDP, failed = nil, g.err
		case g := <-byTCP:
			if g.err == nil {
				if byUDP != nil {
					dials.Go(func() { dismiss(byUDP) })
				}
				return g
			}
			if byUDP != nil {
				u := <-byUDP
				if failed = u.err; failed == nil {
					return u
				}
			}
			return greeting{err: fmt.Errorf("%w; by a TCP stream: %s", failed, strings.ReplaceAll(g.err.Error(), "\n", "; "))}
		}
	}
	return greeting{err: failed}
}

// dismiss ends a connection that came second.
func dismiss(greeted <-chan greeting) {
	if g := <-greeted; g.err == nil {
		g.conn.Close()
	}
}

// greetByTCP connects with the same protocol, its datagrams going over a stream.
func greetByTCP(ctx context.Context, mesh identity.MeshID, a identity.TokenAnchor, way *nat64.Way) greeting {
	carrier, err := stream.NewClient(stream.ClientOptions{Way: way}).DialJoin(ctx, mesh, a.ID, []netip.AddrPort{a.Addr})
	if err != nil {
		return greeting{err: err}
	}
	conn, root, _, err := session.DialJoin(ctx, stream.Packets(carrier, a.Addr), a.Addr, mesh, a.ID)
	if err != nil {
		carrier.Close()
		return greeting{err: err}
	}
	return greeting{conn: streamJoin{conn, carrier}, root: root}
}

// streamJoin is a JoinConn that ends its stream too.
type streamJoin struct {
	session.JoinConn
	stream net.Conn
}

func (c streamJoin) Close() error {
	defer c.stream.Close()
	return c.JoinConn.Close()
}
