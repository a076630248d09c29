package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"warren/mesh/api"
	"warren/mesh/place"
	"warren/packaging"
)

// leaveTime bounds the wait for an agent that has left its mesh to end.
const leaveTime = 15 * time.Second

func (a *app) leaveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Leave the mesh and remove its state from this machine",
		Long: "Tell the other members that this node goes, stop the agent, and remove routes, interface, service and\n" +
			"state. To come back needs a new invite.\n\n" +
			"With --force this also goes when nobody can be told, and when the root key of the mesh, which\n" +
			"the founder holds, is lost with it.",
		Example: "  sudo warren leave --mesh home",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			mesh, err := a.dirs.pick()
			if err != nil {
				return err
			}
			return a.runLeave(cmd.Context(), mesh, force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "leave even if nobody can be told or the root key is lost")
	return cmd
}

func (a *app) runLeave(ctx context.Context, mesh string, force bool) error {
	err := a.dirs.client(mesh).Leave(ctx, api.LeaveRequest{Force: force})
	told := err == nil
	switch {
	case told:
		a.waitForEnd(ctx, mesh)
	case !errors.Is(err, api.ErrNotRunning):
		return err
	case !force:
		return hinted(errors.New("the agent is not running, so the others cannot be told"),
			"start it with: sudo warren up; or go without a word: sudo warren leave --force")
	}
	service, err := a.service()
	if err == nil && a.standard() {
		err = service.Uninstall(ctx, mesh)
	}
	if err != nil && !errors.Is(err, packaging.ErrNone) {
		return err
	}
	if err := a.removeState(ctx, mesh, told); err != nil {
		return err
	}
	if told {
		fmt.Fprintf(a.out, "left mesh %s\n", mesh)
	} else {
		fmt.Fprintf(a.out, "left mesh %s; the others have not been told and go on listing this node\n", mesh)
	}
	return nil
}

// removeState removes the state directory. An agent that is ending closes its socket first and lets go of the lock on
// the state last, so that is waited for too.
func (a *app) removeState(ctx context.Context, mesh string, ending bool) error {
	var held error
	err := poll(ctx, leaveTime, func(ctx context.Context) (bool, error) {
		// The agent has asked already whether the root key may go; offline, force has said so.
		err := a.leave(place.LeaveOptions{StateDir: a.dirs.stateDir(mesh), Force: true})
		if held = err; ending && errors.Is(err, syscall.EWOULDBLOCK) {
			return false, nil
		}
		return err == nil, err
	}, errLate)
	if errors.Is(err, errLate) {
		return held
	}
	return err
}

// waitForEnd waits for the agent to end by itself. One that does not is stopped with its service, or found by the lock
// on the state.
func (a *app) waitForEnd(ctx context.Context, mesh string) {
	_ = poll(ctx, leaveTime, func(ctx context.Context) (bool, error) {
		_, err := a.dirs.client(mesh).Status(ctx)
		return errors.Is(err, api.ErrNotRunning), nil
	}, errLate)
}
