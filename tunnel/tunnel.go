// Package tunnel moves packets for the peers that it was last told to have. It owns the TUN device, the WireGuard
// device above it, the control socket through which wg(8) sees both, the members' endpoints in package bind with all that
// concerns handshakes by them (way.go), and, through package osnet, the addresses and routes of the interface. A packet's way out is
//
//	application → kernel route → TUN → WireGuard device (allowed IPs, encryption) → conn.Bind → UDP socket
//
// and its way in the reverse; the first two files of wireguard-go's journey are device/send.go and device/receive.go, the
// rest is package tunnel/bind.
//
// It leaves to others which peers there are, which way to a member is the best, the preshared keys, and what may be
// routed. It never removes a peer in order to change it, so that a change to one peer leaves
// the sessions of all alone, its own included.
//
// New starts nothing; Run starts and ends all goroutines. Every other method may be called by any goroutine, before, during and
// after Run; those that need the device return ErrNotRunning while there is none.
package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/identity"
	"warren/tunnel/filter"
	"warren/tunnel/fit"
	"warren/tunnel/osnet"
	"warren/tunnel/sockets"
)

var (
	// ErrNotRunning is returned before the device is up (see Ready) and after Run has returned.
	ErrNotRunning = errors.New("tunnel is not running")

	// ErrGone is wrapped by Run's error when somebody has removed the interface. One that was moved to another network namespace and cannot be
	// fetched back is osnet.ErrMoved.
	ErrGone = errors.New("interface was removed")

	// ErrInterface is wrapped by Run's error when no interface can be made: no TUN device, or no right to use it.
	ErrInterface = errors.New("create interface")

	// ErrNoPeer is wrapped by the error of SetPresharedKey for a member that is not set.
	ErrNoPeer = errors.New("no such peer")

	// ErrConflict is wrapped by the error of SetPeers when two peers want the same key or addresses. All else has been set.
	ErrConflict = errors.New("another peer has it already")
)

// Options of a Tunnel. Only PrivateKey must be set.
type Options struct {
	Name       string         // of the interface; "" for osnet.DefaultName
	MTU        int            // of the interface when it is made; 0 for DefaultMTU
	PrivateKey wgtypes.Key    // of this node
	Port       uint16         // UDP; 0 lets the kernel choose
	Bind       Bind           // nil for sockets.New, which know no members
	TUN        tun.Device     // closed when Run returns; nil to make one
	Links      Links          // nil for those of the system
	Filter     *filter.Filter // what passes; nil: everything. Its peers are set here, its rules elsewhere
	Logger     *slog.Logger   // nil for slog.Default
	// LimitMemory has Run set the soft memory limit of the process, which grows with the peers, unless GOMEMLIMIT is
	// set. It is the program's choice because it is for the whole process.
	LimitMemory bool
}

// Links are the network interfaces of a machine: the system's, or in tests those of its twin, osnettest.Machine.
type Links interface {
	// Open is osnet.Open.
	Open(name string, file *os.File) (osnet.Link, error)
}

// systemLinks are the interfaces of the machine that this runs on.
type systemLinks struct{}

// Open implements Links.
func (systemLinks) Open(name string, file *os.File) (osnet.Link, error) {
	return osnet.Open(name, file)
}

// LogValue keeps the private key out of logs.
func (o Options) LogValue() slog.Value {
	return slog.GroupValue(slog.String("name", o.Name), slog.Int("mtu", o.MTU), slog.Any("port", o.Port))
}

// Peer is the desired state of one peer: of a member of the mesh, which has an ID, or of a static peer, which has none.
//
// A member has an endpoint of this package's, whose path SetWay moves, and a preshared key that SetPresharedKey sets. When it
// comes with another PublicKey it is a new peer to the device: the way is kept, the preshared key is not.
type Peer struct {
	ID           identity.NodeID // zero: a static peer
	PublicKey    wgtypes.Key
	PresharedKey wgtypes.Key    // of a static peer; zero for none
	AllowedIPs   []netip.Prefix // bits below the length are ignored
	// Endpoint of a static peer is given to the device when the peer is new or the value is another than in the last
	// SetPeers, so that a peer's own roaming is left alone in between. Zero leaves the endpoint as it is.
	Endpoint  netip.AddrPort
	Keepalive time.Duration // in whole seconds, rounded up, up to 65,535; 0 for none
	// Answers is the peer's own IPv6 address inside the tunnel, where it answers probes of the path MTU. Zero: it answers
	// none, as plain WireGuard, and packets to it are held to the MTU of the interface or DefaultMTU.
	Answers netip.Addr
	// Hosted says that a static peer reaches the members through this node, and they it, whatever the system's own forwarding is set to.
	Hosted bool
	// Controlling says that this side has the first word in the handshake with a member. The two sides differ in it.
	Controlling bool
}

// LogValue keeps the preshared key out of logs.
func (p Peer) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("id", p.ID), slog.String("key", p.PublicKey.String()), slog.Any("address", p.Endpoint))
}

// PeerStats is what the device knows about one peer.
type PeerStats struct {
	ID            identity.NodeID // whose the key is here; zero: a static peer's
	Endpoint      netip.AddrPort  // where it is spoken to; zero when unknown
	LastHandshake time.Time       // zero when there was none
	RxBytes       uint64          // received from the peer, with WireGuard's headers
	TxBytes       uint64          // sent to it
	PathMTU       int             // largest packet that was verified to pass the present path; 0 when unknown
}

