package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"warren/mesh/api"
)

// serviceCommand has systemd or launchd keep the agent, or leave it alone.
type serviceCommand struct {
	dirs  *dirs
	con   *console
	start *starter
}

func (c serviceCommand) cobra() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "service",
		Short:   "Let systemd or launchd run the agent",
		Example: "  sudo warren service install\n  warren service status",
		Args:    subcommandOnly,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var asJSON bool
	status := &cobra.Command{
		Use: "status", Short: "Tell whether the service is installed and running", Example: "  warren service status",
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.status(cmd.Context(), asJSON) },
	}
	status.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	install := &cobra.Command{
		Use: "install", Short: "Start the agent now and with the machine", Example: "  sudo warren service install --mesh home",
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			mesh, err := c.dirs.pick()
			if err != nil {
				return err
			}
			if err := c.start.up(cmd.Context(), mesh); err != nil {
				return err
			}
			fmt.Fprintf(c.con.out, "%s is up\n", mesh)
			return nil
		},
	}
	c.start.forceFlag(install)
	cmd.AddCommand(
		install,
		&cobra.Command{
			Use: "uninstall", Short: "Stop the agent and do not start it any more", Example: "  sudo warren service uninstall --mesh home",
			Args: exactly(0, ""),
			RunE: func(cmd *cobra.Command, _ []string) error {
				mesh, err := c.dirs.pick()
				if err != nil {
					return err
				}
				service, err := c.start.detect()
				if err != nil {
					return err
				}
				return service.Uninstall(cmd.Context(), mesh)
			},
		},
		status,
	)
	return cmd
}

func (c serviceCommand) status(ctx context.Context, asJSON bool) error {
	mesh, err := c.dirs.pick()
	if err != nil {
		return err
	}
	service, err := c.start.detect()
	if err != nil {
		return err
	}
	state, err := service.Status(ctx, mesh)
	if err != nil {
		return err
	}
	if asJSON {
		return c.con.printJSON(struct {
			Schema    int    `json:"schema"`
			Mesh      string `json:"mesh"`
			Installed bool   `json:"installed"`
			Enabled   bool   `json:"enabled"`
			Running   bool   `json:"running"`
			Detail    string `json:"detail"`
		}{api.Schema, mesh, state.Installed, state.Enabled, state.Running, state.Detail})
	}
	installed := "not installed"
	if state.Installed {
		installed = "installed"
	}
	if state.Installed && !state.Enabled {
		installed = "installed, but not started with the machine"
	}
	fmt.Fprintf(c.con.out, "%s: %s; %s\nlog: %s\n", mesh, installed, state.Detail, service.Logs(mesh))
	return nil
}
