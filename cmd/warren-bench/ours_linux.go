package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/identity"
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

// path is a way of our tunnel, with a number that keeps its ports and addresses apart.
type path struct {
	name      string
	number    uint16
	relayPort uint16 // 0: direct
}

// port is that of both ends.
func (w path) port() uint16 { return 5000 + 10*w.number }

// job is what a process with roleTunnel is told on its standard input.
type job struct {
	Name     string
	Private  wgtypes.Key
	Peer     wgtypes.Key
	Endpoint netip.AddrPort // of the peer, or of the relay
	Relayed  bool
	Addr     netip.Prefix
	Route    netip.Prefix
	Port     uint16
}

// startOurs runs package tunnel at both ends, a process each.
func startOurs(ctx context.Context, p *pair, way path) (*contestant, error) {
	private, err := keys()
	if err != nil {
		return nil, err
	}
	c := &contestant{name: way.name, addr: fmt.Sprintf("10.%d.0.2", way.number)}
	for i, e := range p.ends {
		other := 1 - i
		j := job{
			Name: fmt.Sprintf("warren%d-%d", way.number, i), Private: private[i], Peer: private[other].PublicKey(), Port: way.port(),
			Endpoint: netip.AddrPortFrom(p.ends[other].under, way.port()),
			Addr:     netip.MustParsePrefix(fmt.Sprintf("10.%d.0.%d/32", way.number, i+1)), Route: netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", way.number)),
		}
		if way.relayPort != 0 {
			j.Endpoint, j.Relayed = netip.AddrPortFrom(nearRelay[i], way.relayPort), true
		}
		cmd, err := p.startRole(ctx, e, roleTunnel, j)
		if err != nil {
			return nil, fmt.Errorf("end %d: %w", i, err)
		}
		c.pids = append(c.pids, cmd.Process.Pid)
	}
	return c, nil
}

// startRole starts this program in a role with its job, and waits until it says that it is ready.
func (p *pair) startRole(ctx context.Context, at end, role string, job any) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := at.command(ctx, self)
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
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
	if err := json.NewEncoder(in).Encode(job); err != nil {
		return nil, err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		return nil, fmt.Errorf("%s does not start: %w", role, err)
	}
	return cmd, nil
}

// serveTunnel is one end: as package mesh/agent has it, with one member of fixed address.
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
	if j.Relayed {
		virtual, err := b.Channels().Open(j.Endpoint, relayChannel)
		if err != nil {
			return err
		}
		j.Endpoint = virtual
	}
	own := j.Private.PublicKey()
	member := tunnel.Peer{
		ID: identity.NodeID(j.Peer), PublicKey: j.Peer, AllowedIPs: []netip.Prefix{j.Route}, Controlling: bytes.Compare(own[:], j.Peer[:]) < 0,
	}
	if err := t.SetPeers([]tunnel.Peer{member}); err != nil {
		return err
	}
	t.SetWay(member.ID, tunnel.Way{Addr: j.Endpoint})
	fmt.Println("ready")
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent is gone
		cancel()
	}()
	return <-ended
}
