package main

import (
	"time"

	"github.com/spf13/cobra"

	"warren/mesh/api"
)

// revokeCommand throws a node out, or ends an invite.
type revokeCommand struct {
	dirs    *dirs
	con     *console
	now     func() time.Time
	offline func(stateDir string) (offline, error)
}

func (c revokeCommand) cobra() *cobra.Command {
	act := api.Act{Kind: api.ActRevoke}
	var f powerFlags
	cmd := &cobra.Command{
		Use:   "revoke [NODE]",
		Short: "Throw a node out of the mesh, or withdraw an invite",
		Long: "Throw a node, given by name, address or the start of its ID, out of the mesh, or withdraw an invite. Each member\n" +
			"cuts the node off when it hears of it; there is no way back but a new invite and a new key.\n\n" +
			"What it let in depends on it: the members that it admitted, and, if it is an admin, those who came by its\n" +
			"invites. They are shown first, and you are asked whether they stay. --keep-admitted and --cascade answer\n" +
			"beforehand. The invite by which the node came ends with it, so that it does not come back by the same token;\n" +
			"who else came by that stays, and --keep-invite leaves it open.\n\n" +
			"Who came by an invite that is withdrawn stays, unless you say --cascade.\n\n" +
			"The word of the root key stands above that of all admins, and it can be given on any member: with --root-key\n" +
			"FILE a stolen admin is thrown out together with what it revoked, when you say --undo-revocations or --cascade.\n" +
			"Whom it had thrown out is back then, and asks the others again when its agent is started: sudo warren up. Where no\n" +
			"agent runs any more, --root-key works all the same, on one machine, and what it says spreads from there.\n\n" +
			"With --wait the members are listed as they confirm, until all have or Ctrl-C.",
		Example: "  sudo warren revoke laptop --wait --reason stolen\n" +
			"  sudo warren revoke laptop --dry-run\n" +
			"  sudo warren revoke stolen-admin --root-key root.key --keep-admitted --undo-revocations\n" +
			"  sudo warren revoke --invite ivjm3k2qpa",
		Args:              between(0, 1, "NODE"),
		ValidArgsFunction: completePeers(c.dirs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				act.Node = args[0]
			}
			if (act.Node == "") == (act.Invite == "") {
				return &usageError{message: "revoke: want a node or --invite ID, one of both", hint: "see: warren peers, and: warren invite list"}
			}
			if act.Invite != "" && act.KeepInvite {
				return &usageError{message: "revoke: --keep-invite goes with a node"}
			}
			if err := f.check("revoke"); err != nil {
				return err
			}
			return powerCommand(c).run(cmd.Context(), act, &f)
		},
	}
	cmd.Flags().StringVar(&act.Invite, "invite", "", "withdraw the invite with this ID, or start of an ID")
	cmd.Flags().BoolVar(&act.KeepInvite, "keep-invite", false, "leave the invite by which the node came")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "with --invite and --cascade: do not ask")
	f.addFate(cmd)
	f.addRoot(cmd)
	must(cmd.RegisterFlagCompletionFunc("invite", completeInvites(c.dirs)))
	return cmd
}
