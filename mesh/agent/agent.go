// Package agent is one running node: it makes the owners, plugs them together behind the hub of mesh/node, runs them, and
// answers the local API.
//
// Nothing is decided here. Which owner does what is told by each owner's package; who is told what, by mesh/node; what
// is put into words for a person, by mesh/report. Files in the order of a start: agent.go, assemble.go (what is made), plug.go
// (who hears what from whom), backend.go, power.go and look.go (the API's verbs, and what it reads), offline.go (what of it works without an agent).
//
// Run may be called once per state directory at a time.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh"
	"warren/mesh/api"
	"warren/mesh/node"
	"warren/mesh/place"
	"warren/mesh/resolve"
	"warren/nat/dns64"
	"warren/nat/nat64"
	"warren/tunnel"
	"warren/tunnel/bind"
	"warren/tunnel/filter"
)

// Options are what the agent runs on.
type Options struct {
	Mesh     string                        // "": no mesh, only the static peers of the settings
	StateDir string                        // of this mesh; "" without a mesh
	Socket   string                        // path of the local API's socket
	Group    string                        // group that may read over the socket; "" or unknown to the system: root only
	Version  string                        // of this program, for the node record and status
	Load     func() (node.Settings, error) // reads the settings afresh; called at the start and at each reload
	Reload   <-chan struct{}               // each value asks for a reload, as the API's does; may be nil
	Ready    func()                        // called once, when the interface is up and the API answers; may be nil
	Logger   *slog.Logger
}

// agent is what stands once everything is made; constant from then on, but for the last two.
type agent struct {
	o       Options
	log     *slog.Logger
	started time.Time
	public  wgtypes.Key // WireGuard's, of this node
	way     nat64.Way   // to IPv4, where the host has none of its own
	nat64   *dns64.Finder
	socket  *bind.Bind
	filter  *filter.Filter
	tunnel  *tunnel.Tunnel
	names   *resolve.Resolver
	hub     *node.Hub
	ready   chan struct{} // closed after the hub's first round
	parts   *parts        // nil without a mesh
	remarks []string      // what was found damaged at the start
	tally   tally         // of static peers, as they were looked at

	stopping atomic.Bool
}

// Run is the agent: it brings the node up, serves the local API, and returns nil when ctx ends or the node has left
// its mesh over the API, with everything that it made in the kernel removed. A failed Load at the start
// ends it; at a reload it is reported and the old settings stay.
func Run(ctx context.Context, o Options) error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	var state *place.State
	var err error
	if o.Mesh != "" {
		if state, err = place.Load(o.StateDir); err != nil {
			return err
		}
		lock, err := place.Lock(o.StateDir)
		if err != nil {
			return err
		}
		defer lock.Close()
		o.Load = withDevices(o.Load, state)
	}
	settings, err := o.Load()
	if err != nil {
		return err
	}
	a, private, err := prepare(o, settings, state)
	if err != nil {
		return err
	}
	// What the kernel makes, and what is read from the disk and verified, do not need each other.
	ground := a.begin(ctx)
	defer ground.end()
	if err := a.assemble(settings, state, private); err != nil {
		if out, ok := errors.AsType[*mesh.FatalError](err); ok && !out.Curable() {
			return fmt.Errorf("%w: %w", node.ErrFinal, err)
		}
		return err
	}
	defer a.close()
	return guise(a).run(ctx, ground)
}

// ground is what an agent stands on, which comes up while the rest of it is made: the tunnel, and the socket of the local API.
type ground struct {
	stop   context.CancelFunc // ends the tunnel
	tunnel chan error         // what came of it; holds one
	api    chan listening     // holds one
	ended  bool
}

// listening is what came of api.Listen.
type listening struct {
	net.Listener
	err error
}

