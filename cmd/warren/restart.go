package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"warren/mesh/api"
	"warren/packaging"
)

// restartCommand replaces running agents, as after an upgrade.
type restartCommand struct {
	dirs  *dirs
	con   *console
	start *starter
}

// restarted says what was done for a mesh: `restart --json`.
type restarted struct {
	Mesh   string `json:"mesh"`
	Before string `json:"version_before"` // "" when no agent answered
	Now    string `json:"version"`
	Ran    bool   `json:"ran"` // the service did run before
}

func (c restartCommand) cobra() *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "restart",
		Short: "End the agent and start it again, with the program that is installed now",
		Long: "End the agent of the service and start it again, as after an upgrade. Tunnels are away for a fraction of a second; other\n" +
			"members do not notice that this one has gone. To have the config read again, `warren up` is enough.\n\n" +
			"With --all this is done for each agent that runs as a service, and for none that does not.",
		Example: "  sudo warren restart\n  sudo warren restart --all",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			meshes, err := c.which(cmd.Context(), all)
			if err != nil {
				return err
			}
			done, failed := []restarted{}, error(nil)
			for _, mesh := range meshes {
				r, err := c.one(cmd.Context(), mesh)
				if err == nil {
					done = append(done, r)
				} else if failed == nil {
					failed = err
				}
			}
			if failed != nil {
				return failed
			}
			if all && len(done) == 0 {
				fmt.Fprintln(c.con.out, "no agent runs as a service here: nothing to restart")
			}
			return c.con.done(struct {
				Schema int         `json:"schema"`
				Meshes []restarted `json:"meshes"`
			}{api.Schema, done})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&all, "all", false, "each agent that runs as a service")
	c.start.forceFlag(cmd)
	return cmd
}

// which returns the meshes whose agents are meant.
func (c restartCommand) which(ctx context.Context, all bool) ([]string, error) {
	if !all {
		mesh, err := c.dirs.pickToRun()
		return []string{mesh}, err
	}
	if c.dirs.mesh != "" {
		return nil, &usageError{message: "restart: --all and --mesh: say one of them"}
	}
	service, err := c.start.detect()
	none := errors.Is(err, packaging.ErrNone)
	if err != nil && !none {
		return nil, err
	}
	meshes, err := c.dirs.present()
	if err != nil {
		return nil, err
	}
	var running []string
	for _, mesh := range meshes {
		var state packaging.State
		if !none {
			if state, err = service.Status(ctx, mesh); err != nil {
				return nil, err
			}
		}
		if state.Running {
			running = append(running, mesh)
			continue
		}
		if by, err := c.dirs.client(mesh).Status(ctx); err == nil {
			c.con.remark("the agent of %s was not started as a service and goes on as version %s: end it where it was started, and start it there again", mesh, by.Version)
		}
	}
	return running, nil
}

func (c restartCommand) one(ctx context.Context, mesh string) (restarted, error) {
	r := restarted{Mesh: mesh}
	if _, err := c.dirs.settings(mesh); err != nil {
		return r, err // a file that is wrong would end the agent that runs, and start none
	}
	before, err := c.dirs.client(mesh).Status(ctx)
	if err == nil {
		r.Before = before.Version
	}
	if service, detectErr := c.start.detect(); detectErr == nil {
		state, err := service.Status(ctx, mesh)
		if err != nil {
			return r, err
		}
		r.Ran = state.Running
	}
	if !r.Ran && !errors.Is(err, api.ErrNotRunning) {
		return r, hinted(fmt.Errorf("the agent of %s was not started as a service", mesh), "end it where it was started, with Ctrl-C or SIGTERM, and start it there again")
	}
	if err := c.start.upAgain(ctx, mesh); err != nil {
		return r, err
	}
	now, err := c.dirs.client(mesh).Status(ctx)
	if err != nil {
		return r, err
	}
	r.Now = now.Version
	switch {
	case !r.Ran:
		fmt.Fprintf(c.con.out, "%s did not run; it is up, version %s\n", mesh, clean(r.Now))
	case r.Before == "" || r.Before == r.Now:
		fmt.Fprintf(c.con.out, "%s is up again, version %s\n", mesh, clean(r.Now))
	default:
		fmt.Fprintf(c.con.out, "%s is up again, version %s (it was %s)\n", mesh, clean(r.Now), clean(r.Before))
	}
	return r, nil
}
