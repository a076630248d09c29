package main

import (
	"errors"
	"fmt"

	"warren/mesh/agent"
	"warren/mesh/api"
)

// whyDown has an error that the agent does not run say why, where the state of the mesh that is meant knows: this machine was put out, has left,
// or its state is damaged.
func whyDown(err error, d *dirs, look func(stateDir string) agent.Down) error {
	if !errors.Is(err, api.ErrNotRunning) {
		return err
	}
	mesh, pickErr := d.pick()
	if pickErr != nil || mesh == staticMesh {
		return err
	}
	return downError(look(d.stateDir(mesh)), err)
}

// downError is why an agent is down, err where nothing more is known.
func downError(d agent.Down, err error) error {
	flag := ""
	if d.Mesh != "" {
		flag = " --mesh " + d.Mesh
	}
	switch {
	case d.Damaged != nil:
		return fmt.Errorf("the agent cannot run: %w", d.Damaged)
	case d.Out != nil && d.Doubted:
		return hinted(fmt.Errorf("this machine is in mesh %s no more: %s", d.Mesh, d.Out.Text),
			"to come back: sudo warren leave"+flag+", then join with a new invite; if the root has undone it since: sudo warren up"+flag)
	case d.Out != nil:
		return hinted(fmt.Errorf("this machine is in mesh %s no more: %s", d.Mesh, d.Out.Text),
			"to come back: sudo warren leave"+flag+", then join with a new invite")
	case d.Left:
		return hinted(fmt.Errorf("this machine has left mesh %s, and its state is still here", d.Mesh), "remove it with: sudo warren leave"+flag+"; or take that back with: sudo warren up"+flag)
	}
	return err
}
