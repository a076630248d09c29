package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"warren/mesh/api"
)

// upCommand starts an agent.
type upCommand struct {
	dirs  *dirs
	con   *console
	start *starter
}

func (c upCommand) cobra() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start the agent, or let it read its config again",
		Long: "Start the agent through systemd or launchd, now and whenever this machine starts. When it runs already, it\n" +
			"reads its config again; tunnels that did not change are not touched.",
		Example: "  sudo warren up\n  sudo warren up --mesh home",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			mesh, err := c.dirs.pickToRun()
			if err != nil {
				return err
			}
			return c.run(cmd.Context(), mesh)
		},
	}
	c.start.forceFlag(cmd)
	return cmd
}

func (c upCommand) run(ctx context.Context, mesh string) error {
	// The file is judged here as well: the answer of the service manager would only be that it did not start.
	if _, err := c.dirs.settings(mesh); err != nil {
		return err
	}
	configCommand{c.dirs, c.con}.tellLeftOut(mesh)
	reloaded, err := c.dirs.client(mesh).Reload(ctx)
	if err == nil {
		fmt.Fprintf(c.con.out, "%s is up; its config has been read again\n", mesh)
		for _, text := range reloaded.Pending {
			fmt.Fprintln(c.con.out, text)
		}
		return nil
	}
	if !errors.Is(err, api.ErrNotRunning) {
		return err
	}
	if err := c.start.up(ctx, mesh); err != nil {
		return err
	}
	fmt.Fprintf(c.con.out, "%s is up\n", mesh)
	return nil
}

// downCommand stops an agent.
type downCommand struct {
	dirs  *dirs
	con   *console
	start *starter
}

func (c downCommand) cobra() *cobra.Command {
	return &cobra.Command{
		Use:     "down",
		Short:   "Stop the agent until the next `warren up` or start of the machine",
		Example: "  sudo warren down",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			mesh, err := c.dirs.pickToRun()
			if err != nil {
				return err
			}
			return c.run(cmd.Context(), mesh)
		},
	}
}

func (c downCommand) run(ctx context.Context, mesh string) error {
	stopped, err := c.start.stop(ctx, mesh)
	if err != nil {
		return err
	}
	if stopped {
		fmt.Fprintf(c.con.out, "%s is down\n", mesh)
		return nil
	}
	if _, err := c.dirs.client(mesh).Status(ctx); errors.Is(err, api.ErrNotRunning) {
		fmt.Fprintf(c.con.out, "%s is down already\n", mesh)
		return nil
	}
	return hinted(fmt.Errorf("the agent of %s was not started as a service", mesh), "end it where it was started, with Ctrl-C or SIGTERM")
}
