package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"warren/mesh/agent"
	"warren/mesh/api"
	"warren/mesh/place"
)

// leaveTime bounds the wait for an agent that has left its mesh to end.
const leaveTime = 15 * time.Second

// leaveCommand takes this machine out of a mesh.
type leaveCommand struct {
	dirs   *dirs
	con    *console
	start  *starter
	remove func(place.LeaveOptions) error // what the agent leaves behind
	names  func(mesh string) error
	down   func(stateDir string) agent.Down
}

func (c leaveCommand) cobra() *cobra.Command {
	var force, asJSON bool
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
			mesh, how, err := c.dirs.choose()
			if err != nil {
				return err
			}
			if how == chosenDefault { // too much is lost for a word that was left out
				return &usageError{message: "several meshes are here, and this removes one of them", hint: "say which: sudo warren leave --mesh MESH (" + mesh + " is what other commands mean)"}
			}
			return c.run(cmd.Context(), mesh, c.dirs.client(mesh), force)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&force, "force", false, "leave even if nobody can be told or the root key is lost")
	return cmd
}

func (c leaveCommand) run(ctx context.Context, mesh string, client *api.Client, force bool) error {
	err := client.Leave(ctx, api.LeaveRequest{Force: force})
	told := err == nil
	switch {
	case told:
		waitForEnd(ctx, client)
	case !errors.Is(err, api.ErrNotRunning):
		return err
	case !force:
		switch d := c.down(c.dirs.stateDir(mesh)); {
		case d.Left || d.Out != nil: // there is nobody to be told; of the root key the state decides, as ever
			return c.clear(ctx, mesh, place.LeaveOptions{StateDir: c.dirs.stateDir(mesh)})
		case d.Damaged != nil:
			return downError(d, err)
		}
		return hinted(errors.New("the agent is not running, so the others cannot be told"),
			"start it with: sudo warren up; or go without a word: sudo warren leave --force")
	}
	if err := c.start.forget(ctx, mesh); err != nil {
		return err
	}
	if err := c.removeState(ctx, mesh, told); err != nil {
		return err
	}
	c.forgetNames(mesh)
	if told {
		fmt.Fprintf(c.con.out, "left mesh %s\n", mesh)
	} else {
		fmt.Fprintf(c.con.out, "left mesh %s; the others have not been told and go on listing this node\n", mesh)
	}
	return c.con.done(left{api.Schema, mesh, told})
}

// clear removes what is left of a place that has ended.
func (c leaveCommand) clear(ctx context.Context, mesh string, o place.LeaveOptions) error {
	if err := c.remove(o); err != nil {
		return err
	}
	if err := c.start.forget(ctx, mesh); err != nil {
		return err
	}
	c.forgetNames(mesh)
	fmt.Fprintf(c.con.out, "this machine was in mesh %s no more; its state here is removed\n", mesh)
	return nil
}

// forgetNames takes back what an agent that was killed may have left where this machine looks names up.
func (c leaveCommand) forgetNames(mesh string) {
	if err := c.names(mesh); err != nil {
		fmt.Fprintf(c.con.err, "names of the mesh may be left on this machine: %v\n", err)
	}
}

// removeState removes the state directory. An agent that is ending closes its socket first and lets go of the lock on
// the state last, so that is waited for too.
func (c leaveCommand) removeState(ctx context.Context, mesh string, ending bool) error {
	var held error
	err := poll(ctx, leaveTime, func(ctx context.Context) (bool, error) {
		// The agent has asked already whether the root key may go; offline, force has said so.
		err := c.remove(place.LeaveOptions{StateDir: c.dirs.stateDir(mesh), Force: true})
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
func waitForEnd(ctx context.Context, client *api.Client) {
	_ = poll(ctx, leaveTime, func(ctx context.Context) (bool, error) {
		_, err := client.Status(ctx)
		return errors.Is(err, api.ErrNotRunning), nil
	}, errLate)
}