// Tunnel is one WireGuard interface.
type Tunnel struct {
	// constant after New
	opts   Options
	log    *slog.Logger
	bind   *steadyBind
	ways   *ways         // runs beside the run loop
	device turns[open]   // of the run loop
	link   turns[linked] // of a goroutine beside it
	ready  chan struct{} // closed when the device is up
	gone   chan struct{} // closed when neither takes any more

	shakes shakes // guards itself

	// atomic
	started atomic.Bool
	fit     atomic.Pointer[fit.Device]
	linked  atomic.Pointer[linked]
	name    atomic.Pointer[string]        // of the interface as made
	running atomic.Pointer[device.Device] // nil before ready
}

// New checks the options. It starts nothing.
func New(opts Options) (*Tunnel, error) {
	if opts.PrivateKey == (wgtypes.Key{}) {
		return nil, errors.New("make tunnel: no private key")
	}
	if opts.Name == "" {
		opts.Name = osnet.DefaultName
	}
	if opts.MTU == 0 {
		opts.MTU = DefaultMTU
	}
	var shared socket = opts.Bind
	if opts.Bind == nil {
		shared = sockets.New()
	}
	if opts.Links == nil {
		opts.Links = systemLinks{}
	}
	if opts.Filter == nil {
		opts.Filter = filter.New(time.Now())
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	t := &Tunnel{opts: opts, log: opts.Logger.With("part", "tunnel"), ready: make(chan struct{}), gone: make(chan struct{})}
	t.device = turns[open]{make(chan call[open]), t.ready, t.gone}
	t.link = turns[linked]{make(chan call[linked]), t.ready, t.gone}
	t.bind, t.ways = &steadyBind{socket: shared, log: t.log}, newWays(opts.Bind, t.log)
	t.name.Store(&opts.Name)
	return t, nil
}

// Run makes the interface, serves it until ctx ends, and takes it away again. It returns nil when ctx has ended, otherwise what
// went wrong: the interface cannot be made (see osnet.ErrBusy and osnet.ErrForeign), the port is taken
// (syscall.EADDRINUSE), or somebody removed the interface (ErrGone). It can be called once.
func (t *Tunnel) Run(ctx context.Context) error {
	if t.started.Swap(true) {
		return errors.New("run tunnel: it can run only once")
	}
	o, err := t.open(ctx)
	if err != nil {
		close(t.gone)
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	t.name.Store(&o.name)
	t.running.Store(o.device)
	t.linked.Store(o.link)
	close(t.ready)
	t.log.Info("interface up", "name", o.name, "port", o.bind.Port())
	beside, stop := context.WithCancel(ctx)
	defer stop()
	var others sync.WaitGroup
	others.Go(func() { t.ways.run(beside, attached{t}) })
	others.Go(func() { o.link.run(beside, t.link.calls) })
	others.Go(func() { o.memory.run(beside, collect) })
	err = t.serve(ctx, o)
	close(t.gone) // before the wait: the ways call too
	stop()
	others.Wait()
	o.close()
	t.log.Info("interface down", "name", o.name)
	return err
}

// serve does one call after the other.
func (t *Tunnel) serve(ctx context.Context, o *open) error {
	compare := time.NewTicker(compareEvery)
	defer compare.Stop()
	for {
		select {
		case <-compare.C:
			t.compare(o)
		case c := <-t.device.calls:
			c.done <- c.do(o)
		case <-o.device.Wait():
			return fmt.Errorf("run interface %s: %w", o.name, ErrGone)
		case err := <-o.link.over:
			return fmt.Errorf("run interface %s: %w", o.name, err)
		case <-ctx.Done():
			return nil
		}
	}
}

// compare undoes what others have changed about the peers.
func (t *Tunnel) compare(o *open) {
	if o.peers.want == nil {
		return
	}
	changes, err := o.converge(true)
	switch {
	case err != nil:
		t.log.Warn("peers not compared", "error", err)
	case changes > 0:
		t.log.Info("peers put right", "count", changes)
	}
}

// do has the run loop call f and returns what it returns.
func (t *Tunnel) do(f func(*open) error) error { return t.device.do(f) }

// Port returns the UDP port that is open; 0 before the first.
func (t *Tunnel) Port() uint16 { return t.bind.Port() }

// Ready is closed when the interface is there and the port is open.
func (t *Tunnel) Ready() <-chan struct{} { return t.ready }

// Name returns the name of the interface. Before Ready it is the one asked for, which on macOS has no number.
func (t *Tunnel) Name() string { return *t.name.Load() }

// SetLink gives the interface its addresses and routes; see osnet.Link. It waits for the kernel, but nothing else of the tunnel
// does meanwhile. That IPv6 is switched off in the kernel is logged once and is no error.
func (t *Tunnel) SetLink(config osnet.Config) error {
	if err := t.do(func(o *open) error {
		o.sizes.setLink(factsOf(config))
		return nil
	}); err != nil {
		return err
	}
	return t.link.do(func(l *linked) error { return l.set(config) })
}

// Elsewhere returns what this machine reaches by other interfaces than this one, as far as it shares addresses with one of the prefixes, as
// osnet.Link does. It asks the kernel.
func (t *Tunnel) Elsewhere(within ...netip.Prefix) (routes []osnet.Route, err error) {
	err = t.link.do(func(l *linked) (err error) {
		routes, err = l.link.Elsewhere(within...)
		return err
	})
	return routes, err
}

// Trouble says in words why the interface is not what SetLink has asked for: what could not be set, or is changed by others again and again. It is
// "" when all is well, and when the tunnel does not run.
func (t *Tunnel) Trouble() string {
	if l := t.linked.Load(); l != nil {
		return *l.trouble.Load()
	}
	return ""
}

// Dropped returns how many packets were dropped because of their size, or as bad probes, by reason.
func (t *Tunnel) Dropped() map[string]uint64 {
	if f := t.fit.Load(); f != nil {
		return f.Dropped()
	}
	return nil
}
