package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"warren/mesh/api"
)

// shownAnchors keeps the report on one screen; the agent asks no more.
const shownAnchors = 8

// netcheckCommand has the agent measure its network.
type netcheckCommand struct {
	dirs *dirs
	con  *console
}

func (c netcheckCommand) cobra() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "netcheck",
		Short: "Measure what this network does with UDP, and what to expect of direct connections",
		Long: "Measure, within three seconds, whether UDP passes, how the NAT here maps and filters (in the terms of RFC 4787),\n" +
			"whether a router keeps a port open, and how far the anchors are. Only members are asked: two anchors with public\n" +
			"addresses are needed to tell everything. It needs the running agent, for it asks in its name.",
		Example: "  warren netcheck\n  warren netcheck --json | jq -r .verdict",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, agent, err := c.dirs.agent()
			if err != nil {
				return err
			}
			report, err := agent.Netcheck(cmd.Context())
			switch {
			case errors.Is(err, api.ErrNotRunning):
				return fmt.Errorf("%w; a netcheck asks anchors in its name", err)
			case err != nil:
				return err
			case asJSON:
				return c.con.printJSON(report)
			}
			printNetcheck(c.con.out, screenOf(c.con.out).width, report)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printNetcheck(w io.Writer, width int, n api.Netcheck) {
	printText(w, width, n.Conclusion)
	var f facts
	f.add("advice", n.Advice)
	f.add("UDP over IPv4", shownUDP(n.IPv4))
	f.add("UDP over IPv6", shownUDP(n.IPv6))
	if n.IPv4.UDP == api.UDPWorks || n.IPv6.UDP != api.UDPWorks {
		addNAT(&f, n, n.IPv4, "NAT")
	}
	if n.IPv6.UDP == api.UDPWorks {
		addNAT(&f, n, n.IPv6, "IPv6")
	}
	f.add("port mapping", shownRouters(n))
	f.add("from outside", shownReachable(n.Reachable))
	f.add("batches", shownBursts(n.Bursts))
	f.add("streams", shownStreamUse(n))
	portal := "no sign: " + n.Portal.Reason
	if n.Portal.Suspected {
		portal = "likely: " + n.Portal.Reason
	}
	f.add("captive portal", portal)
	fmt.Fprintln(w)
	f.print(w, width)
	if len(n.Anchors) == 0 {
		return
	}
	fmt.Fprintln(w)
	var t table
	t.add("ANCHOR", "SESSION", "STUN", "TCP", "ADDRESS")
	for _, a := range n.Anchors[:min(shownAnchors, len(n.Anchors))] {
		session := "down"
		if a.Session {
			session = "up"
			if a.SessionMS > 0 {
				session = latency(a.SessionMS)
			}
		}
		stun := "no answer"
		if a.STUNMS > 0 {
			stun = latency(a.STUNMS)
		}
		t.add(a.Name, session, stun, a.TCP, a.Address.String())
	}
	t.print(w, width, true)
}

func shownUDP(f api.Family) string {
	switch f.UDP {
	case api.UDPWorks:
		var seen []string
		for _, s := range f.Seen {
			seen = append(seen, s.String())
		}
		if len(seen) == 0 {
			return "works"
		}
		return "works, seen as " + strings.Join(seen[:min(3, len(seen))], " and ")
	case api.UDPSilent:
		return fmt.Sprintf("blocked: none of %s answers", plural(f.Asked, "anchor", "anchors"))
	case api.UDPUnused:
		return "not used: " + f.Reason
	}
	return "not known: " + f.Reason
}

// addNAT tells what a NAT, or an IPv6 firewall, does, with the terms of RFC 4787 explained.
func addNAT(f *facts, n api.Netcheck, family api.Family, name string) {
	if family.UDP != api.UDPWorks {
		return
	}
	mapping, filtering := family.Mapping, family.Filtering
	switch mapping {
	case "none":
		mapping = "none: this host has the address itself"
	case "endpoint-independent":
		mapping += " (all see one address and port)"
	case "address-dependent":
		mapping += " (another port for each address written to)"
	case "address-and-port-dependent":
		mapping += " (another port for each address and port written to)"
	case "destination-dependent":
		mapping += " (another port for each destination; no anchor could tell whether its port counts)"
	default:
		mapping += ": " + family.Reason
	}
	switch filtering {
	case "endpoint-independent":
		filtering += " (anybody is let in through a port in use)"
	case "address-dependent":
		filtering += " (only addresses written to are let in)"
	case "address-and-port-dependent":
		filtering += " (only who was written to is let in)"
	case "not port-dependent":
		filtering += " (to tell whether strangers are let in takes a second anchor)"
	default:
		filtering += ": needs the help of an anchor"
	}
	f.add(name+" mapping", mapping)
	f.add(name+" filtering", filtering)
	if family.Mapping == "none" {
		return
	}
	kept := !slices.ContainsFunc(family.Seen, func(seen netip.AddrPort) bool { return seen.Port() != n.Port })
	if len(family.Seen) == 0 && family.PortKept != nil {
		kept = *family.PortKept
	}
	words := map[bool]string{true: "kept", false: "changed"}
	line := fmt.Sprintf("%d is %s", n.Port, words[kept])
	if family.Hairpin != nil {
		line += map[bool]string{true: "; hairpin works", false: "; no hairpin"}[*family.Hairpin]
	}
	f.add(name+" port", line)
}

