package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"warren/mesh/agent"
	"warren/mesh/api"
)

// upCommand starts an agent.
type upCommand struct {
	dirs  *dirs
	con   *console
	start *starter
	down  func(stateDir string) agent.Down
}

func (c upCommand) cobra() *cobra.Command {
	var asJSON bool
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
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
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
		c.sayOlder(ctx, mesh)
		for _, text := range reloaded.Pending {
			fmt.Fprintln(c.con.out, text)
		}
		return c.con.done(brought{api.Schema, mesh, true, true})
	}
	if !errors.Is(err, api.ErrNotRunning) {
		return err
	}
	ended := c.down(c.dirs.stateDir(mesh))
	switch {
	case ended.Damaged != nil, ended.Out != nil && !ended.Doubted:
		return downError(ended, err)
	case ended.Left: // as a leave that was broken off, or found nobody to tell, has it
		c.con.remark("this machine has said that it leaves mesh %s, and takes that back", ended.Mesh)
	case ended.Out != nil:
		c.con.remark("%s; it asks the others whether that still holds", ended.Out.Text)
	}
	if err := c.start.up(ctx, mesh); err != nil {
		if ended := c.down(c.dirs.stateDir(mesh)); ended.Out != nil { // they have said so again, or for the first time
			return downError(ended, err)
		}
		return err
	}
	fmt.Fprintf(c.con.out, "%s is up\n", mesh)
	return c.con.done(brought{api.Schema, mesh, true, false})
}

// downCommand stops an agent.
type downCommand struct {
	dirs  *dirs
	con   *console
	start *starter
}

func (c downCommand) cobra() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
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
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c downCommand) run(ctx context.Context, mesh string) error {
	stopped, err := c.start.stop(ctx, mesh)
	if err != nil {
		return err
	}
	if stopped {
		fmt.Fprintf(c.con.out, "%s is down\n", mesh)
		return c.con.done(brought{api.Schema, mesh, false, false})
	}
	if _, err := c.dirs.client(mesh).Status(ctx); errors.Is(err, api.ErrNotRunning) {
		fmt.Fprintf(c.con.out, "%s is down already\n", mesh)
		return c.con.done(brought{api.Schema, mesh, false, false})
	}
	return hinted(fmt.Errorf("the agent of %s was not started as a service", mesh), "end it where it was started, with Ctrl-C or SIGTERM")
}
