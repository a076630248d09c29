package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"warren/mesh/api"
)

const (
	// watchTime is how often `status --watch` draws again.
	watchTime = 2 * time.Second
	// dropTime is between the two looks at the counters of what is dropped, which tell whether they grow.
	dropTime = 250 * time.Millisecond
)

// statusCommand shows what the agent says of itself and its peers.
type statusCommand struct {
	dirs *dirs
	con  *console
	now  func() time.Time
}

func (c statusCommand) cobra() *cobra.Command {
	var asJSON, watch, verbose bool
	var check string
	cmd := &cobra.Command{
		Use:   "status [PEER]",
		Short: "Show this node, its peers and the paths to them",
		Long: "Show this node and, in a line for each peer, whether it is there and the path to it (a direct address, or the\n" +
			"relay), or why there is none. What needs attention comes first. With PEER, show all that is known of that one.\n\n" +
			"  up          it was heard within the last two seconds\n" +
			"  idle 5m     nothing was asked of it since it was last heard; it may have gone meanwhile\n" +
			"  silent 5s   it owes an answer, or other members miss it; last heard so long ago\n" +
			"  connecting  a path, or a handshake, is being worked on\n" +
			"  down        tried and failed; it is tried again\n\n" +
			"With -v come counters, further addresses and the whole of the reasons. The JSON is versioned: within one \"schema\"\n" +
			"fields are only added. Colours are left out where NO_COLOR is set.",
		Example: "  warren status\n" +
			"  warren status laptop\n" +
			"  warren status --watch\n" +
			"  warren status --json | jq -r '.peers[] | select(.path.kind == \"relay\") | .name'\n" +
			"  warren status --check ready    # exit status 0 or 1, for health checks",
		Args:              between(0, 1, "[PEER]"),
		ValidArgsFunction: completePeers(c.dirs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if check != "" && check != "live" && check != "ready" {
				return &usageError{message: fmt.Sprintf("--check %q: want live or ready", check)}
			}
			mesh, agent, err := c.dirs.agent()
			if err != nil {
				return err
			}
			page := statusPage{screen: screenOf(c.con.out), now: c.now, verbose: verbose, mesh: mesh, flag: c.dirs.meshFlag(mesh)}
			if len(args) == 1 {
				page.peer = args[0]
			}
			if watch && check == "" && !asJSON {
				return c.watch(cmd.Context(), page, agent)
			}
			status, err := agent.Status(cmd.Context())
			switch {
			case err != nil:
				return err
			case check != "":
				return c.check(status, check)
			case asJSON && page.peer != "":
				peer, err := findPeer(status, page.peer)
				if err != nil {
					return err
				}
				return c.con.printJSON(peer)
			case asJSON:
				return c.con.printJSON(status)
			}
			if page.live && len(status.Dropped) > 0 && !verbose && page.peer == "" {
				page.before = &status
				status, err = c.again(cmd.Context(), agent)
			}
			if err != nil {
				return err
			}
			lines, err := page.lines(status)
			if err != nil {
				return err
			}
			fmt.Fprintln(c.con.out, strings.Join(lines, "\n"))
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show counters, further addresses and whole reasons")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "draw again every two seconds, as much as fits the screen")
	cmd.Flags().StringVar(&check, "check", "", "only tell whether the agent is live (answers) or ready (interface up)")
	return cmd
}

// again asks a second time, so that it can be seen what grows.
func (c statusCommand) again(ctx context.Context, agent *api.Client) (api.Status, error) {
	select {
	case <-ctx.Done():
		return api.Status{}, ctx.Err()
	case <-time.After(dropTime):
	}
	return agent.Status(ctx)
}

func (c statusCommand) check(status api.Status, what string) error {
	if what == "ready" && status.State != api.StateReady {
		return fmt.Errorf("not ready: the agent is %s", status.State)
	}
	fmt.Fprintln(c.con.out, what)
	return nil
}

// watch draws the status until ctx ends. An agent that goes away is waited for, and so is a peer.
func (c statusCommand) watch(ctx context.Context, page statusPage, agent *api.Client) error {
	ticker := time.NewTicker(watchTime)
	defer ticker.Stop()
	for {
		page.screen = screenOf(c.con.out) // it may have another size now
		status, err := agent.Status(ctx)
		var lines []string
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			lines, err = page.lines(status)
			page.before = &status
		case !errors.Is(err, api.ErrNotRunning):
			return err
		}
		if err != nil {
			lines = wrap(clean(err.Error()), page.width, 2)
		}
		fmt.Fprint(c.con.out, page.drawn(lines))
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// drawn puts lines onto the screen from its top, over what was there, and clears the rest (ECMA-48). None is too many: the terminal would
// scroll, and the head be gone.
func (s screen) drawn(lines []string) string {
	if s.height > 1 {
		lines = lines[:min(len(lines), s.height-1)]
	}
	return "\x1b[H" + strings.Join(lines, "\x1b[K\n") + "\x1b[K\n\x1b[J"
}

// statusPage is how a status is shown.
type statusPage struct {
	screen
	now     func() time.Time
	verbose bool
	mesh    string
	flag    string      // that names the mesh in a command
	peer    string      // the one that is asked for; "": all
	before  *api.Status // the last look, if it is not long ago
}

// lines are those of the page, each as wide as the screen at most, and not more than fit it if it is a terminal that is drawn upon.
func (p statusPage) lines(s api.Status) ([]string, error) {
	if p.peer != "" {
		peer, err := findPeer(s, p.peer)
		if err != nil {
			return nil, err
		}
		return p.about(peer), nil
	}
	head := p.head(s)
	foot := p.foot(s)
	peers := slices.DeleteFunc(slices.Clone(s.Peers), func(peer api.Peer) bool { return peer.State == api.PeerLeft })
	if len(peers) == 0 {
		return slices.Concat(head, wrap("no peers yet; invite one with: sudo warren invite", p.width, 2), foot), nil
	}
	slices.SortStableFunc(peers, func(a, b api.Peer) int { return cmp.Compare(urgency(a), urgency(b)) })
	var rest []api.Peer
	if p.before != nil && p.height > 0 {
		// The blank line, the titles, one line for the rest, and the one on which the cursor stands.
		room := max(1, p.height-len(head)-len(foot)-4)
		if len(peers) > room {
			peers, rest = peers[:room], peers[room:]
		}
	}
	out := append(head, "")
	out = append(out, p.table(peers)...)
	if len(rest) > 0 {
		out = append(out, cut(fmt.Sprintf("and %d more: %s", len(rest), tallied(rest)), p.width))
	}
	return append(out, foot...), nil
}

// head tells of this node: who it is, how the mesh is, and what a person should look at.
func (p statusPage) head(s api.Status) (out []string) {
	out = wrap(clean(headline(p.mesh, s, p.verbose)), p.width, 2)
	out[0] = p.paint(bold, out[0])
	out = append(out, wrap(clean(summary(p.now(), s)), p.width, 2)...)
	if s.Names != nil && s.Mesh != nil {
		out = append(out, wrap("names: "+clean(shownNames(s)), p.width, 2)...)
	}
	for _, warning := range s.Warnings {
		for _, line := range wrap("warning: "+clean(warning), p.width, 2) {
			out = append(out, p.paint(yellow, line))
		}
	}
	return out
}

// foot tells what more there is to know: what is dropped if it grows, counters with -v, and whom to ask about.
func (p statusPage) foot(s api.Status) (out []string) {
	if growing := p.growing(s); growing != "" {
		for _, line := range wrap("dropping now: "+clean(growing), p.width, 2) {
			out = append(out, p.paint(yellow, line))
		}
	}
	if p.verbose && s.Streams != nil {
		out = append(out, wrap("streams: "+shownStreams(*s.Streams), p.width, 2)...)
	}
	if p.verbose && len(s.Dropped) > 0 {
		var counts []string
		for _, reason := range slices.Sorted(maps.Keys(s.Dropped)) {
			counts = append(counts, fmt.Sprintf("%s %d", reason, s.Dropped[reason]))
		}
		out = append(out, wrap("dropped since the start: "+clean(strings.Join(counts, ", ")), p.width, 2)...)
	}
	if name := worstReached(s.Peers); name != "" {
		out = append(out, wrap(clean("why, and what would help: warren why "+name+p.flag), p.width, 2)...)
	}
	if len(out) > 0 {
		out = append([]string{""}, out...)
	}
	return out
}

// growing says what was dropped since the last look, if there was one.
func (p statusPage) growing(s api.Status) string {
	if p.before == nil || p.before.Since != s.Since {
		return ""
	}
	var grown []string
	for _, reason := range slices.Sorted(maps.Keys(s.Dropped)) {
		if n := s.Dropped[reason] - p.before.Dropped[reason]; n > 0 && s.Dropped[reason] > p.before.Dropped[reason] {
			grown = append(grown, fmt.Sprintf("%s %d", reason, n))
		}
	}
	if len(grown) == 0 {
		return ""
	}
	return fmt.Sprintf("%s (within %.1fs)", strings.Join(grown, ", "), s.Time.Sub(p.before.Time).Seconds())
}

// peerColumns are those of the table. The way gives room first, then the name; what is left out first is the address.
var peerColumns = []column{
	{title: "NAME", fair: 20, least: 10, give: 2},
	{title: "ADDRESS", fair: 18, least: 15, give: 3, leave: 2},
	{title: "STATE"},
	{title: "PATH", least: 16, give: 1, leave: 1},
}

// table shows peers in a line each, and with -v what is counted in those below.
func (p statusPage) table(peers []api.Peer) (out []string) {
	rows := make([][]string, len(peers))
	for i, peer := range peers {
		rows[i] = []string{clean(peer.Name), clean(shownAddress(peer)), p.state(peer), clean(way(peer))}
	}
	widths := fit(peerColumns, rows, p.width)
	titles := make([]string, len(peerColumns))
	for i, c := range peerColumns {
		titles[i] = c.title
	}
	out = append(out, p.line(widths, titles, func(int, string) paint { return faint }))
	for i, row := range rows {
		colour := stateColour(peers[i])
		out = append(out, p.line(widths, row, func(column int, _ string) paint {
			if column == 2 {
				return colour
			}
			return plain
		}))
		if p.verbose {
			for _, line := range wrap(clean(p.counted(peers[i])), p.width-2, 2) {
				out = append(out, p.paint(faint, "  "+line))
			}
		}
	}
	return out
}

// counted is what -v adds to a peer's line.
func (p statusPage) counted(peer api.Peer) string {
	parts := []string{"rx " + size(peer.RxBytes), "tx " + size(peer.TxBytes)}
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+value)
		}
	}
	add("handshake ", ago(p.now(), peer.LastHandshake))
	add("heard ", ago(p.now(), peer.LastHeard))
	if peer.PathMTU > 0 {
		add("packets up to ", fmt.Sprintf("%d bytes", peer.PathMTU))
	}
	add("also ", otherAddresses(peer))
	if peer.Reason != "" {
		parts = append(parts, peer.Reason)
	}
	return strings.Join(parts, ", ")
}

