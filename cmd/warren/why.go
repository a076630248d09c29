package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"warren/mesh/api"
)

// What fits a screen; the JSON has everything.
const (
	shownPairs   = 8
	shownChanges = 5
)

// whyCommand asks the agent about one peer.
type whyCommand struct {
	dirs *dirs
	con  *console
}

func (c whyCommand) cobra() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "why PEER",
		Short: "Say why a peer is reached as it is, or not at all, and what would help",
		Long: "Say how a peer, given by name, address or the start of its ID, is reached, why not better, and the most likely\n" +
			"remedy; then the evidence: the NATs at both ends, the addresses that were tried and how each ended, and the last\n" +
			"changes of the path. If need be, this network is measured first, which takes up to three seconds.",
		Example:           "  warren why laptop\n  warren why laptop --json | jq -r .verdict",
		Args:              exactly(1, "PEER"),
		ValidArgsFunction: completePeers(c.dirs),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, agent, err := c.dirs.agent()
			if err != nil {
				return err
			}
			why, err := agent.Why(cmd.Context(), api.WhyRequest{Peer: args[0]})
			if err != nil {
				return err
			}
			if asJSON {
				return c.con.printJSON(why)
			}
			printWhy(c.con.out, screenOf(c.con.out).width, why)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printText shows a sentence in so many columns.
func printText(w io.Writer, width int, text string) {
	for _, line := range wrap(clean(text), width, 2) {
		fmt.Fprintln(w, line)
	}
}

func printWhy(w io.Writer, width int, y api.Why) {
	printText(w, width, y.Conclusion)
	var verdict facts
	verdict.add("cause", y.Cause)
	verdict.add("fix", y.Fix)
	if len(verdict) > 0 {
		fmt.Fprintln(w)
		verdict.print(w, width)
	}
	if y.Revoked != nil || y.Peer.State == api.PeerLeft {
		return
	}
	var f facts
	f.add("path", shownWay(y))
	there := y.Peer.Path.Kind != api.PathNone
	if y.Peer.PathMTU > 0 && there {
		f.add("packets", fmt.Sprintf("up to %d bytes pass", y.Peer.PathMTU))
	}
	switch {
	case y.PingMS > 0 && len(y.Silent) > 0:
		f.add("ping", "answered in "+latency(y.PingMS)+", but not at "+strings.Join(y.Silent, ", "))
	case y.PingMS > 0:
		f.add("ping", "answered in "+latency(y.PingMS))
	case y.Pinged:
		f.add("ping", "no answer")
	}
	if y.Bursts != nil {
		f.add("batches", shownBursts([]api.Bursts{*y.Bursts}))
	}
	f.add("last heard", ago(y.Time, y.Peer.LastHeard))
	f.add("handshake", ago(y.Time, y.Peer.LastHandshake))
	if !y.Peer.Static {
		f.add("session", shownSession(y))
		f.add("gossip", shownGossip(y))
		if there {
			f.add("standing by", shownSpares(y.Relays))
		}
		if y.Signals.Unanswered > 0 && y.Peer.Path.Kind != api.PathDirect {
			f.add("asked", fmt.Sprintf("%s without an answer, %s", plural(y.Signals.Unanswered, "time", "times"), since(y.Time, y.Signals.Since)))
		}
		if y.Peer.Path.Kind != api.PathDirect && y.Signals.NextTry != nil {
			f.add("next try", "in "+span(y.Signals.NextTry.Sub(y.Time)))
		}
	}
	fmt.Fprintln(w)
	f.print(w, width)
	if !y.Peer.Static {
		printStandings(w, width, y)
	}
	for i, attempt := range y.Attempts {
		printAttempt(w, width, y.Time, attempt)
		if i == 1 || attempt.Ended != nil { // what is concluded rests on one that has ended
			break
		}
	}
	printChanges(w, width, y)
}

// shownWay is the path with its round trip and age.
func shownWay(y api.Why) string {
	p := y.Peer
	if p.Path.Kind == api.PathNone {
		return "none" + comma(since(y.Time, p.Since))
	}
	text := pongPath(p.Path)
	if p.Path.Kind == api.PathDirect {
		text = "direct " + text
	}
	return text + comma(latency(p.LatencyMS)) + comma(since(y.Time, p.Since))
}

func comma(text string) string {
	if text == "" {
		return ""
	}
	return ", " + text
}

// since is for how long something has been so.
func since(now time.Time, t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return "for " + span(now.Sub(*t))
}

