package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"warren/mesh/api"
)

func (a *app) peersCommand() *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:     "peers",
		Short:   "List the members and static peers: who they are, not how they are reached",
		Example: "  warren peers\n  warren peers --all --json",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			mesh, err := a.dirs.pick()
			if err != nil {
				return err
			}
			status, err := a.dirs.client(mesh).Status(cmd.Context())
			if err != nil {
				return err
			}
			return a.listPeers(status, all, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&all, "all", false, "also those that have left or were revoked")
	return cmd
}

func (a *app) listPeers(s api.Status, all, asJSON bool) error {
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
		return a.printJSON(struct {
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
		if r.Kind == "node" {
			t.add(r.Name, "", short(r.ID), "revoked", "", "", "")
		}
	}
	t.print(a.out)
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
	if p.Anchor {
		parts = append(parts, "anchor")
	}
	return strings.Join(parts, ", ")
}

// completePeers offers the names of the members to the shell.
func (a *app) completePeers(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	mesh, err := a.dirs.pick()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	status, err := a.dirs.client(mesh).Status(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var found []string
	for _, p := range status.Peers {
		if !p.Static && p.State != api.PeerLeft {
			found = append(found, clean(p.Name))
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
