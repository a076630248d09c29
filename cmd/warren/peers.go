package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"warren/mesh/api"
)

// peersCommand lists the peers.
type peersCommand struct {
	dirs *dirs
	con  *console
}

func (c peersCommand) cobra() *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "peers [NAME]",
		Short: "List the members and static peers: who they are, not how they are reached",
		Long: "List the members and static peers: who they are, not how they are reached. With a name, an address or the start of an ID,\n" +
			"all that is known of that one.",
		Example:           "  warren peers\n  warren peers nas\n  warren peers --all --json",
		Args:              between(0, 1, "[NAME]"),
		ValidArgsFunction: completeParties(c.dirs),
		RunE: func(cmd *cobra.Command, args []string) error {
			status, err := c.dirs.status(cmd.Context())
			if err != nil {
				return err
			}
			if len(args) == 1 {
				who, err := find(status, args[0])
				if err != nil {
					return err
				}
				return c.con.who(who, asJSON)
			}
			return c.list(status, all, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&all, "all", false, "also those that have left or were revoked")
	return cmd
}

func (c peersCommand) list(s api.Status, all, asJSON bool) error {
	peers := []api.Peer{}
	for _, p := range s.Peers {
		if all || p.State != api.PeerLeft {
			peers = append(peers, p)
		}
	}
	revoked := []api.Revoked{}
	if all {
		revoked = s.Revoked
	}
	if asJSON {
		return c.con.printJSON(struct {
			Schema  int           `json:"schema"`
			Self    api.Self      `json:"self"`
			Peers   []api.Peer    `json:"peers"`
			Revoked []api.Revoked `json:"revoked"`
		}{api.Schema, s.Self, peers, revoked})
	}
	var t table
	t.add("NAME", "ADDRESS", "ID", "ROLE", "VERSION", "TAGS", "ADMITTED BY")
	for _, p := range peers {
		t.add(p.Name, shownAddress(p), short(p.ID), role(p), p.Version, strings.Join(p.Tags, ","), p.AdmittedBy)
	}
	for _, r := range revoked {
		if r.Kind == "node" && r.Scope == api.ScopeWhole {
			t.add(r.Name, "", short(r.ID), "revoked", "", "", "")
		}
	}
	t.print(c.con.out, screenOf(c.con.out).listed(), true)
	return nil
}

func short(id string) string { return id[:min(len(id), 10)] }

func role(p api.Peer) string {
	parts := []string{"member"}
	switch {
	case p.Static:
		parts[0] = "static"
	case p.State == api.PeerLeft:
		parts[0] = "left"
	case p.Admin:
		parts[0] = "admin"
	}
	if p.Power != "" && p.State != api.PeerLeft {
		parts[0] += " (" + p.Power + ")"
	}
	if p.Anchor {
		parts = append(parts, "anchor")
	}
	return strings.Join(parts, ", ")
}

// completePeers offers the names of the members to the shell.
func completePeers(d *dirs) cobra.CompletionFunc {
	return completeNodes(d, func(bool) bool { return true })
}

// completeNodes is completePeers for admins, or for those that are none.
func completeNodes(d *dirs, wanted func(admin bool) bool) cobra.CompletionFunc {
	return completeStatus(d, func(s api.Status) (found []string) {
		for _, p := range s.Peers {
			if !p.Static && p.State != api.PeerLeft && wanted(p.Admin) {
				found = append(found, clean(p.Name))
			}
		}
		return found
	})
}

// completeInvites offers the IDs of the invites, with what they are.
func completeInvites(d *dirs) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		return completeStatus(d, func(s api.Status) (found []string) {
			for _, i := range s.Invites {
				found = append(found, fmt.Sprintf("%s\t%d of %d used, by %s", short(clean(i.ID)), i.Used, i.Uses, clean(i.By)))
			}
			return found
		})(cmd, nil, word)
	}
}

// completeStatus offers what the agent's status holds.
func completeStatus(d *dirs, words func(api.Status) []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		status, err := d.status(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return words(status), cobra.ShellCompDirectiveNoFileComp
	}
}

// files has the shell offer files, nothing offers none.
func files(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

func nothing(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func completing(c *cobra.Command, words cobra.CompletionFunc) *cobra.Command {
	c.ValidArgsFunction = words
	return c
}
