package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh"
	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/nat"
	"warren/nat/beacon"
	"warren/nat/netwatch"
	"warren/tunnel"
	"warren/tunnel/bind"
	"warren/tunnel/osnet"
	"warren/tunnel/sockets"
)

// Timing of the loop. Level-triggered: what an event missed, the next tick mends.
const (
	tickEvery  = time.Minute
	retryAfter = time.Second // after a step that failed
)

// node is the running agent. Its fields are constant after assemble, or owned by the loop where said so.
type node struct {
	options Options
	log     *slog.Logger
	started time.Time

	socket *bind.Bind
	tunnel *tunnel.Tunnel
	public wgtypes.Key // WireGuard's, of this node
	member *member     // nil without a mesh
	status *statusBoard
	names  *resolver

	leave   chan struct{} // closed by the API when this node has left the mesh
	leaving sync.Once

	// Owned by the loop.
	settings Settings
	last     desired // what the owners were told last
	retry    *time.Timer
}

// Run is the agent: it brings the node up, serves the local API, and returns nil when ctx ends or the node has left
// its mesh over the API, with everything that it made in the kernel removed. A failed Load at the start
// ends it; at a reload it is reported and the old settings stay.
func Run(ctx context.Context, o Options) error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	settings, err := o.Load()
	if err != nil {
		return err
	}
	n := &node{
		options: o, log: o.Logger.With("part", "node"), started: time.Now(), settings: settings,
		leave: make(chan struct{}), names: newResolver(), retry: time.NewTimer(time.Hour),
	}
	n.status = newStatusBoard(o, n.started)
	n.retry.Stop()

	var s *state
	if o.Mesh != "" {
		if s, err = loadState(o.StateDir); err != nil {
			return err
		}
		lock, err := lockState(o.StateDir)
		if err != nil {
			return err
		}
		defer lock.Close()
	}
	if err := n.assemble(s); err != nil {
		var out *mesh.FatalError
		if errors.As(err, &out) {
			return ended(err)
		}
		return err
	}
	return n.run(ctx)
}

// assemble makes the owners. Nothing runs yet.
func (n *node) assemble(s *state) error {
	inner := sockets.New()
	n.socket = bind.New(bind.Options{Inner: inner, Logger: n.options.Logger})
	private, port := n.settings.Interface.PrivateKey, n.settings.Interface.Port
	if s != nil {
		if private == (wgtypes.Key{}) {
			private = s.wireGuard
		}
		if port == 0 {
			port = s.settings.Port
		}
		member, err := newMember(n, s, private)
		if err != nil {
			return err
		}
		n.member = member
	}
	if port == 0 {
		port = DefaultPort
	}
	n.public = private.PublicKey()
	name := n.settings.Interface.Name
	t, err := tunnel.New(tunnel.Options{
		Name: name, MTU: n.mtu(), PrivateKey: private, Port: port, Bind: n.socket, Exact: inner.Exact, OpenLink: osnet.Open, Logger: n.options.Logger, LimitMemory: true,
	})
	if err != nil {
		n.close()
		return err
	}
	n.tunnel = t
	return nil
}

func (n *node) close() {
	if n.member != nil {
		n.member.store.Close()
	}
}

// run starts the owners from the bottom up, and ends them from the top down: the tunnel goes last, so that
// the others can say good-bye through its socket.
func (n *node) run(ctx context.Context) error {
	defer n.close()
	bottom, stopBottom := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBottom()
	tunnelDone := make(chan error, 1)
	go func() { tunnelDone <- n.tunnel.Run(bottom) }()
	select {
	case <-n.tunnel.Ready():
	case err := <-tunnelDone:
		return err
	case <-ctx.Done():
		stopBottom()
		return <-tunnelDone
	}

	listener, err := api.Listen(n.options.Socket, n.options.Group)
	if err != nil {
		stopBottom()
		<-tunnelDone
		return err
	}
	upper, stopUpper := context.WithCancel(ctx)
	defer stopUpper()
	group, upper := errgroup.WithContext(upper)
	if n.member != nil {
		n.member.start(upper, group)
	}
	group.Go(func() error { return api.NewServer(&backend{n}, n.options.Logger).Serve(upper, listener) })
	group.Go(func() error { return n.loop(upper) })
	group.Go(func() error {
		select {
		case err := <-tunnelDone:
			tunnelDone <- err
			return fmt.Errorf("tunnel ended: %w", err)
		case <-upper.Done():
			return nil
		}
	})
	err = group.Wait()
	n.status.stopping()
	stopBottom()
	tunnelErr := <-tunnelDone
	switch {
	case errors.Is(err, errLeft):
		return nil // whoever asked removes the state
	case err != nil && ctx.Err() == nil:
		return err
	case errors.Is(tunnelErr, context.Canceled):
		return nil
	}
	return tunnelErr
}

// errLeft ends the loop of a node that has left its mesh.
var errLeft = errors.New("left the mesh")

