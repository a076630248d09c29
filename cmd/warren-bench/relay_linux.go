package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/tunnel"
	"warren/tunnel/bind"
	"warren/tunnel/sockets"
)

// The third namespace, where relays run, and how it and the ends are seen from each other.
var (
	nearRelay = [2]netip.Addr{netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("203.0.113.2")} // the relay's, towards each end
	nearEnd   = [2]netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("203.0.113.1")}
)

// relayChannel is the channel number on both sides.
const relayChannel = 0x4000

// addRelay makes a namespace with a veth to each end.
func (p *pair) addRelay(ctx context.Context) (relay end, err error) {
	keeper, err := p.startKeeper(ctx)
	if err != nil {
		return end{}, err
	}
	relay = end{pid: strconv.Itoa(keeper.Process.Pid)}
	for i, e := range p.ends {
		name := "relay" + strconv.Itoa(i)
		if err := e.ip(ctx, "link add "+name+" type veth peer name "+name+" netns "+relay.pid); err != nil {
			return relay, err
		}
		for _, side := range []struct {
			end
			addr netip.Addr
		}{{e, nearEnd[i]}, {relay, nearRelay[i]}} {
			for _, line := range []string{"addr add " + side.addr.String() + "/24 dev " + name, "link set " + name + " up"} {
				if err := side.ip(ctx, line); err != nil {
					return relay, err
				}
			}
		}
	}
	return relay, nil
}

// compareRelays measures the same tunnel straight, through our relay, and through a TURN server, in turns.
func compareRelays(ctx context.Context, p *pair, s settings, program string) error {
	relay, err := p.addRelay(ctx)
	if err != nil {
		return err
	}
	straight, err := startOurs(ctx, p, path{name: "direct", number: 2})
	if err != nil {
		return fmt.Errorf("start tunnel: %w", err)
	}
	ours, err := startRelayed(ctx, p, relay)
	if err != nil {
		return fmt.Errorf("start relayed tunnel: %w", err)
	}
	theirs, err := startTURN(ctx, p, relay, program)
	if err != nil {
		return fmt.Errorf("start tunnel over TURN: %w", err)
	}
	straight.pids = nil // what counts is the relay's
	if err := p.start(p.ends[1].command(ctx, "iperf3", "-s")); err != nil {
		return err
	}
	return measureRelays(ctx, s, []*contestant{straight, ours, theirs})
}

// startRelayed runs package tunnel at both ends, and a bind that forwards between them.
func startRelayed(ctx context.Context, p *pair, relay end) (*contestant, error) {
	const port = 5004
	way := path{name: "relayed", number: 4, relayPort: port}
	var ends [2]bind.Half
	for i := range ends {
		ends[i] = bind.Half{Addr: netip.AddrPortFrom(nearEnd[i], way.port()), Channel: relayChannel}
	}
	cmd, err := p.startRole(ctx, relay, roleRelay, relayJob{Port: port, Ends: ends})
	if err != nil {
		return nil, err
	}
	c, err := startOurs(ctx, p, way)
	if err == nil {
		c.pids = []int{cmd.Process.Pid}
	}
	return c, err
}

// relayJob is what a process with roleRelay is told.
type relayJob struct {
	Port uint16
	Ends [2]bind.Half
}

// serveRelay forwards as an agent does, with no device on the socket.
func serveRelay(ctx context.Context) error {
	var j relayJob
	if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	b := bind.New(bind.Options{Inner: sockets.New(), Logger: slog.New(slog.DiscardHandler)})
	receivers, _, err := b.Open(j.Port)
	if err != nil {
		return err
	}
	defer b.Close()
	for i := range j.Ends {
		if _, err := b.Forwards().Set(j.Ends[i], j.Ends[1-i]); err != nil {
			return err
		}
	}
	for _, receive := range receivers {
		go func() {
			bufs, sizes, from := make([][]byte, b.BatchSize()), make([]int, b.BatchSize()), make([]conn.Endpoint, b.BatchSize())
			for i := range bufs {
				bufs[i] = make([]byte, 1<<16)
			}
			for {
				if _, err := receive(bufs, sizes, from); err != nil {
					return
				}
			}
		}()
	}
	return untilParentEnds(ctx)
}

// untilParentEnds says that this process is ready, and waits.
func untilParentEnds(ctx context.Context) error {
	fmt.Println("ready")
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
	}
	return nil
}

