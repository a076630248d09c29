//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/identity"
	"warren/nat/natlab"
)

// hostileSocket is where package hostile is told what to do, as the agent sees it and as this process does.
const hostileSocket = "/run/hostile.sock"

// attacker is a node with the hostile program, and its control socket.
type attacker struct {
	*Node
	client *http.Client
}

// orders are package hostile's Orders.
type orders struct {
	Token   string
	Friends []string
	Victim  string
	Address netip.Addr
	Name    string
	Routes  []netip.Prefix
	At      netip.Addr
	For     time.Duration
	Seed    uint64
}

// attackerReport is package hostile's Report.
type attackerReport struct {
	Self     identity.NodeID
	Made     []identity.NodeID
	Sessions []identity.NodeID
	Puppets  []string
	Held     int64
}

// attacker makes an attacker of a node that has not been started.
func (b *bed) attacker(n *Node) *attacker {
	b.t.Helper()
	var err error
	n.binary, err = buildHostile()
	b.must(err)
	n.Env = append(n.Env, "WARREN_HOSTILE_SOCKET="+hostileSocket)
	path := filepath.Join(n.Host.Dir(), "run", filepath.Base(hostileSocket))
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	return &attacker{Node: n, client: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// ask speaks to the control socket.
func (a *attacker) ask(ctx context.Context, method, what string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://attacker/"+what, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := a.client.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %s %s: %w", a.Name(), method, what, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(res.Body)
		return fmt.Errorf("%s: %s %s: %s: %s", a.Name(), method, what, res.Status, text)
	}
	return json.NewDecoder(res.Body).Decode(out)
}

func (a *attacker) begin(ctx context.Context, attack string, o orders) error {
	var name string
	return a.ask(ctx, http.MethodPut, attack, o, &name)
}

// end ends an attack and returns its counters.
func (a *attacker) end(ctx context.Context, attack string) (map[string]int64, error) {
	counts := make(map[string]int64)
	return counts, a.ask(ctx, http.MethodDelete, attack, nil, &counts)
}

func (a *attacker) report(ctx context.Context) (r attackerReport, err error) {
	return r, a.ask(ctx, http.MethodGet, "", nil, &r)
}

// pulseEvery is the time between two echo requests of a pulse; pulseHole is the silence that counts as a gap: five in a row.
const (
	pulseEvery = 100 * time.Millisecond
	pulseHole  = 5 * pulseEvery
)

// pulse sends echo requests from one node to some overlay addresses and keeps when the answers arrived: a meter for many, and slower.
type pulse struct {
	from *Node
	to   []netip.Addr
	conn *icmp.PacketConn
	id   int

	mu       sync.Mutex
	arrivals map[netip.Addr][]time.Time // guarded by mu

	end  chan struct{}
	done sync.WaitGroup
}

// pulse starts one. It ends with the test.
func (b *bed) pulse(from *Node, to ...netip.Addr) *pulse {
	b.t.Helper()
	p := &pulse{from: from, to: to, id: int(0x4000 + meterIDs.Add(1)&0x3fff), arrivals: make(map[netip.Addr][]time.Time), end: make(chan struct{})}
	b.must(from.Host.Do(func() (err error) { p.conn, err = icmp.ListenPacket("ip4:icmp", "0.0.0.0"); return err }))
	p.done.Go(p.send)
	p.done.Go(p.receive)
	b.t.Cleanup(func() {
		close(p.end)
		p.conn.Close()
		p.done.Wait()
	})
	return p
}

func (p *pulse) send() {
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	for seq := 0; ; seq++ {
		for _, a := range p.to {
			sendEcho(p.conn, a, p.id, seq) // fails while there is no interface: that is a gap like another
		}
		select {
		case <-tick.C:
		case <-p.end:
			return
		}
	}
}

func (p *pulse) receive() {
	buf := make([]byte, 1500)
	for {
		n, from, err := p.conn.ReadFrom(buf)
		now := time.Now()
		if err != nil {
			return
		}
		addr, err := netip.ParseAddr(from.String())
		if err != nil || !isEcho(buf[:n], from, addr, p.id) {
			continue
		}
		if slices.Contains(p.to, addr) {
			p.mu.Lock()
			p.arrivals[addr] = append(p.arrivals[addr], now)
			p.mu.Unlock()
		}
	}
}

// gaps returns the longest silence of one address between two moments, and how many count as a gap.
func (p *pulse) gaps(of netip.Addr, since, until time.Time) (longest time.Duration, count int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := since
	for _, at := range append(slices.Clone(p.arrivals[of]), until) {
		if at.Before(since) {
			continue
		}
		if at.After(until) {
			at = until
		}
		gap := at.Sub(last)
		if longest = max(longest, gap); gap > pulseHole {
			count++
		}
		last = at
	}
	return longest, count
}

// silent is for how long no answer has come from one address.
func (p *pulse) silent(of netip.Addr) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.arrivals[of]
	if len(list) == 0 {
		return time.Hour
	}
	return time.Since(list[len(list)-1])
}

// udpReceived counts the UDP datagrams that a host has received, for open ports and closed ones.
func (b *bed) udpReceived(h *natlab.Host) (n int) {
	b.t.Helper()
	out, err := h.Run(b.ctx, "cat", "/proc/net/snmp")
	b.must(err)
	var names []string
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "Udp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if name == "InDatagrams" || name == "NoPorts" {
				v, err := strconv.Atoi(fields[i])
				b.must(err)
				n += v
			}
		}
	}
	return n
}

// key reads a public key as a status has it.
func (b *bed) key(text string) wgtypes.Key {
	b.t.Helper()
	key, err := wgtypes.ParseKey(text)
	b.must(err)
	return key
}
