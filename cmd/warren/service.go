package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"warren/mesh/api"
	"warren/packaging"
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
	cmd.AddCommand(changes(c.install()), destroys(c.uninstall()), status)
	return cmd
}

// served is what `service install --json` and its reverse print.
type served struct {
	Schema    int      `json:"schema"`
	Meshes    []string `json:"meshes"`
	Installed bool     `json:"installed"`
	Running   bool     `json:"running"`
}

func (c serviceCommand) install() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "install", Short: "Start the agent now and with the machine", Example: "  sudo warren service install --mesh home",
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			mesh, err := c.dirs.pickToRun()
			if err != nil {
				return err
			}
			if err := c.start.up(cmd.Context(), mesh); err != nil {
				return err
			}
			fmt.Fprintf(c.con.out, "%s is up\n", mesh)
			return c.con.done(served{api.Schema, []string{mesh}, true, true})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.start.forceFlag(cmd)
	return cmd
}

func (c serviceCommand) uninstall() *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Stop the agent and do not start it any more",
		Long: "Stop the agent and take its service away. The state of the mesh stays: `warren up` brings everything back. To leave the mesh\n" +
			"for good, see leave.",
		Example: "  sudo warren service uninstall --mesh home\n  sudo warren service uninstall --all",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			service, err := c.start.detect()
			if all && errors.Is(err, packaging.ErrNone) {
				fmt.Fprintln(c.con.out, "no service manager here: there is no service to take away")
				return c.con.done(served{api.Schema, []string{}, false, false})
			}
			if err != nil {
				return err
			}
			var meshes []string
			if all {
				meshes, err = c.dirs.present()
			} else {
				meshes = make([]string, 1)
				meshes[0], err = c.dirs.pickToRun()
			}
			if err != nil {
				return err
			}
			for _, mesh := range meshes {
				if err := service.Uninstall(cmd.Context(), mesh); err != nil {
					return err
				}
				fmt.Fprintf(c.con.out, "the service of %s is gone; its state is kept in %s\n", mesh, c.dirs.stateDir(mesh))
			}
			if len(meshes) == 0 {
				fmt.Fprintln(c.con.out, "no mesh on this machine: there is no service to take away")
			}
			return c.con.done(served{api.Schema, append([]string{}, meshes...), false, false})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&all, "all", false, "of all meshes on this machine")
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
	fmt.Fprintf(c.con.out, "%s: %s; %s\nlog: %s\n", mesh, installed, state.Detail, "sudo warren logs"+c.dirs.meshFlag(mesh))
	return nil
}
