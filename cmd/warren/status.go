package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"warren/mesh/api"
)

// watchTime is how often `status --watch` draws again.
const watchTime = 2 * time.Second

// statusCommand shows what the agent says of itself and its peers.
type statusCommand struct {
	dirs *dirs
	con  *console
	now  func() time.Time
}

func (c statusCommand) cobra() *cobra.Command {
	var asJSON, watch bool
	var check string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show this node, its peers and the paths to them",
		Long: "Show this node and, for each peer, the path to it (a direct address, or the relay), latency, traffic and\n" +
			"the age of the last handshake; and, for those that are not up, the reason.\n\n" +
			"The JSON is versioned: within one \"schema\" fields are only added.",
		Example: "  warren status\n" +
			"  warren status --json | jq -r '.peers[] | select(.path.kind == \"relay\") | .name'\n" +
			"  warren status --check ready    # exit status 0 or 1, for health checks",
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if check != "" && check != "live" && check != "ready" {
				return &usageError{message: fmt.Sprintf("--check %q: want live or ready", check)}
			}
			mesh, agent, err := c.dirs.agent()
			if err != nil {
				return err
			}
			if watch && check == "" && !asJSON {
				return c.watch(cmd.Context(), mesh, agent)
			}
			status, err := agent.Status(cmd.Context())
			switch {
			case err != nil:
				return err
			case check != "":
				return c.check(status, check)
			case asJSON:
				return c.con.printJSON(status)
			}
			c.print(c.con.out, mesh, status)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&watch, "watch", false, "draw again every two seconds")
	cmd.Flags().StringVar(&check, "check", "", "only tell whether the agent is live (answers) or ready (interface up)")
	return cmd
}

func (c statusCommand) check(status api.Status, what string) error {
	if what == "ready" && status.State != api.StateReady {
		return fmt.Errorf("not ready: the agent is %s", status.State)
	}
	fmt.Fprintln(c.con.out, what)
	return nil
}

// watch draws the status until ctx ends. An agent that goes away is waited for.
func (c statusCommand) watch(ctx context.Context, mesh string, agent *api.Client) error {
	ticker := time.NewTicker(watchTime)
	defer ticker.Stop()
	for {
		status, err := agent.Status(ctx)
		var screen strings.Builder
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, api.ErrNotRunning):
			fmt.Fprintln(&screen, err)
		case err != nil:
			return err
		default:
			c.print(&screen, mesh, status)
		}
		fmt.Fprint(c.con.out, "\x1b[H\x1b[J"+screen.String()) // cursor home, clear to the end of the screen (ECMA-48)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (c statusCommand) print(w io.Writer, mesh string, s api.Status) {
	fmt.Fprintln(w, clean(headline(mesh, s)))
	fmt.Fprintln(w, clean(summary(c.now(), s)))
	for _, warning := range s.Warnings {
		fmt.Fprintln(w, "warning: "+clean(warning))
	}
	if len(s.Peers) == 0 {
		fmt.Fprintln(w, "no peers yet; invite one with: sudo warren invite")
		return
	}
	var t table
	t.add("NAME", "ADDRESS", "STATE", "PATH", "LATENCY", "RX", "TX", "HANDSHAKE")
	var reasons []string
	for _, p := range s.Peers {
		if p.State == api.PeerLeft {
			continue
		}
		t.add(p.Name, shownAddress(p), p.State, shownPath(p.Path), latency(p.LatencyMS), size(p.RxBytes), size(p.TxBytes), ago(c.now(), p.LastHandshake))
		if p.State != api.PeerUp && p.Reason != "" {
			reasons = append(reasons, fmt.Sprintf("%s is %s: %s", p.Name, p.State, p.Reason))
		}
	}
	fmt.Fprintln(w)
	t.print(w)
	if name := worstReached(s.Peers); name != "" {
		reasons = append(reasons, "why, and what would help: warren why "+name+c.dirs.meshFlag(mesh))
	}
	if len(reasons) > 0 {
		fmt.Fprintln(w)
	}
	for _, reason := range reasons {
		fmt.Fprintln(w, clean(reason))
	}
	if s.Streams != nil || len(s.Dropped) > 0 {
		fmt.Fprintln(w)
	}
	if s.Streams != nil {
		fmt.Fprintln(w, "streams: "+shownStreams(*s.Streams))
	}
	if len(s.Dropped) > 0 {
		var counts []string
		for _, reason := range slices.Sorted(maps.Keys(s.Dropped)) {
			counts = append(counts, fmt.Sprintf("%s %d", reason, s.Dropped[reason]))
		}
		fmt.Fprintln(w, "dropped: "+clean(strings.Join(counts, ", ")))
	}
}

