package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/tunnel/fit"
	"warren/tunnel/gate"
	"warren/tunnel/osnet"
)

// A process that was killed holds its TUN device until the kernel has taken it apart, so a name in use is
// worth waiting for.
const (
	busyWait  = 3 * time.Second
	busyRetry = 100 * time.Millisecond
)

// open is an interface that is up. Its fields belong to the run loop.
type open struct {
	name      string
	log       *slog.Logger
	publicKey wgtypes.Key
	device    *device.Device
	bind      *steadyBind
	control   *control
	client    *wgctrl.Client
	link      *linked // runs beside the run loop
	fit       *fit.Device
	sizes     sizes
	peers     peerSet
	memory    memory
}

// open makes the interface and brings the device up. What it has made before an error it takes away.
func (t *Tunnel) open(ctx context.Context) (*open, error) {
	dev := t.opts.TUN
	if dev == nil {
		made, err := createTUN(ctx, t.opts.Name, t.opts.MTU)
		if err != nil {
			return nil, err
		}
		dev = made
	}
	name, err := dev.Name()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("name interface: %w", err), dev.Close())
	}
	o := &open{name: name, log: t.log, publicKey: t.opts.PrivateKey.PublicKey(), bind: t.bind}
	o.peers.held = make(map[wgtypes.Key]holder)
	o.memory = newMemory(t.opts.LimitMemory)
	o.memory.limit(0)
	guarded := gate.New(&enduring{Device: dev, complaints: newComplaints(t.log)}, t.opts.Filter)
	o.fit = fit.New(fit.Options{Inner: guarded, Sockets: t.bind, Judge: guarded})
	o.sizes.fit = o.fit
	t.fit.Store(o.fit)
	steady := newSteadyTUN(o.fit)
	o.device = device.NewDevice(steady, o.bind, deviceLogger(t.log))
	if err := o.up(t.opts, steady); err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

// up gives the device its control socket, its key and its port, and opens the link. The kernel's WireGuard need not be
// there: wgctrl then looks for control sockets only.
func (o *open) up(opts Options, steady *steadyTUN) error {
	var err error
	if o.control, err = listenControl(o.name, o.device); err != nil {
		return err
	}
	if o.client, err = wgctrl.New(); err != nil {
		return fmt.Errorf("open WireGuard control: %w", err)
	}
	port := int(opts.Port)
	if err = o.configure(wgtypes.Config{PrivateKey: &opts.PrivateKey, ListenPort: &port}); err != nil {
		return err
	}
	if err = o.device.Up(); err != nil {
		return fmt.Errorf("open UDP port %d: %w", port, err)
	}
	link, err := opts.Links.Open(o.name, steady.File())
	if err != nil {
		return err
	}
	o.link = newLinked(o.name, link, o.fit, steady.resized, o.log)
	return nil
}

// close takes everything down in the reverse order. The control socket's connections are cut first: a client that stops in the
// middle of an operation would hold the device's lock.
func (o *open) close() {
	if o.control != nil {
		o.control.close()
	}
	if o.link != nil {
		o.link.close()
	}
	o.device.Close()
	o.memory.lift()
	if o.client != nil {
		_ = o.client.Close()
	}
}

// read returns what the device has, through the control socket. When somebody has deleted the socket, it is made again.
func (o *open) read() (*wgtypes.Device, error) {
	if err := o.control.ensure(); err != nil {
		return nil, err
	}
	o.log.Debug("read device")
	d, err := o.client.Device(o.name)
	if err != nil {
		return nil, fmt.Errorf("read WireGuard device %s: %w", o.name, err)
	}
	if d.PublicKey != o.publicKey {
		return nil, fmt.Errorf("read WireGuard device %s: its control socket belongs to another device", o.name)
	}
	return d, nil
}

// configure changes the device. It does not go through the control socket as read does, but sees to it that the socket is there: a
// preshared key is set for each peer that comes up, and a connection for each, with two more goroutines that have to get
// their turn, would have all of them, and whoever sets peers, wait in a row on a machine that is busy with the handshakes.
func (o *open) configure(config wgtypes.Config) error {
	if err := o.control.ensure(); err != nil {
		return err
	}
	o.log.Debug("configure device", "count", len(config.Peers))
	if err := setDevice(o.device, config); err != nil {
		return fmt.Errorf("configure WireGuard device %s: %w", o.name, err)
	}
	return nil
}

// createTUN makes the TUN device, or takes a persistent one over.
func createTUN(ctx context.Context, name string, mtu int) (tun.Device, error) {
	deadline := time.Now().Add(busyWait)
	for {
		err := osnet.Claim(name)
		if err == nil {
			var dev tun.Device
			if dev, err = makeTUN(name, mtu); err == nil {
				return dev, nil
			}
			if errors.Is(err, syscall.EBUSY) {
				err = osnet.ErrBusy
			}
			err = fmt.Errorf("%w %s: %w", ErrInterface, name, err)
		}
		if !errors.Is(err, osnet.ErrBusy) || time.Now().After(deadline) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(busyRetry):
		}
	}
}
