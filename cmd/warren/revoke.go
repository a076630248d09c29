package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"warren/mesh/api"
)

// revokeCommand has the agent revoke a node or an invite.
type revokeCommand struct {
	dirs *dirs
	con  *console
}

func (c revokeCommand) cobra() *cobra.Command {
	var req api.RevokeRequest
	cmd := &cobra.Command{
		Use:   "revoke [NODE]",
		Short: "Throw a node out of the mesh, or withdraw an invite",
		Long: "Throw a node, given by name, address or the start of its ID, out of the mesh, or withdraw an invite. Each member\n" +
			"cuts the node off when it hears of it; there is no way back but a new invite and a new key.\n\n" +
			"With --wait the members are listed as they confirm, until all have or Ctrl-C.",
		Example: "  sudo warren revoke laptop --wait --reason stolen\n" +
			"  sudo warren revoke --invite ivjm3k2qpa",
		Args:              between(0, 1, "NODE"),
		ValidArgsFunction: completePeers(c.dirs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				req.Node = args[0]
			}
			if (req.Node == "") == (req.Invite == "") {
				return &usageError{message: "revoke: want a node or --invite ID, one of both", hint: "see: warren peers, and: warren invite list"}
			}
			if req.Cascade && req.Node == "" {
				return &usageError{message: "revoke: --cascade needs a node: an invite's machines are members by themselves"}
			}
			_, agent, err := c.dirs.agent()
			if err != nil {
				return err
			}
			return c.run(cmd.Context(), agent, req)
		},
	}
	cmd.Flags().StringVar(&req.Invite, "invite", "", "withdraw the invite with this ID, or start of an ID")
	cmd.Flags().BoolVar(&req.Wait, "wait", false, "wait until all members have confirmed")
	cmd.Flags().BoolVar(&req.Cascade, "cascade", false, "also throw out everybody whom the node let in by its own invites")
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why, for the others to read")
	return cmd
}

func (c revokeCommand) run(ctx context.Context, agent *api.Client, req api.RevokeRequest) error {
	done, waiting := false, 0
	err := agent.Revoke(ctx, req, func(news api.Confirmation) {
		waiting = news.Waiting
		if !done {
			done = true
			fmt.Fprintf(c.con.out, "revoked %s (%s)\n", clean(news.Target), short(clean(news.ID)))
			return
		}
		fmt.Fprintf(c.con.out, "confirmed by %s, %d to go\n", clean(news.Member), news.Waiting)
	})
	if errors.Is(err, context.Canceled) && done {
		return fmt.Errorf("stopped waiting: %s not confirmed; the revocation stands and goes on spreading",
			plural(waiting, "member has", "members have"))
	}
	if err == nil && req.Wait {
		fmt.Fprintln(c.con.out, "all members have confirmed")
	}
	return err
}
