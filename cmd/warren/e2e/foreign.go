//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/nat/natlab"
)

// Foreign is a plain WireGuard peer on a host of the lab: Debian's wireguard-go
// and wg(8), of which not a line is ours.
type Foreign struct {
	Host      *natlab.Host
	PublicKey wgtypes.Key
	Port      uint16

	device *natlab.Process
}

// foreignName is the interface's name.
const foreignName = "wg0"

// ForeignPeer is what a Foreign is told of its peer. Zero fields are left out.
type ForeignPeer struct {
	PublicKey    wgtypes.Key
	PresharedKey wgtypes.Key
	AllowedIPs   []netip.Prefix
	Endpoint     netip.AddrPort
	Keepalive    time.Duration
}

// StartForeign brings the interface up with a new key, the addresses and the
// port (0: any).
func StartForeign(ctx context.Context, h *natlab.Host, port uint16, addrs ...netip.Prefix) (*Foreign, error) {
	for _, tool := range []string{"wireguard-go", "wg"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("start foreign peer: %w (apt-get install wireguard-go wireguard-tools)", err)
		}
	}
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return nil, fmt.Errorf("start foreign peer: %w", err)
	}
	f := &Foreign{Host: h, PublicKey: key.PublicKey(), Port: port}
	if f.device, err = h.Start("wireguard-go", "-f", foreignName); err != nil {
		return nil, err
	}
	// The socket of its control interface comes last. It is looked for from outside first: wg(8) removes one that is bound and does not
	// listen yet, since it takes it for left over, and wireguard-go ends then.
	for {
		out, err := h.Run(ctx, "ss", "-Hxl")
		if err == nil && strings.Contains(out, "wireguard/"+foreignName+".sock") {
			if _, err = h.Run(ctx, "wg", "show", foreignName); err == nil {
				break
			}
		}
		select {
		case <-f.device.Done():
			return nil, fmt.Errorf("start foreign peer: wireguard-go has ended: %s", f.device.Output())
		case <-ctx.Done():
			return nil, fmt.Errorf("start foreign peer: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	conf := fmt.Sprintf("[Interface]\nPrivateKey = %s\n", key)
	if port != 0 {
		conf += fmt.Sprintf("ListenPort = %d\n", port)
	}
	if err := f.wg(ctx, conf, "setconf"); err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if _, err := h.Run(ctx, "ip", "addr", "add", a.String(), "dev", foreignName); err != nil {
			return nil, err
		}
	}
	_, err = h.Run(ctx, "ip", "link", "set", foreignName, "up")
	return f, err
}

// wg gives wg(8) a configuration on its standard input.
func (f *Foreign) wg(ctx context.Context, conf, verb string) error {
	cmd := f.Host.Command(ctx, "wg", verb, foreignName, "/dev/stdin")
	cmd.Stdin = strings.NewReader(conf)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: wg %s: %w: %s", f.Host.Name, verb, err, out)
	}
	return nil
}

// AddPeer adds or changes one peer, and routes its allowed IPs into the tunnel.
func (f *Foreign) AddPeer(ctx context.Context, p ForeignPeer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "[Peer]\nPublicKey = %s\n", p.PublicKey)
	for _, a := range p.AllowedIPs {
		fmt.Fprintf(&b, "AllowedIPs = %s\n", a)
	}
	if p.PresharedKey != (wgtypes.Key{}) {
		fmt.Fprintf(&b, "PresharedKey = %s\n", p.PresharedKey)
	}
	if p.Endpoint.IsValid() {
		fmt.Fprintf(&b, "Endpoint = %s\n", p.Endpoint)
	}
	if p.Keepalive > 0 {
		fmt.Fprintf(&b, "PersistentKeepalive = %d\n", int(p.Keepalive.Seconds()))
	}
	if err := f.wg(ctx, b.String(), "addconf"); err != nil {
		return err
	}
	for _, a := range p.AllowedIPs {
		if _, err := f.Host.Run(ctx, "ip", "route", "replace", a.String(), "dev", foreignName); err != nil {
			return err
		}
	}
	return nil
}

// Show is what `wg show` prints.
func (f *Foreign) Show(ctx context.Context) (string, error) {
	return f.Host.Run(ctx, "wg", "show", foreignName)
}

// Stop ends the interface.
func (f *Foreign) Stop() error { return f.device.Stop(5 * time.Second) }