// state is a peer's state, with the age of its last sign of life where that is all that is known.
func (p statusPage) state(peer api.Peer) string {
	if (peer.State == api.PeerIdle || peer.State == api.PeerSilent) && peer.LastHeard != nil {
		return peer.State + " " + age(p.now().Sub(*peer.LastHeard))
	}
	return peer.State
}

// age is a duration in its largest unit.
func age(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// way is the path to a peer and its round trip, or why it is not reached.
func way(peer api.Peer) string {
	if !reached(peer) && peer.Reason != "" {
		return peer.Reason
	}
	kind, where, _ := strings.Cut(shownPath(peer.Path), " ")
	if peer.Path.Kind == api.PathRelay {
		return strings.TrimSpace(shownPath(peer.Path) + " " + latency(peer.LatencyMS))
	}
	// The address comes last: it is what may be cut.
	return strings.Join(strings.Fields(kind+" "+latency(peer.LatencyMS)+" "+where), " ")
}

// reached reports whether nothing speaks against a peer's being reached by its path.
func reached(peer api.Peer) bool {
	return peer.Path.Kind != api.PathNone && (peer.State == api.PeerUp || peer.State == api.PeerIdle)
}

// urgency is in which order peers are shown: what is wrong, what is less than good, what is in use, what is not.
func urgency(peer api.Peer) int {
	roundabout := peer.Path.Kind == api.PathRelay || peer.Path.Transport != ""
	switch {
	case peer.State == api.PeerSilent:
		return 0
	case peer.State == api.PeerDown:
		return 1
	case peer.State == api.PeerConnecting:
		return 2
	case peer.State == api.PeerUp && roundabout:
		return 3
	case peer.State == api.PeerUp:
		return 4
	case roundabout:
		return 5
	}
	return 6
}

func stateColour(peer api.Peer) paint {
	switch peer.State {
	case api.PeerUp:
		return green
	case api.PeerSilent, api.PeerDown:
		return red
	case api.PeerConnecting:
		return yellow
	}
	return plain
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
	for _, wanted := range []func(api.Peer) bool{
		func(p api.Peer) bool { return !reached(p) },
		func(p api.Peer) bool { return p.Path.Kind == api.PathRelay },
	} {
		for _, p := range peers {
			if p.State != api.PeerLeft && !p.Static && wanted(p) {
				return p.Name
			}
		}
	}
	return ""
}

// headline is who this node is. Its IPv6 address is that of its ID, which nobody types: it is shown where there is no other one, and with -v.
func headline(mesh string, s api.Status, verbose bool) string {
	who, addrs := "static peers", s.Self.Addresses
	if s.Self.Name != "" {
		who = "node " + s.Self.Name
	}
	if four := slices.IndexFunc(addrs, netip.Addr.Is4); four >= 0 && !verbose {
		addrs = addrs[four : four+1]
	}
	return fmt.Sprintf("%s: %s, %s on %s, UDP port %d", mesh, who, joinAddrs(addrs), s.Self.Interface, s.Self.Port)
}

func summary(now time.Time, s api.Status) string {
	var parts []string
	if s.State != api.StateReady {
		parts = append(parts, s.State)
	}
	if s.Mesh != nil {
		parts = append(parts, plural(s.Mesh.Members, "member", "members"))
	}
	peers := slices.DeleteFunc(slices.Clone(s.Peers), func(peer api.Peer) bool { return peer.State == api.PeerLeft })
	if len(peers) > 0 {
		parts = append(parts, plural(len(peers), "peer", "peers")+": "+tallied(peers))
	}
	if s.Mesh != nil && s.Mesh.Syncing > 0 {
		parts = append(parts, fmt.Sprintf("syncing %d records", s.Mesh.Syncing))
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

// tallied says how many peers are in which state.
func tallied(peers []api.Peer) string {
	counts := make(map[string]int)
	for _, peer := range peers {
		counts[peer.State]++
	}
	var parts []string
	for _, state := range []string{api.PeerUp, api.PeerIdle, api.PeerSilent, api.PeerConnecting, api.PeerDown} {
		if n := counts[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	return strings.Join(parts, ", ")
}

func joinAddrs(addrs []netip.Addr) string {
	texts := make([]string, len(addrs))
	for i, addr := range addrs {
		texts[i] = addr.String()
	}
	return strings.Join(texts, ", ")
}

// mainAddress is the address that a person would type: IPv4 where there is one.
func mainAddress(p api.Peer) netip.Addr {
	if i := slices.IndexFunc(p.Addresses, netip.Addr.Is4); i >= 0 {
		return p.Addresses[i]
	}
	if len(p.Addresses) > 0 {
		return p.Addresses[0]
	}
	return netip.Addr{}
}

// shownAddress is mainAddress, or for a static peer without one its first route.
func shownAddress(p api.Peer) string {
	switch addr := mainAddress(p); {
	case addr.IsValid():
		return addr.String()
	case len(p.Routes) > 0 && p.Routes[0].IsSingleIP():
		return p.Routes[0].Addr().String()
	case len(p.Routes) > 0:
		return p.Routes[0].String()
	}
	return ""
}

// otherAddresses are those that the table does not show, and what else lies behind the peer.
func otherAddresses(p api.Peer) string {
	var texts []string
	for _, addr := range p.Addresses {
		if addr != mainAddress(p) {
			texts = append(texts, addr.String())
		}
	}
	for _, route := range p.Routes {
		texts = append(texts, route.String())
	}
	return strings.Join(texts, ", ")
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