// shownSession says how introductions go to the peer.
func shownSession(y api.Why) string {
	switch {
	case y.Session == nil:
		return "none with it: introductions go through other members"
	case y.Session.Transport == api.TransportTCP:
		return "open, by a TCP stream" + comma(latency(y.Session.LatencyMS))
	}
	return "open" + comma(latency(y.Session.LatencyMS))
}

// shownGossip is what other members say of the peer. They notice late, so that it stands beside what this node has found out itself.
func shownGossip(y api.Why) string {
	switch {
	case y.Gossip == "alive":
		return "has not missed it"
	case y.Gossip == "dead" && y.PingMS > 0:
		return "has missed it" + comma(since(y.Time, y.GossipAt)) + ", and has not heard yet that it answers"
	case y.Gossip == "dead":
		return "misses it" + comma(since(y.Time, y.GossipAt))
	}
	return ""
}

// shownSpares lists the relays that would take over.
func shownSpares(relays []api.RelayCheck) string {
	var names []string
	for _, r := range relays {
		if r.Ready && !r.InUse {
			names = append(names, "relay "+r.Name)
		}
	}
	return strings.Join(names, ", ")
}

// printStandings shows the NATs at both ends, in the terms of RFC 4787.
func printStandings(w io.Writer, width int, y api.Why) {
	var t table
	t.add("NODE", "NAT MAPPING", "NAT FILTERING", "PORT MAPPING", "SENDS BY", "VERSION")
	for _, row := range []api.Standing{y.Here, y.There} {
		udp := ""
		switch {
		case row.UDPBlocked:
			udp = "TCP streams"
		case row.Known:
			udp = "UDP"
		}
		mapping := row.Mapping
		if row.Ports == "sequential" || row.Ports == "random" {
			mapping += ", " + row.Ports
		}
		t.add(row.Name, mapping, row.Filtering, shownPortMapping(row.PortMapping), udp, row.Version)
	}
	fmt.Fprintln(w)
	t.print(w, width, true)
}

func shownPortMapping(state string) string {
	switch state {
	case "mapped":
		return "on"
	case "absent":
		return "not offered"
	case "inside":
		return "on, behind another NAT"
	case "unneeded":
		return "not needed"
	}
	return state
}

func printAttempt(w io.Writer, width int, now time.Time, a api.Attempt) {
	how := "runs for " + span(now.Sub(a.Started))
	if a.Ended != nil {
		how = fmt.Sprintf("%s ago, in %.1fs: %s", span(now.Sub(a.Started)), a.Ended.Sub(a.Started).Seconds(), a.Result)
	}
	fmt.Fprintln(w)
	printText(w, width, "last try for a direct path: "+how)
	var t table
	for _, p := range a.Pairs[:min(shownPairs, len(a.Pairs))] {
		t.add("  "+p.Remote.String(), shownType(p.Type), p.Result)
	}
	if more := len(a.Pairs) - shownPairs + a.More; more > 0 && len(a.Pairs) >= shownPairs {
		t.add("  and more", fmt.Sprint(more), "see --json")
	}
	t.print(w, width, false)
}

// shownType says in words how a candidate was learnt (RFC 8445, section 4).
func shownType(kind string) string {
	switch kind {
	case "host":
		return "its own address"
	case "srflx":
		return "as anchors see it"
	case "prflx":
		return "where it called from"
	}
	return kind
}

func printChanges(w io.Writer, width int, y api.Why) {
	if len(y.Changes) == 0 {
		return
	}
	fmt.Fprintln(w, "\nlast changes of the path:")
	var t table
	for _, c := range y.Changes[:min(shownChanges, len(y.Changes))] {
		way := "none"
		if c.Path.Kind != api.PathNone {
			way = shownPath(c.Path)
		}
		t.add("  "+span(y.Time.Sub(c.Time))+" ago", way, c.Reason)
	}
	t.print(w, width, false)
}

// facts are lines of a name and a value, the values below each other.
type facts [][2]string

func (f *facts) add(name, value string) {
	if value != "" {
		*f = append(*f, [2]string{clean(name), clean(value)})
	}
}

// print shows them in so many columns.
func (f facts) print(w io.Writer, width int) {
	names := 0
	for _, line := range f {
		names = max(names, columns(line[0]))
	}
	for _, line := range f {
		for i, part := range wrap(line[1], max(width-names-gap, 8), 0) {
			name := ""
			if i == 0 {
				name = line[0]
			}
			fmt.Fprintln(w, strings.TrimRight(padded(name, names+gap)+part, " "))
		}
	}
}
