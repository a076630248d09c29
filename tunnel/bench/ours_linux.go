package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/tunnel"
	"warren/tunnel/bind"
	"warren/tunnel/osnet"
	"warren/tunnel/sockets"
)

// everything is the allowed IPs of the only peer.
var everything = []net.IPNet{{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}}

func udpAddr(a netip.Addr, port uint16) *net.UDPAddr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, port))
}

// job is what a process with roleTunnel is told on its standard input.
type job struct {
	Name     string
	Private  wgtypes.Key
	Peer     wgtypes.Key
	Endpoint netip.AddrPort
	Addr     netip.Prefix
	Route    netip.Prefix
	Port     uint16
}

// startOurs runs package tunnel at both ends, a process each.
func startOurs(ctx context.Context, p *pair) (*contestant, error) {
	const port = 5002
	private, err := keys()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &contestant{name: "warren", addr: "10.2.0.2"}
	for i, e := range p.ends {
		other := 1 - i
		cmd := e.command(ctx, self)
		cmd.Env = append(os.Environ(), roleEnv+"="+roleTunnel)
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := p.start(cmd); err != nil {
			return nil, err
		}
		c.pids = append(c.pids, cmd.Process.Pid)
		err = json.NewEncoder(in).Encode(job{
			Name: "warren" + strconv.Itoa(i), Private: private[i], Peer: private[other].PublicKey(), Port: port,
			Endpoint: netip.AddrPortFrom(p.ends[other].under, port),
			Addr:     netip.MustParsePrefix(fmt.Sprintf("10.2.0.%d/32", i+1)), Route: netip.MustParsePrefix("10.2.0.0/24"),
		})
		if err != nil {
			return nil, err
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
			return nil, fmt.Errorf("process of end %d: %w", i, err)
		}
	}
	return c, nil
}

// serveTunnel is one end: as package mesh/node has it, with one peer of fixed address.
func serveTunnel(ctx context.Context) error {
	var j job
	if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b := bind.New(bind.Options{Inner: sockets.New(), Logger: log})
	t, err := tunnel.New(tunnel.Options{Name: j.Name, PrivateKey: j.Private, Port: j.Port, Bind: b, Logger: log, LimitMemory: true})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- t.Run(ctx) }()
	select {
	case <-t.Ready():
	case err := <-ended:
		return err
	}
	if err := t.SetLink(osnet.Config{Addrs: []netip.Prefix{j.Addr}, Routes: []netip.Prefix{j.Route}, MTU: tunnel.DefaultMTU, Up: true}); err != nil {
		return err
	}
	e := b.Endpoint(j.Peer)
	e.SetControlling(true)
	e.SetPath(j.Endpoint)
	if err := t.SetPeers([]tunnel.Peer{{PublicKey: j.Peer, AllowedIPs: []netip.Prefix{j.Route}, Endpoint: e.Handle()}}); err != nil {
		return err
	}
	fmt.Println("ready")
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent is gone
		cancel()
	}()
	return <-ended
}