// shownRouters says what came of asking routers to keep the port open.
func shownRouters(n api.Netcheck) string {
	if len(n.Routers) == 0 {
		return "no router was asked"
	}
	var texts []string
	for _, r := range n.Routers {
		var by, absent []string
		for _, p := range r.Protocols {
			if p.State == "absent" {
				absent = append(absent, p.Name)
				continue
			}
			text := p.Name + " " + shownState(p.State)
			if r.Mapping != nil && r.Mapping.Protocol == p.Name {
				text = p.Name + " maps " + r.Mapping.External.String() + shownExpiry(n.Time, r.Mapping.Expires)
			} else if p.State == "refused" && p.Reason != "" {
				text += " (" + p.Reason + ")"
			}
			by = append(by, text)
		}
		if len(absent) > 0 {
			by = append(by, "no "+strings.Join(absent, " or "))
		}
		text := fmt.Sprintf("router %s: %s", r.Gateway, strings.Join(by, ", "))
		if r.Remark != "" {
			text += "; " + r.Remark
		}
		if allUnneeded(r) {
			text = "not needed: this host has a public address"
		}
		texts = append(texts, text)
	}
	return strings.Join(slices.Compact(texts), "; ")
}

func allUnneeded(r api.Router) bool {
	return !slices.ContainsFunc(r.Protocols, func(p api.RouterProtocol) bool { return p.State != "unneeded" })
}

func shownState(state string) string {
	switch state {
	case "present":
		return "found"
	case "asking":
		return "not answered yet"
	case "unneeded":
		return "not needed"
	}
	return state
}

func shownExpiry(now time.Time, at *time.Time) string {
	if at == nil {
		return ""
	}
	return " (for another " + span(at.Sub(now)) + ")"
}

func shownReachable(list []api.Reachable) string {
	var texts []string
	for _, r := range list {
		switch r.State {
		case "reachable":
			texts = append(texts, r.Address.String()+" can be reached")
		case "unreachable":
			texts = append(texts, r.Address.String()+" cannot be reached")
		default:
			texts = append(texts, r.Address.String()+" not tried yet")
		}
	}
	return strings.Join(texts[:min(4, len(texts))], ", ")
}

// shownBursts says whether batches of packets get to the anchors as single ones do.
func shownBursts(list []api.Bursts) string {
	var texts []string
	for _, b := range list {
		text := "arrive at " + b.Name
		if b.Lost {
			text = fmt.Sprintf("lost on the way to %s: %d of %d packets sent in batches were answered, %d of %d sent one by one", b.Name, b.Batched, b.Sent, b.Singles, b.Sent)
		} else if b.Batched < b.Sent {
			text += fmt.Sprintf(", %d of %d packets", b.Batched, b.Sent)
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "; ")
}

func shownStreamUse(n api.Netcheck) string {
	// What is believed of UDP follows what was just measured within seconds, either way.
	works := n.IPv4.UDP == api.UDPWorks || n.IPv6.UDP == api.UDPWorks
	silent := !works && (n.IPv4.UDP == api.UDPSilent || n.IPv6.UDP == api.UDPSilent)
	open := n.Streams.State == "open" || n.Streams.State == ""
	switch {
	case n.Streams.InUse && works:
		return "in use" + comma(since(n.Time, n.Streams.Since)) + ", until UDP has answered for some seconds"
	case n.Streams.InUse:
		return "in use" + comma(since(n.Time, n.Streams.Since)) + ": UDP is " + n.Streams.State
	case open && silent:
		return "not in use: UDP has answered until now"
	case open, works:
		return "not needed"
	}
	return "not in use, and UDP is " + n.Streams.State + comma(since(n.Time, n.Streams.Since))
}
