package main

import "github.com/spf13/cobra"

// policyCommand is what is said of who may reach whom.
type policyCommand struct {
	dirs *dirs
	con  *console
}

func (c policyCommand) cobra() *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "See who may reach whom, and what was stopped",
		Example: "  warren policy log", Args: subcommandOnly,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(policyLogCommand(c).cobra())
	return cmd
}
