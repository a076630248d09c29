package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"warren/mesh/api"
)

// shownDenied keeps the log on one screen; the JSON has everything.
const shownDenied = 40

// policyLogCommand shows what the policy has stopped here.
type policyLogCommand struct {
	dirs *dirs
	con  *console
}

func (c policyLogCommand) cobra() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "log",
		Short: "Show what was stopped on this machine lately",
		Long: "Show what other members have tried to reach on this machine, and its programs on others, without a rule of the policy\n" +
			"that allows it, or with incoming = false in the config file. Since the start of the agent, the latest first.",
		Example: "  warren policy log\n  warren policy log --json | jq '.denied[] | select(.port == 22)'",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, agent, err := c.dirs.agent()
			if err != nil {
				return err
			}
			found, err := agent.Denials(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return c.con.printJSON(found)
			}
			printDenied(c.con.out, screenOf(c.con.out).width, found)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printDenied(w io.Writer, width int, found api.Denials) {
	if len(found.Denied) == 0 {
		fmt.Fprintln(w, "nothing was stopped since the agent's start")
		return
	}
	var t table
	t.add("LAST", "FROM", "TO", "PORT", "PACKETS", "WHY")
	for _, d := range found.Denied[:min(shownDenied, len(found.Denied))] {
		port := d.Protocol
		if d.Port != 0 {
			port += fmt.Sprintf("/%d", d.Port)
		}
		t.add(ago(found.Time, &d.Last), d.From, d.To, port, fmt.Sprint(d.Count), d.Reason)
	}
	t.print(w, width, true)
	if more := len(found.Denied) - shownDenied; more > 0 {
		fmt.Fprintf(w, "and %d more: see --json\n", more)
	}
}