// loop is the one goroutine that decides: it takes the events of all owners, and reconciles when none is waiting.
func (n *node) loop(ctx context.Context) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	network, err := netwatch.Watch(ctx, n.foreign)
	if err != nil {
		n.log.Warn("network not watched", "error", err)
		n.status.warn("network", "changes of the network are not noticed at once: "+err.Error())
	}
	events := n.events()
	if err := n.reconcile(ctx); err != nil {
		return err
	}
	if n.options.Ready != nil {
		n.options.Ready()
	}
	dirty := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.leave:
			return errLeft
		case err := <-events.fatal:
			return ended(err)
		case e := <-events.paths:
			n.member.pathChanged(e)
		case signal := <-events.incoming:
			// A signal must not be answered before the session that brought it is known, or the answer has no route.
			n.member.takeSessions(events.sessions)
			n.member.receive(signal)
		case signal := <-events.outgoing:
			n.member.transmit(signal)
		case e := <-events.sessions:
			n.member.sessionChanged(e)
		case <-events.streams:
			n.member.streamsChanged()
		case found := <-events.heard:
			if !n.member.heardOnLAN(found) {
				continue
			}
		case news := <-events.reached:
			n.member.dialledBack(news)
		case <-events.reach:
		case <-events.handshakes:
			n.member.retryHandshakes()
		case <-events.relays:
			n.member.relaysChanged()
		case <-events.mapped:
			n.member.outlook.mapped()
			n.member.nat.AnchorsChanged()
		case addr := <-n.socket.Strays():
			n.stray(addr)
		case <-events.records:
		case _, open := <-network:
			if !open {
				network = nil
				continue
			}
			n.log.Info("network changed")
			if n.member != nil {
				n.member.networkChanged()
			}
		case <-n.socket.PortChanges():
			if n.member != nil {
				n.member.networkChanged()
			}
		case <-n.names.Changes():
		case <-n.options.Reload:
			n.reload()
		case request := <-n.status.reloads:
			request <- n.reload()
		case <-n.retry.C:
		case <-tick.C:
			n.names.Refresh()
			if n.member != nil {
				n.member.introduceStale(time.Now())
			}
		case <-settled(dirty):
			dirty = false
			if err := n.reconcile(ctx); err != nil {
				return err
			}
			continue
		}
		dirty = true
	}
}

// ended says whether a restart can help a node that its own records put out: only when it is a matter of clocks.
func ended(err error) error {
	var fatal *mesh.FatalError
	if errors.As(err, &fatal) && fatal.Reason == roster.ReasonExpired {
		return err
	}
	return fmt.Errorf("%w: %w", ErrFinal, err)
}

// settled returns a channel that is ready when there is something to do: select takes any ready case, so that events
// and reconciling share the loop fairly, and a burst of events costs few rounds.
func settled(dirty bool) <-chan struct{} {
	if dirty {
		return ready
	}
	return nil
}

var ready = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// reconcile plans, and tells the owners the difference. What fails is tried again soon and shown as a warning; only
// what nothing but a person can mend ends the agent.
func (n *node) reconcile(ctx context.Context) error {
	f := facts{now: time.Now(), settings: n.settings, mtu: n.mtu(), statics: n.names.Resolve(n.settings.Static)}
	endpoints := n.settings.Endpoints
	if n.member != nil {
		n.member.addFacts(&f)
		if len(endpoints) == 0 {
			endpoints = n.member.state.settings.Endpoints
		}
	}
	f.endpoints = n.names.Endpoints(endpoints)
	want := plan(f)
	var failed error
	if err := n.tunnel.SetLink(want.link); err != nil {
		failed = errors.Join(failed, err)
	}
	if err := n.tunnel.SetPeers(want.tunnel); err != nil {
		failed = errors.Join(failed, err)
	}
	n.socket.SetStatic(staticEndpoints(f))
	if n.member != nil {
		if err := n.member.apply(ctx, f, want); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	n.last = want
	n.status.reconciled(f, failed)
	if failed != nil {
		n.log.Warn("reconcile", "error", failed)
		n.retry.Reset(retryAfter)
	}
	return nil
}

func staticEndpoints(f facts) (out []netip.AddrPort) {
	for _, addr := range f.statics {
		out = append(out, addr)
	}
	return out
}

// reload reads the settings again. On error the old ones stay.
func (n *node) reload() error {
	settings, err := n.options.Load()
	if err != nil {
		n.log.Warn("settings not reloaded", "error", err)
		n.status.warn("settings", "settings not reloaded: "+err.Error())
		return err
	}
	n.status.warn("settings", "")
	if before, now := n.settings.Interface, settings.Interface; before.Name != now.Name || before.Port != now.Port || before.PrivateKey != now.PrivateKey {
		n.status.warn("settings", "a change of interface name, port or private key takes effect when the agent starts again")
	}
	n.settings = settings
	n.log.Info("settings reloaded")
	return nil
}

// foreign reports whether an interface is none of ours to offer as a way in.
func (n *node) foreign(ifname string) bool { return ifname == n.tunnel.Name() }

// newInstance returns the number that tells this run of the agent from all others.
func newInstance() (instance [8]byte) {
	rand.Read(instance[:])
	return instance
}

// recordsPath is where the store of a mesh is kept.
func recordsPath(stateDir string) string { return filepath.Join(stateDir, fileRecords) }

// eventSources are what the loop waits for; those of a mesh are nil, which is never, without one.
type eventSources struct {
	paths      <-chan nat.Event
	sessions   <-chan sessionEvent
	records    <-chan struct{}
	fatal      <-chan error
	incoming   <-chan incomingSignal
	outgoing   <-chan outgoingSignal
	reached    <-chan dialBackNews
	reach      <-chan time.Time
	mapped     <-chan struct{}
	relays     <-chan struct{}
	handshakes <-chan time.Time
	streams    <-chan struct{}
	heard      <-chan beacon.Found
}

func (n *node) events() eventSources {
	if n.member == nil {
		return eventSources{}
	}
	return n.member.events()
}

// shorten names a node in messages: its name if known, else the short ID.
func shorten(name string, id identity.NodeID) string {
	if name != "" {
		return name
	}
	return id.Short()
}