// begin has the ground come up.
func (a *agent) begin(ctx context.Context) *ground {
	bottom, stop := context.WithCancel(context.WithoutCancel(ctx))
	g := &ground{stop: stop, tunnel: make(chan error, 1), api: make(chan listening, 1)}
	go func() { g.tunnel <- a.tunnel.Run(bottom) }()
	go func() {
		l, err := api.Listen(a.o.Socket, a.o.Group)
		g.api <- listening{l, err}
	}()
	return g
}

// end takes the tunnel down, and the socket unless somebody serves it, and waits until they are. It may be called again.
func (g *ground) end() {
	if g.ended {
		return
	}
	g.ended = true
	g.stop()
	<-g.tunnel
	if l := <-g.api; l.err == nil && l.Listener != nil {
		l.Close()
	}
}

// run starts the owners from the bottom up, and ends them from the top down: the tunnel goes last, so that
// the others can say good-bye through its socket.
func (a *agent) run(ctx context.Context, g *ground) error {
	tunnelDone := g.tunnel
	select {
	case <-a.tunnel.Ready():
	case err := <-tunnelDone:
		tunnelDone <- nil
		return err
	case <-ctx.Done():
		g.stop()
		err := <-tunnelDone
		tunnelDone <- nil
		return err
	}
	listener := <-g.api
	g.api <- listening{}
	if listener.err != nil {
		return listener.err
	}
	group, upper := errgroup.WithContext(ctx)
	a.start(upper, group)
	group.Go(func() error { return api.NewServer(&backend{a}, a.o.Logger).Serve(upper, listener.Listener) })
	group.Go(func() error {
		select {
		case err := <-tunnelDone:
			tunnelDone <- err
			return fmt.Errorf("tunnel ended: %w", err)
		case <-upper.Done():
			return nil
		}
	})
	err := group.Wait()
	a.stopping.Store(true)
	g.stop()
	tunnelErr := <-tunnelDone
	tunnelDone <- nil
	switch {
	case errors.Is(err, node.ErrLeft):
		return nil // whoever asked removes the state
	case err != nil && ctx.Err() == nil:
		return err
	case errors.Is(tunnelErr, context.Canceled):
		return nil
	}
	return tunnelErr
}

// start runs everything but the tunnel in group until ctx ends. An owner that ends before that takes the others along: half an
// agent would be worse than one that is started anew.
func (a *agent) start(ctx context.Context, group *errgroup.Group) {
	all := []owner{{"names", a.names.Run}, {"doubts", a.doubtNames}, {"nat64", a.nat64.Run}, {"hub", a.hub.Run}, {"ready", a.tellReady}}
	if a.parts != nil {
		a.parts.network.Watch(ctx)
		all = append(a.parts.running(), all...)
	}
	together(ctx, group, all)
}

// doubtNames has the name of a static peer looked up when a handshake with it begins: where all is well that is once in two minutes, and
// where nobody answers the name may lead elsewhere by now.
func (a *agent) doubtNames(ctx context.Context) error {
	for {
		select {
		case addr := <-a.socket.Calls():
			a.names.Doubt(addr)
		case <-ctx.Done():
			return nil
		}
	}
}

// together runs owners in a group whose context is ctx: the first that ends ends all.
func together(ctx context.Context, group *errgroup.Group, owners []owner) {
	for _, o := range owners {
		group.Go(func() error { return o.watched(ctx) })
	}
}

// watched runs an owner and says so when it ends too soon.
func (o owner) watched(ctx context.Context) error {
	err := o.run(ctx)
	if err == nil && ctx.Err() == nil {
		return fmt.Errorf("%s ended without a reason", o.name)
	}
	return err
}

// tellReady calls Options.Ready after the hub's first round.
func (a *agent) tellReady(ctx context.Context) error {
	select {
	case <-a.ready:
		if a.o.Ready != nil {
			a.o.Ready()
		}
		<-ctx.Done()
	case <-ctx.Done():
	}
	return nil
}

// close ends what Run's goroutines used.
func (a *agent) close() {
	if a.parts != nil {
		a.parts.store.Close()
	}
}
