package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"warren/mesh/api"
)

func (a *app) upCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "up",
		Short: "Start the agent, or let it read its config again",
		Long: "Start the agent through systemd or launchd, now and whenever this machine starts. When it runs already, it\n" +
			"reads its config again; tunnels that did not change are not touched.",
		Example: "  sudo warren up\n  sudo warren up --mesh home",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			mesh, err := a.pickToRun()
			if err != nil {
				return err
			}
			return a.runUp(cmd.Context(), mesh)
		},
	}
}

func (a *app) runUp(ctx context.Context, mesh string) error {
	// The file is judged here as well: the answer of the service manager would only be that it did not start.
	if _, err := a.settings(mesh); err != nil {
		return err
	}
	err := a.dirs.client(mesh).Reload(ctx)
	if err == nil {
		fmt.Fprintf(a.out, "%s is up; its config has been read again\n", mesh)
		return nil
	}
	if !errors.Is(err, api.ErrNotRunning) {
		return err
	}
	if err := a.startService(ctx, mesh); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%s is up\n", mesh)
	return nil
}

func (a *app) downCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "down",
		Short:   "Stop the agent until the next `warren up` or start of the machine",
		Example: "  sudo warren down",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			mesh, err := a.pickToRun()
			if err != nil {
				return err
			}
			return a.runDown(cmd.Context(), mesh)
		},
	}
}

func (a *app) runDown(ctx context.Context, mesh string) error {
	service, err := a.service()
	if err == nil && a.standard() {
		state, err := service.Status(ctx, mesh)
		if err != nil {
			return err
		}
		if state.Running {
			if err := service.Stop(ctx, mesh); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s is down\n", mesh)
			return nil
		}
	}
	if _, err := a.dirs.client(mesh).Status(ctx); errors.Is(err, api.ErrNotRunning) {
		fmt.Fprintf(a.out, "%s is down already\n", mesh)
		return nil
	}
	return hinted(fmt.Errorf("the agent of %s was not started as a service", mesh), "end it where it was started, with Ctrl-C or SIGTERM")
}

// pickToRun is pick for the commands that start an agent: with no mesh here and static peers in the config, it
// is these that are meant.
func (a *app) pickToRun() (string, error) {
	mesh, err := a.dirs.pick()
	if err == nil || a.dirs.mesh != "" {
		return mesh, err
	}
	if meshes, readErr := a.dirs.present(); len(meshes) > 0 || readErr != nil {
		return "", err
	}
	if c, configErr := a.loadConfig(staticMesh); configErr != nil {
		return "", configErr
	} else if len(c.Peers) > 0 {
		return staticMesh, nil
	}
	return "", err
}