// shownStreams says what has become of connections to the TCP ports of this node, each reason that there is.
func shownStreams(s api.Streams) string {
	var counts []string
	for _, c := range []struct {
		reason string
		n      uint64
	}{{"accepted", s.Accepted}, {"of joiners", s.Joins}, {"refused", s.Refused}, {"limited", s.Limited}, {"failed", s.Failed}} {
		if c.n > 0 {
			counts = append(counts, fmt.Sprintf("%s %d", c.reason, c.n))
		}
	}
	return strings.Join(counts, ", ")
}

// worstReached is a peer to ask about: one that is not reached, else one that only a relay reaches; "" for none.
func worstReached(peers []api.Peer) string {
	for _, kind := range []string{api.PathNone, api.PathRelay} {
		for _, p := range peers {
			if p.State != api.PeerLeft && !p.Static && p.Path.Kind == kind {
				return p.Name
			}
		}
	}
	return ""
}

func headline(mesh string, s api.Status) string {
	parts := []string{mesh + ": "}
	if s.Self.Name != "" {
		parts = append(parts, "node "+s.Self.Name+", ")
	} else {
		parts = append(parts, "static peers, ")
	}
	parts = append(parts, joinAddrs(s.Self.Addresses))
	parts = append(parts, fmt.Sprintf(" on %s, UDP port %d", s.Self.Interface, s.Self.Port))
	return strings.Join(parts, "")
}

func summary(now time.Time, s api.Status) string {
	var parts []string
	if s.State != api.StateReady {
		parts = append(parts, s.State)
	}
	if s.Mesh != nil {
		up, all, _ := count(s.Peers)
		parts = append(parts, plural(s.Mesh.Members, "member", "members"), fmt.Sprintf("%d of %s up", up, plural(all, "peer", "peers")))
		if s.Mesh.Syncing > 0 {
			parts = append(parts, fmt.Sprintf("syncing %d records", s.Mesh.Syncing))
		}
	}
	switch {
	case s.Self.Admin && s.Self.Power == api.PowerPromoted:
		parts = append(parts, "promoted to admin")
	case s.Self.Admin:
		parts = append(parts, "admin")
	case s.Self.Power == api.PowerDemoted:
		parts = append(parts, "demoted, no admin any more")
	}
	switch {
	case s.Self.Anchor:
		parts = append(parts, "anchor for others")
	case len(s.Self.Anchors) > 0:
		parts = append(parts, "introduced by "+strings.Join(s.Self.Anchors, ", "))
	}
	parts = append(parts, "running for "+span(now.Sub(s.Since)))
	return strings.Join(parts, "; ")
}

func joinAddrs(addrs []netip.Addr) string {
	texts := make([]string, len(addrs))
	for i, addr := range addrs {
		texts[i] = addr.String()
	}
	return strings.Join(texts, ", ")
}

// shownAddress is the address that a person would type: the first one, or for a static peer its first route.
func shownAddress(p api.Peer) string {
	switch {
	case len(p.Addresses) > 0:
		return p.Addresses[0].String()
	case len(p.Routes) > 0 && p.Routes[0].IsSingleIP():
		return p.Routes[0].Addr().String()
	case len(p.Routes) > 0:
		return p.Routes[0].String()
	}
	return ""
}

func shownPath(p api.Path) string {
	switch p.Kind {
	case api.PathDirect:
		return "direct " + p.Address.String() + shownTransport(p)
	case api.PathRelay:
		return strings.TrimSpace("relay "+p.Via) + shownTransport(p)
	}
	return ""
}

// shownTransport is said where it is not UDP.
func shownTransport(p api.Path) string {
	if p.Transport == api.TransportTCP {
		return " by stream"
	}
	return ""
}