// startTURN runs pion's TURN server, WireGuard over a relayed address of pion's client at one end, and wireguard-go at
// the other, which sends to that address: the plain way to use TURN.
func startTURN(ctx context.Context, p *pair, relay end, program string) (*contestant, error) {
	const port = 5005
	private, err := keys()
	if err != nil {
		return nil, err
	}
	server, err := p.startRole(ctx, relay, roleTURN, turnJob{
		Server: netip.AddrPortFrom(nearRelay[0], port), Relayed: nearRelay[1],
	})
	if err != nil {
		return nil, err
	}
	listen := port
	daemon := p.ends[1].command(ctx, program, "-f", "turn1")
	daemon.Env = append(os.Environ(), "WG_PROCESS_FOREGROUND=1", "LOG_LEVEL=error")
	if err := p.start(daemon); err != nil {
		return nil, err
	}
	client, err := wgctrl.New()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	config := wgtypes.Config{PrivateKey: &private[1], ListenPort: &listen, Peers: []wgtypes.PeerConfig{{PublicKey: private[0].PublicKey(), AllowedIPs: everything}}}
	if err := eventually(ctx, func() error { return client.ConfigureDevice("turn1", config) }); err != nil {
		return nil, err
	}
	_, err = p.startRole(ctx, p.ends[0], roleTURNClient, turnClientJob{
		Name: "turn0", Server: netip.AddrPortFrom(nearRelay[0], port), Private: private[0], Peer: private[1].PublicKey(),
		Endpoint: netip.AddrPortFrom(nearEnd[1], port),
	})
	if err != nil {
		return nil, err
	}
	for i, e := range p.ends {
		name := "turn" + strconv.Itoa(i)
		for _, line := range []string{
			fmt.Sprintf("addr add 10.5.0.%d/24 dev %s", i+1, name), fmt.Sprintf("link set %s up mtu %d", name, tunnel.DefaultMTU),
		} {
			if err := e.ip(ctx, line); err != nil {
				return nil, err
			}
		}
	}
	return &contestant{name: "pion TURN", addr: "10.5.0.2", pids: []int{server.Process.Pid}}, nil
}

// measureRelays runs the rounds and prints the table. The first contestant is the direct path, the second ours.
func measureRelays(ctx context.Context, s settings, all []*contestant) error {
	fmt.Printf("TCP from A through a relay to B, three namespaces over veth, MTU %d, %d stream(s), %v each, all on one machine\n", tunnel.DefaultMTU, s.streams, s.time)
	fmt.Println(machine())
	fmt.Printf("%-16s", "Mbit/s")
	for _, c := range all {
		if err := eventually(ctx, func() error { return exec.CommandContext(ctx, "ping", "-c", "1", "-W", "1", c.addr).Run() }); err != nil {
			return fmt.Errorf("%s: far end does not answer", c.name)
		}
		fmt.Printf("%12s", c.name)
	}
	fmt.Println()
	results := make([][]result, len(all))
	for round := range s.rounds {
		for i := range all {
			i = (i + round) % len(all)
			r, err := transfer(ctx, s, all[i], round%4 >= 2)
			if err != nil {
				return fmt.Errorf("%s: %w", all[i].name, err)
			}
			results[i] = append(results[i], r)
		}
		fmt.Printf("%-16s", fmt.Sprintf("round %d", round+1))
		for i := range all {
			fmt.Printf("%12.0f", results[i][round].mbits)
		}
		fmt.Println()
	}
	row := func(name string, of func(result) float64, format string) {
		fmt.Printf("%-16s", name)
		for i := range all {
			fmt.Printf(format, median(results[i], of))
		}
		fmt.Println()
	}
	row("median", func(r result) float64 { return r.mbits }, "%12.0f")
	row("relay's CPU s/GB", func(r result) float64 { return r.cpu / (r.bytes / 1e9) }, "%12.2f")
	ratio := func(other int) float64 {
		var ratios []float64
		for round := range results[1] {
			ratios = append(ratios, results[1][round].mbits/results[other][round].mbits)
		}
		slices.Sort(ratios)
		return middle(ratios)
	}
	fmt.Printf("relayed / direct: %.2f; relayed / pion TURN: %.2f\n", ratio(0), ratio(2))
	return nil
}
